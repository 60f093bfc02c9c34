//! The journal of a whole session, damaged in every small way (faults 13, 14; invariant 17).
//!
//! It opens with the state that the journal had after some record, or it is refused and left as it was; it never panics,
//! and never shows a state that was never there.

use flipside_engine::{Ledger, Stamped};
use flipside_journal::{Journal, MemoryDisk, MemoryStorage};
use flipside_model::Entry;
use flipside_platform::Clock;
use flipside_session::SessionState;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// A damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Cut to so many bytes.
    Cut(usize),
    /// This bit is the other way round.
    Flip(usize),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::Cut(at) => write!(f, "cut:{at}"),
            Damage::Flip(bit) => write!(f, "flip:{bit}"),
        }
    }
}

/// What a damaged journal was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was refused.
    Refused,
    /// It is what it was after so many records.
    Prefix(u64),
}

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> i64 {
        1_800_000_000_000
    }
}

/// A journal with the state after each of its records.
pub struct Original {
    bytes: Vec<u8>,
    states: Vec<SessionState>,
    last_line: usize,
}

impl Original {
    /// Reads a journal that is whole.
    ///
    /// # Errors
    /// It is not whole, or a prefix of it is not legal (invariant 17).
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let disk = MemoryDisk::default();
        disk.set_contents(bytes);
        let (_, opened) =
            Journal::<Stamped>::open(MemoryStorage::new(&disk)).map_err(|e| e.to_string())?;
        let mut states = vec![SessionState::default()];
        let mut state = SessionState::default();
        for record in opened.records {
            let entry = Entry {
                seq: record.seq,
                at_ms: record.record.at_ms,
                record: record.record.record,
            };
            state.apply(&entry).map_err(|e| e.to_string())?;
            states.push(state.clone());
        }
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let last_line = body
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        Ok(Self {
            bytes: bytes.to_vec(),
            states,
            last_line,
        })
    }

    /// Lists every truncation and every flip of a single bit.
    pub fn damages(&self) -> Vec<Damage> {
        let cuts = (0..self.bytes.len()).map(Damage::Cut);
        cuts.chain((0..self.bytes.len() * 8).map(Damage::Flip))
            .collect()
    }

    /// Damages a copy and opens it as the server does.
    ///
    /// # Errors
    /// What must not be.
    pub fn judge(&self, damage: Damage) -> Result<Verdict, String> {
        let mut bytes = self.bytes.clone();
        match damage {
            Damage::Cut(at) => bytes.truncate(at),
            Damage::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        }
        let verdict = std::panic::catch_unwind(AssertUnwindSafe(|| self.open(&bytes)))
            .map_err(|_| "panicked".to_owned())??;
        match (damage, verdict) {
            // A cut loses what was cut and nothing else; without a header there is no journal.
            (Damage::Cut(at), Verdict::Prefix(n)) if n != self.records_in(at) => {
                Err(format!("{n} records of {} are left", self.records_in(at)))
            }
            (Damage::Cut(at), Verdict::Refused) if at > 0 && self.records_in(at) > 0 => {
                Err("a torn tail was refused".to_owned())
            }
            // A bit that rots before the last line is damage, and nobody guesses (fault 13).
            (Damage::Flip(bit), Verdict::Prefix(n)) if bit / 8 < self.last_line => {
                Err(format!("a damage in the middle was taken for {n} records"))
            }
            (_, verdict) => Ok(verdict),
        }
    }

    fn records_in(&self, len: usize) -> u64 {
        let lines = self.bytes[..len].iter().filter(|b| **b == b'\n').count();
        lines.saturating_sub(1) as u64
    }

    fn open(&self, bytes: &[u8]) -> Result<Verdict, String> {
        let disk = MemoryDisk::default();
        disk.set_contents(bytes);
        let Ok((journal, opened)) = Journal::<Stamped>::open(MemoryStorage::new(&disk)) else {
            return if disk.contents() == bytes {
                Ok(Verdict::Refused)
            } else {
                Err("a refused journal was changed".to_owned())
            };
        };
        let count = opened.records.len() as u64;
        let dropped = opened.dropped_tail.is_some();
        let ledger = Ledger::open(journal, opened, Arc::new(Still), Arc::new(|_| {}))
            .map_err(|p| format!("the law refused what the journal passed: {p}"))?;
        let mut state = SessionState::clone(&ledger.state());
        // The ledger notes a dropped tail, which is a record of its own.
        state.last_seq -= u64::from(dropped);
        let there = usize::try_from(count).ok().and_then(|n| self.states.get(n));
        if there == Some(&state) {
            Ok(Verdict::Prefix(count))
        } else {
            Err(format!(
                "a state that was never there, after {count} records"
            ))
        }
    }
}

//! The ledger: journal, session state and everybody who watches, behind one lock.
//!
//! A record is checked against the law, written and synced, and only then believed and shown.

use flipside_journal::{Journal, JournalError, Opened};
use flipside_model::{
    Entry, Fact, MachineId, Problem, ProblemCode, Record, Severity, Side, planted,
};
use flipside_platform::Clock;
use flipside_session::SessionState;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// How many records a slow reader may lag behind before it has to read again from the beginning.
const FOLLOWERS_BUFFER: usize = 1024;

/// A record as it is written: the journal adds the sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Wall-clock time in milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    pub record: Record,
}

struct Inner {
    journal: Journal<Stamped>,
    /// Shared with whoever has read it, and replaced by every record.
    state: Arc<SessionState>,
    entries: Vec<Entry>,
}

/// A cheap handle on the ledger of one system.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
    followers: broadcast::Sender<Entry>,
    changed: watch::Sender<u64>,
    fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Ledger {
    /// Replays an opened journal. `fatal` is called when a write or sync fails: it must end the server, because what
    /// the disk holds is unknown from then on (design 3.11).
    pub fn open(
        journal: Journal<Stamped>,
        opened: Opened<Stamped>,
        clock: Arc<dyn Clock>,
        fatal: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self, Problem> {
        let entries: Vec<Entry> = opened
            .records
            .into_iter()
            .map(|e| Entry {
                seq: e.seq,
                at_ms: e.record.at_ms,
                record: e.record.record,
            })
            .collect();
        let state = flipside_session::replay(&entries).map_err(|illegal| {
            Problem::new(
                ProblemCode::Mismatch,
                "the journal is readable but tells a story that cannot have happened",
            )
            .because(&illegal)
            .advise("keep the state directory as it is and ask for help; production is not touched")
        })?;
        let ledger = Self {
            inner: Arc::new(Mutex::new(Inner {
                journal,
                state: Arc::new(state),
                entries,
            })),
            clock,
            followers: broadcast::channel(FOLLOWERS_BUFFER).0,
            changed: watch::channel(0).0,
            fatal,
        };
        if let Some(tail) = opened.dropped_tail {
            let text = format!(
                "the journal ended in the middle of a record; {} bytes were dropped",
                tail.bytes
            );
            ledger.write(Record::log(Severity::Information, text))?;
        }
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding the lock cannot leave it half changed: the state is replaced as a whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record durably and applies it.
    pub fn write(&self, record: Record) -> Result<u64, Problem> {
        self.write_with(record, Journal::append)
    }

    /// Writes a record, if need be into the space that is kept for an abort (fault 11).
    pub fn write_reserved(&self, record: Record) -> Result<u64, Problem> {
        self.write_with(record, Journal::append_reserved)
    }

    fn write_with(
        &self,
        record: Record,
        append: impl Fn(&mut Journal<Stamped>, &Stamped) -> Result<u64, JournalError>,
    ) -> Result<u64, Problem> {
        let at_ms = self.clock.now_ms();
        let entry = {
            let mut inner = self.lock();
            let entry = Entry {
                seq: inner.state.last_seq + 1,
                at_ms,
                record,
            };
            let mut next = SessionState::clone(&inner.state);
            next.apply(&entry).map_err(|illegal| {
                Problem::new(ProblemCode::Internal, "flipside refused its own record")
                    .because(&illegal)
            })?;
            let stamped = Stamped {
                at_ms,
                record: entry.record.clone(),
            };
            if planted::is("believed-before-written") {
                inner.state = Arc::new(next.clone());
            }
            if let Err(error) = append(&mut inner.journal, &stamped) {
                let problem = journal_problem(&error);
                if inner.journal.poisoned().is_some() {
                    (self.fatal)(&problem.to_string());
                }
                return Err(problem);
            }
            inner.state = Arc::new(next);
            inner.entries.push(entry.clone());
            entry
        };
        let seq = entry.seq;
        let _ = self.followers.send(entry);
        self.changed.send_replace(seq);
        Ok(seq)
    }

    /// Writes a fact.
    pub fn fact(&self, fact: Fact) -> Result<u64, Problem> {
        self.write(Record::Fact(fact))
    }

    /// Writes a line for the activity log.
    pub fn log(&self, severity: Severity, text: impl Into<String>) -> Result<u64, Problem> {
        self.write(Record::log(severity, text))
    }

    /// Returns the session's state as it is now; it does not follow.
    pub fn state(&self) -> Arc<SessionState> {
        Arc::clone(&self.lock().state)
    }

    /// Returns the records after a sequence number.
    pub fn entries_after(&self, after: u64) -> Vec<Entry> {
        let inner = self.lock();
        let start = inner.entries.partition_point(|e| e.seq <= after);
        inner.entries[start..].to_vec()
    }

    /// Returns the machine that was this side most recently, other than this one.
    pub(crate) fn machine_before(&self, which: Side, other: MachineId) -> Option<MachineId> {
        self.lock()
            .entries
            .iter()
            .rev()
            .find_map(|e| match &e.record {
                Record::Fact(Fact::Machine { side, machine }) if *side == which => {
                    machine.filter(|m| *m != other)
                }
                _ => None,
            })
    }

    /// Follows new records.
    pub fn follow(&self) -> broadcast::Receiver<Entry> {
        self.followers.subscribe()
    }

    /// Watches for changes: the value is the last sequence number, or the same one again for a change of progress.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells watchers that something that is not a record (progress) has changed.
    pub fn touch(&self) {
        self.changed.send_modify(|_| {});
    }
}

fn journal_problem(error: &JournalError) -> Problem {
    match error {
        JournalError::Full { .. } => Problem::new(
            ProblemCode::NoSpace,
            "the journal has no space left",
        )
        .because(error)
        .advise(
            "free space on the file system of the state directory, then retry; nothing was changed",
        ),
        _ => Problem::new(ProblemCode::Failed, "the journal cannot be written").because(error),
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;

//! Counts of one published port.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{connection::End, status::Totals};

/// No byte was carried yet.
const NEVER: u64 = 0;

/// Counts without a lock: the copying directions touch them at every chunk.
#[derive(Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
    abandoned: AtomicU64,
    refused: AtomicU64,
    cut_quiet: AtomicU64,
    cut_busy: AtomicU64,
    bytes_to_side: AtomicU64,
    bytes_to_client: AtomicU64,
    /// The door's age in milliseconds at the last bytes, plus one.
    last_to_side: AtomicU64,
    last_to_client: AtomicU64,
}

impl Counters {
    pub(super) fn accept(&self, welcome: bool) {
        self.accepted.fetch_add(1, Relaxed);
        self.refused.fetch_add(u64::from(!welcome), Relaxed);
    }

    pub(super) fn to_side(&self, bytes: usize, age_ms: u64) {
        self.bytes_to_side.fetch_add(bytes as u64, Relaxed);
        self.last_to_side.store(age_ms + 1, Relaxed);
    }

    pub(super) fn to_client(&self, bytes: usize, first: bool, age_ms: u64) {
        self.bytes_to_client.fetch_add(bytes as u64, Relaxed);
        self.last_to_client.store(age_ms + 1, Relaxed);
        self.served.fetch_add(u64::from(first), Relaxed);
    }

    pub(super) fn end(&self, end: End, served: bool) {
        let counter = match end {
            End::Done {
                side_closed_first: true,
            } if !served => &self.failed,
            End::Done { .. } | End::ClientBroke => return,
            End::SideBroke | End::Unreachable => &self.failed,
            End::Cut { busy: true } => &self.cut_busy,
            End::Cut { busy: false } => &self.cut_quiet,
            End::Refused => &self.refused,
            End::Expired => &self.expired,
            End::Abandoned => &self.abandoned,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Returns the door's age at the last bytes from clients and from sides.
    pub(super) fn last_bytes(&self) -> (Option<u64>, Option<u64>) {
        let age = |at: &AtomicU64| match at.load(Relaxed) {
            NEVER => None,
            later => Some(later - 1),
        };
        (age(&self.last_to_side), age(&self.last_to_client))
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            accepted: self.accepted.load(Relaxed),
            served: self.served.load(Relaxed),
            failed: self.failed.load(Relaxed),
            expired: self.expired.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cut_quiet: self.cut_quiet.load(Relaxed),
            cut_busy: self.cut_busy.load(Relaxed),
            bytes_to_side: self.bytes_to_side.load(Relaxed),
            bytes_to_client: self.bytes_to_client.load(Relaxed),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.served += other.served;
        self.failed += other.failed;
        self.expired += other.expired;
        self.abandoned += other.abandoned;
        self.refused += other.refused;
        self.cut_quiet += other.cut_quiet;
        self.cut_busy += other.cut_busy;
        self.bytes_to_side += other.bytes_to_side;
        self.bytes_to_client += other.bytes_to_client;
    }
}

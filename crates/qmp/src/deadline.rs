//! A point in time that remembers how long the caller was willing to wait.

use std::time::Duration;

use tokio::time::Instant;

/// Stands in for a time-out too long to be added to the clock: a year, which
/// no process here outlives, so that `Duration::MAX` does not panic.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Is the moment at which a call gives up, and the span it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The moment itself.
    pub(crate) at: Instant,
    /// The span the caller asked for, as it appears in errors.
    pub(crate) after: Duration,
}

impl Deadline {
    /// Starts the clock now.
    pub(crate) fn after(after: Duration) -> Self {
        Self {
            at: Instant::now() + after.min(LONGEST),
            after,
        }
    }

    /// Tells how much is left, zero once it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

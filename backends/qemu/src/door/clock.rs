//! The outage clock: from `hold` to `open`, and on to the first byte of the new side.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{limits::OUTAGES_KEPT, status::Outage};

/// Measures outages on the monotonic clock and keeps the last few.
#[derive(Default)]
pub(super) struct OutageClock {
    /// The hold that lasts, and who owned the network before it.
    pub(super) running: Option<Hold>,
    /// Since when the latest outage waits for its first byte.
    awaiting: Option<Instant>,
    pub(super) outages: VecDeque<Outage>,
}

pub(super) struct Hold {
    pub(super) since: Instant,
    pub(super) from: Option<String>,
    began_unix_ms: u64,
}

impl OutageClock {
    pub(super) fn hold(&mut self, from: Option<String>) {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.awaiting = None;
        self.running = Some(Hold {
            since: Instant::now(),
            from,
            began_unix_ms: millis(unix),
        });
    }

    /// Ends a hold; returns whether there was one, so that a first byte is to be waited for.
    pub(super) fn open(&mut self, to: &str, released: usize) -> bool {
        self.end(Some(to.to_owned()), released)
    }

    pub(super) fn close(&mut self) {
        self.end(None, 0);
        self.awaiting = None;
    }

    fn end(&mut self, to: Option<String>, released: usize) -> bool {
        let Some(Hold {
            since,
            from,
            began_unix_ms,
        }) = self.running.take()
        else {
            return false;
        };
        if self.outages.len() == OUTAGES_KEPT {
            self.outages.pop_front();
        }
        let held_ms = millis(since.elapsed());
        self.outages.push_back(Outage {
            from,
            to,
            began_unix_ms,
            held_ms,
            served_after_ms: None,
            released,
        });
        self.awaiting = Some(since);
        true
    }

    pub(super) fn first_byte(&mut self) {
        if let (Some(since), Some(outage)) = (self.awaiting.take(), self.outages.back_mut()) {
            outage.served_after_ms = Some(millis(since.elapsed()));
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

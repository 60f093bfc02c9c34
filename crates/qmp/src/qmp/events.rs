//! Events, kept for any number of listeners in one bounded buffer.
//!
//! Nobody can hold up the connection: a listener that is too slow loses the
//! oldest events and can see how many. Events are hints; whoever needs the
//! truth asks for the state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::RecvError;
use crate::deadline::Deadline;

/// Events kept for listeners: four tenths of a second of the worst flood
/// reckoned with (10⁴ a second).
pub const MAX_BUFFERED_EVENTS: usize = 4096;

/// Bytes of text of all events kept; an ordinary event has about 200. Parsed
/// they take several times as much.
pub const MAX_BUFFERED_EVENT_BYTES: usize = 1024 * 1024;

/// Is something QEMU reported by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The name, such as `STOP` or `DEVICE_DELETED`.
    pub name: String,
    /// What the event carries; `Null` without data.
    pub data: Value,
    /// Seconds since 1970 on QEMU's host clock, -1 if unknown.
    pub seconds: i64,
    /// Microseconds within that second, -1 if unknown.
    pub microseconds: i64,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<(usize, Arc<Event>)>,
    bytes: usize,
    /// The number the next event gets, counted from 0.
    next: u64,
    closed: bool,
}

impl Ring {
    fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

/// Is the buffer of one connection.
#[derive(Debug)]
pub(crate) struct EventLog {
    ring: Mutex<Ring>,
    /// Changes whenever the ring does, to wake the listeners.
    changed: watch::Sender<()>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self {
            ring: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics half-way through a change of the ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event whose text had `bytes` bytes, dropping the oldest.
    pub(crate) fn push(&self, event: Event, bytes: usize) {
        let mut ring = self.ring();
        ring.events.push_back((bytes, Arc::new(event)));
        ring.bytes += bytes;
        ring.next += 1;
        while ring.events.len() > MAX_BUFFERED_EVENTS || ring.bytes > MAX_BUFFERED_EVENT_BYTES {
            let Some((bytes, _)) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= bytes;
        }
        drop(ring);
        self.changed.send_replace(());
    }

    /// Says that no more will come.
    pub(crate) fn close(&self) {
        self.ring().closed = true;
        self.changed.send_replace(());
    }

    /// Listens from the next event on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> EventStream {
        let next = self.ring().next;
        EventStream {
            changed: self.changed.subscribe(),
            log: Arc::clone(self),
            next,
            lagged: 0,
        }
    }
}

/// Hands out the events of a connection, in the order QEMU sent them.
///
/// It does not keep the connection open.
#[derive(Debug)]
pub struct EventStream {
    log: Arc<EventLog>,
    changed: watch::Receiver<()>,
    next: u64,
    lagged: u64,
}

impl EventStream {
    /// Waits for the next event. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`RecvError::Closed`] after the last event of an ended connection.
    pub async fn recv(&mut self) -> Result<Arc<Event>, RecvError> {
        loop {
            // Seen before the look at the ring, so that no change falls between.
            self.changed.borrow_and_update();
            if let Some(event) = self.try_recv()? {
                return Ok(event);
            }
            if self.changed.changed().await.is_err() {
                return Err(RecvError::Closed);
            }
        }
    }

    /// Waits for the next event for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], or [`RecvError::Closed`] as for [`Self::recv`].
    pub async fn recv_timeout(&mut self, timeout: Duration) -> Result<Arc<Event>, RecvError> {
        self.recv_until(Deadline::after(timeout)).await
    }

    /// Waits for the first event that `wanted` accepts and passes over others.
    ///
    /// # Errors
    /// As for [`Self::recv_timeout`]. An event lost to [`Self::lagged`] looks
    /// like a time-out.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&Event) -> bool,
        timeout: Duration,
    ) -> Result<Arc<Event>, RecvError> {
        let deadline = Deadline::after(timeout);
        loop {
            let event = self.recv_until(deadline).await?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// Returns the next event if there is one.
    ///
    /// # Errors
    /// [`RecvError::Closed`] as for [`Self::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Arc<Event>>, RecvError> {
        let ring = self.log.ring();
        let first = ring.first();
        if self.next < first {
            self.lagged += first - self.next;
            self.next = first;
        }
        let index = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        match ring.events.get(index) {
            Some((_, event)) => {
                self.next += 1;
                Ok(Some(Arc::clone(event)))
            }
            None if ring.closed => Err(RecvError::Closed),
            None => Ok(None),
        }
    }

    /// Counts the events this listener lost because it was too slow or they
    /// were too large. Whoever sees it grow reads the state anew.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        self.lagged
    }

    async fn recv_until(&mut self, deadline: Deadline) -> Result<Arc<Event>, RecvError> {
        tokio::time::timeout_at(deadline.at, self.recv())
            .await
            .unwrap_or(Err(RecvError::TimedOut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Event {
        Event {
            name: number.to_string(),
            data: Value::Null,
            seconds: 0,
            microseconds: 0,
        }
    }

    #[tokio::test]
    async fn the_oldest_are_lost_and_counted() {
        let log = Arc::new(EventLog::new());
        let mut stream = log.subscribe();
        for number in 0..MAX_BUFFERED_EVENTS + 10 {
            log.push(event(number), 1);
        }
        assert_eq!(stream.recv().await.unwrap().name, "10");
        assert_eq!(stream.lagged(), 10);
    }

    #[tokio::test]
    async fn large_events_are_bounded_by_their_bytes() {
        let log = Arc::new(EventLog::new());
        let mut stream = log.subscribe();
        for number in 0..3 {
            log.push(event(number), MAX_BUFFERED_EVENT_BYTES / 2);
        }
        assert_eq!(log.ring().events.len(), 2);
        log.push(event(3), MAX_BUFFERED_EVENT_BYTES + 1);
        assert!(log.ring().events.is_empty());
        assert_eq!(stream.try_recv(), Ok(None));
        assert_eq!(stream.lagged(), 4);
        log.push(event(4), 1);
        log.close();
        assert_eq!(stream.recv().await.unwrap().name, "4");
        assert_eq!(stream.recv().await, Err(RecvError::Closed));
    }
}

//! What the connection's task and the clients share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

use super::QmpError;
use super::events::EventLog;
use crate::random::random_u64;
use crate::wire::{Failure, Violation};

/// Says how a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Closed,
    Broken(Violation),
}

impl End {
    pub(crate) fn to_error(&self) -> QmpError {
        match self {
            Self::Closed => QmpError::Closed,
            Self::Broken(violation) => QmpError::Protocol(violation.clone()),
        }
    }
}

pub(crate) type Outcome = Result<Value, Failure>;

#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<String, oneshot::Sender<Outcome>>,
    end: Option<End>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) events: Arc<EventLog>,
    pending: Mutex<Pending>,
    /// Begins every `id` of this connection. QEMU may still answer a command
    /// of the client before us, so a mere counter would not do.
    prefix: String,
    counter: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            events: Arc::new(EventLog::new()),
            pending: Mutex::default(),
            prefix: format!("{:016x}", random_u64()),
            counter: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics half-way through a change of the table.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses an `id` and begins to wait for its reply.
    pub(crate) fn register(self: &Arc<Self>) -> Result<Waiter, QmpError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.prefix);
        let (sender, reply) = oneshot::channel();
        let mut pending = self.pending();
        if let Some(end) = &pending.end {
            return Err(end.to_error());
        }
        pending.waiting.insert(id.clone(), sender);
        drop(pending);
        Ok(Waiter {
            shared: Arc::clone(self),
            id,
            reply,
        })
    }

    /// Tells whether anybody still waits for this reply.
    pub(crate) fn is_waiting(&self, id: &str) -> bool {
        self.pending().waiting.contains_key(id)
    }

    /// Hands a reply to whoever waits for it; drops and counts it otherwise.
    pub(crate) fn deliver(&self, id: Option<&Value>, outcome: Outcome) {
        let sender = id
            .and_then(Value::as_str)
            .and_then(|id| self.pending().waiting.remove(id));
        // A failed send: the waiter gave up between the two steps.
        let delivered = sender.is_some_and(|sender| sender.send(outcome).is_ok());
        if !delivered {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(?id, dropped, "dropped a QMP reply nobody waits for");
        }
    }

    /// Counts the replies that nobody waited for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the connection for everybody who waits, now or later.
    pub(crate) fn finish(&self, end: End) {
        let mut pending = self.pending();
        pending.end.get_or_insert(end);
        // Before anybody who waits is told: whoever hears of the end must find the connection closed when it looks, and
        // not take it for one that can be used once more.
        self.events.close();
        pending.waiting.clear();
    }

    fn end_error(&self) -> QmpError {
        let pending = self.pending();
        pending.end.as_ref().map_or(QmpError::Closed, End::to_error)
    }
}

/// Waits for one reply; dropping it makes a later reply an unknown one.
#[derive(Debug)]
pub(crate) struct Waiter {
    shared: Arc<Shared>,
    pub(crate) id: String,
    reply: oneshot::Receiver<Outcome>,
}

impl Waiter {
    /// Waits for the reply, or for the end of the connection.
    pub(crate) async fn reply(&mut self) -> Result<Outcome, QmpError> {
        (&mut self.reply).await.map_err(|_| self.shared.end_error())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shared.pending().waiting.remove(&self.id);
    }
}

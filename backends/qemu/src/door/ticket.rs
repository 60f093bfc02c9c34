//! One connection's place in the table, and what is known of its traffic.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    connection::End,
    table::{Lane, Route, Table},
};

/// What a client may do now.
pub(super) enum Entry {
    Dial(Arc<Lane>, u64),
    Wait,
    Refuse,
}

/// Who had something to say first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Held,
    Dialing,
    Talking { side: u64 },
}

/// One connection as the table sees it.
pub(super) struct Conn {
    pub(super) port: usize,
    pub(super) cut: Notify,
    meter: Mutex<Meter>,
}

impl Conn {
    pub(super) fn new(port: usize, stage: Stage) -> Self {
        let meter = Meter {
            stage,
            frozen: false,
            cut_busy: false,
            served: false,
            writing: false,
            last: Instant::now(),
            last_speaker: None,
        };
        Self {
            port,
            cut: Notify::new(),
            meter: Mutex::new(meter),
        }
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection from outside, and stops it from taking more of the client's bytes at once.
    pub(super) fn cut(&self, now: Instant, quiet: Duration) {
        let mut meter = self.meter();
        meter.cut_busy = !meter.is_quiet(now, quiet);
        meter.frozen = true;
        self.cut.notify_one();
    }

    pub(super) fn was_busy_at_cut(&self) -> bool {
        self.meter().cut_busy
    }
}

/// What moves on one connection.
pub(super) struct Meter {
    pub(super) stage: Stage,
    /// Nothing more is read from the client.
    pub(super) frozen: bool,
    cut_busy: bool,
    served: bool,
    /// Bytes of the side are on their way to the client.
    writing: bool,
    last: Instant,
    last_speaker: Option<Speaker>,
}

impl Meter {
    pub(super) fn client_spoke(&mut self, now: Instant) {
        (self.last, self.last_speaker) = (now, Some(Speaker::Client));
    }

    pub(super) fn side_begins(&mut self, now: Instant) {
        (self.last, self.last_speaker, self.writing) = (now, Some(Speaker::Side), true);
    }

    /// Returns whether these were the connection's first bytes to its client.
    pub(super) fn side_ends(&mut self, now: Instant) -> bool {
        (self.last, self.writing) = (now, false);
        !std::mem::replace(&mut self.served, true)
    }

    pub(super) fn is_quiet(&self, now: Instant, quiet: Duration) -> bool {
        !self.writing
            && self.last_speaker != Some(Speaker::Client)
            && now.duration_since(self.last) >= quiet
    }
}

/// A connection's place in the table, which ends with it.
pub(super) struct Ticket {
    pub(super) table: Arc<Table>,
    pub(super) conn: Arc<Conn>,
    pub(super) id: u64,
}

impl Ticket {
    /// Asks what to do now; the client then waits, dials or goes.
    pub(super) fn enter(&self) -> Entry {
        let mut inner = self.table.lock();
        let (stage, entry) = match &inner.route {
            Route::Open(open) => match open.lanes.get(&self.table.ports[self.conn.port].guest_port)
            {
                Some(lane) => (
                    Stage::Dialing,
                    Entry::Dial(Arc::clone(lane), open.generation),
                ),
                None => return Entry::Refuse,
            },
            Route::Hold => (Stage::Held, Entry::Wait),
            Route::Closed | Route::Ended => return Entry::Refuse,
        };
        let was_held = self.conn.meter().stage == Stage::Held;
        if stage == Stage::Held && !was_held && inner.held >= self.table.limits.held_max {
            return Entry::Refuse;
        }
        inner.move_to(&self.conn, stage);
        entry
    }

    /// Binds the client to the side for good, unless the route has moved on.
    pub(super) fn commit(&self, generation: u64, speaker: Speaker) -> bool {
        let mut inner = self.table.lock();
        let side = match &inner.route {
            Route::Open(open) if open.generation == generation => open.side,
            _ => return false,
        };
        inner.move_to(&self.conn, Stage::Talking { side });
        let mut meter = self.conn.meter();
        meter.last = Instant::now();
        meter.last_speaker = (speaker == Speaker::Client).then_some(speaker);
        true
    }

    pub(super) fn count_to_side(&self, bytes: usize) {
        self.table.counters[self.conn.port].to_side(bytes, self.table.age_ms());
    }

    pub(super) fn count_to_client(&self, bytes: usize, first: bool) {
        self.table.counters[self.conn.port].to_client(bytes, first, self.table.age_ms());
        self.table.first_byte(&self.conn);
    }

    pub(super) fn settle(&self, end: End) {
        let served = self.conn.meter().served;
        self.table.counters[self.conn.port].end(end, served);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.table.lock();
        if inner.conns.remove(&self.id).is_some() && self.conn.meter().stage == Stage::Held {
            inner.held -= 1;
        }
    }
}

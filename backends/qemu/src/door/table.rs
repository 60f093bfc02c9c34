//! The one table of the door: the route, every connection, the outage clock.
//!
//! The route changes, connections enter and commit, and drains count under one lock, so that each sees the others whole.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{
    clock::{OutageClock, millis},
    connection::Probe,
    counters::Counters,
    limits::{DIALS_AT_ONCE, DoorLimits, PROBE_FACTOR, PROBE_MAX},
    status::{DrainReport, PublishedPort, RouteStatus, TargetStatus},
    ticket::{Conn, Stage, Ticket},
};

/// Where new connections go.
#[derive(Clone)]
pub(super) enum Route {
    Closed,
    Hold,
    Open(Arc<Opening>),
    Ended,
}

/// One call of `open`.
pub(super) struct Opening {
    /// Counts the calls.
    pub(super) generation: u64,
    /// Counts the sides: the same targets under the same label, opened again, are the same side.
    pub(super) side: u64,
    pub(super) label: String,
    pub(super) lanes: BTreeMap<u16, Arc<Lane>>,
}

/// The way to one guest port of one side.
pub(super) struct Lane {
    pub(super) dial: SocketAddr,
    /// The service has answered since `open`, and has not refused since: no probe is needed.
    pub(super) proven: AtomicBool,
    pub(super) slowest_refusal_us: AtomicU64,
    /// Connects under way.
    pub(super) dials: Semaphore,
}

/// Watches the route.
#[derive(Clone)]
pub(super) struct RouteWatch(watch::Receiver<Route>);

impl RouteWatch {
    pub(super) fn mark_seen(&mut self) {
        self.0.borrow_and_update();
    }

    pub(super) async fn changes(&mut self) {
        // The sender lives in the table, which every ticket keeps.
        let _ = self.0.changed().await;
    }

    /// Returns when the door is shut down.
    pub(super) async fn ends(&mut self) {
        let _ = self.0.wait_for(|route| matches!(route, Route::Ended)).await;
    }

    /// Returns when the route is no longer that of this opening.
    pub(super) async fn leaves(&mut self, generation: u64) {
        let is_other =
            |route: &Route| !matches!(route, Route::Open(open) if open.generation == generation);
        let _ = self.0.wait_for(is_other).await;
    }
}

/// Everything that connections, listeners and handles share.
pub(super) struct Table {
    pub(super) ports: Vec<PublishedPort>,
    pub(super) limits: DoorLimits,
    pub(super) counters: Vec<Counters>,
    awaits_first_byte: AtomicBool,
    began: Instant,
    route: watch::Sender<Route>,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) route: Route,
    pub(super) held: usize,
    pub(super) conns: HashMap<u64, Arc<Conn>>,
    pub(super) clock: OutageClock,
    next_id: u64,
    generation: u64,
    side: u64,
    /// The latest opening, kept over a hold.
    last_open: Option<Arc<Opening>>,
}

impl Inner {
    pub(super) fn route_status(&self) -> RouteStatus {
        match &self.route {
            Route::Closed => RouteStatus::Closed,
            Route::Ended => RouteStatus::Ended,
            Route::Hold => {
                let running = self.clock.running.as_ref();
                let for_ms = running.map_or(0, |hold| millis(hold.since.elapsed()));
                RouteStatus::Hold {
                    for_ms,
                    from: running.and_then(|hold| hold.from.clone()),
                }
            }
            Route::Open(open) => {
                let target = |(port, lane): (&u16, &Arc<Lane>)| TargetStatus {
                    guest_port: *port,
                    dial: lane.dial,
                    proven: lane.proven.load(Ordering::Relaxed),
                };
                RouteStatus::Open {
                    label: open.label.clone(),
                    targets: open.lanes.iter().map(target).collect(),
                }
            }
        }
    }

    pub(super) fn move_to(&mut self, conn: &Conn, stage: Stage) {
        let mut meter = conn.meter();
        self.held += usize::from(stage == Stage::Held);
        self.held -= usize::from(meter.stage == Stage::Held);
        meter.stage = stage;
    }
}

impl Table {
    pub(super) fn new(ports: Vec<PublishedPort>, limits: DoorLimits) -> Self {
        Self {
            counters: ports.iter().map(|_| Counters::default()).collect(),
            ports,
            limits,
            awaits_first_byte: AtomicBool::new(false),
            began: Instant::now(),
            route: watch::Sender::new(Route::Closed),
            inner: Mutex::new(Inner {
                route: Route::Closed,
                held: 0,
                conns: HashMap::new(),
                clock: OutageClock::default(),
                next_id: 0,
                generation: 0,
                side: 0,
                last_open: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> RouteWatch {
        RouteWatch(self.route.subscribe())
    }

    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives a new client its place, if it may have one.
    pub(super) fn admit(self: &Arc<Self>, port: usize) -> Option<Ticket> {
        let mut inner = self.lock();
        let welcome = match &inner.route {
            Route::Open(open) => open.lanes.contains_key(&self.ports[port].guest_port),
            Route::Hold => inner.held < self.limits.held_max,
            Route::Closed | Route::Ended => false,
        } && inner.conns.len() < self.limits.connections_max;
        self.counters[port].accept(welcome);
        if !welcome {
            return None;
        }
        let stage = if matches!(inner.route, Route::Hold) {
            Stage::Held
        } else {
            Stage::Dialing
        };
        let conn = Arc::new(Conn::new(port, stage));
        inner.held += usize::from(stage == Stage::Held);
        let id = inner.next_id;
        inner.next_id += 1;
        inner.conns.insert(id, Arc::clone(&conn));
        Some(Ticket {
            table: Arc::clone(self),
            conn,
            id,
        })
    }

    pub(super) fn open(&self, targets: &BTreeMap<u16, SocketAddr>, label: String) {
        let mut inner = self.lock();
        if matches!(inner.route, Route::Ended) {
            return;
        }
        let same = inner.last_open.as_ref().is_some_and(|last| {
            last.label == label
                && last
                    .lanes
                    .iter()
                    .map(|(port, lane)| (port, &lane.dial))
                    .eq(targets)
        });
        inner.generation += 1;
        inner.side += u64::from(!same);
        let lane = |dial: &SocketAddr| Lane {
            dial: *dial,
            proven: AtomicBool::new(false),
            slowest_refusal_us: AtomicU64::new(0),
            dials: Semaphore::new(DIALS_AT_ONCE),
        };
        let lanes = targets
            .iter()
            .map(|(port, dial)| (*port, Arc::new(lane(dial))))
            .collect();
        let opening = Arc::new(Opening {
            generation: inner.generation,
            side: inner.side,
            label,
            lanes,
        });
        let released = inner.held;
        if inner.clock.open(&opening.label, released) {
            self.awaits_first_byte.store(true, Ordering::Relaxed);
        }
        for conn in inner.conns.values() {
            let mut meter = conn.meter();
            if meter.stage == (Stage::Talking { side: opening.side }) {
                meter.frozen = false;
            }
        }
        inner.last_open = Some(Arc::clone(&opening));
        self.set_route(&mut inner, Route::Open(opening));
    }

    pub(super) fn hold(&self) {
        let mut inner = self.lock();
        if matches!(inner.route, Route::Hold | Route::Ended) {
            return;
        }
        let from = match &inner.route {
            Route::Open(open) => Some(open.label.clone()),
            _ => None,
        };
        self.awaits_first_byte.store(false, Ordering::Relaxed);
        inner.clock.hold(from);
        self.set_route(&mut inner, Route::Hold);
    }

    pub(super) fn close(&self, route: Route) {
        let mut inner = self.lock();
        if matches!(inner.route, Route::Ended) {
            return;
        }
        self.awaits_first_byte.store(false, Ordering::Relaxed);
        inner.clock.close();
        self.set_route(&mut inner, route);
    }

    fn set_route(&self, inner: &mut Inner, route: Route) {
        inner.route = route.clone();
        self.route.send_replace(route);
    }

    /// Looks once whether anything is in flight. `Some` when the drain is over: then quiet connections are frozen.
    pub(super) fn drain_step(&self, last_look: bool) -> Option<DrainReport> {
        let inner = self.lock();
        let now = Instant::now();
        let on_hold = matches!(inner.route, Route::Hold);
        // All meters at once, so that no request slips in between the count and the freeze.
        let mut meters: Vec<_> = inner.conns.values().map(|conn| conn.meter()).collect();
        meters.retain(|meter| matches!(meter.stage, Stage::Talking { .. }));
        let (mut quiet, busy): (Vec<_>, Vec<_>) = meters
            .into_iter()
            .partition(|meter| meter.is_quiet(now, self.limits.drain_quiet));
        if on_hold && !busy.is_empty() && !last_look {
            return None;
        }
        quiet.iter_mut().for_each(|meter| meter.frozen |= on_hold);
        let (quiescent, busy) = (quiet.len(), busy.len());
        Some(DrainReport {
            quiescent,
            busy,
            closed: 0,
            waited_ms: 0,
            interrupted: !on_hold,
        })
    }

    pub(super) fn cut(&self) -> usize {
        let inner = self.lock();
        let now = Instant::now();
        let current = match &inner.route {
            Route::Open(open) => Some(open.side),
            _ => None,
        };
        let mut count = 0;
        for conn in inner.conns.values() {
            let stage = conn.meter().stage;
            if matches!(stage, Stage::Talking { side } if Some(side) != current) {
                conn.cut(now, self.limits.drain_quiet);
                count += 1;
            }
        }
        count
    }

    /// Stops the outage clock, if these bytes came from the side that owns the network now.
    pub(super) fn first_byte(&self, conn: &Conn) {
        if !self.awaits_first_byte.load(Ordering::Relaxed) {
            return;
        }
        let mut inner = self.lock();
        let counts = match &inner.route {
            Route::Open(open) => conn.meter().stage == Stage::Talking { side: open.side },
            _ => false,
        };
        if counts {
            self.awaits_first_byte.store(false, Ordering::Relaxed);
            inner.clock.first_byte();
        }
    }

    /// How long a fresh connection is watched before the client's bytes go out.
    pub(super) fn probe<'a>(&self, lane: &'a Lane) -> Probe<'a> {
        let slowest = Duration::from_micros(lane.slowest_refusal_us.load(Ordering::Relaxed));
        let length = if lane.proven.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            (slowest * PROBE_FACTOR)
                .min(PROBE_MAX)
                .max(self.limits.probe)
        };
        Probe { length, lane }
    }
}

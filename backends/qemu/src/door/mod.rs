//! The front door of a user-mode network: it listens on the host's published ports and carries each client to the side
//! that owns the network, by dialling that side's forward on the loopback.
//!
//! # At a switch-over
//! [`Door::hold`] → [`Door::drain`] → stop the applications → [`Door::cut`] → move the disks → start, check health →
//! [`Door::open`]. A new door is closed: it resets clients, as a machine that is not running does. Opening the same targets
//! under the same label again (a merge that was called off) gives the connections that were not cut back to their clients.
//!
//! # What is never done twice
//! The door keeps no copy of a client's bytes, so it cannot replay them. Until either end says something, the client's bytes
//! stay unread in the kernel: so long the connection to a side may be dropped and dialled again, or exchanged for one to
//! another side, and a client that was accepted before `hold` but had not spoken yet simply waits with the others. The first
//! byte forwarded binds the client to that side for good; if the side then breaks off, the client sees a reset.
//!
//! slirp accepts for a guest port that is closed, and closes again when the guest has refused. While it waits it does not read,
//! so bytes sent meanwhile come back as a reset that looks like one from an application that has acted on them. Therefore the
//! door sends nothing at first: on a forward that has not answered anybody since `open` (or that refused somebody since) it
//! watches the fresh connection for [`PROBE`](limits::PROBE) before it forwards, three times the slowest refusal seen
//! there if that is longer. A close within the probe is dialled again, for [`DIAL_RETRY_LIMIT`](limits::DIAL_RETRY_LIMIT).
//! A proven service is not probed and costs its clients nothing; if it dies, the first client to find out is not saved.
//! slirp's backlog is one, so dials queue here, and one whose SYN was dropped is repeated at once rather than after a second.
//!
//! # What counts as in flight
//! The door does not read protocols. A connection is quiescent when the last bytes went to the client, all of them were taken,
//! and nothing has moved for [`DRAIN_QUIET`](limits::DRAIN_QUIET). At its end a drain freezes the quiescent connections in the
//! same instant in which it counts them: a request that comes after that stays unread and is not executed by a side whose
//! applications are being stopped. `cut` ends those with a FIN, what is still busy with a reset, since a FIN would let half an
//! answer pass for a whole one.
//!
//! # What a waiting client's FIN means
//! TCP does not tell a client that left from one that has only finished sending. While a client waits, a FIN counts as
//! leaving: its request must not run later, beside its own retry. [`DoorLimits::keep_half_closed`] chooses otherwise. Once a
//! client is being dialled for or served, half-close is passed on in both directions.
//!
//! Two descriptors are needed per connection: the process that hosts the door raises `RLIMIT_NOFILE`.

mod clock;
mod connection;
mod counters;
pub mod limits;
mod listen;
mod pump;
mod status;
mod table;
mod ticket;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::{info, warn};

pub use limits::DoorLimits;
pub use status::{
    DoorError, DoorStatus, DrainReport, Outage, PortStatus, PublishedPort, RouteStatus,
    TargetStatus, Totals,
};

use clock::millis;
use limits::DRAIN_TICK;
use table::{Route, Table};
use ticket::Stage;

/// Maps each guest port to the forward that a side offers for it.
pub type Targets = BTreeMap<u16, SocketAddr>;

/// Accepts clients on the published ports and carries them to the side that owns the network.
///
/// A cheap handle: the last one to go ends the door, as [`Door::shutdown`] does.
#[derive(Clone)]
pub struct Door(Arc<Owner>);

struct Owner {
    table: Arc<Table>,
    listeners: Mutex<Vec<Arc<TcpListener>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.table.close(Route::Ended);
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("ports", &self.0.table.ports)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Listens on all ports or on none, and starts closed. Must be called within a tokio runtime.
    pub async fn bind(ports: Vec<PublishedPort>) -> Result<Self, DoorError> {
        Self::bind_with(ports, DoorLimits::default()).await
    }

    /// Does what [`Door::bind`] does, with other limits.
    pub async fn bind_with(
        ports: Vec<PublishedPort>,
        limits: DoorLimits,
    ) -> Result<Self, DoorError> {
        let mut bound = Vec::with_capacity(ports.len());
        for port in ports {
            let listener = listen::listen(port)?;
            let listen = listener.local_addr().unwrap_or(port.listen);
            bound.push((listener, PublishedPort { listen, ..port }));
        }
        Ok(Self::start(bound, limits))
    }

    /// Takes over sockets that already listen, each with its guest port. Must be called within a tokio runtime.
    pub fn from_std(listeners: Vec<(std::net::TcpListener, u16)>) -> Result<Self, DoorError> {
        Self::from_std_with(listeners, DoorLimits::default())
    }

    /// Does what [`Door::from_std`] does, with other limits.
    pub fn from_std_with(
        listeners: Vec<(std::net::TcpListener, u16)>,
        limits: DoorLimits,
    ) -> Result<Self, DoorError> {
        let mut bound = Vec::with_capacity(listeners.len());
        for (socket, guest_port) in listeners {
            let (listener, listen) = listen::adopt(socket, guest_port)?;
            bound.push((listener, PublishedPort { listen, guest_port }));
        }
        Ok(Self::start(bound, limits))
    }

    fn start(bound: Vec<(TcpListener, PublishedPort)>, limits: DoorLimits) -> Self {
        let (listeners, ports): (Vec<_>, Vec<_>) = bound
            .into_iter()
            .map(|(one, port)| (Arc::new(one), port))
            .unzip();
        let table = Arc::new(Table::new(ports, limits));
        let accept = |(port, listener): (usize, &Arc<TcpListener>)| {
            tokio::spawn(listen::accept_loop(
                Arc::clone(&table),
                Arc::clone(listener),
                port,
            ))
        };
        let tasks = listeners.iter().enumerate().map(accept).collect();
        Self(Arc::new(Owner {
            table,
            listeners: Mutex::new(listeners),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Returns duplicates of the listening sockets, each with its guest port, for [`Door::from_std`] in another process.
    /// Clients that connect while neither door accepts wait in the backlog.
    pub fn listeners(&self) -> io::Result<Vec<(std::net::TcpListener, u16)>> {
        let listeners = self
            .0
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pairs = listeners.iter().zip(&self.0.table.ports);
        pairs
            .map(|(one, port)| Ok((one.as_fd().try_clone_to_owned()?.into(), port.guest_port)))
            .collect()
    }

    /// Returns the published ports, with the real port where 0 was asked for.
    pub fn ports(&self) -> &[PublishedPort] {
        &self.0.table.ports
    }

    /// Sends new clients, and all that wait, to these targets. Clients of a published port without a target are reset.
    pub fn open(&self, targets: Targets, label: impl Into<String>) {
        let label = label.into();
        for port in self
            .ports()
            .iter()
            .filter(|port| !targets.contains_key(&port.guest_port))
        {
            warn!(
                guest_port = port.guest_port,
                label, "published port has no target"
            );
        }
        info!(label, ?targets, "front door opens");
        self.0.table.open(&targets, label);
    }

    /// Lets new clients wait, each for the hold limit at most; those that have not said anything yet join them.
    /// Calling it again changes nothing.
    pub fn hold(&self) {
        info!("front door holds");
        self.0.table.hold();
    }

    /// Resets new clients and all that wait. What is proxied goes on until [`Door::cut`].
    pub fn close(&self) {
        info!("front door closes");
        self.0.table.close(Route::Closed);
    }

    /// Waits, after [`Door::hold`], until no request is in flight or the bound has passed.
    pub async fn drain(&self, bound: Duration) -> DrainReport {
        let began = Instant::now();
        let at_first = self.status().active;
        loop {
            let left = bound.saturating_sub(began.elapsed());
            if let Some(report) = self.0.table.drain_step(left.is_zero()) {
                let closed = at_first.saturating_sub(report.quiescent + report.busy);
                return DrainReport {
                    closed,
                    waited_ms: millis(began.elapsed()),
                    ..report
                };
            }
            sleep(left.min(DRAIN_TICK)).await;
        }
    }

    /// Closes what is still proxied to a side that does not own the network now, and returns how many there were.
    /// From its return on nothing more is read from those clients.
    pub fn cut(&self) -> usize {
        self.0.table.cut()
    }

    /// Ends every task and connection, and gives the ports back, before it returns.
    pub async fn shutdown(&self) {
        self.0.table.close(Route::Ended);
        self.0
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let tasks =
            std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has ended as well.
            let _ = task.await;
        }
    }

    /// Describes the door as it is now.
    pub fn status(&self) -> DoorStatus {
        let table = &self.0.table;
        let mut ports: Vec<_> = (table.ports.iter().zip(&table.counters))
            .map(|(port, counters)| PortStatus {
                listen: port.listen,
                guest_port: port.guest_port,
                held: 0,
                active: 0,
                totals: counters.totals(),
            })
            .collect();
        let inner = table.lock();
        let mut dialing = 0;
        for conn in inner.conns.values() {
            match conn.meter().stage {
                Stage::Held => ports[conn.port].held += 1,
                Stage::Dialing => dialing += 1,
                Stage::Talking { .. } => ports[conn.port].active += 1,
            }
        }
        let age = table.age_ms();
        let (to_side, to_client): (Vec<_>, Vec<_>) =
            table.counters.iter().map(|one| one.last_bytes()).unzip();
        let ago = |ages: Vec<Option<u64>>| {
            ages.into_iter()
                .flatten()
                .max()
                .map(|at| age.saturating_sub(at))
        };
        let mut totals = Totals::default();
        ports.iter().for_each(|port| totals += port.totals);
        DoorStatus {
            route: inner.route_status(),
            held: inner.held,
            dialing,
            active: ports.iter().map(|port| port.active).sum(),
            totals,
            last_client_byte_ms_ago: ago(to_side),
            last_side_byte_ms_ago: ago(to_client),
            outages: inner.clock.outages.iter().cloned().collect(),
            ports,
        }
    }
}

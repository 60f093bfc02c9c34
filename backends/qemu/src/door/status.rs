//! What the door tells about itself, and its errors.

use std::{io, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// Names a host address on which clients are accepted, and the guest port they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The host's address.
    pub listen: SocketAddr,
    /// The port inside the guest.
    pub guest_port: u16,
}

/// Says why a door could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// Another program listens on a published port.
    #[error("address {} port {} (for guest port {guest_port}) is already in use", listen.ip(), listen.port())]
    InUse {
        /// The host's address.
        listen: SocketAddr,
        /// The guest port it was to serve.
        guest_port: u16,
    },
    /// A published port could not be listened on for another reason.
    #[error("cannot listen on address {} port {} (for guest port {guest_port}): {source}", listen.ip(), listen.port())]
    Listen {
        /// The host's address.
        listen: SocketAddr,
        /// The guest port it was to serve.
        guest_port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A listening socket that was handed over cannot be used.
    #[error("cannot take over the listening socket for guest port {guest_port}: {source}")]
    Adopt {
        /// The guest port it was to serve.
        guest_port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// Tells where new connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RouteStatus {
    /// Nobody is served: clients are reset at once.
    Closed,
    /// Nobody owns the network: clients wait.
    Hold {
        /// How long it has lasted.
        for_ms: u64,
        /// The label of the side that owned the network before.
        from: Option<String>,
    },
    /// A side owns the network.
    Open {
        /// The label given to `open`.
        label: String,
        /// Where each guest port is dialled.
        targets: Vec<TargetStatus>,
    },
    /// The door was shut down.
    Ended,
}

/// Tells where one guest port is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The port inside the guest.
    pub guest_port: u16,
    /// The side's forward on the host.
    pub dial: SocketAddr,
    /// Whether the service has answered a client since `open`, and has not refused one since.
    pub proven: bool,
}

/// Counts connections since the door was set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Clients accepted, refused ones included.
    pub accepted: u64,
    /// Connections on which at least one byte of a side reached the client.
    pub served: u64,
    /// Connections that a side refused until the limit, broke off, or closed without a word.
    pub failed: u64,
    /// Clients that were held for the whole limit.
    pub expired: u64,
    /// Clients that hung up while they waited.
    pub abandoned: u64,
    /// Clients reset at once: closed, or too many.
    pub refused: u64,
    /// Connections cut while nothing was in flight.
    pub cut_quiet: u64,
    /// Connections cut with a request in flight.
    pub cut_busy: u64,
    /// Bytes carried to the sides.
    pub bytes_to_side: u64,
    /// Bytes carried to the clients.
    pub bytes_to_client: u64,
}

/// Describes one time without an owner of the network, on the monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The label of the side before.
    pub from: Option<String>,
    /// The label of the side after; `None` if the door was closed instead.
    pub to: Option<String>,
    /// Wall-clock time of `hold`, in milliseconds since 1970: for people, not for arithmetic.
    pub began_unix_ms: u64,
    /// From `hold` to `open`.
    pub held_ms: u64,
    /// From `hold` until the new side's first byte was handed to a client; `None` until one was.
    pub served_after_ms: Option<u64>,
    /// Clients that were waiting when the door opened.
    pub released: usize,
}

/// Describes one published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The host's address, with the real port if 0 was asked for.
    pub listen: SocketAddr,
    /// The port inside the guest.
    pub guest_port: u16,
    /// Clients waiting now.
    pub held: usize,
    /// Connections proxied now.
    pub active: usize,
    /// Counts of this port.
    pub totals: Totals,
}

/// Describes the whole door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    /// Where new connections go.
    pub route: RouteStatus,
    /// Clients waiting now.
    pub held: usize,
    /// Clients for whom a side is being dialled, or where neither end has said a word yet.
    pub dialing: usize,
    /// Connections proxied now.
    pub active: usize,
    /// Counts of all ports together.
    pub totals: Totals,
    /// Time since a client's bytes were last carried.
    pub last_client_byte_ms_ago: Option<u64>,
    /// Time since a side's bytes were last carried.
    pub last_side_byte_ms_ago: Option<u64>,
    /// The last outages, oldest first.
    pub outages: Vec<Outage>,
    /// Each published port.
    pub ports: Vec<PortStatus>,
}

impl DoorStatus {
    /// Returns the latest outage that has ended.
    pub fn last_outage(&self) -> Option<&Outage> {
        self.outages.last()
    }
}

/// Reports how a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Connections still open with nothing in flight.
    pub quiescent: usize,
    /// Connections with something in flight at the bound.
    pub busy: usize,
    /// Connections that ended by themselves meanwhile.
    pub closed: usize,
    /// How long the drain waited.
    pub waited_ms: u64,
    /// Whether the route left Hold meanwhile, so that the drain no longer meant anything.
    pub interrupted: bool,
}

//! Every bound of the door, each with the reason for its value.

use std::time::Duration;

/// Longest wait of a held client: browsers, curl and database drivers give up at 30 s or later, and a merge takes seconds.
pub const HOLD_LIMIT: Duration = Duration::from_secs(30);
/// Most clients held at once: as many as the backlog takes, so that a flood costs at most this many descriptors.
pub const HELD_MAX: usize = 1024;
/// Most connections at once in any stage; two descriptors each stay below the usual hard limit of 20 000.
pub const CONNECTIONS_MAX: usize = 4096;
/// Backlog of a published port: a burst of clients survives a stalled host without a lost SYN.
pub const BACKLOG: u32 = 1024;
/// Silence after the side's last bytes that ends a request: above the pauses inside a response of a busy guest, below what a user notices.
pub const DRAIN_QUIET: Duration = Duration::from_millis(150);
/// How often a drain looks again: a scan of a thousand connections takes microseconds, and 10 ms are lost in an outage of a second.
pub const DRAIN_TICK: Duration = Duration::from_millis(10);
/// How long a service that is not there yet is dialled again: a restarting service is back within seconds; what is not is down.
pub const DIAL_RETRY_LIMIT: Duration = Duration::from_secs(5);
/// First pause between two dials; it doubles each time.
pub const DIAL_PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between two dials: what a client loses at most after the service is back.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_millis(200);
/// First deadline of one connect: on loopback a connect is done at once or its SYN was dropped, since slirp listens with a
/// backlog of one; the kernel would repeat the SYN only after a second. It doubles with every dial of the same client.
pub const CONNECT_FIRST: Duration = Duration::from_millis(20);
/// Longest deadline of one connect, for a host that is short of time rather than of backlog.
pub const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Connects under way to one forward at a time: two is what a backlog of one takes without dropping a SYN.
pub const DIALS_AT_ONCE: usize = 2;
/// How long a fresh connection to an unproven service is watched for slirp's reset before the client's first byte goes out:
/// the reset of a closed guest port takes one round trip to the guest, below a millisecond with KVM, a few under TCG.
pub const PROBE: Duration = Duration::from_millis(20);
/// Longest probe, whatever was seen: the wait is part of what the first clients after a switch-over feel.
pub const PROBE_MAX: Duration = Duration::from_millis(250);
/// A probe lasts this many times the slowest reset seen from the same forward, so that a slow guest is believed.
pub const PROBE_FACTOR: u32 = 3;
/// Copy buffer of one direction, which exists only while bytes move: an idle connection holds none.
pub const CHUNK: usize = 64 * 1024;
/// Chunks one direction moves before it lets the other one and other connections run.
pub const CHUNKS_PER_TURN: usize = 8;
/// Pause after a failed accept: it fails when descriptors run out, and spinning frees none.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Idle time before the kernel asks a peer whether it still exists: a client without power sends no FIN.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Outage windows kept: a few merges and aborts back.
pub const OUTAGES_KEPT: usize = 8;

/// Holds the bounds that a test, or a host with other needs, may change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DoorLimits {
    /// Longest wait of one held client ([`HOLD_LIMIT`]).
    pub hold: Duration,
    /// Most clients held at once ([`HELD_MAX`]).
    pub held_max: usize,
    /// Most connections in any stage ([`CONNECTIONS_MAX`]).
    pub connections_max: usize,
    /// Silence that ends a request ([`DRAIN_QUIET`]).
    pub drain_quiet: Duration,
    /// How long a refusing forward is dialled again ([`DIAL_RETRY_LIMIT`]).
    pub dial_retry: Duration,
    /// Watch over a fresh connection to an unproven service ([`PROBE`]).
    pub probe: Duration,
    /// Whether a waiting client that has sent bytes and then a FIN is kept as half-closed. The default, `false`, takes it
    /// for a client that gave up: its request must not run when nobody waits for it, perhaps beside its own retry.
    pub keep_half_closed: bool,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            hold: HOLD_LIMIT,
            held_max: HELD_MAX,
            connections_max: CONNECTIONS_MAX,
            drain_quiet: DRAIN_QUIET,
            dial_retry: DIAL_RETRY_LIMIT,
            probe: PROBE,
            keep_half_closed: false,
        }
    }
}

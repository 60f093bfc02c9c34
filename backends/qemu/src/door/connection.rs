//! The life of one client: wait for a side, reach it, talk.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::net::{RecvFlags, sockopt};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, trace};

use super::{
    limits::{
        CONNECT_FIRST, CONNECT_MAX, DIAL_PAUSE_FIRST, DIAL_PAUSE_MAX, KEEPALIVE_IDLE, PROBE_MAX,
    },
    listen::reset,
    pump,
    table::{Lane, RouteWatch},
    ticket::{Entry, Speaker, Ticket},
};

/// Says how a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both ends closed in order.
    Done { side_closed_first: bool },
    /// The client reset the connection or went away during an answer.
    ClientBroke,
    /// The side reset the connection.
    SideBroke,
    /// Cut by the door.
    Cut { busy: bool },
    /// Nobody could be served, or too many waited.
    Refused,
    /// Held for the whole limit.
    Expired,
    /// Hung up while it waited.
    Abandoned,
    /// No side answered within the limit.
    Unreachable,
}

/// Carries one client from its acceptance to its end.
pub(super) async fn run(ticket: Ticket, client: TcpStream) {
    prepare(&client);
    let end = live(&ticket, &client).await;
    trace!(?end, "connection ended");
    ticket.settle(end);
    match end {
        // Nothing was in flight: a FIN is what the client of an idle connection expects.
        End::Done { .. } | End::Abandoned | End::Cut { busy: false } => {}
        _ => reset(client),
    }
}

async fn live(ticket: &Ticket, client: &TcpStream) -> End {
    let mut route = ticket.table.subscribe();
    loop {
        let (lane, generation) = match wait_for_side(ticket, client, &mut route).await {
            Ok(found) => found,
            Err(end) => return end,
        };
        let mut left = route.clone();
        let reached = tokio::select! {
            biased;
            // Nothing has been forwarded yet, so the client just waits for the next side.
            () = left.leaves(generation) => continue,
            reached = reach(ticket, client, &lane, generation) => reached,
        };
        let side = match reached {
            Reached::Side(side) => side,
            Reached::NotAnyMore => continue,
            Reached::End(end) => return end,
        };
        let end = pump::talk(ticket, client, &side, &lane).await;
        if end == End::SideBroke {
            lane.proven.store(false, Ordering::Relaxed);
        }
        if matches!(end, End::ClientBroke | End::Cut { busy: true }) {
            reset(side);
        }
        return end;
    }
}

/// Waits until a side owns the network; the client may hang up or its time may pass meanwhile.
async fn wait_for_side(
    ticket: &Ticket,
    client: &TcpStream,
    route: &mut RouteWatch,
) -> Result<(Arc<Lane>, u64), End> {
    let limits = &ticket.table.limits;
    let deadline = Instant::now() + limits.hold;
    loop {
        route.mark_seen();
        match ticket.enter() {
            Entry::Dial(lane, generation) => return Ok((lane, generation)),
            Entry::Refuse => return Err(End::Refused),
            Entry::Wait => {}
        }
        tokio::select! {
            biased;
            () = hung_up(client, limits.keep_half_closed) => return Err(End::Abandoned),
            () = route.changes() => {}
            () = sleep_until(deadline) => return Err(End::Expired),
        }
    }
}

enum Reached {
    Side(TcpStream),
    NotAnyMore,
    End(End),
}

/// Why one dial brought no side.
enum Missed {
    /// Nobody accepted in time: the forward's backlog is full.
    Busy,
    /// Refused, or closed before a byte went either way.
    Refused,
    /// Closed as well, but so late that it looks like a service that is tired of a silent client.
    Tired,
    /// The client reset its connection.
    ClientBroke,
    /// The route has moved on.
    NotAnyMore,
}

/// Dials until an end has something to say, again and again while nothing was forwarded that could be lost or doubled.
async fn reach(ticket: &Ticket, client: &TcpStream, lane: &Lane, generation: u64) -> Reached {
    let limits = &ticket.table.limits;
    let mut began = None;
    let (mut connect_limit, mut pause) = (CONNECT_FIRST, DIAL_PAUSE_FIRST);
    loop {
        let missed = match connect(lane, connect_limit, &mut began).await {
            Ok(side) => match await_speaker(client, &side, ticket.table.probe(lane)).await {
                Ok(speaker) if ticket.commit(generation, speaker) => return Reached::Side(side),
                Ok(_) => Missed::NotAnyMore,
                Err(missed) => missed,
            },
            Err(missed) => missed,
        };
        let waited = began.map_or(Duration::ZERO, |began: Instant| began.elapsed());
        let bound = match missed {
            Missed::NotAnyMore => return Reached::NotAnyMore,
            Missed::ClientBroke => return Reached::End(End::Abandoned),
            // A full backlog empties as fast as the side accepts: that is a queue, not a missing service.
            Missed::Busy => limits.hold,
            Missed::Refused | Missed::Tired => limits.dial_retry,
        };
        if waited + pause > bound {
            if matches!(missed, Missed::Tired) {
                return Reached::End(End::Done {
                    side_closed_first: false,
                });
            }
            debug!(target = %lane.dial, ?waited, "no service answered");
            return Reached::End(End::Unreachable);
        }
        tokio::select! {
            biased;
            () = hung_up(client, limits.keep_half_closed) => return Reached::End(End::Abandoned),
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(DIAL_PAUSE_MAX);
        connect_limit = (connect_limit * 2).min(CONNECT_MAX);
    }
}

async fn connect(
    lane: &Lane,
    limit: Duration,
    began: &mut Option<Instant>,
) -> Result<TcpStream, Missed> {
    // The semaphore is never closed; a closed one would only mean no queueing.
    let _turn = lane.dials.acquire().await.ok();
    began.get_or_insert_with(Instant::now);
    match timeout(limit, TcpStream::connect(lane.dial)).await {
        Ok(Ok(side)) if side.local_addr().ok() == Some(lane.dial) => {
            // A port of the ephemeral range on which nobody listens can connect to itself, and would echo.
            reset(side);
            Err(Missed::Refused)
        }
        Ok(Ok(side)) => {
            prepare(&side);
            Ok(side)
        }
        Ok(Err(_)) => {
            lane.proven.store(false, Ordering::Relaxed);
            Err(Missed::Refused)
        }
        Err(_) => Err(Missed::Busy),
    }
}

/// Waits, with a connection to a side, until either end has something to say. No byte is taken from either.
///
/// With a probe, the client's word counts only after the side has kept the connection for that long.
async fn await_speaker(
    client: &TcpStream,
    side: &TcpStream,
    probe: Probe<'_>,
) -> Result<Speaker, Missed> {
    let connected = Instant::now();
    let mut client_spoke = false;
    let (mut client_byte, mut side_byte) = ([0], [0]);
    loop {
        tokio::select! {
            biased;
            _ = client.ready(Interest::ERROR) => return Err(Missed::ClientBroke),
            said = side.peek(&mut side_byte) => return match said {
                Ok(1..) => Ok(Speaker::Side),
                Ok(0) | Err(_) => Err(probe.closed_after(connected.elapsed())),
            },
            said = client.peek(&mut client_byte), if !client_spoke => match said {
                Ok(_) if probe.length.is_zero() => return Ok(Speaker::Client),
                Ok(_) => client_spoke = true,
                Err(_) => return Err(Missed::ClientBroke),
            },
            () = sleep_until(connected + probe.length), if client_spoke => return Ok(Speaker::Client),
        }
    }
}

/// The watch over a fresh connection, and what it learns about the forward.
pub(super) struct Probe<'a> {
    pub(super) length: Duration,
    pub(super) lane: &'a Lane,
}

impl Probe<'_> {
    /// Learns from a connection that the forward closed before anything was said.
    fn closed_after(&self, elapsed: Duration) -> Missed {
        if elapsed > PROBE_MAX {
            return Missed::Tired;
        }
        self.lane.proven.store(false, Ordering::Relaxed);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.lane
            .slowest_refusal_us
            .fetch_max(micros, Ordering::Relaxed);
        Missed::Refused
    }
}

/// Returns when a waiting client is gone. Its bytes stay where they are.
async fn hung_up(client: &TcpStream, keep_half_closed: bool) {
    // Ready is READ_CLOSED only: the socket is not registered for urgent data, and plain bytes do not count.
    if client.ready(Interest::PRIORITY).await.is_ok() && keep_half_closed && has_bytes(client) {
        let _ = client.ready(Interest::ERROR).await;
    }
}

fn has_bytes(stream: &TcpStream) -> bool {
    let mut byte = [0_u8];
    let peek = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peek, Ok((_, 1..)))
}

/// Sets the options of a connection. A failure means that the peer is gone already, which the next read notices.
fn prepare(stream: &TcpStream) {
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
        Ok(())
    };
    if let Err(error) = set() {
        debug!(%error, "socket options");
    }
}

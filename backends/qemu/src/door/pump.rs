//! Copies bytes both ways between a client and a side.

use std::{io, pin::pin, sync::atomic::Ordering};

use rustix::net::Shutdown;
use tokio::{io::Interest, net::TcpStream, task::yield_now, time::Instant};

use super::{
    connection::End,
    limits::{CHUNK, CHUNKS_PER_TURN},
    table::Lane,
    ticket::Ticket,
};

/// Says how one direction came to its end.
enum Stop {
    /// The source sent a FIN.
    Eof,
    /// The source broke.
    Source,
    /// The destination broke.
    Sink,
}

/// Proxies until both ends are done, one of them breaks, or the connection is cut.
pub(super) async fn talk(
    ticket: &Ticket,
    client: &TcpStream,
    side: &TcpStream,
    lane: &Lane,
) -> End {
    let mut up = pin!(client_to_side(ticket, client, side));
    let mut down = pin!(side_to_client(ticket, client, side, lane));
    let (mut up_done, mut down_done) = (false, false);
    let mut side_closed_first = false;
    while !(up_done && down_done) {
        tokio::select! {
            biased;
            () = ticket.conn.cut.notified() => return End::Cut { busy: ticket.conn.was_busy_at_cut() },
            // A reset is noticed even while both directions wait for something else.
            _ = client.ready(Interest::ERROR) => return End::ClientBroke,
            stop = &mut up, if !up_done => {
                up_done = true;
                match stop {
                    Stop::Eof => close_write(side),
                    Stop::Source => return End::ClientBroke,
                    // The side takes no more, but what it has already said still has to arrive.
                    Stop::Sink => {}
                }
            }
            stop = &mut down, if !down_done => {
                down_done = true;
                match stop {
                    Stop::Eof => {
                        side_closed_first = !up_done;
                        close_write(client);
                    }
                    Stop::Source => return End::SideBroke,
                    Stop::Sink => return End::ClientBroke,
                }
            }
        }
    }
    End::Done { side_closed_first }
}

async fn client_to_side(ticket: &Ticket, client: &TcpStream, side: &TcpStream) -> Stop {
    let mut route = ticket.table.subscribe();
    loop {
        // Marked as seen before the freeze is looked at, so that no thaw is missed below.
        route.mark_seen();
        if client.readable().await.is_err() {
            return Stop::Source;
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        for turn in 1.. {
            chunk.clear();
            // The read and its mark are one: a drain sees the request or freezes the connection before it.
            let read = {
                let mut meter = ticket.conn.meter();
                if meter.frozen {
                    None
                } else {
                    let read = client.try_read_buf(&mut chunk);
                    if matches!(read, Ok(1..)) {
                        meter.client_spoke(Instant::now());
                    }
                    Some(read)
                }
            };
            match read {
                None => {
                    route.changes().await;
                    break;
                }
                Some(Ok(0)) => return Stop::Eof,
                Some(Ok(count)) => {
                    if write_all(side, &chunk).await.is_err() {
                        return Stop::Sink;
                    }
                    ticket.count_to_side(count);
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(_)) => return Stop::Source,
            }
            if turn % CHUNKS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }
}

async fn side_to_client(
    ticket: &Ticket,
    client: &TcpStream,
    side: &TcpStream,
    lane: &Lane,
) -> Stop {
    loop {
        if side.readable().await.is_err() {
            return Stop::Source;
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        for turn in 1.. {
            chunk.clear();
            let read = {
                let mut meter = ticket.conn.meter();
                let read = side.try_read_buf(&mut chunk);
                if matches!(read, Ok(1..)) {
                    meter.side_begins(Instant::now());
                }
                read
            };
            match read {
                Ok(0) => return Stop::Eof,
                Ok(count) => {
                    if write_all(client, &chunk).await.is_err() {
                        return Stop::Sink;
                    }
                    let first = ticket.conn.meter().side_ends(Instant::now());
                    lane.proven.store(true, Ordering::Relaxed);
                    ticket.count_to_client(count, first);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Stop::Source,
            }
            if turn % CHUNKS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes a FIN on. A failure means that the peer is gone already, which the other direction notices.
fn close_write(stream: &TcpStream) {
    let _ = rustix::net::shutdown(stream, Shutdown::Write);
}

//! Listening sockets and the loop that accepts from them.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tracing::debug;

use super::{
    connection,
    limits::{ACCEPT_PAUSE, BACKLOG},
    status::{DoorError, PublishedPort},
    table::Table,
};

/// Listens on one published port.
pub(super) fn listen(port: PublishedPort) -> Result<TcpListener, DoorError> {
    let PublishedPort { listen, guest_port } = port;
    try_listen(listen).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DoorError::InUse { listen, guest_port },
        _ => DoorError::Listen {
            listen,
            guest_port,
            source,
        },
    })
}

fn try_listen(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        // So that 0.0.0.0 and [::] can both be published with the same port.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        socket
    };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

/// Takes over a socket that already listens.
pub(super) fn adopt(
    socket: std::net::TcpListener,
    guest_port: u16,
) -> Result<(TcpListener, SocketAddr), DoorError> {
    let take = || {
        socket.set_nonblocking(true)?;
        // Listening again only sets the backlog; on a socket that was merely bound it is what was missing.
        rustix::net::listen(&socket, BACKLOG as i32)?;
        let listen = socket.local_addr()?;
        Ok((TcpListener::from_std(socket)?, listen))
    };
    take().map_err(|source| DoorError::Adopt { guest_port, source })
}

/// Accepts clients of one port until the door is shut down; then ends their tasks too.
pub(super) async fn accept_loop(table: Arc<Table>, listener: Arc<TcpListener>, port: usize) {
    let mut route = table.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = route.ends() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => match table.admit(port) {
                    Some(ticket) => { tasks.spawn(connection::run(ticket, client)); }
                    None => reset(client),
                },
                Err(error) => {
                    debug!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

/// Closes a connection so that its peer sees a reset: an end that cannot be taken for a complete answer.
pub(super) fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        debug!(%error, "no reset");
    }
}

//! The control socket: where the server talks to the guard.

use super::desk::Desk;
use super::limits::{LINE_MAX, PEER_TIMEOUT, PEERS_MAX};
use super::wire::{Reply, Request, line, read_line};
use crate::error;
use flipside_model::{Problem, ProblemCode};
use flipside_platform::PortResult;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Pause after a failed accept: it fails when descriptors run out, and spinning frees none.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Clients that may wait while all places are taken.
const BACKLOG: i32 = 128;

/// Listens on a socket that only its owner can reach: it is closed to others before anybody can connect. What an ended
/// guard left under the name is replaced; the caller has made sure that no other guard lives.
pub(crate) fn listen(path: &Path) -> PortResult<UnixListener> {
    let make = || {
        crate::paths::remove_file(path).map_err(|e| io::Error::other(e.message))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        UnixListener::from_std(socket.into())
    };
    make().map_err(|e| error::file(&e, "listen on", path))
}

/// Serves clients until the task is ended.
pub(crate) async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(error) = talk(stream, &desk).await {
                        tracing::debug!(%error, "a client of the control socket");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one client, request by request. One that is slow, or says what is not a request, is dropped.
async fn talk(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(LINE_MAX, reader);
    while let Some(text) = timeout(PEER_TIMEOUT, read_line(&mut reader, LINE_MAX)).await?? {
        let request: Request = match serde_json::from_slice(&text) {
            Ok(request) => request,
            Err(error) => {
                let problem =
                    Problem::new(ProblemCode::Usage, "not a request of the guard").because(&error);
                let reply = Reply {
                    id: 0,
                    ok: None,
                    error: Some(problem),
                };
                return timeout(PEER_TIMEOUT, writer.write_all(&line(&reply))).await?;
            }
        };
        let (ok, error) = match desk.answer(request.command).await {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(Problem::from(error))),
        };
        let reply = Reply {
            id: request.id,
            ok,
            error,
        };
        timeout(PEER_TIMEOUT, writer.write_all(&line(&reply))).await??;
    }
    Ok(())
}

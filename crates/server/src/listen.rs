//! Accepts connections, so many at a time, from nobody but our own user, and waits for none of them for ever.

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Connections served at once; the next one waits. Far above what administrators and their scripts need (a command has
/// one or two), far below the 1,024 file descriptors that a process usually may have, of which machines need some.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send the head of a request: a local one needs milliseconds. A connection without a
/// request is closed after it as well, so that connections which nobody uses do not keep others out.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted, because descriptors or memory are short.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: UnixListener, app: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // Nobody closes it.
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_ours(&stream) {
            continue;
        }
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            connection(stream, service).await;
            drop(place);
        });
    }
}

/// Answers the requests of one connection until it ends.
pub(crate) async fn connection<I, S, B>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended");
    }
}

/// Says whether the other end is our own user, or root. The socket's mode says so already; this holds when somebody has
/// changed that.
fn is_ours(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == ours || peer.uid() == 0 => true,
        Ok(peer) => {
            warn!(uid = peer.uid(), "a connection of another user was closed");
            false
        }
        Err(error) => {
            warn!(%error, "a connection of nobody was closed");
            false
        }
    }
}

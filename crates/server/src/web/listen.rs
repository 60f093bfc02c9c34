//! Accepts the console's connections, so many at a time, and waits for none of them for ever.

use super::guard::Peer;
use super::tls::Acceptor;
use crate::listen::{ACCEPT_PAUSE, connection};
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Connections served at once; the next one waits. A browser keeps up to six, so some fifty consoles may be open; those of
/// the command line are counted apart, so that no browser keeps an administrator out.
const MAX_CONNECTIONS: usize = 320;

/// How long a browser may take to agree on TLS.
const TLS_DEADLINE: Duration = Duration::from_secs(10);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Acceptor>, app: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // Nobody closes it.
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection to the console could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and come one by one; without this each could wait for the one before to be acknowledged.
        let _ = stream.set_nodelay(true);
        let (app, tls, peer) = (app.clone(), tls.clone(), Peer(peer));
        tokio::spawn(async move {
            match tls {
                None => answer(stream, app, peer).await,
                Some(tls) => match tokio::time::timeout(TLS_DEADLINE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => answer(stream, app, peer).await,
                    Ok(Err(error)) => debug!(%error, "no TLS was agreed on"),
                    Err(_) => debug!("no TLS was agreed on in time"),
                },
            }
            drop(place);
        });
    }
}

async fn answer<S>(stream: S, app: Router, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        inner.call(request)
    });
    connection(stream, service).await;
}

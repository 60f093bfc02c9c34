//! A package proxy: lets the Upgrade Side fetch from named hosts, and from nothing else (design section 7).
//!
//! It is open as long as the system is in Split (`keeper.rs`).
//! It is a forward proxy (`CONNECT`, and `GET` or `HEAD` of an `http` address) on one connection that somebody carried here:
//! it listens nowhere. A request goes to the host that its request line names, if that host was allowed with that port and
//! has an address that may be reached; the address that was judged is the one that is connected to. Everything else is
//! refused with 403 and told. Redirections are left to the client, which asks again and is judged again.

mod allow;
mod bounded;
pub(crate) mod keeper;
#[cfg(test)]
mod tests;

pub(crate) use allow::Allowed;

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use bounded::Bounded;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// Connections at once: a package manager has a few to each mirror.
pub(crate) const MOST_CONNECTIONS: usize = 16;
/// How long a client may take for the head of a request; it is on the same machine.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the lookup of a name and a connection may take: longer is no mirror to fetch from.
const REACH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may move: a mirror that is slower has failed.
const IDLE: Duration = Duration::from_secs(120);
/// The most bytes of one connection, in both directions: the packages of a whole system.
const MOST_BYTES: u64 = 16 << 30;
/// The largest head of a request, in bytes.
const MOST_HEAD: usize = 16 << 10;
/// Different requests that are told one by one; after that only their number grows.
const MOST_TOLD: usize = 200;

/// Headers that speak of one connection only, and what a proxy is told: never passed on.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Finds the addresses of a name.
pub(crate) type Resolver =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;
/// Is told what was done or refused.
pub(crate) type Teller = Arc<dyn Fn(Told) + Send + Sync>;

/// What the log is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// This was reached: host and port.
    Reached(String),
    /// This was refused: what was asked for, and why.
    Refused(String, String),
    /// A host that is allowed could not be reached.
    Failed(String, String),
}

/// What all connections of one proxy share.
#[derive(Clone)]
pub(crate) struct Proxy {
    allowed: Arc<Allowed>,
    resolver: Resolver,
    teller: Teller,
    told: Arc<Mutex<BTreeSet<Told>>>,
    connections: Arc<Semaphore>,
    open: watch::Receiver<bool>,
}

impl Proxy {
    /// Makes one that serves as long as `open` says so.
    pub(crate) fn new(
        allowed: Allowed,
        resolver: Resolver,
        teller: Teller,
        open: watch::Receiver<bool>,
    ) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            open,
            allowed: Arc::new(allowed),
            resolver,
            teller,
            told: Arc::default(),
        }
    }

    /// Says which hosts it reaches.
    pub(crate) fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Takes one of the connections, if one is left.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Serves one connection to its end; the permit is given back when its last tunnel has ended as well.
    pub(crate) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        permit: OwnedSemaphorePermit,
    ) {
        let open = self.open.clone();
        let permit = Arc::new(permit);
        let service = hyper::service::service_fn(move |request| {
            let (proxy, permit) = (self.clone(), Arc::clone(&permit));
            async move { Ok::<_, Infallible>(proxy.answer(request, permit).await) }
        });
        let stream = TokioIo::new(Bounded::new(stream, IDLE, MOST_BYTES));
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MOST_HEAD)
            .serve_connection(stream, service)
            .with_upgrades();
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::debug!(%error, "a connection of the package proxy ended");
            },
            () = closed(open) => {}
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let asked = format!("{} {}", request.method(), request.uri());
        let shown: String = asked.chars().take(200).collect();
        let (host, port) = match target(&request) {
            Ok(target) => target,
            Err(why) => return self.refuse(shown, why),
        };
        if !self.allowed.names(&host, port) {
            return self.refuse(
                shown,
                &format!("`{host}:{port}` is not among the named hosts"),
            );
        }
        let upstream = match self.reach(&host, port).await {
            Ok(stream) => Bounded::new(stream, IDLE, MOST_BYTES),
            Err(Unreached::Forbidden(address)) => {
                return self.refuse(shown, &format!("`{host}` leads to {address}, which is not on the Internet and was not named"));
            }
            Err(Unreached::Failed(error)) => {
                self.tell(Told::Failed(format!("{host}:{port}"), error.to_string()));
                return plain(
                    StatusCode::BAD_GATEWAY,
                    format!("{host}:{port} cannot be reached: {error}\n"),
                );
            }
        };
        self.tell(Told::Reached(format!("{host}:{port}")));
        if request.method() == Method::CONNECT {
            return tunnel(request, upstream, self.open.clone(), permit);
        }
        match forward(request, &host, port, upstream).await {
            Ok(answer) => answer,
            Err(error) => plain(
                StatusCode::BAD_GATEWAY,
                format!("{host}:{port} did not answer: {error}\n"),
            ),
        }
    }

    /// Connects to the first address that may be reached; the very address that was judged.
    async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, Unreached> {
        let late = || Unreached::Failed(io::ErrorKind::TimedOut.into());
        let found = timeout(REACH_TIMEOUT, (self.resolver)(host.to_owned(), port));
        let found = found
            .await
            .map_err(|_| late())?
            .map_err(Unreached::Failed)?;
        // One forbidden address spoils the name: it would be reached as soon as the others do not answer.
        if let Some(inside) = found.iter().find(|a| !self.allowed.reaches(**a, port)) {
            return Err(Unreached::Forbidden(*inside));
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for address in found {
            let connected = timeout(
                REACH_TIMEOUT,
                TcpStream::connect(SocketAddr::new(address, port)),
            );
            match connected.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => return Err(late()),
            }
        }
        Err(Unreached::Failed(last))
    }

    fn refuse(&self, asked: String, why: &str) -> Response<Body> {
        self.tell(Told::Refused(asked, why.to_owned()));
        plain(
            StatusCode::FORBIDDEN,
            format!("flipside's package proxy refuses this: {why}\n"),
        )
    }

    /// Tells each thing once: a list of packages is hundreds of requests to one host.
    fn tell(&self, told: Told) {
        let mut known = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_TOLD && known.insert(told.clone()) {
            (self.teller)(told);
        }
    }
}

/// Why there is no connection.
enum Unreached {
    Forbidden(IpAddr),
    Failed(io::Error),
}

/// Reads where a request is to go. The request line alone decides: a `Host` header may say what it likes.
fn target(request: &Request<Incoming>) -> Result<(String, u16), &'static str> {
    let uri = request.uri();
    let words = uri
        .authority()
        .ok_or("it names no host: a proxy is asked for a whole address")?;
    let (host, port) =
        allow::authority(words.as_str()).ok_or("its host is not a plain name or address")?;
    match *request.method() {
        Method::CONNECT => Ok((host, port.ok_or("CONNECT needs a port")?)),
        Method::GET | Method::HEAD if uri.scheme_str() == Some("http") => {
            Ok((host, port.unwrap_or(80)))
        }
        Method::GET | Method::HEAD => {
            Err("only `http` is fetched; use CONNECT for everything else")
        }
        _ => Err("only GET, HEAD and CONNECT are carried"),
    }
}

/// Joins client and host once the client has been told that they are.
fn tunnel(
    request: Request<Incoming>,
    mut upstream: Bounded<TcpStream>,
    open: watch::Receiver<bool>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Response<Body> {
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => {
                let mut client = TokioIo::new(client);
                tokio::select! {
                    ended = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
                        tracing::debug!(?ended, "a tunnel of the package proxy ended");
                    }
                    () = closed(open) => {}
                }
            }
            Err(error) => tracing::debug!(%error, "a tunnel of the package proxy did not begin"),
        }
        drop(permit);
    });
    Response::new(Body::empty())
}

/// Asks the host for what the client wants, on a connection of its own.
async fn forward(
    request: Request<Incoming>,
    host: &str,
    port: u16,
    upstream: Bounded<TcpStream>,
) -> Result<Response<Body>, hyper::Error> {
    let (mut parts, _) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let path = path.parse().unwrap_or_default();
    clean(&mut parts.headers);
    let named = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let named = if port == 80 {
        named
    } else {
        format!("{named}:{port}")
    };
    if let Ok(value) = HeaderValue::from_str(&named) {
        parts.headers.insert(header::HOST, value);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    let mut onward = Request::new(Body::empty());
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = path;
    *onward.headers_mut() = parts.headers;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a fetch of the package proxy ended");
        }
    });
    let (mut parts, body) = sender.send_request(onward).await?.into_parts();
    clean(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// Removes what speaks of one connection only, and what `Connection` names besides.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}

/// Asks the host's own resolver.
pub(crate) fn resolver() -> Resolver {
    Arc::new(|host, port| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Waits until a proxy is closed.
async fn closed(mut open: watch::Receiver<bool>) {
    // One whose keeper is gone is closed as well.
    let _ = open.wait_for(|open| !open).await;
}

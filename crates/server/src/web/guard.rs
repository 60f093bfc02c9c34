//! What every request of the console must pass before anything is done for it.

use super::Web;
use super::login::session_id;
use super::sessions::{Role, Sessions, Who};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use flipside_model::{Problem, ProblemCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A header that the console's own pages send. A page of somebody else cannot: its browser would ask us first, and is not
/// answered.
const OURS: &str = "x-flipside";

/// Only our own files, and nothing inline: a text that slips through as markup can still do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=()",
    ),
];

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who asks, for as long as the login lasts; a stream asks from time to time whether it still does.
#[derive(Clone)]
pub(crate) struct Lease {
    sessions: Arc<Sessions>,
    id: String,
    pub(crate) who: Who,
}

impl Lease {
    /// Says whether the login still lasts.
    pub(crate) fn lasts(&self) -> bool {
        self.sessions.who(&self.id, Instant::now()).is_some()
    }
}

pub(crate) fn refusal(status: StatusCode, message: &str, advice: &str) -> Response {
    let problem = Problem::new(ProblemCode::Refused, message).advise(advice);
    (status, Json(problem)).into_response()
}

/// The middleware.
pub(crate) async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let mut response = match admitted(&web, request) {
        Ok((request, Some(who))) if *request.method() != Method::GET => {
            audited(&web, &who, request, next).await
        }
        Ok((request, _)) => next.run(request).await,
        Err(response) => *response,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if web.tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(HeaderName::from_static("strict-transport-security"), year);
    }
    response
}

/// Writes down who changed what, from where, and what became of it.
async fn audited(web: &Web, who: &Who, request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let peer = request.extensions().get::<Peer>().copied();
    let response = next.run(request).await;
    web.audit
        .write(&who.name, peer, &what, response.status().as_u16());
    response
}

fn header(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

type Admitted = Result<(Request, Option<Who>), Box<Response>>;

fn admitted(web: &Arc<Web>, mut request: Request) -> Admitted {
    let no = |status, message: &str, advice: &str| Err(Box::new(refusal(status, message, advice)));
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts != 1 || !header(headers, HOST).is_some_and(|host| web.names.is_host(host)) {
        return no(
            StatusCode::MISDIRECTED_REQUEST,
            "the console is not known by this name",
            "open it by the address that `flipside serve` logs, or give this name with `--console-name`",
        );
    }
    let origin = headers.get(ORIGIN);
    if origin.is_some_and(|o| !o.to_str().is_ok_and(|o| web.names.is_origin(o))) {
        return no(
            StatusCode::FORBIDDEN,
            "another page asks",
            "open the console itself",
        );
    }
    let path = request.uri().path();
    let api = path.starts_with("/v1/");
    if !api && !path.starts_with("/console/") {
        // Files of the pages, the same for everybody.
        return Ok((request, None));
    }
    let reads = *request.method() == Method::GET;
    let same = header(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin");
    if !same || !headers.contains_key(OURS) || (!reads && origin.is_none()) {
        return no(
            StatusCode::FORBIDDEN,
            "only the console's own pages may ask this",
            "scripts use the Unix socket: `flipside --help`",
        );
    }
    if headers.contains_key(UPGRADE) {
        return no(
            StatusCode::NOT_FOUND,
            "this is not offered in the console",
            "`flipside shell` and `flipside console` open it in a terminal",
        );
    }
    let id = session_id(web, headers).map(str::to_owned);
    let lease = id.and_then(|id| {
        let who = web.sessions.who(&id, Instant::now())?;
        Some(Lease {
            sessions: web.sessions.clone(),
            id,
            who,
        })
    });
    let who = lease.as_ref().map(|lease| lease.who.clone());
    if api {
        match &who {
            None => {
                return no(StatusCode::UNAUTHORIZED, "nobody is logged in", "log in");
            }
            Some(who) if who.role == Role::Viewer && !reads => {
                return no(
                    StatusCode::FORBIDDEN,
                    "a viewer may look, and not change anything",
                    "ask an operator",
                );
            }
            Some(_) => {}
        }
    }
    if let Some(lease) = lease {
        request.extensions_mut().insert(lease);
    }
    // Logging in and out are written down where they are carried out.
    Ok((request, who.filter(|_| api)))
}

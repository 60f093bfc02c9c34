//! Logging in and out.

use super::guard::{Lease, Peer, refusal};
use super::sessions::Who;
use super::{Web, guard};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    name: String,
    password: String,
}

/// Who is logged in, as the pages see it.
#[derive(Serialize)]
struct Me<'a> {
    name: &'a str,
    role: super::sessions::Role,
    version: &'a str,
}

/// The name of the cookie. With TLS it has the prefix that browsers accept only from the server itself and by TLS.
fn cookie_name(web: &Web) -> &'static str {
    if web.tls {
        "__Host-flipside"
    } else {
        "flipside"
    }
}

/// Finds the id of a login in the cookies; two of them are none.
pub(super) fn session_id<'a>(web: &Web, headers: &'a HeaderMap) -> Option<&'a str> {
    let wanted = cookie_name(web);
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted)
        .map(|(_, id)| id);
    let id = found.next()?;
    found.next().is_none().then_some(id)
}

fn cookie(web: &Web, id: &str, more: &str) -> String {
    let secure = if web.tls { "; Secure" } else { "" };
    format!(
        "{}={id}; Path=/; HttpOnly; SameSite=Strict{secure}{more}",
        cookie_name(web)
    )
}

fn shown(who: &Who) -> Response {
    let me = Me {
        name: &who.name,
        role: who.role,
        version: crate::VERSION,
    };
    Json(me).into_response()
}

pub(super) async fn login(
    State(web): State<Arc<Web>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    // Whatever is longer is no name, and must not be kept.
    let name: String = request.name.chars().take(64).collect();
    if let Err(wait) = web.limits.allow(&name, Instant::now()) {
        let seconds = wait.as_secs() + 1;
        let advice = format!("try again in {seconds} s");
        let mut response = refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "there were too many tries",
            &advice,
        );
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        return response;
    }
    let found = verified(&web, request).await;
    let who = match found {
        Ok(Some(who)) => who,
        Ok(None) => {
            web.limits.failed(&name, Instant::now());
            web.audit
                .write(&name, peer, "login", StatusCode::UNAUTHORIZED.as_u16());
            return guard::refusal(
                StatusCode::UNAUTHORIZED,
                "the name or the password is wrong",
                "the password of the first user is in the file that `flipside serve` logs; `flipside user set` gives a new one",
            );
        }
        Err(error) => return failed(&error),
    };
    web.limits.passed(&name);
    if let Some(old) = session_id(&web, &headers) {
        web.sessions.end(old);
    }
    match web.sessions.begin(who.clone(), Instant::now()) {
        Ok(id) => {
            web.audit
                .write(&name, peer, "login", StatusCode::OK.as_u16());
            ([(SET_COOKIE, cookie(&web, &id, ""))], shown(&who)).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    tracing::error!("a login failed: {error:#}");
    refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the login cannot be checked",
        "the log of `flipside serve` says why",
    )
}

async fn verified(web: &Arc<Web>, request: Request) -> anyhow::Result<Option<Who>> {
    let _one = web.hashing.acquire().await?;
    if !super::accounts::PASSWORD_LENGTH.contains(&request.password.len()) {
        // Never the password of anybody; hashed all the same, so that it takes the same time.
        let accounts = web.accounts.clone();
        tokio::task::spawn_blocking(move || accounts.check("", "")).await??;
        return Ok(None);
    }
    let accounts = web.accounts.clone();
    tokio::task::spawn_blocking(move || accounts.check(&request.name, &request.password)).await?
}

pub(super) async fn logout(
    State(web): State<Arc<Web>>,
    peer: Option<Extension<Peer>>,
    lease: Option<Extension<Lease>>,
    headers: HeaderMap,
) -> Response {
    if let Some(id) = session_id(&web, &headers) {
        web.sessions.end(id);
    }
    if let Some(Extension(lease)) = lease {
        let peer = peer.map(|Extension(peer)| peer);
        web.audit.write(
            &lease.who.name,
            peer,
            "logout",
            StatusCode::NO_CONTENT.as_u16(),
        );
    }
    let gone = cookie(&web, "", "; Max-Age=0");
    ([(SET_COOKIE, gone)], StatusCode::NO_CONTENT).into_response()
}

pub(super) async fn me(lease: Option<Extension<Lease>>) -> Response {
    match lease {
        Some(Extension(lease)) => shown(&lease.who),
        None => refusal(StatusCode::UNAUTHORIZED, "nobody is logged in", "log in"),
    }
}

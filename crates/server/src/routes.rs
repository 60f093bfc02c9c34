//! The routes of the API, version 1 (`flipside_model::api` lists them).

use crate::answer::{Answer, Refused};
use crate::registry::Registry;
use crate::{
    create, disk_routes, events, inspect_routes, log_routes, session_routes, side_routes, streams,
};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use flipside_model::api::Version;
use flipside_model::{Problem, ProblemCode, Status, SystemSpec};
use std::sync::Arc;
use std::time::Duration;

/// Requests but file copies are small: 2 MiB hold a configuration of 1 MiB, escaped, and the rest the names of its 64 files.
/// How deep their JSON may nest is bounded as well: by their types, and by the parser (128).
const MAX_BODY: usize = (2 << 20) + (64 << 10);

/// How long a client may take to send such a request: a local one needs milliseconds.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// All routes, and an answer to what is none.
pub(crate) fn router(registry: Arc<Registry>) -> Router {
    routes(registry).fallback(no_route)
}

/// All routes.
pub(crate) fn routes(registry: Arc<Registry>) -> Router {
    let streamed = Router::new()
        .route(
            "/v1/systems/{name}/file",
            put(side_routes::file).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/events", get(events::events))
        .route("/v1/systems/{name}/shell", get(side_routes::shell))
        .route(
            "/v1/systems/{name}/package-proxy",
            get(side_routes::package_proxy),
        )
        .route("/v1/systems/{name}/console", get(side_routes::console));
    let small = Router::new()
        .route("/v1/version", get(version))
        .route("/v1/systems", get(list).post(create::create))
        .route("/v1/systems/{name}", get(status).delete(delete))
        .route("/v1/systems/{name}/spec", get(spec))
        .route("/v1/systems/{name}/config", get(session_routes::config))
        .route("/v1/systems/{name}/power", post(session_routes::power))
        .route("/v1/systems/{name}/session", post(session_routes::session))
        .route("/v1/systems/{name}/restart", post(session_routes::restart))
        .route("/v1/systems/{name}/status", get(streams::status))
        .route("/v1/systems/{name}/log", get(streams::log))
        .route("/v1/systems/{name}/log.xml", get(log_routes::saved))
        .route("/v1/systems/{name}/log/{item}", get(log_routes::one))
        .route("/v1/systems/{name}/sessions", get(log_routes::list))
        .route("/v1/systems/{name}/run", post(side_routes::run))
        .route("/v1/systems/{name}/services", get(inspect_routes::services))
        .route(
            "/v1/systems/{name}/services/all",
            get(inspect_routes::all_services),
        )
        .route("/v1/systems/{name}/disks", get(inspect_routes::disks))
        .route("/v1/systems/{name}/logs", get(inspect_routes::logs))
        .route(
            "/v1/systems/{name}/actions/accept",
            post(session_routes::accept_actions),
        )
        .route("/v1/systems/{name}/packages", get(inspect_routes::packages))
        .route(
            "/v1/systems/{name}/packages/changes",
            get(inspect_routes::package_changes),
        )
        .route("/v1/systems/{name}/changes", get(inspect_routes::changes))
        .route(
            "/v1/systems/{name}/packages/verify",
            get(inspect_routes::verify_packages),
        )
        .route(
            "/v1/systems/{name}/condition",
            get(inspect_routes::condition),
        )
        .route("/v1/systems/{name}/access", get(inspect_routes::access))
        .route("/v1/systems/{name}/keys", post(inspect_routes::keys))
        .route(
            "/v1/systems/{name}/rehearsal",
            get(inspect_routes::rehearsal).post(inspect_routes::rehearse),
        )
        .route(
            "/v1/systems/{name}/media",
            get(inspect_routes::medium).post(inspect_routes::media),
        )
        .route(
            "/v1/systems/{name}/dumps",
            get(inspect_routes::dumps).post(inspect_routes::take_dump),
        )
        .route(
            "/v1/systems/{name}/console/tail",
            get(side_routes::console_tail),
        )
        .route(
            "/v1/systems/{name}/disks/{disk}/verify",
            post(disk_routes::verify),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(arrive_whole));
    small.merge(streamed).with_state(registry)
}

/// Reads a whole request before anything is done for it: what is decided on is what is carried out, and a client that
/// stops half-way has asked for nothing.
pub(crate) async fn arrive_whole(request: Request, next: Next) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, MAX_BODY)).await;
    let usage = |text: String| Refused(Problem::new(ProblemCode::Usage, text));
    let bytes = read
        .map_err(|_| usage("the request did not arrive in time".to_owned()))?
        .map_err(|_| {
            usage(format!(
                "the request did not arrive whole, or is larger than {MAX_BODY} bytes"
            ))
        })?;
    Ok(next.run(Request::from_parts(head, Body::from(bytes))).await)
}

pub(crate) async fn no_route() -> Refused {
    Refused(
        Problem::new(
            ProblemCode::NotFound,
            "this server does not know that request",
        )
        .advise("client and server may be of different versions: `flipside --version`"),
    )
}

async fn version(State(registry): State<Arc<Registry>>) -> Json<Version> {
    Json(Version {
        version: registry.version().to_owned(),
        api: 1,
        pid: std::process::id(),
    })
}

async fn list(State(registry): State<Arc<Registry>>) -> Json<Vec<Status>> {
    let mut all = Vec::new();
    for system in registry.list().await {
        all.push(system.fresh_status().await);
    }
    Json(all)
}

async fn status(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Status>> {
    Ok(Json(registry.get(&name).await?.fresh_status().await))
}

async fn spec(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<SystemSpec>> {
    Ok(Json(registry.get(&name).await?.spec().clone()))
}

async fn delete(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    registry.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

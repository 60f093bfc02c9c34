//! What the server of the tests answers.

use super::World;
use bytes::Bytes;
use flipside_activity::Step;
use flipside_model::api::{Accepted, SessionRequest};
use flipside_model::{Problem, ProblemCode, Record, Severity};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How often a stream looks for something new; far below anything a test waits for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

type Answer = Response<BoxBody<Bytes, Infallible>>;

pub(crate) async fn answer(world: &Arc<Mutex<World>>, request: Request<Incoming>) -> Answer {
    let method = request.method().as_str().to_owned();
    let uri = request.uri().to_string();
    let console = uri.contains("/console") && !uri.contains("/tail");
    let proxy = uri.contains("/package-proxy") && world.lock().expect("held").refuse.is_none();
    if uri.contains("/shell") || console || proxy {
        world
            .lock()
            .expect("held")
            .asked
            .push((method, uri, String::new()));
        return echo(request);
    }
    let body = request.into_body().collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut now = world.lock().expect("held");
    now.asked.push((method.clone(), uri.clone(), text));
    let path = uri.split('?').next().unwrap_or_default();
    let rest: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let named = rest.get(1).copied();
    let system = named.and_then(|name| {
        let found = now.systems.iter().find(|s| s.system.as_str() == name);
        found.cloned()
    });
    if let (Some(name), None) = (named, &system) {
        let message = format!("there is no system `{name}`");
        return problem(&Problem::new(ProblemCode::NotFound, message));
    }
    if (method != "GET" || uri.contains("/package-proxy"))
        && let Some(refused) = &now.refuse
    {
        return problem(refused);
    }
    let below = format!("{method} {}", rest.get(2..).unwrap_or_default().join("/"));
    if let Some(text) = now.canned.get(&below) {
        return reply(StatusCode::OK, text.clone().into_bytes());
    }
    match (method.as_str(), rest.get(2).copied(), system) {
        ("GET", None, None) => json(&now.systems),
        ("GET", Some("config"), Some(_)) => json(&now.staged),
        ("POST", None, None) | ("POST", Some("run"), _) => lines(&now.events),
        ("GET", None, Some(status)) | ("POST", Some("power" | "restart"), Some(status)) => {
            json(&status)
        }
        ("DELETE", ..) => reply(StatusCode::NO_CONTENT, Vec::new()),
        ("PUT", ..) => json(&serde_json::json!({ "bytes": body.len() })),
        ("POST", Some("session"), _) => {
            let request: SessionRequest = serde_json::from_slice(&body).expect("a request");
            let accepted = Accepted {
                after: now.entries.len() as u64,
                config: request.config.and_then(|c| {
                    let name = c.path.file_name()?;
                    Some(name.to_string_lossy().into_owned())
                }),
            };
            now.record(Record::Accepted {
                command: request.command,
            });
            for record in std::mem::take(&mut now.script) {
                now.record(record);
            }
            json(&accepted)
        }
        ("GET", Some("sessions"), _) => json(&flipside_activity::sessions(&now.entries)),
        ("GET", Some("log"), _) if rest.len() == 4 => {
            let lines = flipside_activity::Tree::fold(&now.entries).lines(None);
            let id = rest[3].parse().expect("a number");
            let next = uri.contains("go=next");
            let step = if next { Step::Next } else { Step::Stay };
            let error = uri.contains("severity=Error").then_some(Severity::Error);
            match flipside_activity::item(&lines, id, step, error) {
                Some(item) => json(&item),
                None => problem(&Problem::new(ProblemCode::NotFound, "no such item")),
            }
        }
        ("GET", Some("log"), _) => {
            let after = uri.split("after=").nth(1).and_then(|t| t.split('&').next());
            let after = after.and_then(|n| n.parse().ok()).unwrap_or(0);
            stream(world, uri.contains("follow=true"), after, |world, from| {
                let new = world.entries.iter().skip(from);
                new.map(|e| serde_json::to_string(e).expect("json"))
                    .collect()
            })
        }
        ("GET", Some("status"), Some(status)) => {
            let mut last = String::new();
            stream(world, true, 0, move |world, _| {
                let found = world.systems.iter().find(|s| s.system == status.system);
                let now = serde_json::to_string(&found).expect("json");
                if now == last {
                    return Vec::new();
                }
                last.clone_from(&now);
                vec![now]
            })
        }
        other => reply(
            StatusCode::NOT_IMPLEMENTED,
            format!("{other:?}").into_bytes(),
        ),
    }
}

fn reply(status: StatusCode, bytes: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(bytes)).boxed());
    *response.status_mut() = status;
    response
}

fn json(value: &impl Serialize) -> Answer {
    reply(StatusCode::OK, serde_json::to_vec(value).expect("json"))
}

fn lines(events: &[String]) -> Answer {
    reply(StatusCode::OK, events.join("\n").into_bytes())
}

fn problem(problem: &Problem) -> Answer {
    let status = match problem.code {
        ProblemCode::Usage => StatusCode::BAD_REQUEST,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Refused | ProblemCode::InUse => StatusCode::CONFLICT,
        ProblemCode::NotReady => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    reply(status, serde_json::to_vec(problem).expect("json"))
}

/// Streams what `new` returns, given how much was sent before.
fn stream(
    world: &Arc<Mutex<World>>,
    follow: bool,
    from: usize,
    mut new: impl FnMut(&World, usize) -> Vec<String> + Send + Sync + 'static,
) -> Answer {
    let world = Arc::clone(world);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut sent = from;
        loop {
            let lines = new(&world.lock().expect("held"), sent);
            sent += lines.len();
            for line in lines {
                let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line + "\n")));
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            if !follow {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let body = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Response::new(http_body_util::BodyExt::boxed(StreamBody::new(body)))
}

/// Answers an upgrade with a guest that repeats what is typed.
fn echo(mut request: Request<Incoming>) -> Answer {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
        let mut stream = TokioIo::new(upgraded);
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..read]).await.expect("echoed");
        }
        let _ = stream.shutdown().await;
    });
    let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, Vec::new());
    let headers = response.headers_mut();
    headers.insert("connection", "upgrade".parse().expect("valid"));
    headers.insert("upgrade", "flipside-shell".parse().expect("valid"));
    response
}

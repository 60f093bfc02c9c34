//! Live streams: one JSON object a line, until the client has heard enough.

use crate::answer::Answer;
use crate::registry::Registry;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use flipside_engine::System;
use flipside_model::{Problem, ProblemCode};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines waiting for a slow client before the stream waits for it.
const BUFFER: usize = 64;

/// Status lines come at most this often: fast enough for a progress bar, slow enough for a terminal over SSH.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// A line is sent at least this often, so that a client notices a server that hangs.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Answers with lines of JSON that somebody sends.
pub(crate) fn lines<T: Serialize + Send + 'static>(mut receiver: mpsc::Receiver<T>) -> Response {
    let stream = futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|item| {
            item.map(|value| {
                let mut line = serde_json::to_vec(&value).unwrap_or_default();
                line.push(b'\n');
                Ok::<_, Infallible>(line)
            })
        })
    });
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(stream),
    )
        .into_response()
}

pub(crate) fn channel<T>() -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(BUFFER)
}

/// Turns a task that panicked into a problem.
pub(crate) fn lost(error: &tokio::task::JoinError) -> Problem {
    Problem::new(
        ProblemCode::Internal,
        "the server failed while it worked on this",
    )
    .because(error)
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatusQuery {
    #[serde(default)]
    watch: bool,
}

pub(crate) async fn status(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<StatusQuery>,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let (sender, receiver) = channel();
    tokio::spawn(async move {
        let mut changes = system.changes();
        let mut last = system.fresh_status().await;
        if sender.send(last.clone()).await.is_err() || !query.watch {
            return;
        }
        loop {
            let changed = tokio::time::timeout(KEEP_ALIVE, changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            let now = system.status();
            if now != last || changed.is_err() {
                if sender.send(now.clone()).await.is_err() {
                    return;
                }
                last = now;
            }
            tokio::time::sleep(STATUS_PERIOD).await;
        }
    });
    Ok(lines(receiver))
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogQuery {
    #[serde(default)]
    after: u64,
    /// The last record that is wanted.
    until: Option<u64>,
    #[serde(default)]
    follow: bool,
}

pub(crate) async fn log(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let (sender, receiver) = channel();
    tokio::spawn(follow(system, query, sender));
    Ok(lines(receiver))
}

/// Sends the records after a number, then new ones; a reader that lags reads again from where it is.
async fn follow(system: System, query: LogQuery, sender: mpsc::Sender<flipside_model::Entry>) {
    let mut after = query.after;
    let mut changes = system.changes();
    loop {
        for entry in system.entries_after(after) {
            if query.until.is_some_and(|until| entry.seq > until) {
                return;
            }
            after = entry.seq;
            if sender.send(entry).await.is_err() {
                return;
            }
        }
        if !query.follow {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

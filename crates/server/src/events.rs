//! Everything that a page shows, in one stream of server-sent events: which systems there are, their status, and the log of
//! the one that is looked at. Whoever comes back names the last event and misses nothing.

use crate::registry::Registry;
use crate::web::Lease;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use flipside_activity::{Line, Tree, current, sessions};
use flipside_engine::System;
use flipside_model::api::{LogEvent, LogLine, SystemsEvent};
use flipside_model::{Entry, Status, SystemName};
use futures_util::future::select_all;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Events come at most this often: fast enough for a progress bar, and a burst of records becomes one event.
const PERIOD: Duration = Duration::from_millis(150);

/// So often it is looked whether systems were added or removed, if nothing else happens.
const LOOK: Duration = Duration::from_secs(1);

/// Something is sent at least this often, so that a page notices a server that hangs, and we one that left.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Events waiting for a slow browser before the stream waits for it.
const BUFFER: usize = 16;

#[derive(Debug, Deserialize)]
pub(crate) struct EventsQuery {
    /// The system whose log is sent.
    system: Option<SystemName>,
    /// The id of the last event, where no header can be sent.
    cursor: Option<String>,
}

/// Where a reader of a log is: the record with which that log began, and the last record that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    first: u64,
    last: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        })
    }
}

pub(crate) async fn events(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<EventsQuery>,
    lease: Option<Extension<Lease>>,
    headers: HeaderMap,
) -> Response {
    let given = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let cursor = given.or(query.cursor.as_deref()).and_then(Cursor::parse);
    let (sender, mut receiver) = mpsc::channel::<String>(BUFFER);
    let stream = Stream {
        registry,
        sender,
        lease: lease.map(|Extension(lease)| lease),
        known: BTreeMap::new(),
        log: query.system.map(|name| Log {
            name,
            cursor,
            told: HashMap::new(),
        }),
    };
    tokio::spawn(stream.run());
    let body = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|event| event.map(Ok::<_, Infallible>))
    });
    let head = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    (head, Body::from_stream(body)).into_response()
}

struct Stream {
    registry: Arc<Registry>,
    sender: mpsc::Sender<String>,
    lease: Option<Lease>,
    known: BTreeMap<SystemName, Status>,
    log: Option<Log>,
}

/// The browser has left, or may not look any longer.
struct Over;

fn event<T: Serialize>(name: &str, id: Option<&str>, data: &T) -> String {
    // JSON has no newline outside of strings, and escapes those in them: it is one line.
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {name}\n{id}data: {data}\n\n")
}

impl Stream {
    async fn run(mut self) {
        let mut first = true;
        let mut spoken = Instant::now();
        loop {
            let systems = self.registry.list().await;
            let mut changes: Vec<_> = systems.iter().map(System::changes).collect();
            let Ok(said) = self.tell(&systems, first).await else {
                return;
            };
            first = false;
            if said {
                spoken = Instant::now();
            } else if spoken.elapsed() >= KEEP_ALIVE {
                if self
                    .sender
                    .send(": still here\n\n".to_owned())
                    .await
                    .is_err()
                {
                    return;
                }
                spoken = Instant::now();
            }
            if self.lease.as_ref().is_some_and(|lease| !lease.lasts()) {
                return;
            }
            let waits: Vec<_> = changes.iter_mut().map(|c| Box::pin(c.changed())).collect();
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = select_all(waits), if !systems.is_empty() => {}
                () = self.sender.closed() => return,
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Sends what changed; says whether there was anything.
    async fn tell(&mut self, systems: &[System], first: bool) -> Result<bool, Over> {
        let mut said = false;
        let names: Vec<SystemName> = systems.iter().map(|s| s.spec().name.clone()).collect();
        if first || !names.iter().eq(self.known.keys()) {
            self.known.retain(|name, _| names.contains(name));
            let list = SystemsEvent { systems: names };
            self.send(event("systems", None, &list)).await?;
            said = true;
        }
        for system in systems {
            let status = if first {
                system.fresh_status().await
            } else {
                system.status()
            };
            if self.known.get(&status.system) != Some(&status) {
                self.send(event("status", None, &status)).await?;
                self.known.insert(status.system.clone(), status);
                said = true;
            }
        }
        if let Some(log) = &mut self.log
            && let Some(system) = systems.iter().find(|s| s.spec().name == log.name)
            && let Some((id, changed)) = log.changed(system)
        {
            let text = event("log", Some(&id), &changed);
            self.send(text).await?;
            said = true;
        }
        Ok(said)
    }

    async fn send(&self, text: String) -> Result<(), Over> {
        self.sender.send(text).await.map_err(|_| Over)
    }
}

/// What a reader knows of one log.
struct Log {
    name: SystemName,
    cursor: Option<Cursor>,
    /// A digest of every line that was told; empty at the beginning.
    told: HashMap<u64, u64>,
}

impl Log {
    /// Returns what is new since the last time, with the cursor behind it.
    fn changed(&mut self, system: &System) -> Option<(String, LogEvent)> {
        let last = system.status().last_seq;
        if self.cursor.is_some_and(|c| c.last == last) && !self.told.is_empty() {
            return None;
        }
        let entries = system.entries_after(0);
        self.advance(&entries)
    }

    fn advance(&mut self, entries: &[Entry]) -> Option<(String, LogEvent)> {
        let first = current(&sessions(entries));
        let of_log = |entry: &&Entry| entry.seq >= first;
        let last = entries.last().map_or(0, |entry| entry.seq);
        let known = self.cursor.filter(|c| c.first == first && c.last <= last);
        if known.is_none() {
            self.told.clear();
        } else if self.told.is_empty() {
            // A reader that comes back: what it was told up to its cursor is worked out once more.
            let until = known.map_or(0, |c| c.last);
            let before = entries.iter().filter(of_log).filter(|e| e.seq <= until);
            self.told = digests(&lines(&Tree::fold(before).lines(None)));
        }
        let all = lines(&Tree::fold(entries.iter().filter(of_log)).lines(None));
        let now = digests(&all);
        let new = |line: &LogLine| self.told.get(&line.node) != now.get(&line.node);
        let changed: Vec<LogLine> = all.into_iter().filter(new).collect();
        let reset = known.is_none();
        self.told = now;
        self.cursor = Some(Cursor { first, last });
        if changed.is_empty() && !reset {
            return None;
        }
        let found = LogEvent {
            system: self.name.clone(),
            reset,
            lines: changed,
        };
        Some((format!("{first}-{last}"), found))
    }
}

fn digests(lines: &[LogLine]) -> HashMap<u64, u64> {
    let digest = |line: &LogLine| {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        hasher.finish()
    };
    lines.iter().map(|line| (line.node, digest(line))).collect()
}

/// Gives every line the number of the one above it.
fn lines(lines: &[Line]) -> Vec<LogLine> {
    let mut above: Vec<u64> = Vec::new();
    let mut found = Vec::with_capacity(lines.len());
    for line in lines {
        above.truncate(line.depth());
        found.push(LogLine {
            node: line.node,
            parent: above.last().copied(),
            at_ms: line.at_ms,
            severity: line.severity,
            text: line.text.clone(),
            component: line.component.clone(),
            advice: line.advice.clone(),
            detail: line.detail.is_some(),
            took_ms: line.took_ms,
        });
        above.push(line.node);
    }
    found
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;

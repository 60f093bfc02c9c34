//! Requests about the activity log: the sessions it has, and one item with its neighbours.

use crate::answer::Answer;
use crate::registry::Registry;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use flipside_activity::{ExportHead, Step, Tree, clean, current, export, item, sessions};
use flipside_engine::System;
use flipside_model::api::{LogItem, SessionLog};
use flipside_model::{Entry, Problem, ProblemCode, Severity};
use serde::Deserialize;
use std::sync::Arc;

pub(crate) async fn list(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<SessionLog>>> {
    let system = registry.get(&name).await?;
    Ok(Json(sessions(&system.entries_after(0))))
}

#[derive(Debug, Deserialize)]
pub(crate) struct SavedQuery {
    /// The session whose log is saved; without it the current one.
    session: Option<u32>,
}

/// The log as one XML file (AL-16), as `flipside log --export` writes it.
pub(crate) async fn saved(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<SavedQuery>,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let entries = log_of(&system, query.session)?;
    let all = sessions(&system.entries_after(0));
    let session = match query.session {
        Some(number) => all.into_iter().find(|session| session.number == number),
        None => all.into_iter().next_back(),
    };
    let status = system.status();
    let none = |text: &str| text.to_owned();
    let head = ExportHead {
        version: status.version.clone(),
        system: status.system.to_string(),
        status: [
            status
                .config
                .as_deref()
                .map_or_else(|| none("no configuration file"), clean),
            status.hardware_state.to_string(),
            status.upgrade_state.to_string(),
            status.operational_state.to_string(),
            status
                .partner_state
                .map_or_else(|| none("none"), |partner| partner.to_string()),
        ],
        saved_ms: jiff::Timestamp::now().as_millisecond(),
        session,
    };
    let mut bytes = Vec::new();
    export(&head, &Tree::fold(&entries), &mut bytes).map_err(|error| {
        Problem::new(ProblemCode::Internal, "the log cannot be written as XML").because(&error)
    })?;
    Ok(([(CONTENT_TYPE, "application/xml")], bytes).into_response())
}

/// Where a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Go {
    Previous,
    Next,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ItemQuery {
    /// Stays at the item when it is left out.
    go: Option<Go>,
    /// The severity to walk through; without it that of the item.
    severity: Option<Severity>,
    /// The session whose log is walked through; without it the current one.
    session: Option<u32>,
}

pub(crate) async fn one(
    State(registry): State<Arc<Registry>>,
    Path((name, id)): Path<(String, u64)>,
    Query(query): Query<ItemQuery>,
) -> Answer<Json<LogItem>> {
    let system = registry.get(&name).await?;
    let entries = log_of(&system, query.session)?;
    let lines = Tree::fold(&entries).lines(None);
    let step = match query.go {
        None => Step::Stay,
        Some(Go::Previous) => Step::Previous,
        Some(Go::Next) => Step::Next,
    };
    let found = item(&lines, id, step, query.severity);
    found
        .map(Json)
        .ok_or_else(|| nothing(id, step, query.severity).into())
}

fn nothing(id: u64, step: Step, severity: Option<Severity>) -> Problem {
    let of = severity.map_or_else(String::new, |severity| format!(" of severity {severity}"));
    let message = match step {
        Step::Stay => format!("the log has no item {id}"),
        Step::Previous => format!("the log has no item{of} before {id}"),
        Step::Next => format!("the log has no item{of} after {id}"),
    };
    Problem::new(ProblemCode::NotFound, message)
        .advise("`flipside log --json` shows the number of every item as `node`")
}

/// Reads the records of one session's log, or of the current one.
fn log_of(system: &System, number: Option<u32>) -> Result<Vec<Entry>, Problem> {
    let mut entries = system.entries_after(0);
    let all = sessions(&entries);
    let (first, last) = match number {
        None => (current(&all), u64::MAX),
        Some(number) => {
            let found = all.iter().find(|session| session.number == number);
            let session = found.ok_or_else(|| {
                let message = format!("there was no session {number}");
                Problem::new(ProblemCode::NotFound, message)
                    .advise("`flipside log --sessions` lists them")
            })?;
            (session.first, session.last)
        }
    };
    entries.retain(|entry| (first..=last).contains(&entry.seq));
    Ok(entries)
}

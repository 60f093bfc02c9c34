//! What a client does on a side: programs, files, a shell.

use crate::answer::{Answer, Refused};
use crate::proxy::{Allowed, MOST_CONNECTIONS};
use crate::registry::Registry;
use crate::streams::{channel, lines};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flipside_engine::System;
use flipside_model::api::{Copied, RunEvent, RunRequest};
use flipside_model::{MachineId, Problem, ProblemCode, Side, UpgradeState};
use flipside_platform::{ExecRequest, ShellStream};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::debug;

/// How often a running program is asked for output at first, and at most: output should feel live, and every question
/// costs the guest a little.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_MOST: Duration = Duration::from_millis(250);

/// Bytes given to the guest in one piece; larger ones are not faster through the agent.
const PIECE: usize = 1 << 20;

pub(crate) async fn run(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(request): Json<RunRequest>,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    if request.argv.is_empty() {
        return Err(Problem::new(ProblemCode::Usage, "no program was named").into());
    }
    let machine = system.machine_for(request.side)?;
    let exec = ExecRequest {
        argv: request.argv,
        env: Vec::new(),
        timeout: None,
    };
    let handle = system.ports().guest.exec_start(machine, &exec).await?;
    let (sender, receiver) = channel();
    tokio::spawn(follow_program(system, machine, handle, sender));
    Ok(lines(receiver))
}

async fn follow_program(
    system: System,
    machine: MachineId,
    handle: u64,
    sender: mpsc::Sender<RunEvent>,
) {
    let guest = system.ports().guest.clone();
    let mut pause = POLL_FIRST;
    loop {
        let output = match guest.exec_poll(machine, handle).await {
            Ok(output) => output,
            Err(error) => {
                let _ = sender.send(RunEvent::Failed(error.into())).await;
                return;
            }
        };
        let quiet = output.out.is_empty() && output.err.is_empty();
        let mut events = Vec::new();
        if !output.out.is_empty() {
            events.push(RunEvent::Out(STANDARD.encode(&output.out)));
        }
        if !output.err.is_empty() {
            events.push(RunEvent::Err(STANDARD.encode(&output.err)));
        }
        events.extend(output.exit.map(RunEvent::Exit));
        for event in events {
            if sender.send(event).await.is_err() {
                debug!("the client has left; the program is ended");
                let _ = guest.exec_kill(machine, handle).await;
                return;
            }
        }
        if output.exit.is_some() {
            return;
        }
        if sender.is_closed() {
            let _ = guest.exec_kill(machine, handle).await;
            return;
        }
        pause = if quiet {
            (pause * 2).min(POLL_MOST)
        } else {
            POLL_FIRST
        };
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct FileQuery {
    side: Option<Side>,
    path: String,
}

pub(crate) async fn file(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<FileQuery>,
    body: Body,
) -> Answer<Json<Copied>> {
    let system = registry.get(&name).await?;
    if !query.path.starts_with('/') || query.path.contains('\0') {
        let text = format!("`{}` is not an absolute path", query.path.escape_debug());
        return Err(Problem::new(ProblemCode::Usage, text).into());
    }
    // Before the split there is only one side, and files are copied to it (SP-09).
    let side = query.side.or_else(|| {
        (system.status().upgrade_state == flipside_model::UpgradeState::Idle)
            .then_some(Side::Production)
    });
    let machine = system.machine_for(side)?;
    let guest = system.ports().guest.clone();
    let mut stream = body.into_data_stream();
    let (mut pending, mut written) = (Vec::with_capacity(PIECE), 0_u64);
    loop {
        let chunk = stream.next().await.transpose().map_err(|e| {
            Refused(
                Problem::new(ProblemCode::Failed, "the file did not arrive whole")
                    .because(&e)
                    .about(query.path.clone()),
            )
        })?;
        let last = chunk.is_none();
        pending.extend_from_slice(&chunk.unwrap_or_default());
        while pending.len() >= PIECE || (last && (!pending.is_empty() || written == 0)) {
            let rest = pending.split_off(pending.len().min(PIECE));
            guest
                .write_file(machine, &query.path, written, &pending)
                .await?;
            written += pending.len() as u64;
            pending = rest;
            if last && pending.is_empty() {
                break;
            }
        }
        if last {
            return Ok(Json(Copied { bytes: written }));
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ShellQuery {
    side: Option<Side>,
    #[serde(default = "default_rows")]
    rows: u16,
    #[serde(default = "default_cols")]
    cols: u16,
}

/// What is printed of a console's log when nothing is said, and at most: the log is cut there.
const CONSOLE_TAIL: usize = 16 << 10;
const CONSOLE_MOST: usize = 256 << 10;

#[derive(Debug, Deserialize)]
pub(crate) struct ConsoleQuery {
    side: Option<Side>,
    bytes: Option<usize>,
}

fn default_rows() -> u16 {
    24
}

fn default_cols() -> u16 {
    80
}

pub(crate) async fn shell(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<ShellQuery>,
    mut request: Request,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let machine = system.machine_for(query.side)?;
    // In Idle there is no other side that it could be mistaken for.
    let label = match system.state().upgrade {
        UpgradeState::Idle => String::new(),
        _ => query.side.unwrap_or(Side::Upgrade).to_string(),
    };
    let upgrade = upgradable(&mut request)?;
    let size = (query.rows, query.cols);
    let guest = system.ports().guest.shell(machine, size, &label).await?;
    Ok(join(upgrade, guest, "flipside-shell"))
}

/// The serial console of a side.
pub(crate) async fn console(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<ConsoleQuery>,
    mut request: Request,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let upgrade = upgradable(&mut request)?;
    let guest = system.console(query.side).await?;
    Ok(join(upgrade, guest, "flipside-console"))
}

/// What the serial console of a side printed last.
pub(crate) async fn console_tail(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<ConsoleQuery>,
) -> Answer<Vec<u8>> {
    let system = registry.get(&name).await?;
    let most = query.bytes.unwrap_or(CONSOLE_TAIL).min(CONSOLE_MOST);
    Ok(system.console_tail(query.side, most).await?)
}

#[derive(Debug, Deserialize)]
pub(crate) struct ProxyQuery {
    /// Hosts, separated by commas.
    allow: String,
}

/// One connection of the package proxy (`proxy/`), which the client carries to the Upgrade Side.
pub(crate) async fn package_proxy(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Query(query): Query<ProxyQuery>,
    mut request: Request,
) -> Answer<Response> {
    let system = registry.get(&name).await?;
    let allowed = Allowed::parse(&query.allow)?;
    let proxy = registry.proxies().get(&system, allowed)?;
    let permit = proxy.permit().ok_or_else(|| {
        let text = format!("{MOST_CONNECTIONS} connections of the package proxy are open");
        Problem::new(ProblemCode::InUse, text)
    })?;
    let upgrade = upgradable(&mut request)?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => proxy.serve(TokioIo::new(client), permit).await,
            Err(error) => debug!(%error, "a connection of the package proxy was not upgraded"),
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "flipside-proxy")];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn upgradable(request: &mut Request) -> Result<hyper::upgrade::OnUpgrade, Problem> {
    let found = request.extensions_mut().remove();
    found.ok_or_else(|| {
        Problem::new(
            ProblemCode::Usage,
            "this needs a connection that can be upgraded",
        )
    })
}

/// Carries bytes between a client and a guest until either end is over.
fn join(
    upgrade: hyper::upgrade::OnUpgrade,
    mut guest: Box<dyn ShellStream>,
    protocol: &'static str,
) -> Response {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => {
                let mut client = TokioIo::new(client);
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut guest).await {
                    debug!(%error, "{protocol} ended");
                }
            }
            Err(error) => debug!(%error, "the connection of {protocol} was not upgraded"),
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

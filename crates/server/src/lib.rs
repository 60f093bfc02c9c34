//! The server: the API on a Unix socket, the systems it drives, and the one list of backends.
//!
//! It holds no state of its own: definitions, journals, leg books and machines are on the host, and it takes all of
//! them up again when it starts. A second server on the same state directory is refused.
#![forbid(unsafe_code)]

mod answer;
mod backend;
mod create;
mod disk_routes;
mod events;
mod inspect_routes;
mod listen;
mod lock;
mod log_routes;
mod private;
mod proxy;
mod registry;
mod routes;
mod session_routes;
mod side_routes;
mod socket;
mod streams;
mod web;

use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// How long open streams may go on after the signal to stop; machines and guards are not touched by it.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

pub use web::WebOptions;

/// How the server is run.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where definitions, journals, leg books and machine sockets are.
    pub state_dir: PathBuf,
    /// The Unix socket of the API.
    pub socket: PathBuf,
    /// The web console.
    pub web: WebOptions,
}

/// Product version, in log, status and API.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the guard of one system until the server ends it: front door, failing legs, expired pauses.
pub async fn guard(state_dir: &std::path::Path, system: &str) -> anyhow::Result<()> {
    let name = flipside_model::SystemName::new(system)?;
    flipside_backend_qemu::guard::run(flipside_backend_qemu::guard::GuardOptions {
        state_dir: state_dir.to_owned(),
        system: name,
    })
    .await?;
    Ok(())
}

/// Runs the server until it is told to stop.
pub async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    // Whatever is made from here on (socket, journals, legs) is for our own user only, from its first moment.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _lock = lock::ServerLock::take(&options.state_dir)?;
    let console = web::Console::prepare(options.web, options.state_dir.clone())?;
    let listener = socket::bind(&options.socket).await?;
    let registry = Arc::new(registry::Registry::new(
        options.state_dir.clone(),
        VERSION.to_owned(),
    ));
    registry.open_all().await;
    info!(socket = %options.socket.display(), state = %options.state_dir.display(), "flipside serves");
    let app = routes::router(registry.clone()).merge(console.user_routes());
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        () = listen::serve(listener, app) => bail!("the API ended"),
        () = console.serve(registry.clone()) => bail!("the console ended"),
        _ = terminate.recv() => info!("told to stop; machines go on"),
        _ = interrupt.recv() => info!("told to stop; machines go on"),
    }
    registry.close().await;
    tokio::time::sleep(SHUTDOWN_GRACE).await;
    if let Err(error) = std::fs::remove_file(&options.socket) {
        warn!(%error, "the socket could not be removed");
    }
    Ok(())
}

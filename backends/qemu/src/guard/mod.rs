//! The guard: one process per system that outlives the server.
//!
//! It holds the front door, goes on without a failed leg, and continues the owner when a pause has lasted longer
//! than was recorded. It never ends a machine, and never continues one that does not own network and data:
//! `flipside_platform::guard` is the whole of what it may do. It shares the machines with the server by the lease, and what it
//! knows by the leg book; it keeps no state of its own that matters, so a killed guard is simply started again.
//!
//! ```text
//! server ── control socket ──▶ desk ──▶ front door ──▶ clients
//! machine m<N> ── guard.sock ──▶ watch ──▶ decide (pure) ──▶ act (lease: book first, then the machine)
//! ```

mod act;
mod control;
pub(crate) mod desk;
mod error;
pub(crate) mod events;
pub(crate) mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod limits;
mod process;
mod signals;
mod watch;
pub(crate) mod wire;

pub use error::GuardError;
pub use events::GuardEvent;

use crate::conn::Voice;
use crate::door::{Door, PublishedPort};
use crate::paths::SystemPaths;
use crate::system::{Options, QemuSystem};
use desk::Desk;
use events::EventLog;
use files::{GuardConfig, GuardFiles};
use flipside_model::{MachineId, SystemName};
use flipside_platform::{LegPort, MachinePort, RunState};
use limits::{SCAN, SHUT_TIMEOUT, STATUS_TIMEOUT};
use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch as flag;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Which system to guard.
#[derive(Debug, Clone)]
pub struct GuardOptions {
    /// The state directory of the server.
    pub state_dir: PathBuf,
    /// The system.
    pub system: SystemName,
}

/// What all parts of a guard share.
struct Shared {
    paths: SystemPaths,
    files: GuardFiles,
    events: Arc<EventLog>,
    desk: Arc<Desk>,
    stop: flag::Sender<bool>,
}

/// Guards a system until it is told to end or the system's directory is gone. It takes the whole process: its limits
/// are set, and the one line on its standard output tells whoever started it whether it began.
pub async fn run(options: GuardOptions) -> Result<(), GuardError> {
    process::prepare();
    let started = Guard::start(&options).await;
    process::report(started.as_ref().map(|_| ()));
    started?.live().await;
    Ok(())
}

/// Does what [`run`] does, on a runtime of its own. It has two threads, so that clients are served while a slow disk
/// holds up what is being recorded.
pub fn run_blocking(options: GuardOptions) -> Result<(), GuardError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(GuardError::Runtime)?.block_on(async {
        // As a task, for the thread that waits for it is not one of the two.
        let guard = tokio::spawn(run(options));
        guard.await.map_err(|e| GuardError::Runtime(e.into()))?
    })
}

struct Guard {
    shared: Arc<Shared>,
    listener: tokio::net::UnixListener,
    /// Says which directory it was, should another one take its name.
    home: (u64, u64),
    /// Locked while the guard lives.
    _place: fs::File,
}

impl Guard {
    async fn start(options: &GuardOptions) -> Result<Self, GuardError> {
        let paths = SystemPaths::new(&options.state_dir, &options.system)?;
        let files = GuardFiles::new(&paths);
        let home = home(&paths).ok_or_else(|| GuardError::NoSystem {
            system: options.system.clone(),
            path: paths.root().to_owned(),
        })?;
        let Some(place) = files.occupy()? else {
            return Err(GuardError::AlreadyRuns {
                system: options.system.clone(),
                pid: files.occupant().unwrap_or_default(),
            });
        };
        let config = GuardConfig::load(&files)?;
        let published = config.spec.publish.iter().map(|port| PublishedPort {
            listen: SocketAddr::from((port.address, port.host_port)),
            guest_port: port.guest_port,
        });
        let door = Door::bind(published.collect()).await?;
        door.hold();
        let events = EventLog::open(&files.events()).map_err(GuardError::Events)?;
        let events = Arc::new(events);
        let stop = flag::Sender::new(false);
        let desk = Desk::new(door, paths.clone(), Arc::clone(&events), stop.clone());
        let shared = Shared {
            desk: Arc::new(desk),
            events,
            files,
            paths,
            stop,
        };
        let system = Options {
            voice: Voice::Guard,
            ..Options::default()
        };
        let system = QemuSystem::open(config.spec, &options.state_dir, system)?;
        take_over(&shared, &system).await;
        let listener = control::listen(&shared.files.control())?;
        Ok(Self {
            shared: Arc::new(shared),
            listener,
            home,
            _place: place,
        })
    }

    /// Watches every machine that appears, until the end.
    async fn live(self) {
        let shared = self.shared;
        let mut service = JoinSet::new();
        service.spawn(control::serve(self.listener, Arc::clone(&shared.desk)));
        let mut watchers = JoinSet::new();
        let mut known: HashMap<MachineId, AbortHandle> = HashMap::new();
        let mut stop = shared.stop.subscribe();
        loop {
            while watchers.try_join_next().is_some() {}
            known.retain(|_, watcher| !watcher.is_finished());
            for id in shared.paths.machines().unwrap_or_default() {
                known
                    .entry(id)
                    .or_insert_with(|| watchers.spawn(watch::machine(Arc::clone(&shared), id)));
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = sleep(SCAN) => {}
            }
            if home(&shared.paths) != Some(self.home) {
                tracing::info!("the directory of the system is gone");
                break;
            }
        }
        shared.stop.send_replace(true);
        shared.desk.door.shutdown().await;
        // What is being done about a machine is finished, so that nobody finds it half done.
        let finished = async { while watchers.join_next().await.is_some() {} };
        if timeout(SHUT_TIMEOUT, finished).await.is_err() {
            tracing::warn!("something was still being done about a machine");
        }
        if home(&shared.paths) == Some(self.home) {
            // A name that stays is replaced by the next guard.
            let _ = fs::remove_file(shared.files.control());
        }
    }
}

/// Identifies the directory of the system.
fn home(paths: &SystemPaths) -> Option<(u64, u64)> {
    let meta = fs::metadata(paths.root())
        .ok()
        .filter(fs::Metadata::is_dir)?;
    Some((meta.dev(), meta.ino()))
}

/// Opens the door as the guard before had it, as far as the book and the machines bear it out. A door that was held,
/// and a new one, stay held.
async fn take_over(shared: &Shared, system: &QemuSystem) {
    if !shared.desk.was_open() {
        return;
    }
    // A system that was never started has no book.
    let owner = system.load().await.ok().and_then(|book| book.owner);
    let Some(owner) = owner else { return };
    let view = timeout(STATUS_TIMEOUT * 2, system.observe(owner)).await;
    let run = view
        .ok()
        .and_then(Result::ok)
        .map_or(RunState::Absent, |view| view.run);
    if run.is_present() {
        shared.desk.take_over(owner, run == RunState::Running);
    }
}

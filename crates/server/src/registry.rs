//! The systems this server drives, each in a directory of its own below the state directory.

use crate::proxy::keeper::Proxies;
use crate::{backend, private};
use flipside_engine::{Ledger, Stamped, System, SystemOptions};
use flipside_journal::{FileStorage, Journal};
use flipside_model::{
    OperationalState, Problem, ProblemCode, SystemName, SystemSpec, UpgradeState,
};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Mutex, RwLock};
use tracing::{error, info};

/// The definition of a system within its directory.
const DEFINITION: &str = "system.json";

/// The directory of its journal there.
const JOURNAL: &str = "journal";

/// More than any definition has: a hundred disks take some 20 KiB.
const LARGEST_DEFINITION: u64 = 1 << 20;

/// A system, or why it could not be taken up.
enum Slot {
    Open(System),
    Failed(Problem),
}

/// All systems.
pub(crate) struct Registry {
    state_dir: PathBuf,
    version: String,
    systems: RwLock<BTreeMap<SystemName, Slot>>,
    /// Only one system is created or deleted at a time.
    pub(crate) making: Mutex<()>,
    proxies: Proxies,
}

impl Registry {
    pub(crate) fn new(state_dir: PathBuf, version: String) -> Self {
        Self {
            state_dir,
            version,
            systems: RwLock::default(),
            making: Mutex::default(),
            proxies: Proxies::default(),
        }
    }

    pub(crate) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn directory(&self, name: &SystemName) -> PathBuf {
        self.state_dir.join("systems").join(name.as_str())
    }

    /// Takes up every system that is defined; one that fails does not keep the others from it.
    pub(crate) async fn open_all(&self) {
        let Ok(entries) = std::fs::read_dir(self.state_dir.join("systems")) else {
            return;
        };
        for entry in entries.flatten() {
            let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|n| SystemName::new(n).ok())
            else {
                continue;
            };
            if entry.path().join(DEFINITION).symlink_metadata().is_err() {
                continue;
            }
            let slot = match self.open(&name).await {
                Ok(system) => {
                    info!(system = %name, state = %system.status().line(), "taken up");
                    Slot::Open(system)
                }
                Err(mut problem) => {
                    error!(system = %name, %problem, "cannot be taken up");
                    if problem.code == ProblemCode::NotFound {
                        // The system is there; what it lacks is not what was asked for.
                        problem.code = ProblemCode::Failed;
                    }
                    Slot::Failed(problem)
                }
            };
            self.systems.write().await.insert(name, slot);
        }
    }

    async fn open(&self, name: &SystemName) -> Result<System, Problem> {
        let directory = self.directory(name);
        let spec = read_definition(&directory.join(DEFINITION), name)?;
        let ports = backend::open(&spec, &self.state_dir)?;
        let (journal, opened) = open_journal(&directory.join(JOURNAL))?;
        let fatal = Arc::new(|why: &str| {
            // What the disk holds is unknown now; a fresh start reads what it really holds (design 3.11).
            error!(why, "the journal failed: the server ends");
            std::process::exit(70);
        });
        let ledger = Ledger::open(journal, opened, ports.clock.clone(), fatal)?;
        System::open(
            spec,
            ports,
            ledger,
            SystemOptions {
                version: self.version.clone(),
                crash: crash_hook(),
            },
        )
        .await
    }

    /// Adds a system whose directory is complete.
    pub(crate) async fn adopt(&self, spec: &SystemSpec) -> Result<System, Problem> {
        let directory = self.directory(&spec.name);
        // The definition comes last: a system that is defined has had its journal from the beginning.
        create_journal(&directory.join(JOURNAL))?;
        write_definition(&directory.join(DEFINITION), spec)?;
        let system = self.open(&spec.name).await?;
        self.systems
            .write()
            .await
            .insert(spec.name.clone(), Slot::Open(system.clone()));
        Ok(system)
    }

    pub(crate) async fn get(&self, name: &str) -> Result<System, Problem> {
        let systems = self.systems.read().await;
        let known: Vec<String> = systems.keys().map(|n| format!("`{n}`")).collect();
        let found = SystemName::new(name).ok().and_then(|n| systems.get(&n));
        match found {
            Some(Slot::Open(system)) => Ok(system.clone()),
            Some(Slot::Failed(problem)) => Err(problem.clone()),
            None => {
                let advice = if known.is_empty() {
                    "there is none yet: `flipside system create NAME --system-disk IMAGE`"
                        .to_owned()
                } else {
                    format!("known systems: {}", known.join(", "))
                };
                let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                Err(Problem::new(
                    ProblemCode::NotFound,
                    format!("there is no system `{shown}`"),
                )
                .about(shown)
                .advise(advice))
            }
        }
    }

    pub(crate) async fn contains(&self, name: &SystemName) -> bool {
        self.systems.read().await.contains_key(name)
    }

    pub(crate) async fn list(&self) -> Vec<System> {
        self.systems
            .read()
            .await
            .values()
            .filter_map(|slot| match slot {
                Slot::Open(system) => Some(system.clone()),
                Slot::Failed(_) => None,
            })
            .collect()
    }

    /// Forgets a system and removes its legs; refused while it runs or a session is open.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Problem> {
        let _one = self.making.lock().await;
        let system = self.get(name).await?;
        let status = system.fresh_status().await;
        let idle = status.upgrade_state == UpgradeState::Idle
            && status.operational_state != OperationalState::Busy;
        if status.running || !idle {
            return Err(Problem::new(
                ProblemCode::Refused,
                format!(
                    "system `{name}` is in use: {}",
                    if status.running {
                        "it runs"
                    } else {
                        "a session is open"
                    }
                ),
            )
            .advise(format!("`flipside system stop {name}` first")));
        }
        system.close();
        let spec = system.spec().clone();
        self.systems.write().await.remove(&spec.name);
        crate::create::remove_files(&spec, &self.directory(&spec.name))
    }

    pub(crate) async fn close(&self) {
        for system in self.list().await {
            system.close();
        }
    }
}

fn read_definition(path: &Path, name: &SystemName) -> Result<SystemSpec, Problem> {
    let bad = |why: String| {
        Problem::new(
            ProblemCode::Mismatch,
            format!("the definition `{}` cannot be used: {why}", path.display()),
        )
        .about(path.display().to_string())
        .advise("restore it from a backup; machines that run are not touched")
    };
    let text = private::read(path, LARGEST_DEFINITION).map_err(|e| bad(e.to_string()))?;
    let version: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let found = version
        .get("version")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    if found > u64::from(SystemSpec::VERSION) {
        return Err(bad(format!(
            "it was written by a newer flipside (version {found})"
        )));
    }
    let spec: SystemSpec = serde_json::from_value(version).map_err(|e| bad(e.to_string()))?;
    if spec.name != *name {
        return Err(bad(format!("it defines `{}`", spec.name)));
    }
    Ok(spec)
}

fn write_definition(path: &Path, spec: &SystemSpec) -> Result<(), Problem> {
    let failed = |e: std::io::Error| {
        Problem::new(
            ProblemCode::Failed,
            format!("cannot write `{}`", path.display()),
        )
        .because(&e)
    };
    let text = serde_json::to_string_pretty(spec).map_err(|e| {
        Problem::new(ProblemCode::Internal, "a definition cannot be written").because(&e)
    })?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text + "\n").map_err(failed)?;
    std::fs::File::open(&temporary)
        .and_then(|f| f.sync_all())
        .map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(path);
    std::fs::File::open(directory)
        .and_then(|f| f.sync_all())
        .map_err(failed)
}

type OpenedJournal = (Journal<Stamped>, flipside_journal::Opened<Stamped>);

fn open_journal(directory: &Path) -> Result<OpenedJournal, Problem> {
    let failed = |error: &dyn std::error::Error| {
        Problem::new(
            ProblemCode::Failed,
            format!("the journal in `{}` cannot be used", directory.display()),
        )
        .because(error)
        .about(directory.display().to_string())
        .advise("it was left as it is, and production is not touched; restore it or ask for help")
    };
    // One that is missing is never replaced by an empty one: that would forget a session (fault 14).
    let storage = FileStorage::open(directory).map_err(|e| failed(&e))?;
    Journal::open(storage).map_err(|e| failed(&e))
}

/// Makes the journal of a new system.
fn create_journal(directory: &Path) -> Result<(), Problem> {
    let failed = |error: &dyn std::error::Error| {
        let text = format!("cannot create the journal in `{}`", directory.display());
        Problem::new(ProblemCode::Failed, text).because(error)
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| failed(&e))?;
    let storage = FileStorage::open(directory).map_err(|e| failed(&e))?;
    drop(Journal::<Stamped>::create(storage).map_err(|e| failed(&e))?);
    // The directory's own name is durable when its parent is synced, with the definition.
    Ok(())
}

/// In debug builds the server dies like `kill -9` at the crash point that `FLIPSIDE_CRASH_AT` names, such as
/// `merge.mount:acted`. A release build has no such thing.
fn crash_hook() -> flipside_engine::CrashHook {
    if !cfg!(debug_assertions) {
        return None;
    }
    let wanted = std::env::var("FLIPSIDE_CRASH_AT").ok()?;
    Some(Arc::new(move |point: &str| {
        if point == wanted {
            let ourselves = rustix::process::getpid();
            // Nothing is left to do if even this fails.
            let _ = rustix::process::kill_process(ourselves, rustix::process::Signal::KILL);
        }
    }))
}

//! One system on QEMU: what its ports share.

use crate::accel;
use crate::conn::{Conn, Voice};
use crate::console::Claims;
use crate::error;
use crate::fork::ForkMemory;
use crate::layout::Accelerator;
use crate::paths::{MachinePaths, SystemPaths};
use crate::process::{Identity, Launch, running_machines};
use crate::resync::ResyncMemory;
use crate::signs::{self, Ears};
use flipside_model::{DiskName, DiskSpec, MachineId, SystemSpec};
use flipside_platform::{
    DiskPort, HostPort, LegPort, MachinePort, PortError, PortResult, SidePort,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What may differ from the ordinary when a system is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The QEMU to start.
    pub program: PathBuf,
    /// Which QMP socket of the machines is ours.
    pub voice: Voice,
    /// The accelerator to use, without probing for KVM.
    pub accelerator: Option<Accelerator>,
    /// For tests: by `DISK/LEG`, the options of a `blkdebug` or `throttle` node that is put between the file and
    /// the raw node of that leg wherever it is opened.
    pub test_chain: BTreeMap<String, Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: PathBuf::from("qemu-system-x86_64"),
            voice: Voice::Server,
            accelerator: None,
            test_chain: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Reads what the environment overrides: `FLIPSIDE_QEMU` and `FLIPSIDE_ACCEL`, and in debug builds
    /// `FLIPSIDE_TEST_CHAIN`, the JSON of [`Options::test_chain`].
    pub fn from_environment() -> PortResult<Self> {
        let mut options = Self::default();
        if let Some(program) = std::env::var_os("FLIPSIDE_QEMU") {
            options.program = program.into();
        }
        options.accelerator = accel::from_environment()?;
        if cfg!(debug_assertions)
            && let Ok(chain) = std::env::var("FLIPSIDE_TEST_CHAIN")
        {
            options.test_chain = serde_json::from_str(&chain).map_err(|e| {
                PortError::failed("FLIPSIDE_TEST_CHAIN is not a JSON object of nodes").because(&e)
            })?;
        }
        Ok(options)
    }
}

impl Options {
    pub(crate) fn voice_socket(&self, paths: &MachinePaths) -> PathBuf {
        self.voice.socket(paths)
    }
}

/// Ports of a machine process that others of this crate, and the front door, connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The guest agent's socket.
    pub agent: PathBuf,
    /// The shell's socket.
    pub shell: PathBuf,
    /// The screen's socket.
    pub vnc: PathBuf,
    /// The guard's QMP socket.
    pub guard: PathBuf,
    /// What the serial console printed.
    pub serial: PathBuf,
    /// Host port on 127.0.0.1 by published guest port.
    pub forwards: BTreeMap<u16, u16>,
    /// Host port on 127.0.0.1 that leads to the guest's SSH on the private card.
    pub ssh: u16,
    /// What could not be arranged as wished when the machine was started.
    pub warnings: Vec<String>,
}

/// The connection to one machine. Each has its own lock, so that one that hangs holds up nobody else.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Conn>>>>;

pub(crate) struct Inner {
    pub(crate) spec: SystemSpec,
    pub(crate) paths: SystemPaths,
    pub(crate) options: Options,
    conns: Mutex<HashMap<MachineId, Slot>>,
    forks: Mutex<HashMap<MachineId, ForkMemory>>,
    resyncs: Mutex<HashMap<(MachineId, DiskName), ResyncMemory>>,
    pub(crate) book: Mutex<()>,
    pub(crate) ears: Ears,
    pub(crate) consoles: Claims,
    /// How far the output of each running action of the host was told.
    actions: Mutex<HashMap<u64, (u64, u64)>>,
}

/// One system on QEMU. It is its own machine, disk, leg and host port; clones are the same system.
///
/// Dropping it ends nothing: machines live on and are adopted by the next one that is opened.
#[derive(Clone)]
pub struct QemuSystem {
    pub(crate) inner: Arc<Inner>,
}

/// Opens a system as the server does. Starts nothing and finds machines that run already.
pub fn open_system(spec: SystemSpec, state_dir: &Path) -> PortResult<QemuSystem> {
    QemuSystem::open(spec, state_dir, Options::from_environment()?)
}

impl QemuSystem {
    /// Opens a system with options.
    pub fn open(spec: SystemSpec, state_dir: &Path, options: Options) -> PortResult<Self> {
        if spec.layout == 0 || spec.layout > SystemSpec::LAYOUT {
            return Err(error::mismatch(format!(
                "system {} has machine layout {}, this flipside builds layouts up to {}",
                spec.name,
                spec.layout,
                SystemSpec::LAYOUT
            ))
            .advise("Use the version of flipside that made the system, or a later one"));
        }
        let paths = SystemPaths::new(state_dir, &spec.name)?;
        let inner = Inner {
            spec,
            paths,
            options,
            conns: Mutex::default(),
            forks: Mutex::default(),
            resyncs: Mutex::default(),
            actions: Mutex::default(),
            book: Mutex::default(),
            ears: Ears::default(),
            consoles: Claims::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The definition it was opened with.
    pub fn spec(&self) -> &SystemSpec {
        &self.inner.spec
    }

    /// Its directories.
    pub fn paths(&self) -> &SystemPaths {
        &self.inner.paths
    }

    /// As a machine port.
    pub fn machine(&self) -> Arc<dyn MachinePort> {
        Arc::new(self.clone())
    }

    /// As a disk port.
    pub fn disk(&self) -> Arc<dyn DiskPort> {
        Arc::new(self.clone())
    }

    /// As a leg port.
    pub fn legs(&self) -> Arc<dyn LegPort> {
        Arc::new(self.clone())
    }

    /// As a host port.
    pub fn host(&self) -> Arc<dyn HostPort> {
        Arc::new(self.clone())
    }

    /// As a side port.
    pub fn side(&self) -> Arc<dyn SidePort> {
        Arc::new(self.clone())
    }

    /// Says where a running machine is reached; none when there is no such process.
    pub fn reach(&self, id: MachineId) -> PortResult<Option<Reach>> {
        let Some((launch, _)) = self.find(id)? else {
            return Ok(None);
        };
        let paths = self.files(id);
        Ok(Some(Reach {
            agent: paths.agent(),
            shell: paths.shell(),
            vnc: paths.vnc(),
            guard: paths.guard(),
            serial: paths.serial(),
            forwards: launch.forwards,
            ssh: launch.ssh,
            warnings: launch.warnings,
        }))
    }

    pub(crate) fn files(&self, id: MachineId) -> MachinePaths {
        self.inner.paths.machine(id)
    }

    pub(crate) fn disk_spec(&self, disk: &DiskName) -> PortResult<&DiskSpec> {
        let found = self.inner.spec.disk(disk);
        found.ok_or_else(|| {
            PortError::absent(format!(
                "system {} has no disk {disk}",
                self.inner.spec.name
            ))
            .about(disk.to_string())
        })
    }

    /// Finds a machine's living process.
    pub(crate) fn find(&self, id: MachineId) -> PortResult<Option<(Launch, Identity)>> {
        let Some(launch) = Launch::read(&self.files(id))? else {
            return Ok(None);
        };
        if launch.uuid != self.inner.spec.uuid || launch.machine != id {
            return Err(error::mismatch(format!(
                "`{}` belongs to another machine",
                self.files(id).launch().display()
            )));
        }
        Ok(launch.find().map(|identity| (launch, identity)))
    }

    /// Lists the machines whose process lives, also those whose directory is gone.
    pub(crate) fn running(&self) -> PortResult<Vec<MachineId>> {
        let spec = &self.inner.spec;
        let mut found: Vec<MachineId> = running_machines(spec.name.as_str(), spec.uuid)
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Returns the connection to a machine, a new one if there is none.
    pub(crate) async fn conn(&self, id: MachineId) -> PortResult<Arc<Conn>> {
        let slot = Arc::clone(self.conns().entry(id).or_default());
        let mut slot = slot.lock().await;
        if let Some(conn) = slot.take()
            && !conn.is_closed()
            && conn.identity.is_alive()
        {
            return Ok(Arc::clone(slot.insert(conn)));
        }
        let Some((launch, identity)) = self.find(id)? else {
            return Err(
                PortError::absent(format!("machine {id} does not run")).about(id.to_string())
            );
        };
        let voice = self.inner.options.voice;
        let conn = Arc::new(Conn::open(&self.files(id), launch, identity, voice).await?);
        signs::listen(&conn, &self.inner.ears);
        Ok(Arc::clone(slot.insert(conn)))
    }

    /// Closes the connections to all machines, so that another process may speak with them: a socket of QEMU
    /// serves one client at a time. The next call connects anew.
    pub async fn disconnect(&self) {
        let slots: Vec<Slot> = self.conns().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            slot.lock().await.take();
        }
    }

    /// Forgets what is kept about a machine.
    pub(crate) fn forget(&self, id: MachineId) {
        self.conns().remove(&id);
        self.forks().remove(&id);
        self.resyncs().retain(|(machine, _), _| *machine != id);
    }

    fn conns(&self) -> MutexGuard<'_, HashMap<MachineId, Slot>> {
        self.inner
            .conns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forks(&self) -> MutexGuard<'_, HashMap<MachineId, ForkMemory>> {
        self.inner
            .forks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how far both streams of an action were told.
    pub(crate) fn told(&self, handle: u64) -> (u64, u64) {
        let actions = self.inner.actions.lock();
        let actions = actions.unwrap_or_else(PoisonError::into_inner);
        actions.get(&handle).copied().unwrap_or_default()
    }

    /// Remembers how far they were told, or forgets an action that has ended.
    pub(crate) fn tell(&self, handle: u64, told: Option<(u64, u64)>) {
        let actions = self.inner.actions.lock();
        let mut actions = actions.unwrap_or_else(PoisonError::into_inner);
        match told {
            Some(told) => drop(actions.insert(handle, told)),
            None => drop(actions.remove(&handle)),
        }
    }

    pub(crate) fn resyncs(&self) -> MutexGuard<'_, HashMap<(MachineId, DiskName), ResyncMemory>> {
        self.inner
            .resyncs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

//! The machine port: processes that run a guest, and the live fork of one into another.

use crate::PortResult;
use async_trait::async_trait;
use flipside_model::{DiskName, ForkFigures, Leg, MachineId};
use std::collections::BTreeMap;

/// What a disk of a machine is backed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A quorum over these legs, in reading order.
    Legs(Vec<Leg>),
    /// A throw-away overlay; the frozen leg below it is opened read-only.
    Overlay(Leg),
    /// The placeholder that fails every request: a swap was interrupted and must be finished.
    Placeholder,
}

/// One plugged disk as the machine itself reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    /// What backs it.
    pub source: DiskSource,
    /// Bytes marked in the change bitmap on its first leg, none when there is no bitmap.
    pub dirty_bytes: Option<u64>,
}

/// What a machine process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// There is no such process.
    Absent,
    /// It waits for an incoming fork.
    Incoming,
    /// The guest runs.
    Running,
    /// The guest is paused and can be continued.
    Paused,
    /// The guest is paused at the end of a fork's copying, its disks still active.
    PreSwitchover,
    /// The guest is paused after a completed fork, its disks given up; continuing takes them back.
    PostMigrate,
    /// The guest is paused because a disk failed.
    IoError,
    /// The guest shut down; the process is kept.
    Shutdown,
    /// The guest's kernel panicked.
    Panicked,
    /// The process is there but does not answer in time.
    Unresponsive,
}

impl RunState {
    /// Says whether there is a process.
    pub fn is_present(self) -> bool {
        self != RunState::Absent
    }
}

/// A machine as observed; read from the process itself, never remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// What it is doing.
    pub run: RunState,
    /// Its plugged disks.
    pub disks: BTreeMap<DiskName, DiskView>,
    /// Whether the production card's link is up.
    pub link_up: bool,
    /// `kvm` or `tcg`.
    pub accelerator: Option<String>,
}

impl MachineView {
    /// Makes the view of a process that does not exist.
    pub fn absent() -> Self {
        Self {
            run: RunState::Absent,
            disks: BTreeMap::new(),
            link_up: false,
            accelerator: None,
        }
    }
}

/// How a machine begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartMode {
    /// Power on; with the machine whose firmware variables are the current ones, if there was one before.
    Boot {
        /// The machine to take the firmware variables from.
        after: Option<MachineId>,
    },
    /// Wait for the fork of another machine.
    Incoming {
        /// The machine that will be forked.
        from: MachineId,
    },
}

/// Everything needed to start a machine process. Its link is always down at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPlan {
    /// How it begins.
    pub mode: StartMode,
    /// The most that each throw-away overlay may hold, in bytes; none when it needs no bound. A full one fails the guest's
    /// writes with an error, and nothing else.
    pub copy_limit: Option<u64>,
    /// Its disks; one that is not listed is not plugged.
    pub disks: BTreeMap<DiskName, DiskSource>,
}

/// How far a fork has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkView {
    /// True when the source is paused and the switch may be made.
    pub ready: bool,
    /// Memory copied so far, in bytes.
    pub done_bytes: u64,
    /// Memory to copy in all, in bytes, as known now.
    pub total_bytes: u64,
    /// Bytes per second.
    pub rate: u64,
}

/// Runs, observes, forks and ends the machine processes of one system.
#[async_trait]
pub trait MachinePort: Send + Sync {
    /// Observes a machine; read-only and total.
    async fn observe(&self, id: MachineId) -> PortResult<MachineView>;
    /// Lists the processes that exist for this system, whoever started them.
    async fn list(&self) -> PortResult<Vec<MachineId>>;
    /// Starts a process as planned. A booting guest runs when this returns, an incoming one waits.
    async fn start(&self, id: MachineId, plan: &StartPlan) -> PortResult<()>;
    /// Pauses the guest. In PreSwitchover it is paused already.
    async fn pause(&self, id: MachineId) -> PortResult<()>;
    /// Continues a paused guest; takes the disks back after a completed fork.
    async fn resume(&self, id: MachineId) -> PortResult<()>;
    /// Ends the process and removes what it left. Ending an absent one is done.
    async fn end(&self, id: MachineId) -> PortResult<()>;
    /// Presses the power button; the guest shuts down when it likes.
    async fn power_down(&self, id: MachineId) -> PortResult<()>;
    /// Restarts the guest without ending the process, as the reset button does.
    async fn reset(&self, id: MachineId) -> PortResult<()>;
    /// Raises or lowers the link of the production card.
    async fn set_link(&self, id: MachineId, up: bool) -> PortResult<()>;

    /// Begins copying the memory of a running machine into an incoming one.
    async fn fork_begin(&self, from: MachineId, to: MachineId) -> PortResult<()>;
    /// Says how far the copying is.
    async fn fork_poll(&self, from: MachineId) -> PortResult<ForkView>;
    /// Makes the switch while the source is paused: gives every listed disk of the source only the listed leg,
    /// with a change bitmap, all in one instant; completes the fork; continues the source. The other machine is
    /// left paused, link down, with a change bitmap on each of its own legs.
    async fn fork_switch(
        &self,
        from: MachineId,
        to: MachineId,
        keep: &BTreeMap<DiskName, Leg>,
    ) -> PortResult<ForkFigures>;
    /// Gives a begun fork up: the source runs on as before. Safe in every state of the fork.
    async fn fork_cancel(&self, from: MachineId) -> PortResult<()>;
}

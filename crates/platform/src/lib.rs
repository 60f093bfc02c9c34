//! The ports of a platform: everything the engine may ask of the world, and nothing else.
//!
//! A backend implements them (`backends/qemu` with real processes, `backends/sim` in memory); the engine
//! never assumes that both sides are on one host. Rules every implementation keeps, and the conformance
//! suite checks:
//!
//! * **Observation is read-only and total.** `MachinePort::observe` answers for any machine id, also for one
//!   that never existed (`RunState::Absent`).
//! * **Acting twice is acting once.** Every act first looks whether it is already so.
//! * **A time-out means unknown.** [`PortError::timed_out`] says so; the caller observes again.
//! * **Whoever changes the machine holds the lease** ([`LegPort::lease`]), so that the guard and the server
//!   never act at once.
#![forbid(unsafe_code)]

mod action;
mod book;
mod disk;
mod error;
pub mod files;
pub mod guard;
mod guest;
mod host;
mod machine;
mod network;
mod side;

pub mod conformance;

pub use action::{ActionRequest, LogRequest};
pub use book::{Lease, LegPort};
pub use disk::{DiskPort, ResyncPhase, ResyncStart, ResyncView, SCRATCH, Verified, VerifyProgress};
pub use error::{PortError, PortErrorKind, PortResult};
pub use flipside_model::{FileKind, FileView};
pub use guest::{
    CarryPlan, CrashFile, ExecOutput, ExecRequest, GuestInfo, GuestPort, Held, HoldSet,
    ListedService, Notice, OpenFile, ServiceView, ShellStream, UnitStart,
};
pub use host::{Clock, HostFacts, HostPort, LegChange};
pub use machine::{
    DiskSource, DiskView, ForkView, MachinePort, MachineView, RunState, StartMode, StartPlan,
};
pub use network::{DrainReport, NetworkPort, NetworkView, Note};
pub use side::{Medium, SidePort, Signs};

use std::sync::Arc;

/// All ports of one system.
#[derive(Clone)]
pub struct Ports {
    /// Machine processes.
    pub machine: Arc<dyn MachinePort>,
    /// Block graph of the machines.
    pub disk: Arc<dyn DiskPort>,
    /// The operating system in a machine.
    pub guest: Arc<dyn GuestPort>,
    /// The network and its front door.
    pub network: Arc<dyn NetworkPort>,
    /// The leg book and the lease.
    pub legs: Arc<dyn LegPort>,
    /// The host.
    pub host: Arc<dyn HostPort>,
    /// Consoles, CD drives, signs and dump files of the machines.
    pub side: Arc<dyn SidePort>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
}

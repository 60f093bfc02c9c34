//! The host port: what readiness asks of the host, and time for people.

use crate::{ActionRequest, ExecOutput, FileView, PortResult};
use async_trait::async_trait;
use flipside_model::{DiskName, Leg};

/// What the host offers, as probed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Memory available without swapping, in MiB.
    pub memory_available_mib: u64,
    /// Free space where overlays and saved state go, in bytes.
    pub state_free_bytes: u64,
    /// Version of the hypervisor, such as `QEMU 7.2.22`.
    pub hypervisor: String,
    /// Version that the machine which runs now was started with; none when none runs, or when it does not say.
    pub running_hypervisor: Option<String>,
    /// Why this hypervisor must not be used, if so.
    pub hypervisor_bad: Option<String>,
    /// Whether both enclosures lie on one physical device.
    pub one_device: bool,
    /// CPU model of the machine.
    pub cpu_model: String,
    /// Why CPU or devices cannot be forked, if so.
    pub not_forkable: Option<String>,
}

/// A leg that is not what the book means: replaced, shrunk, a link, gone (fault 22).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LegChange {
    /// The disk.
    pub disk: DiskName,
    /// Which leg of it.
    pub leg: Leg,
    /// What is wrong: a sentence that names disk, leg and path.
    pub text: String,
}

/// Answers questions about the host.
#[async_trait]
pub trait HostPort: Send + Sync {
    /// Probes the host; read-only.
    async fn facts(&self) -> PortResult<HostFacts>;
    /// Checks that every leg is the file the book means, without following links (SP-18, fault 22); returns those that
    /// are not. Cheap enough to be asked before every opening.
    async fn check_legs(&self) -> PortResult<Vec<LegChange>>;

    /// Describes files of the host, in the order asked; `flaw` also tells of directories that others could change.
    async fn look_at(&self, paths: &[String]) -> PortResult<Vec<FileView>>;
    /// Starts a custom action on the host: nothing of the server's environment or open files, a session of its own. It
    /// outlives the server.
    async fn action_start(&self, request: &ActionRequest) -> PortResult<()>;
    /// Returns what an action printed since the last call, and its exit status once it ended. To a new life of the server
    /// everything is told from the beginning. `Absent` when it was never started or nothing is known of it.
    async fn action_poll(&self, handle: u64) -> PortResult<ExecOutput>;
    /// Ends an action and every process that it started.
    async fn action_kill(&self, handle: u64) -> PortResult<()>;
}

/// Wall-clock time for people; no decision depends on it.
pub trait Clock: Send + Sync {
    /// Returns milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

//! The guest port: what flipside asks of an operating system. Linux with systemd implements it first; nothing in
//! it assumes that (design section 7, last rows).

use crate::{ActionRequest, FileView, LogRequest, PortError, PortErrorKind, PortResult};
use async_trait::async_trait;
use flipside_model::{
    CarriedFiles, ChangeList, Condition, DiskName, HealthCheck, Inventory, LogCopy, LogSource,
    MachineId, MountPoint, Package, PackageFault, Renewal, SavedStartup, StartupType, Surroundings,
};
use std::time::Duration;

/// Proof that the operating system answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInfo {
    /// Changes with every boot.
    pub boot_id: String,
    /// Version of the agent.
    pub agent: String,
}

/// A service as the guest reports it (SV-20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Unit name.
    pub unit: String,
    /// Whether the guest knows it.
    pub exists: bool,
    /// Whether it runs.
    pub active: bool,
    /// Whether it refuses to be stopped by hand.
    pub refuses_stop: bool,
    /// Its startup type.
    pub startup: StartupType,
    /// Whether a gate holds it.
    pub gated: bool,
    /// Its real name, when it was asked for by another one.
    pub alias_of: Option<String>,
}

/// A service in the list of all (SV-01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedService {
    /// Unit name.
    pub unit: String,
    /// What it says of itself.
    pub description: String,
    /// Whether it runs.
    pub active: bool,
    /// Its startup type.
    pub startup: StartupType,
}

/// A file that a process has open for writing (design 3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The service it belongs to.
    pub unit: String,
    /// Path in the guest.
    pub path: String,
    /// The serial number of the disk it lies on, empty when unknown.
    pub disk: String,
}

/// What a hold keeps from starting on the Upgrade Side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldSet {
    /// Controlled units, in start order.
    pub units: Vec<String>,
    /// Data file systems.
    pub mounts: Vec<MountPoint>,
    /// Patterns of units that act by themselves.
    pub quiesce: Vec<String>,
}

/// What was there before the hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Controlled units, then the sockets, timers and paths that would start one of them again.
    pub units: Vec<SavedStartup>,
    /// Units that act by themselves and were running.
    pub quiesced: Vec<SavedStartup>,
}

/// A unit to start, and whether it must be up for the step to succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStart {
    /// Unit name.
    pub unit: String,
    /// A failure is an error, not a warning.
    pub required: bool,
}

/// What to carry over from one side to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryPlan {
    /// Paths and patterns in the guest.
    pub rules: Vec<String>,
    /// The mark since which changes count: `split`, or that of an earlier run.
    pub since: String,
    /// The mark of this run.
    pub mark: String,
    /// The most that is packed, in bytes.
    pub most: u64,
}

/// A program to run in the guest: an argument vector, never a shell line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additional environment, `NAME=value`.
    pub env: Vec<String>,
    /// How long it may run.
    pub timeout: Option<Duration>,
}

/// What a program printed since the last look, and its exit status once it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// New standard output.
    pub out: Vec<u8>,
    /// New standard error.
    pub err: Vec<u8>,
    /// Exit status: 128 + signal for a killed one.
    pub exit: Option<i32>,
}

/// A file that a crash left in the guest (AB-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashFile {
    /// Path in the guest.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// It holds the memory of the whole guest, not of one program.
    pub memory: bool,
}

/// What is shown in the guest of the Upgrade Side (US-13, US-31, AL-20).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    /// The activity log, rendered.
    pub log: String,
    /// What to do here and what not.
    pub help: String,
}

/// Speaks to the operating system of a machine. Answers are the guest's words: bounded and distrusted.
#[async_trait]
pub trait GuestPort: Send + Sync {
    /// Asks for a sign of life; fails within a second or two when there is none.
    async fn ping(&self, id: MachineId) -> PortResult<GuestInfo>;
    /// Sets the guest's clock to the host's.
    async fn set_clock(&self, id: MachineId) -> PortResult<()>;
    /// Describes services, in the order asked.
    async fn services(&self, id: MachineId, units: &[String]) -> PortResult<Vec<ServiceView>>;
    /// Lists all services that the guest knows, running or not, by name (SV-01). Templates are not services.
    async fn all_services(&self, id: MachineId) -> PortResult<Vec<ListedService>>;
    /// Lists the file systems mounted from these disks, deepest last.
    async fn mounts(&self, id: MachineId, disks: &[DiskName]) -> PortResult<Vec<MountPoint>>;
    /// Describes disks, partitions, volumes, mounts and swap in one look; changes nothing (DK-01, RC-53).
    async fn inventory(&self, id: MachineId) -> PortResult<Inventory>;
    /// Says what readiness asks of the guest's surroundings; read-only.
    async fn surroundings(&self, id: MachineId) -> PortResult<Surroundings>;
    /// Asks the DHCP server of a card of the guest to renew its lease. The address stays, whatever comes of it (RC-53).
    async fn renew_lease(&self, id: MachineId, card: &str) -> PortResult<Renewal>;
    /// Lists installed packages by name.
    async fn packages(&self, id: MachineId) -> PortResult<Vec<Package>>;
    /// Compares the installed packages' files with what was installed: changed, missing (VC-08). It reads everything.
    async fn verify_packages(&self, id: MachineId) -> PortResult<Vec<PackageFault>>;
    /// Says how the operating system is: kernel, failed units, whether a restart is needed (VC-07).
    async fn condition(&self, id: MachineId) -> PortResult<Condition>;
    /// Returns a text that changes with every installation of software; cheap.
    async fn software_stamp(&self, id: MachineId) -> PortResult<String>;
    /// Returns the public host keys of its SSH server, a line each; empty without one.
    async fn host_keys(&self, id: MachineId) -> PortResult<Vec<String>>;
    /// Shows log and help in the guest, read-only, and lets it announce on its console that it goes down.
    async fn publish(&self, id: MachineId, notice: &Notice) -> PortResult<()>;
    /// Lists files that crashes left in the guest within so long.
    async fn crash_files(&self, id: MachineId, within: Duration) -> PortResult<Vec<CrashFile>>;
    /// Reads a piece of a file; shorter than asked at its end.
    async fn read_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        most: usize,
    ) -> PortResult<Vec<u8>>;
    /// Lists files that these services have open for writing, with the disk each lies on; not logs, caches and the like.
    async fn open_files(&self, id: MachineId, units: &[String]) -> PortResult<Vec<OpenFile>>;

    /// Reads what a hold will change, and what would start it again; nothing is changed.
    async fn startup(&self, id: MachineId, set: &HoldSet) -> PortResult<Held>;
    /// Holds: saves nothing itself; disables the units, puts gates before units and data mounts, and makes both
    /// survive restarts of the guest. Doing it twice is doing it once.
    async fn hold(&self, id: MachineId, set: &HoldSet, held: &Held) -> PortResult<()>;
    /// Puts startup types and mount tables back while the gates still hold everything (before the outage).
    async fn prepare_release(&self, id: MachineId, set: &HoldSet, held: &Held) -> PortResult<()>;
    /// Marks the moment from which changes count (true), or takes away the mark and what was made for carrying files over.
    async fn mark_split(&self, id: MachineId, set: bool) -> PortResult<()>;
    /// Lists at most so many of the files that changed since the mark, by path, on all disks but these (the data disks);
    /// what lives only while the system runs is left out.
    async fn changes(
        &self,
        id: MachineId,
        data: &[DiskName],
        most: usize,
    ) -> PortResult<ChangeList>;
    /// Packs the files that changed since a mark onto the scratch disk, and the names of all.
    async fn pack(&self, id: MachineId, plan: &CarryPlan) -> PortResult<CarriedFiles>;
    /// Puts what was packed in its place, with owner, mode, times and attributes, and removes what was removed there. What
    /// has changed here since the split is left, and named as a conflict. Twice is once.
    async fn unpack(&self, id: MachineId, rules: &[String]) -> PortResult<CarriedFiles>;
    /// Lifts all gates at once; needs no reload.
    async fn lift(&self, id: MachineId) -> PortResult<()>;
    /// Lowers the gates again (a failed merge, an abort).
    async fn lower(&self, id: MachineId) -> PortResult<()>;
    /// Says whether the gates are lifted.
    async fn lifted(&self, id: MachineId) -> PortResult<bool>;
    /// Removes everything the hold left in the guest.
    async fn cleanup(&self, id: MachineId) -> PortResult<()>;

    /// Stops units in reverse order, what would start them again first, and waits until they are down.
    async fn stop(&self, id: MachineId, units: &[String], deadline: Duration) -> PortResult<()>;
    /// Starts these units in order, nothing else, and waits until they are up.
    async fn start(&self, id: MachineId, units: &[UnitStart], deadline: Duration)
    -> PortResult<()>;
    /// Closes everything on the data disks top down (file systems, swap, LVM, LUKS, md) and proves that nothing
    /// uses them any more. Never lazily. Names the user of what is busy.
    async fn close_data(&self, id: MachineId, disks: &[String]) -> PortResult<()>;
    /// Mounts the data file systems.
    async fn open_data(&self, id: MachineId, mounts: &[MountPoint]) -> PortResult<()>;
    /// Says whether a disk with this serial number is visible in the guest.
    async fn has_disk(&self, id: MachineId, disk: &str) -> PortResult<bool>;
    /// Writes everything cached to the disks.
    async fn sync(&self, id: MachineId) -> PortResult<()>;
    /// Runs the health checks once.
    async fn healthy(&self, id: MachineId, checks: &[HealthCheck]) -> PortResult<()>;
    /// Asks the guest to restart, or to shut down.
    async fn restart(&self, id: MachineId) -> PortResult<()>;
    /// Asks the guest to shut down.
    async fn shut_down(&self, id: MachineId) -> PortResult<()>;

    /// Starts a program; returns a handle.
    async fn exec_start(&self, id: MachineId, request: &ExecRequest) -> PortResult<u64>;
    /// Returns what it printed since the last call, and its exit status.
    async fn exec_poll(&self, id: MachineId, handle: u64) -> PortResult<ExecOutput>;
    /// Ends it.
    async fn exec_kill(&self, id: MachineId, handle: u64) -> PortResult<()>;

    /// Describes files and directories, in the order asked.
    async fn look_at(&self, id: MachineId, paths: &[String]) -> PortResult<Vec<FileView>>;
    /// Starts a custom action; [`GuestPort::exec_poll`] follows it by the handle of the request, also in a later life of
    /// the server. A program that was never started, or of which nothing is known, is `Absent` there.
    async fn action_start(&self, id: MachineId, request: &ActionRequest) -> PortResult<()>;
    /// Ends a custom action and every process that it started, however they were started: first by asking, after some
    /// seconds by force. One that has ended is ended.
    async fn action_kill(&self, id: MachineId, handle: u64) -> PortResult<()>;
    /// Lists the logs that the guest has (LB-01).
    async fn log_sources(&self, id: MachineId) -> PortResult<Vec<LogSource>>;
    /// Remembers this moment in the guest: what is logged after it has to be saved (LB-02).
    async fn mark_logs(&self, id: MachineId) -> PortResult<()>;
    /// Copies what the selected logs got since the mark, everything when there is no mark; one answer for each log, in
    /// the order asked. Copying twice leaves the later copy. Fails only when nothing could be tried at all.
    async fn back_up_logs(&self, id: MachineId, request: &LogRequest) -> PortResult<Vec<LogCopy>>;

    /// Writes a file: opens (truncating) at offset 0, appends otherwise.
    async fn write_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> PortResult<()>;
    /// Opens an interactive shell on a terminal of this size (rows, columns); its prompt begins with the label (US-12).
    async fn shell(
        &self,
        id: MachineId,
        size: (u16, u16),
        label: &str,
    ) -> PortResult<Box<dyn ShellStream>> {
        let _ = (id, size, label);
        Err(PortError::new(
            PortErrorKind::Unsupported,
            "this platform has no interactive shell",
        ))
    }
}

/// Both directions of an interactive shell.
pub trait ShellStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> ShellStream for T {}

//! The guest port for Linux with systemd, over the QEMU guest agent.
//!
//! What runs in the guest is either a program with its arguments or one of the fixed scripts in `scripts/`, which
//! take values as positional parameters only. Scripts exist because a round trip and every fork cost tens of
//! milliseconds under emulation. Whatever comes back is bounded, read as far as it makes sense, and believed only
//! where nothing depends on it but the guest itself.
//!
//! A **gate** is a drop-in that makes a unit's start depend on one flag file, [`hold`](GuestPort::hold) puts it up:
//! controlled services and data mounts fail to start (`Assert`), what acts by itself is silently skipped
//! (`Condition`). The flag is absent while the gates hold, so they survive every restart of the guest; creating it
//! lifts all of them at once.

mod actions;
mod blocks;
mod carry;
mod data;
mod escape;
mod exec;
mod files;
mod fstab;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gates;
mod inventory;
mod limits;
mod link;
mod logs;
mod packages;
mod services;
mod shell;
mod show;
mod side;
mod surroundings;
pub mod windows;

use async_trait::async_trait;
use flipside_model::{
    CarriedFiles, ChangeList, Condition, DiskName, FileView, HealthCheck, Inventory, LogCopy,
    LogSource, MachineId, MountPoint, Package, PackageFault, Renewal, Surroundings,
};
use flipside_platform::{
    ActionRequest, CarryPlan, CrashFile, ExecOutput, ExecRequest, GuestInfo, GuestPort, Held,
    HoldSet, ListedService, LogRequest, Notice, OpenFile, PortError, PortErrorKind, PortResult,
    ServiceView, ShellStream, UnitStart,
};
use flipside_qmp::Exec;
use link::{Link, Script};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// A script that comes with flipside, behind the common beginning.
macro_rules! script {
    ($what:literal $(, $file:literal)+) => {
        $crate::guest::link::Script {
            what: $what,
            text: concat!(
                include_str!("scripts/common.sh")
                $(, include_str!(concat!("scripts/", $file, ".sh")))+
            ),
        }
    };
}
use script;

static REBOOT: Script = script!("restart the guest", "power");

/// Speaks to Linux guests with systemd.
pub struct LinuxGuest {
    link: Link,
    shells: Option<link::Resolve>,
    programs: Mutex<HashMap<(MachineId, u64), exec::Program>>,
    uploads: Mutex<HashMap<(MachineId, String), exec::Upload>>,
    agents: std::sync::Mutex<HashMap<MachineId, String>>,
}

impl LinuxGuest {
    /// Makes the port. `resolve` says where the agent's socket of a machine is; each socket serves one client, so
    /// one connection per machine is kept and made again when it broke.
    pub fn new(
        resolve: impl Fn(MachineId) -> Option<PathBuf> + Send + Sync + 'static,
    ) -> LinuxGuest {
        LinuxGuest {
            link: Link::new(Box::new(resolve)),
            shells: None,
            programs: Mutex::default(),
            uploads: Mutex::default(),
            agents: std::sync::Mutex::default(),
        }
    }

    /// Says where the shell port's socket of a machine is.
    #[must_use]
    pub fn with_shells(
        mut self,
        resolve: impl Fn(MachineId) -> Option<PathBuf> + Send + Sync + 'static,
    ) -> LinuxGuest {
        self.shells = Some(Box::new(resolve));
        self
    }

    /// Ends the connection to a machine's agent, so that somebody else can use it.
    pub fn disconnect(&self, id: MachineId) {
        self.link.forget(id);
    }

    /// The agent's version, asked once per machine.
    async fn version(
        &self,
        id: MachineId,
        client: &flipside_qmp::AgentClient,
    ) -> PortResult<String> {
        let known = self.agents.lock().ok().and_then(|a| a.get(&id).cloned());
        if let Some(version) = known {
            return Ok(version);
        }
        let info = client.info().await;
        let info = info.map_err(|e| self.link.error(id, "ask for the agent's version", &e))?;
        let version = escape::words(info.version.as_bytes());
        if let Ok(mut agents) = self.agents.lock() {
            agents.insert(id, version.clone());
        }
        Ok(version)
    }

    async fn look(&self, id: MachineId) -> PortResult<GuestInfo> {
        let client = self.link.reach(id, limits::PING).await?;
        let client = client.with_call_timeout(limits::PING);
        let boot_id = client
            .read_file("/proc/sys/kernel/random/boot_id", 256)
            .await
            .map_err(|e| self.link.error(id, "read the boot id", &e))?;
        Ok(GuestInfo {
            boot_id: escape::words(&boot_id),
            agent: self.version(id, &client).await?,
        })
    }

    /// Says how far the guest's clock is behind or before the host's.
    async fn clock_error(&self, id: MachineId) -> PortResult<Duration> {
        let exec = Exec::new("date", ["+%s"]);
        let status = self
            .link
            .run(id, "read the clock", &exec, limits::LOOK)
            .await?;
        let guest: u64 = String::from_utf8_lossy(&status.out)
            .trim()
            .parse()
            .map_err(|_| link::refused(id, "read the clock", &status))?;
        Ok(Duration::from_secs(guest.abs_diff(now().as_secs())))
    }

    async fn power(&self, id: MachineId, verb: &str) -> PortResult<()> {
        let verb = [verb.to_owned()];
        match self.link.attempt(id, &REBOOT, &verb, limits::POWER).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(link::refused(id, REBOOT.what, &status)),
            // It may be gone before it says that it was asked.
            Err(error) if error.kind == PortErrorKind::TimedOut => {
                tracing::debug!(%id, %error, "no word of the guest's going down");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The host's time.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[async_trait]
impl GuestPort for LinuxGuest {
    async fn ping(&self, id: MachineId) -> PortResult<GuestInfo> {
        tokio::time::timeout(limits::PING, self.look(id))
            .await
            .unwrap_or_else(|_| {
                Err(
                    PortError::timed_out(format!("the guest of {id} does not answer"))
                        .about(id.to_string())
                        .advise("check that it has started and that qemu-guest-agent runs in it"),
                )
            })
    }

    async fn set_clock(&self, id: MachineId) -> PortResult<()> {
        // Not `guest-set-time`: it also sets the hardware clock through `hwclock`, which waited 10 s for a tick that a
        // forked machine does not give, with the agent deaf and the users waiting. The hardware clock is QEMU's own
        // and follows the host anyway.
        let time = now();
        let at = format!("@{}.{:09}", time.as_secs(), time.subsec_nanos());
        let exec = Exec::new("date", ["-u", "-s", &at]);
        self.link
            .run(id, "set the clock", &exec, limits::LOOK)
            .await?;
        let off = self.clock_error(id).await?;
        if off > limits::CLOCK_TOLERANCE {
            return Err(PortError::failed(format!(
                "the clock of the guest of {id} is off by {} s after it was set",
                off.as_secs()
            ))
            .about(id.to_string())
            .advise("check the guest's time service"));
        }
        Ok(())
    }

    async fn services(&self, id: MachineId, units: &[String]) -> PortResult<Vec<ServiceView>> {
        self.list_services(id, units).await
    }

    async fn all_services(&self, id: MachineId) -> PortResult<Vec<ListedService>> {
        self.list_all_services(id).await
    }

    async fn mounts(&self, id: MachineId, disks: &[DiskName]) -> PortResult<Vec<MountPoint>> {
        Ok(self.survey(id).await?.mounts_on(disks))
    }

    async fn inventory(&self, id: MachineId) -> PortResult<Inventory> {
        self.take_inventory(id).await
    }

    async fn open_files(&self, id: MachineId, units: &[String]) -> PortResult<Vec<OpenFile>> {
        self.list_open_files(id, units).await
    }

    async fn startup(&self, id: MachineId, set: &HoldSet) -> PortResult<Held> {
        self.read_startup(id, set).await
    }

    async fn hold(&self, id: MachineId, set: &HoldSet, held: &Held) -> PortResult<()> {
        self.put_up_gates(id, set, held).await
    }

    async fn prepare_release(&self, id: MachineId, set: &HoldSet, held: &Held) -> PortResult<()> {
        self.restore_startup(id, set, held).await
    }

    async fn surroundings(&self, id: MachineId) -> PortResult<Surroundings> {
        self.look_around(id).await
    }

    async fn renew_lease(&self, id: MachineId, card: &str) -> PortResult<Renewal> {
        self.renew(id, card).await
    }

    async fn packages(&self, id: MachineId) -> PortResult<Vec<Package>> {
        self.list_packages(id).await
    }

    async fn verify_packages(&self, id: MachineId) -> PortResult<Vec<PackageFault>> {
        self.verify(id).await
    }

    async fn condition(&self, id: MachineId) -> PortResult<Condition> {
        self.read_condition(id).await
    }

    async fn software_stamp(&self, id: MachineId) -> PortResult<String> {
        self.read_stamp(id).await
    }

    async fn host_keys(&self, id: MachineId) -> PortResult<Vec<String>> {
        self.read_host_keys(id).await
    }

    async fn publish(&self, id: MachineId, notice: &Notice) -> PortResult<()> {
        self.show_notice(id, notice).await
    }

    async fn crash_files(&self, id: MachineId, within: Duration) -> PortResult<Vec<CrashFile>> {
        self.list_crash_files(id, within).await
    }

    async fn read_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        most: usize,
    ) -> PortResult<Vec<u8>> {
        self.read_piece(id, path, offset, most).await
    }

    async fn mark_split(&self, id: MachineId, set: bool) -> PortResult<()> {
        self.mark(id, set).await
    }

    async fn changes(
        &self,
        id: MachineId,
        data: &[DiskName],
        most: usize,
    ) -> PortResult<ChangeList> {
        self.list_changes(id, data, most).await
    }

    async fn pack(&self, id: MachineId, plan: &CarryPlan) -> PortResult<CarriedFiles> {
        self.pack_files(id, plan).await
    }

    async fn unpack(&self, id: MachineId, rules: &[String]) -> PortResult<CarriedFiles> {
        self.unpack_files(id, rules).await
    }

    async fn lift(&self, id: MachineId) -> PortResult<()> {
        self.flag(id, "lift", true).await
    }

    async fn lower(&self, id: MachineId) -> PortResult<()> {
        self.flag(id, "lower", false).await
    }

    async fn lifted(&self, id: MachineId) -> PortResult<bool> {
        self.is_lifted(id, "tell").await
    }

    async fn cleanup(&self, id: MachineId) -> PortResult<()> {
        self.remove_gates(id).await
    }

    async fn stop(&self, id: MachineId, units: &[String], deadline: Duration) -> PortResult<()> {
        self.stop_units(id, units, deadline).await
    }

    async fn start(
        &self,
        id: MachineId,
        units: &[UnitStart],
        deadline: Duration,
    ) -> PortResult<()> {
        self.start_units(id, units, deadline).await
    }

    async fn close_data(&self, id: MachineId, disks: &[String]) -> PortResult<()> {
        self.close_disks(id, disks).await
    }

    async fn open_data(&self, id: MachineId, mounts: &[MountPoint]) -> PortResult<()> {
        self.mount_data(id, mounts).await
    }

    async fn has_disk(&self, id: MachineId, disk: &str) -> PortResult<bool> {
        Ok(self.survey(id).await?.disk(disk).is_some())
    }

    async fn sync(&self, id: MachineId) -> PortResult<()> {
        let exec = Exec::new("sync", [] as [&str; 0]);
        let what = "write everything to the disks";
        let status = self.link.run(id, what, &exec, limits::SYNC).await?;
        if status.success() {
            return Ok(());
        }
        Err(link::refused(id, what, &status))
    }

    async fn healthy(&self, id: MachineId, checks: &[HealthCheck]) -> PortResult<()> {
        for check in checks {
            let Some((program, arguments)) = check.command.split_first() else {
                continue;
            };
            let shown = escape::words(check.command.join(" ").as_bytes());
            let mut exec = Exec::new(program, arguments.iter().cloned());
            exec.env = check_environment();
            let outcome = self
                .link
                .run(id, "run a health check", &exec, limits::HEALTH)
                .await;
            let error = match outcome {
                Ok(status) if status.success() => continue,
                Ok(status) => link::refused(id, "pass a health check", &status),
                Err(error) => error,
            };
            let message = match error.kind {
                PortErrorKind::TimedOut => {
                    format!("the health check `{shown}` did not end in time")
                }
                _ => format!("the health check `{shown}` failed"),
            };
            return Err(PortError { message, ..error }
                .about(program.clone())
                .advise("see what it printed below, and the services' journal"));
        }
        Ok(())
    }

    async fn restart(&self, id: MachineId) -> PortResult<()> {
        self.power(id, "reboot").await
    }

    async fn shut_down(&self, id: MachineId) -> PortResult<()> {
        self.power(id, "poweroff").await
    }

    async fn exec_start(&self, id: MachineId, request: &ExecRequest) -> PortResult<u64> {
        self.launch(id, request).await
    }

    async fn exec_poll(&self, id: MachineId, handle: u64) -> PortResult<ExecOutput> {
        self.poll(id, handle).await
    }

    async fn exec_kill(&self, id: MachineId, handle: u64) -> PortResult<()> {
        self.kill(id, handle).await
    }

    async fn shell(
        &self,
        id: MachineId,
        size: (u16, u16),
        label: &str,
    ) -> PortResult<Box<dyn ShellStream>> {
        self.open_shell(id, size, label).await
    }

    async fn look_at(&self, id: MachineId, paths: &[String]) -> PortResult<Vec<FileView>> {
        self.describe_files(id, paths).await
    }

    async fn action_start(&self, id: MachineId, request: &ActionRequest) -> PortResult<()> {
        self.launch_action(id, request).await
    }

    async fn action_kill(&self, id: MachineId, handle: u64) -> PortResult<()> {
        self.kill_action(id, handle).await
    }

    async fn log_sources(&self, id: MachineId) -> PortResult<Vec<LogSource>> {
        self.list_logs(id).await
    }

    async fn mark_logs(&self, id: MachineId) -> PortResult<()> {
        self.set_log_mark(id).await
    }

    async fn back_up_logs(&self, id: MachineId, request: &LogRequest) -> PortResult<Vec<LogCopy>> {
        self.copy_logs(id, request).await
    }

    async fn write_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> PortResult<()> {
        self.upload(id, path, offset, bytes).await
    }
}

/// Health checks run with a fixed environment, so that they say the same on both sides.
fn check_environment() -> Vec<(String, String)> {
    [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("LANG", "C.UTF-8"),
        ("HOME", "/root"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Splits a guest's text into the fields of its lines.
fn records(output: &str) -> impl Iterator<Item = Vec<&str>> {
    output.lines().map(|line| line.split('\t').collect())
}

/// Makes arguments of pairs.
fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    pairs
        .into_iter()
        .flat_map(|(key, value)| [key.to_owned(), value.to_owned()])
        .collect()
}

/// Arguments naming one open file of the agent.
fn handle_arguments(handle: i64) -> serde_json::Value {
    json!({ "handle": handle })
}

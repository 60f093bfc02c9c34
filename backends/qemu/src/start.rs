//! Starting a machine process, step by step; whatever fails is taken back.

use crate::accel;
use crate::conn::{Conn, SHORT_PAUSE};
use crate::error;
use crate::host::refuses_direct;
use crate::img;
use crate::layout::{Accelerator, Layout, process_name};
use crate::paths::{MachinePaths, private_dir};
use crate::process::{self, Identity, Launch};
use crate::system::QemuSystem;
use flipside_model::{DiskName, Firmware, Leg, MachineId};
use flipside_platform::{
    DiskSource, MachinePort, PortError, PortErrorKind, PortResult, StartMode, StartPlan,
};
use flipside_qmp::RunState as Status;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long QEMU may take from its start to its greeting: it opens every leg, on storage that may be slow.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a process may stay unseen after it was started.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a start is tried with other host ports, when somebody took one between our look and QEMU's.
const PORT_ATTEMPTS: u32 = 3;

/// Firmware images, the first pair that exists is used.
const FIRMWARE: [(&str, &str); 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];

impl QemuSystem {
    /// Starts a machine, or finishes a start that was interrupted.
    pub(crate) async fn start_machine(&self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        if self.find(id)?.is_some() {
            return self.continue_start(id, plan).await;
        }
        if self.running()?.contains(&id) {
            return Err(PortError::new(
                PortErrorKind::InUse,
                format!("machine {id} runs, and its directory was taken away"),
            )
            .advise("End it first"));
        }
        self.check_plan(plan)?;
        let mut attempt = 1;
        loop {
            let started = self.start_once(id, plan).await;
            let Err(failure) = started else {
                return self.continue_start(id, plan).await;
            };
            // Nothing may be left: neither a process nor a directory.
            self.end(id).await?;
            let port_taken = failure
                .causes
                .iter()
                .any(|c| c.contains("host forwarding rule"));
            if !port_taken || attempt == PORT_ATTEMPTS {
                return Err(failure);
            }
            attempt += 1;
        }
    }

    fn check_plan(&self, plan: &StartPlan) -> PortResult<()> {
        for (disk, source) in &plan.disks {
            let spec = self.disk_spec(disk)?;
            let legs = legs_of(source);
            if legs.is_empty() || legs.len() > 2 || legs.first() == legs.get(1) {
                return Err(PortError::failed(format!(
                    "disk {disk} cannot be started with {source:?}"
                ))
                .about(disk.to_string()));
            }
            for leg in legs {
                self.check_leg(spec, leg)?;
            }
        }
        Ok(())
    }

    /// From the greeting on: lowers the link, and lets a booting guest run.
    async fn continue_start(&self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        let conn = self.conn(id).await?;
        match (&plan.mode, conn.status().await?) {
            (StartMode::Boot { .. }, Status::Prelaunch) => {
                self.switch_link(&conn, false).await?;
                conn.run("cont", json!({})).await?;
                self.drop_old_variables(id)
            }
            (StartMode::Boot { .. }, Status::InMigrate) => Err(PortError::new(
                PortErrorKind::InUse,
                format!("machine {id} was started to wait for a fork"),
            )),
            (StartMode::Boot { .. }, _) | (StartMode::Incoming { .. }, Status::InMigrate) => Ok(()),
            (StartMode::Incoming { .. }, status) => Err(PortError::new(
                PortErrorKind::InUse,
                format!("machine {id} does not wait for a fork, it is `{status:?}`"),
            )),
        }
    }

    async fn start_once(&self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        let inner = &self.inner;
        let paths = self.files(id);
        if paths.dir().exists() {
            fs::remove_dir_all(paths.dir()).map_err(|e| error::file(&e, "remove", paths.dir()))?;
        }
        private_dir(inner.paths.root())?;
        private_dir(paths.dir())?;

        let mut warnings = Vec::new();
        let accelerator = self.accelerator_for(plan).await?;
        let cached = self.cached_legs(plan, &mut warnings)?;
        for (disk, source) in &plan.disks {
            if let DiskSource::Overlay(_) = source {
                let path = paths.overlay(disk);
                img::create_empty(&path, self.disk_spec(disk)?.size).await?;
                if let Some(limit) = plan.copy_limit {
                    img::bound(&path, limit)?;
                }
            }
        }
        let firmware = match inner.spec.firmware {
            Firmware::Bios => None,
            Firmware::Uefi => Some(self.variables(id, plan, &mut warnings)?),
        };
        let guest_ports: Vec<u16> = inner.spec.publish.iter().map(|p| p.guest_port).collect();
        let (forwards, ssh) = free_ports(&guest_ports)?;
        let token = Uuid::new_v4().simple().to_string();
        let layout = Layout {
            spec: &inner.spec,
            plan,
            id,
            paths: &paths,
            accelerator,
            token: &token,
            generation_id: Uuid::new_v4(),
            forwards: &forwards,
            ssh,
            firmware,
            cached: &cached,
            faults: &inner.options.test_chain,
        };
        let mut launch = Launch {
            version: Launch::VERSION,
            machine: id,
            uuid: inner.spec.uuid,
            name: process_name(&inner.spec, id, &token),
            accelerator,
            cpu: accelerator.cpu().to_owned(),
            argv: layout.argv(),
            forwards,
            ssh,
            warnings,
            process: None,
        };
        // An incoming card has the link of the machine it comes from; a booting one is lowered below.
        self.record_link(id, true)?;
        self.make_tap(id).await?;
        // Written before the process exists, so that a crash right after leaves one that can be found.
        launch.write(&paths)?;
        process::spawn(&inner.options.program, &launch.argv, &paths.log()).await?;
        let (conn, identity) = self.greet(id, &paths, &launch).await?;
        launch.warnings.extend(process::settle(&identity));
        launch.process = Some(identity);
        launch.write(&paths)?;
        for warning in &launch.warnings {
            tracing::warn!(machine = %id, "{warning}");
        }
        for socket in paths.sockets().into_iter().filter(|s| s.exists()) {
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
                .map_err(|e| error::file(&e, "close", &socket))?;
        }
        drop(conn);
        Ok(())
    }

    /// Waits for the greeting of a process just started; reports its own words if it ends instead.
    async fn greet(
        &self,
        id: MachineId,
        paths: &MachinePaths,
        launch: &Launch,
    ) -> PortResult<(Conn, Identity)> {
        let begun = Instant::now();
        loop {
            let identity = launch.find();
            if let Some(identity) = identity {
                if self.inner.options.voice_socket(paths).exists() {
                    let voice = self.inner.options.voice;
                    match Conn::open(paths, launch.clone(), identity.clone(), voice).await {
                        Ok(conn) => return Ok((conn, identity)),
                        // Bound but not yet listening, gone again, or slow on a busy host: look once more.
                        Err(e)
                            if matches!(
                                e.kind,
                                PortErrorKind::Absent | PortErrorKind::TimedOut
                            ) => {}
                        Err(e) if identity.is_alive() => return Err(e),
                        Err(_) => {}
                    }
                }
            } else if begun.elapsed() > APPEAR_TIMEOUT || !process::tail(&paths.log(), 1).is_empty()
            {
                let mut failure = PortError::failed(format!("QEMU did not start machine {id}"));
                let words = process::tail(&paths.log(), 5);
                if words
                    .iter()
                    .any(|w| w.contains("Failed to get") && w.contains("lock"))
                {
                    failure.kind = PortErrorKind::InUse;
                    failure.advice = Some(
                        "Another process uses a leg of this system; end it. flipside never opens \
                         a leg without its lock"
                            .into(),
                    );
                }
                failure.causes = words;
                return Err(failure);
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(PortError::timed_out(format!(
                    "QEMU did not greet within {} s when machine {id} was started",
                    START_TIMEOUT.as_secs()
                )));
            }
            sleep(SHORT_PAUSE * 5).await;
        }
    }

    async fn accelerator_for(&self, plan: &StartPlan) -> PortResult<Accelerator> {
        // Both sides of a fork have the same CPU, whatever the probe says by now.
        if let StartMode::Incoming { from } = plan.mode {
            let Some((launch, _)) = self.find(from)? else {
                return Err(PortError::absent(format!(
                    "machine {from}, to be forked, does not run"
                )));
            };
            return Ok(launch.accelerator);
        }
        match self.inner.options.accelerator {
            Some(chosen) => Ok(chosen),
            None => accel::choose(&self.inner.options.program, self.inner.paths.state()).await,
        }
    }

    fn cached_legs(
        &self,
        plan: &StartPlan,
        warnings: &mut Vec<String>,
    ) -> PortResult<Vec<(DiskName, Leg)>> {
        let mut cached = Vec::new();
        for (disk, source) in &plan.disks {
            for leg in legs_of(source) {
                let path = self.disk_spec(disk)?.legs.get(leg);
                if refuses_direct(path)? {
                    warnings.push(format!(
                        "leg {leg} of {disk} is on a file system without direct I/O (`{}`): the \
                         host's cache is used",
                        path.display()
                    ));
                    cached.push((disk.clone(), leg));
                }
            }
        }
        Ok(cached)
    }

    /// Gives a machine a UEFI variable store of its own (pitfall 22). At a fork the migration brings the current
    /// content; the copy only has to have the right size.
    fn variables(
        &self,
        id: MachineId,
        plan: &StartPlan,
        warnings: &mut Vec<String>,
    ) -> PortResult<(PathBuf, PathBuf)> {
        let installed = FIRMWARE
            .iter()
            .find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists());
        let Some((code, template)) = installed else {
            return Err(PortError::absent("no UEFI firmware is installed")
                .advise("Install OVMF (Debian: ovmf)"));
        };
        let before = match plan.mode {
            StartMode::Boot { after } => after,
            StartMode::Incoming { from } => Some(from),
        };
        let mut source = PathBuf::from(template);
        if let Some(before) = before.map(|id| self.inner.paths.vars(id)) {
            if before.exists() {
                source = before;
            } else {
                warnings.push(format!(
                    "the UEFI variables `{}` are gone: the firmware starts with fresh ones",
                    before.display()
                ));
            }
        }
        let own = self.inner.paths.vars(id);
        private_dir(own.parent().unwrap_or(Path::new("/")))?;
        let bytes = fs::read(&source).map_err(|e| error::file(&e, "read", &source))?;
        crate::paths::write_atomically(&own, &bytes)?;
        Ok((PathBuf::from(code), own))
    }

    /// Once a machine has booted from a copy, the variables of machines that are gone are of no use.
    fn drop_old_variables(&self, id: MachineId) -> PortResult<()> {
        let running = self.running()?;
        let dir = self.inner.paths.vars(id);
        let entries = fs::read_dir(dir.parent().unwrap_or(Path::new("/")));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name
                .to_str()
                .and_then(|n| n.strip_prefix('m')?.strip_suffix(".fd"));
            let old = number.and_then(|n| n.parse().ok()).map(MachineId);
            if old.is_some_and(|old| old != id && !running.contains(&old)) {
                crate::paths::remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Lists the legs that a source opens; none for a placeholder, which no machine starts with.
fn legs_of(source: &DiskSource) -> Vec<Leg> {
    match source {
        DiskSource::Legs(legs) => legs.clone(),
        DiskSource::Overlay(leg) => vec![*leg],
        DiskSource::Placeholder => Vec::new(),
    }
}

/// Finds host ports nobody listens on. They are held together, so that they differ, and released for QEMU.
fn free_ports(guest_ports: &[u16]) -> PortResult<(BTreeMap<u16, u16>, u16)> {
    let listen = || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| {
            let port = l.local_addr()?.port();
            Ok((l, port))
        })
    };
    let failed = |e: std::io::Error| PortError::failed("no free port on 127.0.0.1").because(&e);
    let (_ssh_held, ssh) = listen().map_err(failed)?;
    let mut held = Vec::new();
    let mut forwards = BTreeMap::new();
    for guest in guest_ports {
        let (listener, host) = listen().map_err(failed)?;
        held.push(listener);
        forwards.insert(*guest, host);
    }
    Ok((forwards, ssh))
}

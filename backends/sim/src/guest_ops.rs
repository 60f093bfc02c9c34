//! Services, mounts, holds and programs of the simulated guest.

use crate::GuestFault;
use crate::fault::glob;
use crate::guest_model::{Exec, GuestConfig, HoldOnDisk, Mounted};
use crate::state::{Part, State};
use flipside_model::{HealthCheck, MachineId, MountPoint, SavedStartup, StartupType};
use flipside_platform::{
    DiskSource, ExecOutput, ExecRequest, Held, HoldSet, PortError, PortErrorKind, PortResult,
    ServiceView, UnitStart,
};
use std::time::Duration;
use tokio::time::Instant;

impl State {
    pub(crate) fn service_view(&self, id: MachineId, unit: &str, c: &GuestConfig) -> ServiceView {
        let guest = self.machines.get(&id).and_then(|m| m.guest.as_ref());
        let file = c.units.get(unit);
        ServiceView {
            unit: unit.to_owned(),
            exists: file.is_some(),
            active: guest.is_some_and(|g| g.active.contains(unit)),
            startup: StartupType(file.map_or(String::new(), |f| f.startup.clone())),
            refuses_stop: false,
            gated: c.gated(unit),
            alias_of: None,
        }
    }

    pub(crate) fn held(&self, id: MachineId, set: &HoldSet) -> PortResult<Held> {
        let config = self.guest_config(id)?;
        let saved = |unit: &String| {
            let view = self.service_view(id, unit, &config);
            SavedStartup {
                unit: view.unit,
                startup: view.startup,
                active: view.active,
            }
        };
        let triggers = self.options.services.iter();
        let triggers: Vec<&String> = triggers
            .filter(|s| s.starts.as_ref().is_some_and(|u| set.units.contains(u)))
            .map(|s| &s.unit)
            .filter(|unit| !set.units.contains(unit))
            .collect();
        let by_itself = |unit: &&String| {
            !set.units.contains(unit)
                && !triggers.contains(unit)
                && set.quiesce.iter().any(|q| glob(q, unit.as_str()))
        };
        Ok(Held {
            units: set
                .units
                .iter()
                .chain(triggers.iter().copied())
                .filter(|u| config.units.contains_key(*u))
                .map(saved)
                .collect(),
            quiesced: config
                .units
                .keys()
                .filter(by_itself)
                .map(saved)
                .filter(|s| s.active)
                .collect(),
        })
    }

    pub(crate) fn hold(
        &mut self,
        id: MachineId,
        set: &HoldSet,
        held: &Held,
        part: &mut Part,
    ) -> PortResult<()> {
        part.step()?;
        self.change_config(id, |c| {
            for saved in held.units.iter().chain(&held.quiesced) {
                if let Some(unit) = c.units.get_mut(&saved.unit) {
                    "disabled".clone_into(&mut unit.startup);
                }
            }
        })?;
        part.step()?;
        self.change_config(id, |c| {
            c.lifted = false;
            c.hold = Some(HoldOnDisk {
                units: set
                    .units
                    .iter()
                    .chain(held.units.iter().map(|s| &s.unit))
                    .cloned()
                    .collect(),
                quiesce: set.quiesce.iter().cloned().collect(),
                mounts: set.mounts.iter().map(|m| m.target.clone()).collect(),
                off: true,
            });
        })
    }

    pub(crate) fn prepare_release(
        &mut self,
        id: MachineId,
        held: &Held,
        part: &mut Part,
    ) -> PortResult<()> {
        part.step()?;
        self.change_config(id, |c| {
            for saved in held.units.iter().chain(&held.quiesced) {
                if let Some(unit) = c.units.get_mut(&saved.unit) {
                    unit.startup.clone_from(&saved.startup.0);
                }
            }
        })?;
        part.step()?;
        self.change_config(id, |c| {
            if let Some(hold) = &mut c.hold {
                hold.off = false;
            }
        })
    }

    pub(crate) fn stop(
        &mut self,
        id: MachineId,
        units: &[String],
        deadline: Duration,
        part: &mut Part,
    ) -> PortResult<()> {
        for unit in units.iter().rev() {
            part.step()?;
            if !self.guest(id, part)?.active.contains(unit) {
                continue;
            }
            if self.faulty(id, &GuestFault::WillNotStop(unit.clone())) {
                let text = format!("Service {unit} did not stop in time.");
                return Err(part.silent(deadline, text).about(unit.clone()));
            }
            self.guest(id, part)?.active.remove(unit);
            self.knock(id);
            // Only the product is judged by this: a test of the simulation may stop what it likes.
            if self.options.check_every_call && self.door.open_to == Some(id) {
                self.violate(format!(
                    "{unit} of {id} was stopped while the door let clients in"
                ));
            }
        }
        Ok(())
    }

    /// Sockets that are up start their services, unless a gate holds those or their data is away.
    pub(crate) fn knock(&mut self, id: MachineId) {
        let Some(config) = self.config(id) else {
            return;
        };
        let services = self.options.services.clone();
        let guest = self.machines.get_mut(&id).and_then(|m| m.guest.as_mut());
        let Some(guest) = guest else { return };
        for socket in &services {
            let Some(unit) = socket.starts.as_ref() else {
                continue;
            };
            let needs = services.iter().find(|s| &s.unit == unit).map(|s| &s.needs);
            let can = needs.is_some_and(|n| n.iter().all(|n| guest.mounts.contains_key(n)));
            if guest.active.contains(&socket.unit) && can && !config.gated(unit) {
                guest.active.insert(unit.clone());
            }
        }
    }

    pub(crate) fn start_units(
        &mut self,
        id: MachineId,
        units: &[UnitStart],
        part: &mut Part,
    ) -> PortResult<()> {
        for start in units {
            part.step()?;
            match self.start_unit(id, &start.unit, part) {
                Err(error) if start.required => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn start_unit(&mut self, id: MachineId, unit: &str, part: &mut Part) -> PortResult<()> {
        let no = |why: &str| {
            Err(PortError::failed(format!("Service {unit} did not start: {why}.")).about(unit))
        };
        let config = self.guest_config(id)?;
        let will_not = self.faulty(id, &GuestFault::WillNotStart(unit.to_owned()));
        let service = self.options.services.iter().find(|s| s.unit == unit);
        let needs = service.map(|s| s.needs.clone()).unwrap_or_default();
        let guest = self.guest(id, part)?;
        if guest.active.contains(unit) {
            return Ok(());
        }
        if !config.units.contains_key(unit) {
            return no("there is no such unit");
        }
        if config.gated(unit) {
            return no("a gate holds it");
        }
        if will_not {
            return no("it failed");
        }
        if needs.iter().any(|n| !guest.mounts.contains_key(n)) {
            return no("its file system is not mounted");
        }
        guest.active.insert(unit.to_owned());
        Ok(())
    }

    pub(crate) fn close_data(
        &mut self,
        id: MachineId,
        disks: &[String],
        part: &mut Part,
    ) -> PortResult<()> {
        let guest = self.guest(id, part)?;
        let targets: Vec<String> = guest
            .mounts
            .iter()
            .filter(|(_, m)| disks.iter().any(|d| d == m.disk.as_str()))
            .map(|(target, _)| target.clone())
            .collect();
        for target in targets.iter().rev() {
            part.step()?;
            let active = self.guest(id, part)?.active.clone();
            let user = self
                .options
                .services
                .iter()
                .find(|s| active.contains(&s.unit) && s.needs.contains(target))
                .map(|s| s.unit.clone())
                .or(self
                    .faulty(id, &GuestFault::MountBusy(target.clone()))
                    .then(|| "process 4711 (bash)".to_owned()));
            if let Some(user) = user {
                let text = format!("{target} is in use by {user}.");
                return Err(PortError::new(PortErrorKind::InUse, text).about(user));
            }
            self.guest(id, part)?.mounts.remove(target);
        }
        Ok(())
    }

    pub(crate) fn open_data(
        &mut self,
        id: MachineId,
        mounts: &[MountPoint],
        part: &mut Part,
    ) -> PortResult<()> {
        let config = self.guest_config(id)?;
        for mount in mounts {
            part.step()?;
            let stamp = self.stamp(&mount.disk);
            let plugged = self.machine(id)?.disks.get(&mount.disk);
            let source = plugged.map(|p| p.source.clone());
            let guest = self.guest(id, part)?;
            if guest.mounts.contains_key(&mount.target) {
                continue;
            }
            let no = |why: &str| {
                let text = format!("{} cannot be mounted: {why}.", mount.target);
                Err(PortError::failed(text).about(mount.target.clone()))
            };
            let Some(source) = source else {
                return no("its disk is not there");
            };
            if config.mount_gated(&mount.target) {
                return no("a gate holds it");
            }
            let mounted = Mounted {
                disk: mount.disk.clone(),
                stamp,
                overlay: matches!(source, DiskSource::Overlay(_)),
            };
            guest.mounts.insert(mount.target.clone(), mounted);
        }
        Ok(())
    }

    pub(crate) fn exec(
        &mut self,
        id: MachineId,
        request: &ExecRequest,
        part: &mut Part,
    ) -> PortResult<u64> {
        let config = self.guest_config(id)?;
        let programs = self.options.programs.clone();
        let guest = self.guest(id, part)?;
        let mut exec = Exec {
            out: Vec::new(),
            err: Vec::new(),
            until: None,
            exit: 0,
            action: false,
        };
        let args: Vec<&str> = request.argv.iter().map(String::as_str).collect();
        match args.split_first() {
            Some((&("true" | "/bin/true" | "/usr/bin/true"), _)) => {}
            Some((&("false" | "/bin/false" | "/usr/bin/false"), _)) => exec.exit = 1,
            Some((&("echo" | "/bin/echo" | "/usr/bin/echo"), rest)) => {
                exec.out = format!("{}\n", rest.join(" ")).into_bytes();
            }
            Some((&("env" | "/usr/bin/env"), _)) => {
                let lines = request.env.iter().map(|e| format!("{e}\n"));
                exec.out = lines.collect::<String>().into_bytes();
            }
            Some((&("cat" | "/bin/cat" | "/usr/bin/cat"), rest)) => {
                for path in rest {
                    match config.files.get(*path) {
                        Some(bytes) => exec.out.extend(bytes),
                        None => {
                            exec.err
                                .extend(format!("cat: {path}: not found\n").as_bytes());
                            exec.exit = 1;
                        }
                    }
                }
            }
            Some((&("sleep" | "/bin/sleep" | "/usr/bin/sleep"), rest)) => {
                let seconds = rest.first().and_then(|s| s.parse().ok()).unwrap_or(0);
                exec.until = Some(Instant::now() + Duration::from_secs(seconds));
            }
            Some((program, _)) => match programs.get(*program) {
                Some(output) => {
                    exec.out.clone_from(&output.out);
                    exec.err.clone_from(&output.err);
                    exec.exit = output.exit.unwrap_or(0);
                }
                None => {
                    let text = format!("There is no program {program} in the guest.");
                    return Err(PortError::absent(text).about(*program));
                }
            },
            None => return Err(PortError::failed("No program was named.")),
        }
        if let Some(timeout) = request.timeout {
            let end = Instant::now() + timeout;
            if exec.until.is_some_and(|until| until > end) {
                exec.until = Some(end);
                exec.exit = 128 + 15;
            }
        }
        let handle = guest.next_exec;
        guest.next_exec += 1;
        guest.execs.insert(handle, exec);
        Ok(handle)
    }

    pub(crate) fn exec_poll(
        &mut self,
        id: MachineId,
        handle: u64,
        part: &mut Part,
    ) -> PortResult<ExecOutput> {
        let guest = self.guest(id, part)?;
        let Some(exec) = guest.execs.get_mut(&handle) else {
            return Err(PortError::absent(format!("There is no program {handle}.")));
        };
        Ok(exec.told())
    }

    pub(crate) fn healthy(
        &mut self,
        id: MachineId,
        checks: &[HealthCheck],
        part: &mut Part,
    ) -> PortResult<()> {
        let config = self.guest_config(id)?;
        self.guest(id, part)?;
        let ill = self.faulty(id, &GuestFault::Unhealthy)
            || self.options.unhealthy_versions.contains(&config.version);
        for check in checks {
            let request = ExecRequest {
                argv: check.command.clone(),
                env: Vec::new(),
                timeout: None,
            };
            let handle = self.exec(id, &request, part)?;
            let output = self.exec_poll(id, handle, part)?;
            if output.exit != Some(0) || ill {
                let what = check.command.join(" ");
                return Err(PortError::failed(format!("Health check `{what}` failed.")).about(what));
            }
        }
        Ok(())
    }
}

//! The guest port.

use crate::call::{Class, SimPorts};
use crate::state::State;
use async_trait::async_trait;
use flipside_model::{
    CarriedFiles, ChangeList, Condition, DiskName, FileView, HealthCheck, Inventory, LogCopy,
    LogSource, MachineId, MountPoint, Package, PackageFault, Renewal, Surroundings,
};
use flipside_platform::{
    ActionRequest, CarryPlan, CrashFile, ExecOutput, ExecRequest, GuestInfo, GuestPort, Held,
    HoldSet, ListedService, LogRequest, Notice, OpenFile, PortError, PortResult, ServiceView,
    UnitStart,
};
use std::time::Duration;

impl State {
    fn write_file(
        &mut self,
        id: MachineId,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> PortResult<()> {
        self.change_config(id, |c| {
            let file = c.files.entry(path.to_owned()).or_default();
            if offset == 0 {
                file.clear();
            }
            file.extend(bytes);
        })
    }
}

#[async_trait]
impl GuestPort for SimPorts {
    async fn ping(&self, id: MachineId) -> PortResult<GuestInfo> {
        let name = format!("guest.ping.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            let boot_id = s.guest(id, p)?.boot_id.clone();
            let agent = "7.2.0".to_owned();
            Ok(GuestInfo { boot_id, agent })
        })
        .await
    }

    async fn set_clock(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.set_clock.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?.clock_late = false;
            Ok(())
        })
        .await
    }

    async fn services(&self, id: MachineId, units: &[String]) -> PortResult<Vec<ServiceView>> {
        let name = format!("guest.services.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let config = s.guest_config(id)?;
            let view = |unit: &String| s.service_view(id, unit, &config);
            Ok(units.iter().map(view).collect())
        })
        .await
    }

    async fn all_services(&self, id: MachineId) -> PortResult<Vec<ListedService>> {
        let name = format!("guest.all_services.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            let active = s.guest(id, p)?.active.clone();
            let config = s.guest_config(id)?;
            let listed = config.units.iter().map(|(unit, file)| ListedService {
                unit: unit.clone(),
                description: format!("the simulated {unit}"),
                active: active.contains(unit),
                startup: flipside_model::StartupType(file.startup.clone()),
            });
            Ok(listed.collect())
        })
        .await
    }

    async fn surroundings(&self, id: MachineId) -> PortResult<Surroundings> {
        let name = format!("guest.surroundings.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(s.options.surroundings.clone())
        })
        .await
    }

    async fn renew_lease(&self, id: MachineId, card: &str) -> PortResult<Renewal> {
        let name = format!("guest.renew_lease.{id}.{card}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let cards = &s.options.surroundings.cards;
            if !cards.iter().any(|c| c.name == card) {
                return Err(PortError::absent("The guest has no such card."));
            }
            Ok(s.options.renewal.clone())
        })
        .await
    }

    async fn packages(&self, id: MachineId) -> PortResult<Vec<Package>> {
        let name = format!("guest.packages.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let software = Package {
                name: "software".to_owned(),
                version: s.guest_config(id)?.version.clone(),
            };
            Ok(vec![software])
        })
        .await
    }

    async fn verify_packages(&self, id: MachineId) -> PortResult<Vec<PackageFault>> {
        let name = format!("guest.verify_packages.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            // What was written over the software's own files.
            let files = s.guest_config(id)?.files.clone();
            let own = files.into_keys().filter(|path| path.starts_with("/usr/"));
            let fault = |path| PackageFault {
                path,
                what: "changed".to_owned(),
                configuration: false,
            };
            Ok(own.map(fault).collect())
        })
        .await
    }

    async fn condition(&self, id: MachineId) -> PortResult<Condition> {
        let name = format!("guest.condition.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            let (active, boot_id) = {
                let guest = s.guest(id, p)?;
                (guest.active.clone(), guest.boot_id.clone())
            };
            let config = s.guest_config(id)?;
            let down = |unit: &&String| {
                let enabled = config.units[*unit].startup == "enabled";
                enabled && !active.contains(*unit) && !config.gated(unit)
            };
            Ok(Condition {
                system: format!("sim ({boot_id})"),
                state: "running".to_owned(),
                kernel: "1".to_owned(),
                newest_kernel: Some("1".to_owned()),
                failed_units: config.units.keys().filter(down).cloned().collect(),
                restart_needed: Vec::new(),
            })
        })
        .await
    }

    async fn software_stamp(&self, id: MachineId) -> PortResult<String> {
        let name = format!("guest.software_stamp.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(s.guest_config(id)?.version.clone())
        })
        .await
    }

    async fn host_keys(&self, id: MachineId) -> PortResult<Vec<String>> {
        let name = format!("guest.host_keys.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(vec!["ssh-ed25519 AAAAsim".to_owned()])
        })
        .await
    }

    async fn publish(&self, id: MachineId, notice: &Notice) -> PortResult<()> {
        let name = format!("guest.publish.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?.notice = Some(notice.clone());
            Ok(())
        })
        .await
    }

    async fn crash_files(&self, id: MachineId, _within: Duration) -> PortResult<Vec<CrashFile>> {
        let name = format!("guest.crash_files.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let files = s.guest_config(id)?.files.clone();
            let crashed = files
                .iter()
                .filter(|(path, _)| path.starts_with("/var/crash/"));
            let file = |(path, bytes): (&String, &Vec<u8>)| CrashFile {
                path: path.clone(),
                bytes: bytes.len() as u64,
                memory: path.ends_with("vmcore"),
            };
            Ok(crashed.map(file).collect())
        })
        .await
    }

    async fn read_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        most: usize,
    ) -> PortResult<Vec<u8>> {
        let name = format!("guest.read_file.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            let config = s.guest_config(id)?;
            let Some(bytes) = config.files.get(path) else {
                return Err(PortError::absent(format!("There is no file {path}.")));
            };
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let to = from.saturating_add(most).min(bytes.len());
            Ok(bytes[from..to].to_vec())
        })
        .await
    }

    async fn mark_split(&self, id: MachineId, set: bool) -> PortResult<()> {
        self.mark(id, set).await
    }

    async fn changes(
        &self,
        id: MachineId,
        _data: &[DiskName],
        most: usize,
    ) -> PortResult<ChangeList> {
        self.list_changes(id, most).await
    }

    async fn pack(&self, id: MachineId, plan: &CarryPlan) -> PortResult<CarriedFiles> {
        self.pack_files(id, plan).await
    }

    async fn unpack(&self, id: MachineId, rules: &[String]) -> PortResult<CarriedFiles> {
        self.unpack_files(id, rules).await
    }

    async fn mounts(&self, id: MachineId, disks: &[DiskName]) -> PortResult<Vec<MountPoint>> {
        let name = format!("guest.mounts.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            let mounted = s.guest(id, p)?.mounts.clone();
            let mounts = s.options.mounts.iter();
            Ok(mounts
                .filter(|m| disks.contains(&m.disk) && mounted.contains_key(&m.target))
                .cloned()
                .collect())
        })
        .await
    }

    async fn inventory(&self, id: MachineId) -> PortResult<Inventory> {
        let name = format!("guest.inventory.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.inventory(id)
        })
        .await
    }

    async fn open_files(&self, id: MachineId, units: &[String]) -> PortResult<Vec<OpenFile>> {
        let name = format!("guest.open_files.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            let active = s.guest(id, p)?.active.clone();
            let disk = s.root_disk().map(String::from).unwrap_or_default();
            let mut files = Vec::new();
            for service in &s.options.services {
                if units.contains(&service.unit) && active.contains(&service.unit) {
                    files.extend(service.writes.iter().map(|path| OpenFile {
                        unit: service.unit.clone(),
                        path: path.clone(),
                        disk: disk.clone(),
                    }));
                }
            }
            Ok(files)
        })
        .await
    }

    async fn startup(&self, id: MachineId, set: &HoldSet) -> PortResult<Held> {
        let name = format!("guest.startup.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.held(id, set)
        })
        .await
    }

    async fn hold(&self, id: MachineId, set: &HoldSet, held: &Held) -> PortResult<()> {
        let name = format!("guest.hold.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.hold(id, set, held, p)
        })
        .await
    }

    async fn prepare_release(&self, id: MachineId, _set: &HoldSet, held: &Held) -> PortResult<()> {
        let name = format!("guest.prepare_release.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.prepare_release(id, held, p)
        })
        .await
    }

    async fn lift(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.lift.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.change_config(id, |c| c.lifted = true)
        })
        .await
    }

    async fn lower(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.lower.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.change_config(id, |c| c.lifted = false)
        })
        .await
    }

    async fn lifted(&self, id: MachineId) -> PortResult<bool> {
        let name = format!("guest.lifted.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(s.guest_config(id)?.lifted)
        })
        .await
    }

    async fn cleanup(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.cleanup.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?.notice = None;
            s.change_config(id, |c| {
                c.hold = None;
                c.lifted = false;
            })
        })
        .await
    }

    async fn stop(&self, id: MachineId, units: &[String], deadline: Duration) -> PortResult<()> {
        let name = format!("guest.stop.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.stop(id, units, deadline, p)
        })
        .await
    }

    async fn start(
        &self,
        id: MachineId,
        units: &[UnitStart],
        _deadline: Duration,
    ) -> PortResult<()> {
        let name = format!("guest.start.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.start_units(id, units, p)
        })
        .await
    }

    async fn close_data(&self, id: MachineId, disks: &[String]) -> PortResult<()> {
        let name = format!("guest.close_data.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.close_data(id, disks, p)
        })
        .await
    }

    async fn open_data(&self, id: MachineId, mounts: &[MountPoint]) -> PortResult<()> {
        let name = format!("guest.open_data.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.open_data(id, mounts, p)
        })
        .await
    }

    async fn has_disk(&self, id: MachineId, disk: &str) -> PortResult<bool> {
        let name = format!("guest.has_disk.{id}.{disk}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(s.machine(id)?.disks.keys().any(|d| d.as_str() == disk))
        })
        .await
    }

    async fn sync(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.sync.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p).map(|_| ())
        })
        .await
    }

    async fn healthy(&self, id: MachineId, checks: &[HealthCheck]) -> PortResult<()> {
        let name = format!("guest.healthy.{id}");
        self.call(Class::Look, Some(id), name, |s, p| s.healthy(id, checks, p))
            .await
    }

    async fn restart(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.restart.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.boot(id);
            Ok(())
        })
        .await
    }

    async fn shut_down(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.shut_down.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.shut_down(id);
            Ok(())
        })
        .await
    }

    async fn exec_start(&self, id: MachineId, request: &ExecRequest) -> PortResult<u64> {
        let name = format!("guest.exec_start.{id}");
        self.call(Class::Act, Some(id), name, |s, p| s.exec(id, request, p))
            .await
    }

    async fn exec_poll(&self, id: MachineId, handle: u64) -> PortResult<ExecOutput> {
        let name = format!("guest.exec_poll.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.exec_poll(id, handle, p)
        })
        .await
    }

    async fn exec_kill(&self, id: MachineId, handle: u64) -> PortResult<()> {
        let name = format!("guest.exec_kill.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            let guest = s.guest(id, p)?;
            let Some(exec) = guest.execs.get_mut(&handle) else {
                return Err(PortError::absent(format!("There is no program {handle}.")));
            };
            if exec.until.take().is_some() {
                exec.exit = 128 + 9;
            }
            Ok(())
        })
        .await
    }

    async fn look_at(&self, id: MachineId, paths: &[String]) -> PortResult<Vec<FileView>> {
        let name = format!("guest.look_at.{id}");
        self.call(Class::Look, Some(id), name, |s, p| s.look_at(id, paths, p))
            .await
    }

    async fn action_start(&self, id: MachineId, request: &ActionRequest) -> PortResult<()> {
        let name = format!("guest.action_start.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.action_start(id, request, p)
        })
        .await
    }

    async fn action_kill(&self, id: MachineId, handle: u64) -> PortResult<()> {
        let name = format!("guest.action_kill.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.action_kill(id, handle, p)
        })
        .await
    }

    async fn log_sources(&self, id: MachineId) -> PortResult<Vec<LogSource>> {
        let name = format!("guest.log_sources.{id}");
        self.call(Class::Look, Some(id), name, |s, p| {
            s.guest(id, p)?;
            Ok(s.log_sources())
        })
        .await
    }

    async fn mark_logs(&self, id: MachineId) -> PortResult<()> {
        let name = format!("guest.mark_logs.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?.logs_marked = true;
            Ok(())
        })
        .await
    }

    async fn back_up_logs(&self, id: MachineId, request: &LogRequest) -> PortResult<Vec<LogCopy>> {
        let name = format!("guest.back_up_logs.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.back_up_logs(id, request, p)
        })
        .await
    }

    async fn write_file(
        &self,
        id: MachineId,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> PortResult<()> {
        let name = format!("guest.write_file.{id}");
        self.call(Class::Act, Some(id), name, |s, p| {
            s.guest(id, p)?;
            s.write_file(id, path, offset, bytes)
        })
        .await
    }
}

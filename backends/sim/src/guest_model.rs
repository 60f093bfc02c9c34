//! The operating system in a machine: what it keeps on disk, what it has in memory, how it boots.

use crate::fault::glob;
use crate::state::State;
use crate::{GuestFault, SimOptions};
use flipside_model::{DiskName, MachineId};
use flipside_platform::{DiskSource, Notice, PortError, PortResult, RunState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the guest keeps of a unit on its system disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// Startup type.
    pub startup: String,
}

/// What a hold left on the system disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldOnDisk {
    /// Units behind a gate.
    pub units: BTreeSet<String>,
    /// Patterns of further units behind a gate.
    pub quiesce: BTreeSet<String>,
    /// Mount points behind a gate.
    pub mounts: BTreeSet<String>,
    /// Whether the mount table leaves these mounts out.
    pub off: bool,
}

/// Persistent state of the operating system, part of the system disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// Version of the installed software.
    pub version: String,
    /// Units.
    pub units: BTreeMap<String, UnitFile>,
    /// Mount table: mount point and disk.
    pub fstab: BTreeMap<String, DiskName>,
    /// What a hold left.
    pub hold: Option<HoldOnDisk>,
    /// The flag file that lifts all gates.
    pub lifted: bool,
    /// Files written from outside.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The files as they were when the split was marked.
    pub mark: Option<BTreeMap<String, Vec<u8>>>,
    /// Files that were carried over from the other side, as they were put.
    pub ours: BTreeMap<String, Vec<u8>>,
}

impl GuestConfig {
    pub(crate) fn installed(options: &SimOptions) -> Self {
        let unit = |s: &crate::SimService| {
            let startup = s.startup.clone();
            (s.unit.clone(), UnitFile { startup })
        };
        Self {
            version: "1.0".to_owned(),
            units: options.services.iter().map(unit).collect(),
            fstab: options
                .mounts
                .iter()
                .map(|m| (m.target.clone(), m.disk.clone()))
                .collect(),
            hold: None,
            lifted: false,
            files: options.files.clone(),
            mark: None,
            ours: BTreeMap::new(),
        }
    }

    /// Says whether a closed gate is before a unit.
    pub fn gated(&self, unit: &str) -> bool {
        let held = |hold: &HoldOnDisk| {
            hold.units.contains(unit) || hold.quiesce.iter().any(|q| glob(q, unit))
        };
        !self.lifted && self.hold.as_ref().is_some_and(held)
    }

    /// Says whether a closed gate is before a mount.
    pub fn mount_gated(&self, target: &str) -> bool {
        let held = |hold: &HoldOnDisk| hold.mounts.contains(target);
        !self.lifted && self.hold.as_ref().is_some_and(held)
    }
}

/// A mounted file system.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    pub(crate) disk: DiskName,
    /// The state of the disk that its cache knows.
    pub(crate) stamp: u64,
    /// It lies on a throw-away overlay.
    pub(crate) overlay: bool,
}

/// A program running in the guest.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) until: Option<Instant>,
    pub(crate) exit: i32,
    /// It is a custom action.
    pub(crate) action: bool,
}

/// The guest's memory.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) boot_id: String,
    pub(crate) up_at: Instant,
    pub(crate) emergency: bool,
    pub(crate) active: BTreeSet<String>,
    pub(crate) mounts: BTreeMap<String, Mounted>,
    pub(crate) execs: BTreeMap<u64, Exec>,
    pub(crate) next_exec: u64,
    pub(crate) clock_late: bool,
    /// What is shown in it, in memory.
    pub(crate) notice: Option<Notice>,
    /// Logs are saved from a known moment on.
    pub(crate) logs_marked: bool,
}

impl State {
    pub(crate) fn stamp(&self, disk: &DiskName) -> u64 {
        self.truth.stamps.get(disk).copied().unwrap_or(0)
    }

    /// Boots the operating system of a machine from its disks.
    pub(crate) fn boot(&mut self, id: MachineId) {
        self.boots += 1;
        let boot_id = format!("00000000-0000-4000-8000-{:012x}", self.boots);
        let Some(config) = self.config(id) else {
            return;
        };
        let Some(machine) = self.machines.get(&id) else {
            return;
        };
        let mut guest = Guest {
            boot_id,
            up_at: Instant::now() + self.options.boot,
            emergency: false,
            active: BTreeSet::new(),
            mounts: BTreeMap::new(),
            execs: BTreeMap::new(),
            next_exec: 1,
            clock_late: false,
            notice: None,
            logs_marked: false,
        };
        let off = |target: &str| {
            let hold = config.hold.as_ref();
            hold.is_some_and(|h| h.off && h.mounts.contains(target))
        };
        for (target, disk) in &config.fstab {
            if off(target) {
                continue;
            }
            match machine.disks.get(disk) {
                None => guest.emergency |= !self.options.nofail && !config.mount_gated(target),
                Some(_) if config.mount_gated(target) => {}
                Some(plugged) => {
                    let mounted = Mounted {
                        disk: disk.clone(),
                        stamp: self.stamp(disk),
                        overlay: matches!(plugged.source, DiskSource::Overlay(_)),
                    };
                    guest.mounts.insert(target.clone(), mounted);
                }
            }
        }
        if !guest.emergency {
            for service in &self.options.services {
                let enabled = config
                    .units
                    .get(&service.unit)
                    .is_some_and(|u| u.startup == "enabled");
                let can = service.needs.iter().all(|n| guest.mounts.contains_key(n))
                    && !config.gated(&service.unit)
                    && !self.faulty(id, &GuestFault::WillNotStart(service.unit.clone()));
                if enabled && can {
                    guest.active.insert(service.unit.clone());
                }
            }
        }
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.around.booted();
            machine.guest = Some(guest);
            machine.pending = None;
        }
    }

    /// A disk is gone from a guest that is on its way up: it mounts nothing of it, and what needs it does not start.
    pub(crate) fn boots_without(&mut self, id: MachineId, disk: &DiskName) {
        let (nofail, services) = (self.options.nofail, self.options.services.clone());
        let machine = self.machines.get_mut(&id);
        let guest = machine.and_then(|m| m.guest.as_mut());
        let Some(guest) = guest.filter(|g| Instant::now() < g.up_at) else {
            return;
        };
        let had = guest.mounts.len();
        guest.mounts.retain(|_, m| &m.disk != disk);
        guest.emergency |= guest.mounts.len() < had && !nofail;
        let mounts = &guest.mounts;
        let starts = |unit: &String| {
            let service = services.iter().find(|s| &s.unit == unit);
            service.is_none_or(|s| s.needs.iter().all(|n| mounts.contains_key(n)))
        };
        guest.active.retain(starts);
    }

    /// Shuts the operating system down cleanly.
    pub(crate) fn shut_down(&mut self, id: MachineId) {
        if let Some(machine) = self.machines.get_mut(&id)
            && machine.run == RunState::Running
        {
            machine.run = RunState::Shutdown;
            machine.guest = None;
        }
    }

    pub(crate) fn power_button(&mut self, id: MachineId) {
        if !self.faulty(id, &GuestFault::IgnoresPowerButton) {
            self.shut_down(id);
        }
    }

    /// Returns the guest of a machine if its agent answers now.
    pub(crate) fn guest(
        &mut self,
        id: MachineId,
        part: &mut crate::state::Part,
    ) -> PortResult<&mut Guest> {
        let silent = self.faulty(id, &GuestFault::AgentSilent);
        let machine = self.machine(id)?;
        let running = machine.run == RunState::Running;
        match &mut machine.guest {
            Some(guest)
                if running && !silent && !guest.emergency && Instant::now() >= guest.up_at =>
            {
                Ok(guest)
            }
            _ => {
                let text = format!("The guest of machine {id} does not answer.");
                Err(part.silent(Duration::from_secs(1), text))
            }
        }
    }

    pub(crate) fn guest_config(&self, id: MachineId) -> PortResult<Arc<GuestConfig>> {
        self.config(id)
            .ok_or_else(|| PortError::failed("The guest has no system disk."))
    }
}

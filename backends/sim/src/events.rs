//! What happens to a world without anybody asking a port: deaths, failing legs, guests with a will of their own.

use crate::SimOptions;
use crate::network::DoorCommand;
use crate::state::{Part, State};
use crate::world::SimWorld;
use crate::write::Written;
use flipside_model::{DiskName, DiskRole, Leg, LegRole, MachineId};
use flipside_platform::{DiskSource, HostFacts, PortResult, RunState, StartMode, StartPlan};
use std::collections::BTreeMap;

/// How a leg fails, until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegFault {
    /// Writes fail: the machine stops in `IoError`, a resynchronisation onto it fails.
    Write,
    /// Reads fail: hidden from the guest by the other leg; the guard drops the leg.
    Read,
}

/// What the guest, or its agent, does not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestFault {
    /// The agent does not answer.
    AgentSilent,
    /// This unit does not stop.
    WillNotStop(String),
    /// This unit does not start.
    WillNotStart(String),
    /// This mount point is busy.
    MountBusy(String),
    /// Health checks fail.
    Unhealthy,
    /// The power button is ignored.
    IgnoresPowerButton,
    /// The firmware finds nothing to boot.
    StuckInFirmware,
    /// The guest has locked the CD drive.
    CdInUse,
}

impl SimWorld {
    /// Powers the system on as machine m1, or the next id: both legs, booted, owner, link up, door open.
    pub fn power_on(&self) -> PortResult<MachineId> {
        let id = self.with(|s| s.power_on())?;
        Ok(id)
    }

    /// Kills a machine process; a write in flight may reach one leg only.
    pub fn kill_machine(&self, id: MachineId) {
        self.with(|s| s.kill(id));
    }

    /// Cuts the power of the host: every machine, the front door and the server are gone.
    pub fn power_cut(&self) {
        self.with(State::lose_power);
        self.crash_server();
    }

    /// Lets a machine process hang (as with SIGSTOP), or go on.
    pub fn hang_machine(&self, id: MachineId, hangs: bool) {
        self.with(|s| {
            if let Some(machine) = s.machines.get_mut(&id) {
                machine.hung = hangs;
            }
        });
    }

    /// Lets a leg fail from now on.
    pub fn fail_leg(&self, disk: &DiskName, leg: Leg, fault: LegFault) {
        self.with(|s| s.leg_faults.insert((disk.clone(), leg), fault));
    }

    /// Heals a leg; what it missed it still lacks.
    pub fn heal_leg(&self, disk: &DiskName, leg: Leg) {
        self.with(|s| s.leg_faults.remove(&(disk.clone(), leg)));
    }

    /// Changes a leg behind everybody's back (fault 22), or brings the recorded file back.
    pub fn change_leg(&self, disk: &DiskName, leg: Leg, what: Option<&str>) {
        self.with(|s| match what {
            Some(what) => s
                .changed_legs
                .insert((disk.clone(), leg), what.to_owned())
                .is_some(),
            None => s.changed_legs.remove(&(disk.clone(), leg)).is_some(),
        });
    }

    /// The same, once, when [`SimWorld::label`] says that the engine has come there.
    pub fn change_leg_at(&self, label: &str, disk: &DiskName, leg: Leg, what: &str) {
        let change = (label.to_owned(), (disk.clone(), leg), what.to_owned());
        self.with(|s| s.coming_changes.push(change));
    }

    /// Says whether a leg is changed now.
    pub fn leg_changed(&self, disk: &DiskName, leg: Leg) -> bool {
        self.with(|s| s.changed_legs.contains_key(&(disk.clone(), leg)))
    }

    /// Puts an older copy of the leg book back, as a restored backup would.
    pub fn restore_book(&self, book: flipside_model::LegBook) {
        self.with(|s| s.book = book);
    }

    /// Switches a fault of the guest on, in one machine or in any.
    pub fn guest_fault(&self, id: Option<MachineId>, fault: GuestFault) {
        self.with(|s| s.guest_faults.insert((id, fault)));
    }

    /// Switches all faults of guests off.
    pub fn clear_guest_faults(&self) {
        self.with(|s| s.guest_faults.clear());
    }

    /// Lets the guest shut down by itself.
    pub fn guest_shut_down(&self, id: MachineId) {
        self.with(|s| s.shut_down(id));
    }

    /// Lets the guest restart by itself.
    pub fn guest_reboot(&self, id: MachineId) {
        self.with(|s| {
            if s.machines.get(&id).map(|m| m.run) == Some(RunState::Running) {
                s.boot(id);
            }
        });
    }

    /// Lets the guest's kernel panic.
    pub fn guest_panic(&self, id: MachineId) {
        self.with(|s| {
            if let Some(machine) = s.machines.get_mut(&id)
                && machine.run == RunState::Running
            {
                machine.run = RunState::Panicked;
                machine.guest = None;
            }
        });
    }

    /// Starts or ends a service in the guest, as an administrator would.
    pub fn set_service(&self, id: MachineId, unit: &str, active: bool) {
        self.with(|s| {
            if let Some(guest) = s.machines.get_mut(&id).and_then(|m| m.guest.as_mut()) {
                if active {
                    guest.active.insert(unit.to_owned());
                } else {
                    guest.active.remove(unit);
                }
            }
        });
    }

    /// Installs software in the running guest of a machine: an upgrade. Some blocks of its system disk change.
    pub fn install(&self, id: MachineId, version: &str) -> PortResult<()> {
        self.with(|s| {
            s.change_config(id, |c| version.clone_into(&mut c.version))?;
            let disk = s.root_disk();
            for block in 1..s.options.blocks.min(6) {
                if let Some(disk) = &disk {
                    s.guest_write(id, disk, block, None)?;
                }
            }
            Ok(())
        })
    }

    /// Lets the guest write a file on its system disk, or remove it.
    ///
    /// # Errors
    /// Its disk fails.
    pub fn write_file(&self, id: MachineId, path: &str, bytes: Option<&[u8]>) -> PortResult<()> {
        self.with(|s| {
            s.change_config(id, |c| match bytes {
                Some(bytes) => {
                    c.files.insert(path.to_owned(), bytes.to_vec());
                }
                None => {
                    c.files.remove(path);
                }
            })
        })
    }

    /// Returns what a file on the guest's system disk holds.
    pub fn read_file(&self, id: MachineId, path: &str) -> Option<Vec<u8>> {
        self.with(|s| s.config(id)?.files.get(path).cloned())
    }

    /// Says whether there is a scratch disk, and who has it.
    pub fn scratch(&self) -> (bool, Option<MachineId>) {
        self.with(|s| (s.scratch.made, s.scratch.with))
    }

    /// Lets the guest write one block of its first system disk; true when it was acknowledged.
    pub fn system_write(&self, id: MachineId) -> bool {
        let disk = self.with(|s| s.root_disk());
        disk.is_some_and(|disk| self.guest_write(id, &disk))
    }

    /// Lets the guest write one block of a disk; true when it was acknowledged (or went to a throw-away overlay).
    pub fn guest_write(&self, id: MachineId, disk: &DiskName) -> bool {
        self.with(|s| {
            let block = s.next_block();
            matches!(
                s.guest_write(id, disk, block, None),
                Ok((_, Written::Acknowledged | Written::ThrownAway))
            )
        })
    }

    /// Forgets acknowledged writes: after something that discards data on purpose.
    pub fn forget_acknowledged(&self) {
        self.with(|s| s.truth.acked.clear());
    }

    /// Changes what the host says of itself.
    pub fn set_facts(&self, change: impl FnOnce(&mut HostFacts)) {
        self.with(|s| change(&mut s.options.facts));
    }

    /// Changes the options of a running world, such as the versions that are unhealthy.
    pub fn set_options(&self, change: impl FnOnce(&mut SimOptions)) {
        self.with(|s| change(&mut s.options));
    }
}

impl State {
    /// Chooses the block of the next write: all of a disk in turn, except for block 0.
    pub(crate) fn next_block(&mut self) -> usize {
        let blocks = self.options.blocks.max(2);
        let turn = usize::try_from(self.values).unwrap_or(0);
        1 + (turn * 7) % (blocks - 1)
    }

    pub(crate) fn power_on(&mut self) -> PortResult<MachineId> {
        let id = self.book.last_machine.next();
        self.book.last_machine = id;
        self.book.generation += 1;
        self.book.clean = false;
        self.book.owner = Some(id);
        self.put_book();
        let disks: BTreeMap<_, _> = self
            .book
            .disks
            .iter()
            .map(|(name, pair)| (name.clone(), DiskSource::Legs(pair.live())))
            .collect();
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Boot { after: None },
            disks,
        };
        self.start(id, &plan, &mut Part::whole())?;
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.link_up = true;
            if let Some(guest) = &mut machine.guest {
                guest.up_at = tokio::time::Instant::now();
            }
        }
        self.start_guard();
        self.door_command(&DoorCommand::Open(id));
        Ok(id)
    }

    pub(crate) fn kill(&mut self, id: MachineId) {
        let Some(machine) = self.machines.get(&id) else {
            return;
        };
        let writes = machine.run == RunState::Running && self.options.torn_writes_on_kill;
        let disks: Vec<(DiskName, Vec<Leg>)> = machine
            .disks
            .iter()
            .map(|(name, disk)| (name.clone(), disk.legs().to_vec()))
            .collect();
        let line = machine.line;
        for (name, legs) in disks {
            if !writes || legs.is_empty() {
                continue;
            }
            let (block, value) = (self.next_block(), self.value());
            let leg = legs[usize::try_from(value).unwrap_or(0) % legs.len()];
            // A write to a system disk is only remembered as possible in the line that made it.
            let key = (name.clone(), block);
            self.truth.maybe.entry(key).or_default().insert(value, line);
            if let Some(content) = self.legs.get_mut(&(name.clone(), leg)) {
                content.blocks[block] = value;
            }
            let fresh = self.role(&name) == DiskRole::System
                && !self.truth.shadow.contains_key(&(line, name.clone()));
            if fresh && let Some(content) = self.legs.get(&(name.clone(), leg)).cloned() {
                self.truth.shadow.insert((line, name), content);
            }
        }
        self.machines.remove(&id);
    }

    /// Says whether the book calls a leg usable as the guest's own.
    pub(crate) fn usable(&self, disk: &DiskName, leg: Leg) -> bool {
        self.book.disks.get(disk).is_some_and(|pair| {
            matches!(
                pair.get(leg).role,
                LegRole::Live | LegRole::Original | LegRole::Upgraded
            )
        })
    }
}

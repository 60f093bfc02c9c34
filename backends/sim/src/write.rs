//! How a guest's write reaches the legs, and what happens when one of them fails.

use crate::options::BLOCK_BYTES;
use crate::state::{GuestDisk, State, Write};
use crate::{GuestConfig, LegFault};
use flipside_model::{DiskName, DiskRole, Leg, MachineId};
use flipside_platform::{DiskSource, PortError, PortErrorKind, PortResult, RunState};
use std::sync::Arc;
use tokio::time::Instant;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// On every leg of the root, acknowledged.
    Acknowledged,
    /// In an overlay that is thrown away.
    ThrownAway,
    /// The machine stopped in it; it is repeated when the guest is continued.
    Stopped,
}

impl State {
    /// Lets the guest of a running machine write a block.
    pub(crate) fn guest_write(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        block: usize,
        config: Option<Arc<GuestConfig>>,
    ) -> PortResult<(u64, Written)> {
        let value = self.value();
        let run = self.machine(id)?.run;
        if run != RunState::Running {
            return Err(PortError::failed(format!("Machine {id} does not run.")));
        }
        let config = if block == 0 && config.is_none() {
            self.config(id)
                .filter(|_| self.root_disk().as_ref() == Some(disk))
        } else {
            config
        };
        let write = Write {
            disk: disk.clone(),
            block,
            value,
            config,
        };
        Ok((value, self.write(id, write)?))
    }

    /// Performs a write; a running machine that fails in it stops.
    pub(crate) fn write(&mut self, id: MachineId, write: Write) -> PortResult<Written> {
        let plugged = self.plugged(id, &write.disk)?;
        match plugged.source.clone() {
            DiskSource::Overlay(_) => {
                let grown = !plugged.overlay.contains_key(&write.block);
                let needed = BLOCK_BYTES * (plugged.overlay.len() as u64 + 1);
                let bound = self.machine(id)?.plan.copy_limit;
                let full = |limit: &u64| grown && needed > *limit;
                if [bound, self.options.copy_room].iter().flatten().any(full) {
                    let text = format!("The copy of {} is full.", write.disk);
                    return Err(PortError::new(PortErrorKind::NoSpace, text));
                }
                let plugged = self.plugged(id, &write.disk)?;
                plugged.overlay.insert(write.block, write.value);
                let thrown = (write.disk, write.value);
                self.truth.thrown_away.insert(thrown);
                Ok(Written::ThrownAway)
            }
            DiskSource::Placeholder => {
                self.stop_in(id, write, None)?;
                Ok(Written::Stopped)
            }
            DiskSource::Legs(legs) => self.write_legs(id, write, &legs),
        }
    }

    /// Lets every guest that is up write to each disk it uses, if guests are busy. A call that changes a machine meets
    /// system disks as well: in blocks that nobody else writes and that are clean so far, so that none can be forgotten.
    pub(crate) fn guests_work(&mut self, changes_machine: bool) {
        if !self.options.busy_guests {
            return;
        }
        let next = self.next_block();
        let mut writes = Vec::new();
        for (id, machine) in &self.machines {
            let Some(guest) = machine.guest.as_ref().filter(|g| !g.emergency) else {
                continue;
            };
            if machine.run != RunState::Running || machine.hung || Instant::now() < guest.up_at {
                continue;
            }
            for disk in machine.disks.keys() {
                if self.role(disk) == DiskRole::Data {
                    if guest.mounts.values().any(|m| &m.disk == disk) {
                        writes.push((*id, disk.clone(), next));
                    }
                } else if let Some(block) = self.clean_block(*id, disk).filter(|_| changes_machine)
                {
                    writes.push((*id, disk.clone(), block));
                }
            }
        }
        for (id, disk, block) in writes {
            // One that fails stops its machine; that is seen like any other.
            let _ = self.guest_write(id, &disk, block, None);
        }
    }

    /// Finds a block that a machine has not written since the split, among every other one; the first few are left to
    /// what is installed.
    fn clean_block(&self, id: MachineId, disk: &DiskName) -> Option<usize> {
        let machine = self.machines.get(&id)?;
        let leg = machine.disks.get(disk)?.legs().first()?;
        let bits = machine.bitmaps.get(&(disk.clone(), *leg))?;
        let ours = |block: &usize| *block as u64 % 2 == u64::from(id.0) % 2;
        (8..self.options.blocks)
            .filter(ours)
            .find(|block| !bits.contains(block))
    }

    fn write_legs(&mut self, id: MachineId, write: Write, legs: &[Leg]) -> PortResult<Written> {
        let disk = write.disk.clone();
        let failing =
            |s: &State, leg: Leg| s.leg_faults.get(&(disk.clone(), leg)) == Some(&LegFault::Write);
        let bad = legs.iter().copied().find(|leg| failing(self, *leg));
        let data = self.role(&disk) == DiskRole::Data;
        for leg in legs.iter().copied() {
            if failing(self, leg) {
                continue;
            }
            let line = self.truth.line.get(&(disk.clone(), leg)).copied();
            let own = self.machine(id)?.line;
            if !data && line.is_some_and(|l| l != own) {
                self.violate(format!(
                    "{id} wrote to leg {leg} of {disk}, which belongs to another side"
                ));
            }
            if let Some(content) = self.legs.get_mut(&(disk.clone(), leg)) {
                put(content, &write);
            }
        }
        let machine = self.machine(id)?;
        for leg in legs {
            if let Some(bits) = machine.bitmaps.get_mut(&(disk.clone(), *leg)) {
                bits.insert(write.block);
            }
        }
        if let Some(bad) = bad {
            self.stop_in(id, write, Some(bad))?;
            return Ok(Written::Stopped);
        }
        let line = machine.line;
        let key = (disk.clone(), write.block);
        if data {
            let stamp = self.truth.stamps.entry(disk.clone()).or_default();
            *stamp += 1;
            let stamp = *stamp;
            let acked = self.truth.acked.entry(disk.clone()).or_default();
            acked.insert(write.block, write.value);
            self.truth.maybe.remove(&key);
            self.touch(id, &disk, stamp);
        } else if let Some(shadow) = self.truth.shadow.get_mut(&(line, disk.clone())) {
            put(shadow, &write);
            // It overwrites what its own line left there; the leg of another line still may hold what that one did.
            if let Some(values) = self.truth.maybe.get_mut(&key) {
                values.retain(|_, of| *of != line);
            }
        }
        Ok(Written::Acknowledged)
    }

    /// Notes that a guest's file systems know the state of a data disk.
    fn touch(&mut self, id: MachineId, disk: &DiskName, stamp: u64) {
        let mut stale = false;
        if let Some(guest) = self.machines.get_mut(&id).and_then(|m| m.guest.as_mut()) {
            for mounted in guest.mounts.values_mut().filter(|m| &m.disk == disk) {
                stale |= mounted.stamp + 1 != stamp;
                mounted.stamp = stamp;
            }
        }
        if stale {
            self.violate(format!("{id} wrote to {disk} with a stale cache"));
        }
    }

    fn stop_in(&mut self, id: MachineId, write: Write, leg: Option<Leg>) -> PortResult<()> {
        let key = (write.disk.clone(), write.block);
        let line = self.machine(id)?.line;
        let maybe = self.truth.maybe.entry(key).or_default();
        maybe.insert(write.value, line);
        let machine = self.machine(id)?;
        machine.run = RunState::IoError;
        if let Some(leg) = leg {
            machine.failed = Some((write.disk.clone(), leg));
        }
        machine.pending = Some(write);
        Ok(())
    }

    /// Continues a machine that stopped in a write: repeats it.
    pub(crate) fn repeat_write(&mut self, id: MachineId) -> PortResult<()> {
        let machine = self.machine(id)?;
        machine.run = RunState::Running;
        machine.failed = None;
        match machine.pending.take() {
            Some(write) => self.write(id, write).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Returns what the guest of a machine keeps on its system disk.
    pub(crate) fn config(&self, id: MachineId) -> Option<Arc<GuestConfig>> {
        let disk = self.root_disk()?;
        let plugged = self.machines.get(&id)?.disks.get(&disk)?;
        let leg = *plugged.legs().first().or(plugged.held.first())?;
        self.legs.get(&(disk, leg))?.config.clone()
    }

    /// Lets the guest change what it keeps on its system disk; nothing is written when nothing changes.
    pub(crate) fn change_config(
        &mut self,
        id: MachineId,
        change: impl FnOnce(&mut GuestConfig),
    ) -> PortResult<()> {
        let (Some(disk), Some(before)) = (self.root_disk(), self.config(id)) else {
            return Err(PortError::failed("The guest has no system disk."));
        };
        let mut config = GuestConfig::clone(&before);
        change(&mut config);
        if config == *before {
            return Ok(());
        }
        match self.guest_write(id, &disk, 0, Some(Arc::new(config)))? {
            (_, Written::Stopped) => Err(PortError::timed_out("The guest's disk failed.")),
            _ => Ok(()),
        }
    }
}

fn put(content: &mut GuestDisk, write: &Write) {
    if let Some(block) = content.blocks.get_mut(write.block) {
        *block = write.value;
    }
    if write.config.is_some() {
        content.config.clone_from(&write.config);
    }
}

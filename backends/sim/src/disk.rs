//! The disk port: block graphs and change bitmaps.

use crate::call::{Class, SimPorts};
use crate::options::BLOCK_BYTES;
use crate::state::{Carrier, Part, Plugged, State};
use async_trait::async_trait;
use flipside_model::{Carried, DiskName, DiskRole, Leg, MachineId, ResyncFigures};
use flipside_platform::{
    DiskPort, DiskSource, PortError, PortErrorKind, PortResult, ResyncStart, ResyncView, RunState,
    Verified, VerifyProgress,
};
use std::collections::BTreeSet;
use tokio::time::Instant;

impl State {
    /// Exchanges the root of a disk whose guest does not run.
    pub(crate) fn swap_root(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        legs: &[Leg],
        part: &mut Part,
    ) -> PortResult<()> {
        for leg in legs {
            self.lock(id, disk, *leg, true)?;
        }
        let plugged = self.plugged(id, disk)?;
        if matches!(plugged.source, DiskSource::Overlay(_)) {
            let text = format!("Disk {disk} of machine {id} is a throw-away overlay.");
            return Err(PortError::failed(text));
        }
        let wanted = DiskSource::Legs(legs.to_vec());
        if plugged.source != wanted {
            let fresh: Vec<Leg> = legs
                .iter()
                .copied()
                .filter(|leg| !plugged.held.contains(leg))
                .collect();
            part.step()?;
            plugged.source = DiskSource::Placeholder;
            part.step()?;
            for leg in fresh {
                self.opened(id, disk, leg);
            }
            let plugged = self.plugged(id, disk)?;
            plugged.source = wanted;
            for leg in legs {
                if !plugged.held.contains(leg) {
                    plugged.held.push(*leg);
                }
            }
        }
        if let [leg] = legs {
            let key = (disk.clone(), *leg);
            self.machine(id)?.bitmaps.entry(key).or_default();
        }
        let machine = self.machine(id)?;
        if let Some(plugged) = machine.disks.get_mut(disk)
            && plugged.held.as_slice() != legs
        {
            part.step()?;
            plugged.held = legs.to_vec();
            machine
                .bitmaps
                .retain(|(name, leg), _| name != disk || legs.contains(leg));
        }
        Ok(())
    }

    pub(crate) fn set_legs(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        legs: &[Leg],
        part: &mut Part,
    ) -> PortResult<()> {
        let paused = matches!(
            self.machine(id)?.run,
            RunState::Paused | RunState::PreSwitchover | RunState::IoError | RunState::PostMigrate
        );
        let plugged = self.plugged(id, disk)?;
        let already = plugged.legs() == legs && plugged.held.as_slice() == legs;
        if legs.is_empty() || (!paused && !already) {
            let text = format!("Machine {id} must be paused to change the legs of {disk}.");
            return Err(PortError::failed(text));
        }
        self.swap_root(id, disk, legs, part)
    }

    fn unplug(&mut self, id: MachineId, disk: &DiskName, part: &mut Part) -> PortResult<()> {
        let role = self.role(disk);
        let machine = self.machine(id)?;
        if machine.run == RunState::Incoming {
            let text = format!("Machine {id} waits for a fork.");
            return Err(PortError::failed(text));
        }
        if let Some(plugged) = machine.disks.get(disk).cloned() {
            part.step()?;
            let used = machine.run != RunState::Shutdown
                && machine.guest.as_ref().is_some_and(|g| {
                    Instant::now() >= g.up_at && g.mounts.values().any(|m| &m.disk == disk)
                });
            machine.disks.remove(disk);
            machine.leftover.insert(disk.clone(), plugged);
            machine.resyncs.remove(disk);
            self.boots_without(id, disk);
            if used || role == DiskRole::System {
                self.violate(format!("{disk} was unplugged from {id} while in use"));
            }
        }
        let machine = self.machine(id)?;
        if machine.leftover.contains_key(disk) || machine.targets.contains_key(disk) {
            part.step()?;
            machine.leftover.remove(disk);
            machine.targets.remove(disk);
            machine.bitmaps.retain(|(name, _), _| name != disk);
        }
        Ok(())
    }

    fn plug(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        legs: &[Leg],
        part: &mut Part,
    ) -> PortResult<()> {
        if self.spec.disk(disk).is_none() {
            return Err(PortError::absent(format!("There is no disk {disk}.")));
        }
        let wanted = DiskSource::Legs(legs.to_vec());
        let machine = self.machine(id)?;
        if !machine.active() {
            let text = format!("Machine {id} has given its disks up.");
            return Err(PortError::failed(text));
        }
        if let Some(plugged) = machine.disks.get(disk) {
            let now = plugged.legs();
            if now.len() == legs.len() && legs.iter().all(|leg| now.contains(leg)) {
                return Ok(());
            }
            let text = format!("Machine {id} has {disk} plugged otherwise.");
            return Err(PortError::new(PortErrorKind::Mismatch, text).about(disk.as_str()));
        }
        if self.role(disk) == DiskRole::Data && self.book.owner.is_some_and(|o| o != id) {
            self.violate(format!("{disk} was plugged into {id} but another owns it"));
        }
        for leg in legs {
            self.lock(id, disk, *leg, true)?;
        }
        part.step()?;
        for leg in legs {
            self.opened(id, disk, *leg);
        }
        let machine = self.machine(id)?;
        let key = disk.clone();
        machine.leftover.insert(key, Plugged::new(wanted.clone()));
        if let [leg] = legs {
            let bits = machine.bitmaps.entry((disk.clone(), *leg));
            bits.or_default();
        }
        part.step()?;
        machine.leftover.remove(disk);
        machine.disks.insert(disk.clone(), Plugged::new(wanted));
        Ok(())
    }

    /// Returns what the bitmap of a disk names, with a round in progress.
    pub(crate) fn dirty(&mut self, id: MachineId, disk: &DiskName) -> PortResult<BTreeSet<usize>> {
        let first = self.plugged(id, disk)?.legs().first().copied();
        let machine = self.machine(id)?;
        let bits = first.and_then(|leg| machine.bitmaps.get(&(disk.clone(), leg)));
        let Some(mut bits) = bits.cloned() else {
            let text = format!("Disk {disk} of machine {id} has no change bitmap.");
            return Err(PortError::absent(text).about(disk.as_str()));
        };
        if let Some(resync) = machine.resyncs.get(disk) {
            bits.extend(&resync.round);
        }
        Ok(bits)
    }

    fn carry_out(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        part: &mut Part,
    ) -> PortResult<Carried> {
        let bits = self.dirty(id, disk)?;
        let dirty_bytes = bits.len() as u64 * BLOCK_BYTES;
        part.step()?;
        // One carrier for each disk: what was stored before is gone.
        let stored = self.carriers.entry(disk.clone()).or_default();
        stored.clear();
        let carrier = stored.entry(id).or_default();
        *carrier = Carrier::default();
        part.step()?;
        *carrier = Carrier {
            complete: true,
            bits,
        };
        Ok(Carried {
            disk: disk.clone(),
            dirty_bytes,
        })
    }

    fn carry_in(&mut self, id: MachineId, disk: &DiskName) -> PortResult<u64> {
        let first = self.plugged(id, disk)?.legs().first().copied();
        let stored = self.carriers.get(disk).cloned().unwrap_or_default();
        if stored.is_empty() {
            let text = format!("There is no stored change bitmap of {disk}.");
            return Err(PortError::absent(text).about(disk.as_str()));
        }
        if stored.values().any(|c| !c.complete) {
            let text = format!("The stored change bitmap of {disk} is incomplete.");
            return Err(PortError::failed(text).about(disk.as_str()));
        }
        let machine = self.machine(id)?;
        let bits = first.and_then(|leg| machine.bitmaps.get_mut(&(disk.clone(), leg)));
        let Some(bits) = bits else {
            let text = format!("Disk {disk} of machine {id} has no change bitmap.");
            return Err(PortError::absent(text).about(disk.as_str()));
        };
        for carrier in stored.values() {
            bits.extend(&carrier.bits);
        }
        Ok(self.dirty(id, disk)?.len() as u64 * BLOCK_BYTES)
    }
}

impl State {
    /// The blocks in which the legs of a disk differ.
    pub(crate) fn differing_blocks(&self, disk: &DiskName) -> Vec<usize> {
        let leg = |leg: Leg| self.legs.get(&(disk.clone(), leg));
        match (leg(Leg::A), leg(Leg::B)) {
            (Some(a), Some(b)) => {
                let all = 0..a.blocks.len();
                all.filter(|i| !a.same_block(b, *i)).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl DiskPort for SimPorts {
    async fn set_legs(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
        let name = format!("disk.set_legs.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.set_legs(id, disk, legs, p)
        })
        .await
    }

    async fn unplug(&self, id: MachineId, disk: &DiskName) -> PortResult<()> {
        let name = format!("disk.unplug.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| s.unplug(id, disk, p))
            .await
    }

    async fn plug(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
        let name = format!("disk.plug.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.plug(id, disk, legs, p)
        })
        .await
    }

    async fn carry_out(&self, id: MachineId, disk: &DiskName) -> PortResult<Carried> {
        let name = format!("disk.carry_out.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.carry_out(id, disk, p)
        })
        .await
    }

    async fn carry_in(&self, id: MachineId, disk: &DiskName) -> PortResult<u64> {
        let name = format!("disk.carry_in.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, _| s.carry_in(id, disk))
            .await
    }

    async fn drop_carried(&self, disk: &DiskName) -> PortResult<()> {
        let name = format!("disk.drop_carried.{disk}");
        self.call(Class::Leased, None, name, |s, _| {
            s.carriers.remove(disk);
            Ok(())
        })
        .await
    }

    async fn resync_start(
        &self,
        id: MachineId,
        disk: &DiskName,
        from: Leg,
        to: Leg,
        how: ResyncStart,
        _rate: u64,
    ) -> PortResult<()> {
        let name = format!("disk.resync_start.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.resync_start(id, disk, (from, to), how, p)
        })
        .await
    }

    async fn resync_poll(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncView> {
        let name = format!("disk.resync_poll.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, _| {
            s.resync_poll(id, disk)
        })
        .await
    }

    async fn resync_finish(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncFigures> {
        let name = format!("disk.resync_finish.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.resync_end(id, disk, p)
        })
        .await
    }

    async fn resync_cancel(&self, id: MachineId, disk: &DiskName) -> PortResult<()> {
        let name = format!("disk.resync_cancel.{id}.{disk}");
        self.call(Class::Leased, Some(id), name, |s, p| {
            s.resync_cancel(id, disk, p)
        })
        .await
    }

    async fn plug_scratch(&self, id: MachineId, _bytes: u64) -> PortResult<()> {
        self.lend_scratch(id).await
    }

    async fn unplug_scratch(&self, id: MachineId) -> PortResult<()> {
        self.fetch_scratch(id).await
    }

    async fn drop_scratch(&self) -> PortResult<()> {
        self.forget_scratch().await
    }

    async fn verify(
        &self,
        disk: &DiskName,
        _rate: u64,
        progress: &VerifyProgress<'_>,
    ) -> PortResult<Verified> {
        let found = self
            .call(Class::Look, None, format!("disk.verify.{disk}"), |s, _| {
                let Some(size) = s.spec.disk(disk).map(|d| d.size) else {
                    return Err(PortError::absent(format!("There is no disk {disk}.")));
                };
                let different = s.differing_blocks(disk);
                Ok(Verified {
                    compared_bytes: size,
                    different_bytes: different.len() as u64 * BLOCK_BYTES,
                    first_difference: different.first().map(|at| *at as u64 * BLOCK_BYTES),
                })
            })
            .await?;
        progress(found.compared_bytes, found.compared_bytes);
        Ok(found)
    }
}

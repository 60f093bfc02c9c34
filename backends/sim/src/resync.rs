//! The resynchronisation of a stale leg.

use crate::options::BLOCK_BYTES;
use crate::state::{Part, State};
use flipside_model::{DiskName, DiskRole, Leg, LegRole, MachineId, ResyncFigures, planted};
use flipside_platform::{
    DiskSource, PortError, PortErrorKind, PortResult, ResyncPhase, ResyncStart, ResyncView,
    RunState,
};
use std::collections::BTreeSet;

/// A job that rewrites a leg.
#[derive(Debug, Clone)]
pub(crate) struct Resync {
    pub(crate) from: Leg,
    pub(crate) to: Leg,
    pub(crate) how: ResyncStart,
    pub(crate) failed: Option<String>,
    /// What this round copies; given back to the bitmap when the job is given up.
    pub(crate) round: BTreeSet<usize>,
    /// What is left of it.
    left: BTreeSet<usize>,
    /// The first round of a full compare.
    comparing: bool,
    union: BTreeSet<usize>,
    copied: u64,
    looked: u64,
}

impl State {
    pub(crate) fn resync_start(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        (from, to): (Leg, Leg),
        how: ResyncStart,
        part: &mut Part,
    ) -> PortResult<()> {
        let legs = self.plugged(id, disk)?.legs().to_vec();
        if let Some(job) = self.machine(id)?.resyncs.get(disk) {
            let same = (job.from, job.to, job.how) == (from, to, how) && job.failed.is_none();
            if same {
                return Ok(());
            }
            let text = format!("A resynchronisation of {disk} is there already.");
            return Err(PortError::failed(text).about(disk.as_str()));
        }
        if legs != [from] {
            let text = format!("Machine {id} does not run {disk} on leg {from} alone.");
            return Err(PortError::new(PortErrorKind::Mismatch, text).about(disk.as_str()));
        }
        self.lock(id, disk, to, true)?;
        let key = (disk.clone(), from);
        if how == ResyncStart::Bitmap && !self.machine(id)?.bitmaps.contains_key(&key) {
            let text = format!("Disk {disk} of machine {id} has no change bitmap.");
            return Err(PortError::absent(text).about(disk.as_str()));
        }
        self.check_direction(disk, from, to);
        part.step()?;
        self.opened(id, disk, to);
        self.machine(id)?.targets.insert(disk.clone(), to);
        part.step()?;
        let all: BTreeSet<usize> = (0..self.options.blocks).collect();
        let machine = self.machine(id)?;
        let bits = machine.bitmaps.entry(key).or_default();
        let named = std::mem::take(bits);
        let comparing = how == ResyncStart::Compare;
        let round = if comparing { all } else { named.clone() };
        let job = Resync {
            from,
            to,
            how,
            failed: None,
            left: round.clone(),
            round,
            comparing,
            union: if comparing { BTreeSet::new() } else { named },
            copied: 0,
            looked: 0,
        };
        machine.resyncs.insert(disk.clone(), job);
        Ok(())
    }

    fn check_direction(&mut self, disk: &DiskName, from: Leg, to: Leg) {
        let Some(pair) = self.book.disks.get(disk) else {
            return;
        };
        let stale = matches!(pair.get(to).role, LegRole::Stale(_));
        if pair.authority != from || !stale || from == to {
            self.violate(format!(
                "{disk} is resynchronised {from} to {to} without a record of that direction"
            ));
        }
    }

    /// Copies a block if needed; false when the target fails.
    fn copy(&mut self, disk: &DiskName, job: &mut Resync, block: usize) -> bool {
        let target = (disk.clone(), job.to);
        if self.leg_faults.contains_key(&target) {
            job.failed = Some(format!(
                "Leg {} of {disk} failed while it was written.",
                job.to
            ));
            return false;
        }
        let (source, content) = (
            self.legs.get(&(disk.clone(), job.from)),
            self.legs.get(&target),
        );
        let (Some(source), Some(content)) = (source, content) else {
            return false;
        };
        job.looked += 1;
        if job.comparing && content.same_block(source, block) {
            return true;
        }
        if job.comparing {
            job.union.insert(block);
        }
        let copied = source.block(block);
        if let Some(content) = self.legs.get_mut(&target) {
            content.put_block(block, copied);
        }
        job.copied += 1;
        true
    }

    pub(crate) fn resync_poll(&mut self, id: MachineId, disk: &DiskName) -> PortResult<ResyncView> {
        self.machine(id)?;
        let Some(mut job) = self.machine(id)?.resyncs.remove(disk) else {
            return Ok(ResyncView {
                phase: ResyncPhase::None,
                done_bytes: 0,
                total_bytes: 0,
            });
        };
        let key = (disk.clone(), job.from);
        let nearly = self.options.nearly_blocks;
        if job.failed.is_none() {
            if job.left.is_empty() {
                let machine = self.machine(id)?;
                let bits = machine.bitmaps.entry(key.clone()).or_default();
                job.comparing = false;
                job.round.clear();
                if bits.len() > nearly {
                    job.round = std::mem::take(bits);
                    job.left.clone_from(&job.round);
                    job.union.extend(&job.round);
                }
            }
            for _ in 0..self.options.resync_blocks_per_poll.max(1) {
                let Some(block) = job.left.pop_first() else {
                    break;
                };
                if !self.copy(disk, &mut job, block) {
                    break;
                }
            }
        }
        let bits = self.machine(id)?.bitmaps.entry(key).or_default().len();
        let phase = match &job.failed {
            Some(why) => ResyncPhase::Failed(why.clone()),
            None if job.left.is_empty() && bits <= nearly => ResyncPhase::Nearly,
            None => ResyncPhase::Copying,
        };
        let view = ResyncView {
            phase,
            done_bytes: job.looked * BLOCK_BYTES,
            total_bytes: (job.looked + (job.left.len() + bits) as u64) * BLOCK_BYTES,
        };
        self.machine(id)?.resyncs.insert(disk.clone(), job);
        Ok(view)
    }

    /// Ends a resynchronisation. One that fails is taken back and the guest runs on, unless the server dies in it.
    pub(crate) fn resync_end(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        part: &mut Part,
    ) -> PortResult<ResyncFigures> {
        let machine = self.machine(id)?;
        let ran = machine.run == RunState::Running;
        let from = machine.resyncs.get(disk).map(|job| job.from);
        let result = self.resync_finish(id, disk, part);
        let paused = self.machine(id)?.run == RunState::Paused;
        if let (Err(_), Some(from)) = (&result, from)
            && ran
            && paused
            && !part.dies
        {
            self.resync_cancel(id, disk, &mut Part::whole())?;
            self.swap_root(id, disk, &[from], &mut Part::whole())?;
            self.let_run(id, ran)?;
        }
        result
    }

    fn resync_finish(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        part: &mut Part,
    ) -> PortResult<ResyncFigures> {
        self.plugged(id, disk)?;
        let machine = self.machine(id)?;
        let Some(mut job) = machine.resyncs.get(disk).cloned() else {
            let both = machine.disks.get(disk).is_some_and(|d| d.legs().len() == 2);
            let figures = machine.resynced.get(disk).cloned().filter(|_| both);
            if let Some(figures) = figures {
                return Ok(figures);
            }
            let text = format!("No resynchronisation of {disk} is running.");
            return Err(PortError::failed(text).about(disk.as_str()));
        };
        if let Some(why) = &job.failed {
            return Err(PortError::failed(why.clone()).about(disk.as_str()));
        }
        let key = (disk.clone(), job.from);
        let rest = machine.bitmaps.get(&key).cloned().unwrap_or_default();
        // What the guest changed since it was nearly done is copied in the pause.
        if !job.left.is_empty() {
            let text = format!("The resynchronisation of {disk} is not nearly done.");
            return Err(PortError::failed(text).about(disk.as_str()));
        }
        part.step()?;
        let machine = self.machine(id)?;
        // One that was paused before stays paused: it may be meant so, or be left by a call that did not end.
        let ran = machine.run == RunState::Running;
        if ran {
            machine.run = RunState::Paused;
        }
        part.step()?;
        job.comparing = false;
        job.union.extend(&rest);
        for block in rest {
            if !self.copy(disk, &mut job, block) {
                let why = job.failed.clone().unwrap_or_default();
                self.machine(id)?.resyncs.insert(disk.clone(), job);
                self.let_run(id, ran)?;
                return Err(PortError::failed(why).about(disk.as_str()));
            }
        }
        part.step()?;
        let plugged = self.plugged(id, disk)?;
        plugged.source = DiskSource::Placeholder;
        part.step()?;
        plugged.source = DiskSource::Legs(vec![job.from, job.to]);
        plugged.held = vec![job.from, job.to];
        // What was copied is in the file that is open; the one that has its name now would be taken for it.
        self.opened(id, disk, job.to);
        let figures = ResyncFigures {
            disk: disk.clone(),
            union_bytes: job.union.len() as u64 * BLOCK_BYTES,
            copied_bytes: job.copied * BLOCK_BYTES,
            disk_bytes: self.options.blocks as u64 * BLOCK_BYTES,
            compared: job.how == ResyncStart::Compare,
            pause_us: 7_000,
            took_ms: 100,
        };
        let machine = self.machine(id)?;
        let line = machine.line;
        machine.targets.remove(disk);
        machine.resyncs.remove(disk);
        machine.bitmaps.retain(|(name, _), _| name != disk);
        machine.resynced.insert(disk.clone(), figures.clone());
        if self.role(disk) == DiskRole::System {
            self.truth.line.insert((disk.clone(), job.to), line);
        }
        part.step()?;
        self.let_run(id, ran)?;
        Ok(figures)
    }

    /// Continues a guest that our pause stopped.
    fn let_run(&mut self, id: MachineId, ran: bool) -> PortResult<()> {
        if ran && self.machine(id)?.run == RunState::Paused {
            self.repeat_write(id)?;
        }
        Ok(())
    }

    pub(crate) fn resync_cancel(
        &mut self,
        id: MachineId,
        disk: &DiskName,
        part: &mut Part,
    ) -> PortResult<()> {
        let machine = self.machine(id)?;
        if let Some(job) = machine.resyncs.get(disk).cloned() {
            part.step()?;
            machine.resyncs.remove(disk);
            let bits = machine.bitmaps.entry((disk.clone(), job.from));
            let bits = bits.or_default();
            if !planted::is("round-lost-by-force-cancel") {
                bits.extend(&job.round);
            }
            if let Some(plugged) = machine.disks.get_mut(disk)
                && plugged.source == DiskSource::Placeholder
            {
                plugged.source = DiskSource::Legs(vec![job.from]);
            }
        }
        let machine = self.machine(id)?;
        if machine.targets.contains_key(disk) {
            part.step()?;
            machine.targets.remove(disk);
        }
        Ok(())
    }

    /// Ends full compares, which die with the server.
    pub(crate) fn drop_compares(&mut self) {
        for machine in self.machines.values_mut() {
            let dead: Vec<DiskName> = machine
                .resyncs
                .iter()
                .filter(|(_, job)| job.comparing)
                .map(|(disk, _)| disk.clone())
                .collect();
            for disk in dead {
                machine.resyncs.remove(&disk);
                machine.targets.remove(&disk);
            }
        }
    }
}

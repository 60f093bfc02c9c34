//! The guard: the small process that outlives the server and keeps a machine from standing still for ever.

use crate::LegFault;
use crate::state::{Part, State};
use crate::world::SimWorld;
use flipside_model::{DiskName, Leg, LegRole, MachineId, StaleReason};
use flipside_platform::{DiskSource, RunState};
use std::time::Duration;

impl SimWorld {
    /// Lets the guard look once; time passes for forks that are copying. Returns what it did, a sentence each.
    /// It does nothing while the server holds the lease.
    pub fn guard_tick(&self) -> Vec<String> {
        self.with(|s| {
            s.pass_time();
            if s.lease.is_some() {
                return Vec::new();
            }
            let mut acts = Vec::new();
            let all: Vec<MachineId> = s.machines.keys().copied().collect();
            for id in all {
                s.guard_failed_leg(id, &mut acts);
                s.guard_pause(id, &mut acts);
            }
            acts
        })
    }

    /// Runs the guard for ever; a test spawns it.
    pub async fn run_guard(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.guard_tick();
        }
    }
}

impl State {
    /// A fork's copying goes on whether or not anybody asks.
    fn pass_time(&mut self) {
        let copying: Vec<MachineId> = self
            .machines
            .iter()
            .filter(|(_, m)| m.run == RunState::Running && !m.hung)
            .filter(|(_, m)| m.fork.as_ref().is_some_and(|f| f.done.is_none()))
            .map(|(id, _)| *id)
            .collect();
        for id in copying {
            // A fork that failed is found by the next poll.
            let _ = self.fork_poll(id);
        }
    }

    fn bad_leg(&self, id: MachineId) -> Option<(DiskName, Leg)> {
        let machine = self.machines.get(&id)?;
        if let Some(failed) = &machine.failed {
            return Some(failed.clone());
        }
        let mut legs = machine
            .disks
            .iter()
            .flat_map(|(name, d)| d.legs().iter().map(|leg| (name.clone(), *leg)));
        legs.find(|key| self.leg_faults.get(key) == Some(&LegFault::Read))
    }

    fn guard_failed_leg(&mut self, id: MachineId, acts: &mut Vec<String>) {
        let Some((disk, bad)) = self.bad_leg(id) else {
            return;
        };
        let good = bad.other();
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        let both = machine
            .disks
            .get(&disk)
            .is_some_and(|d| d.legs().contains(&good));
        let stopped = matches!(machine.run, RunState::IoError | RunState::Running);
        if !both || !stopped || machine.hung || !self.usable(&disk, good) {
            return;
        }
        if let Some(pair) = self.book.disks.get_mut(&disk) {
            pair.authority = good;
            let reason = StaleReason::Failed("the leg failed".to_owned());
            pair.get_mut(bad).role = LegRole::Stale(reason);
            self.book.generation += 1;
        }
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.run = RunState::Paused;
            machine.failed = None;
        }
        let swapped = self.swap_root(id, &disk, &[good], &mut Part::whole());
        if swapped.is_ok() && self.resume(id).is_ok() {
            acts.push(format!("dropped leg {bad} of {disk} from {id}"));
        }
    }

    fn guard_pause(&mut self, id: MachineId, acts: &mut Vec<String>) {
        let now = self.now_ms();
        let expired = self.book.pause_until_ms.is_some_and(|until| until < now);
        let Some(machine) = self.machines.get(&id) else {
            return;
        };
        let paused = matches!(
            machine.run,
            RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
        ) || (machine.run == RunState::IoError && machine.failed.is_none());
        if !expired || !paused || machine.hung || self.book.owner != Some(id) {
            return;
        }
        if machine.run == RunState::PreSwitchover {
            if self.fork_cancel(id, &mut Part::whole()).is_err() {
                return;
            }
            acts.push(format!("gave the fork of {id} up"));
        }
        if self.options.guard_repairs {
            self.repair(id, acts);
        }
        if !self.roots_recorded(id) {
            acts.push(format!("left {id} alone: a root is not as recorded"));
            return;
        }
        if self.resume(id).is_ok() {
            self.book.pause_until_ms = None;
            self.book.generation += 1;
            acts.push(format!("continued {id}"));
        }
    }

    /// Finishes interrupted swaps with the legs that the book calls live.
    fn repair(&mut self, id: MachineId, acts: &mut Vec<String>) {
        let broken: Vec<DiskName> = self.machines.get(&id).map_or_else(Vec::new, |m| {
            let open = m.disks.iter();
            open.filter(|(_, d)| d.source == DiskSource::Placeholder)
                .map(|(name, _)| name.clone())
                .collect()
        });
        for disk in broken {
            let Some(legs) = self.book.disks.get(&disk).map(|pair| pair.live()) else {
                continue;
            };
            if self.resync_cancel(id, &disk, &mut Part::whole()).is_ok()
                && self.swap_root(id, &disk, &legs, &mut Part::whole()).is_ok()
            {
                acts.push(format!("finished the swap of {disk} on {id}"));
            }
        }
    }

    /// Says whether every disk's root is a quorum that has every leg the book calls live, the authority among them.
    fn roots_recorded(&self, id: MachineId) -> bool {
        self.machines.get(&id).is_some_and(|m| {
            m.disks.iter().all(|(name, disk)| {
                let live = self.book.disks.get(name).map(|pair| pair.live());
                live.is_some_and(|live| live.iter().all(|leg| disk.legs().contains(leg)))
            })
        })
    }
}

//! The live fork of one machine into another.

use crate::state::{Fork, Machine, Part, State};
use flipside_model::{DiskName, DiskRole, ForkFigures, Leg, MachineId};
use flipside_platform::{DiskSource, ForkView, PortError, PortResult, RunState};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

impl State {
    fn memory_bytes(&self) -> u64 {
        u64::from(self.spec.memory_mib) << 20
    }

    pub(crate) fn fork_begin(&mut self, from: MachineId, to: MachineId) -> PortResult<()> {
        if let Some(fork) = &self.machine(from)?.fork
            && fork.to == to
            && fork.done.is_none()
        {
            return Ok(());
        }
        let other = self.machine(to)?;
        if other.run != RunState::Incoming || other.half {
            let text = format!("Machine {to} does not wait for a fork.");
            return Err(PortError::failed(text));
        }
        let machine = self.machine(from)?;
        if machine.run != RunState::Running {
            let text = format!("Machine {from} does not run.");
            return Err(PortError::failed(text));
        }
        if let Some(fork) = machine.fork.as_ref().filter(|f| f.done.is_none()) {
            let text = format!("Machine {from} is being forked into {}.", fork.to);
            return Err(PortError::failed(text));
        }
        let before = machine
            .disks
            .iter()
            .map(|(name, disk)| (name.clone(), disk.legs().to_vec()))
            .collect();
        machine.fork = Some(Fork {
            to,
            polls: 0,
            begun: Instant::now(),
            before,
            done: None,
        });
        Ok(())
    }

    pub(crate) fn fork_poll(&mut self, from: MachineId) -> PortResult<ForkView> {
        let total_bytes = self.memory_bytes();
        let polls = self.options.precopy_polls.max(1);
        let run = self.machine(from)?.run;
        let Some(fork) = self.machine(from)?.fork.clone() else {
            let text = format!("Machine {from} is not being forked.");
            return Err(PortError::failed(text));
        };
        let view = |ready, done| ForkView {
            ready,
            done_bytes: done,
            total_bytes,
            rate: 1 << 30,
        };
        if fork.done.is_some() || matches!(run, RunState::PreSwitchover | RunState::PostMigrate) {
            return Ok(view(fork.done.is_none(), total_bytes));
        }
        if self.machines.get(&fork.to).is_none_or(|m| m.hung) {
            self.machine(from)?.fork = None;
            let text = format!("Machine {} went away during the fork.", fork.to);
            return Err(PortError::failed(text));
        }
        let machine = self.machine(from)?;
        if run != RunState::Running {
            return Ok(view(false, total_bytes / 2));
        }
        let Some(fork) = &mut machine.fork else {
            return Ok(view(false, 0));
        };
        fork.polls += 1;
        if fork.polls < polls {
            let done = total_bytes * u64::from(fork.polls) / u64::from(polls);
            return Ok(view(false, done));
        }
        machine.run = RunState::PreSwitchover;
        Ok(view(true, total_bytes))
    }

    pub(crate) fn fork_switch(
        &mut self,
        from: MachineId,
        to: MachineId,
        keep: &BTreeMap<DiskName, Leg>,
        part: &mut Part,
    ) -> PortResult<ForkFigures> {
        let run = self.machine(from)?.run;
        let fork = self.machine(from)?.fork.clone();
        let Some(fork) = fork.filter(|f| f.to == to) else {
            let text = format!("Machine {from} is not being forked into {to}.");
            return Err(PortError::failed(text));
        };
        if fork.done.is_none() {
            if run != RunState::PreSwitchover {
                let text = format!("Machine {from} is not ready for the switch.");
                return Err(PortError::failed(text));
            }
            for (disk, leg) in keep {
                self.swap_root(from, disk, &[*leg], part)?;
            }
            part.step()?;
            self.send_memory(from, to)?;
        }
        part.step()?;
        self.track_fork(to)?;
        part.step()?;
        if self.machine(from)?.run == RunState::PostMigrate {
            self.resume(from)?;
            if let Some(guest) = &mut self.machine(from)?.guest {
                guest.clock_late = false;
            }
        }
        let figures = self.machine(from)?.fork.as_ref().and_then(|f| f.done);
        figures.ok_or_else(|| PortError::failed("The fork was given up."))
    }

    /// Completes the fork: the other machine has the memory and takes its disks; the source gives its own up.
    fn send_memory(&mut self, from: MachineId, to: MachineId) -> PortResult<()> {
        let figures = ForkFigures {
            pause_us: 20_000,
            precopy_ms: 500,
            memory_bytes: self.memory_bytes(),
        };
        let incoming = |m: &Machine| m.run == RunState::Incoming && !m.hung;
        if !self.machines.get(&to).is_some_and(incoming) {
            let text = format!("Machine {to} does not wait for a fork.");
            return Err(PortError::failed(text));
        }
        let source = self.machine(from)?;
        let (guest, line) = (source.guest.clone(), source.line);
        let back = source.run;
        source.run = RunState::PostMigrate;
        let other = self.machine(to)?;
        other.run = RunState::Paused;
        let opens = other.opens();
        if let Err(error) = self.lock_all(to, &opens) {
            self.machine(to)?.run = RunState::Incoming;
            self.machine(from)?.run = back;
            return Err(error);
        }
        // It opens them anew, for writing.
        for (disk, leg, _) in opens {
            self.opened(to, &disk, leg);
        }
        let overlays: BTreeSet<DiskName> = {
            let disks = &self.machine(to)?.disks;
            let over = disks
                .iter()
                .filter(|(_, d)| matches!(d.source, DiskSource::Overlay(_)));
            over.map(|(name, _)| name.clone()).collect()
        };
        let guest = guest.map(|mut g| {
            for mounted in g.mounts.values_mut() {
                mounted.overlay = overlays.contains(&mounted.disk);
            }
            g.clock_late = true;
            g
        });
        self.machine(to)?.guest = guest;
        self.machine(to)?.link_up = false;
        self.part_lines(from, to, line);
        if let Some(fork) = &mut self.machine(from)?.fork {
            fork.done = Some(figures);
        }
        Ok(())
    }

    /// Notes that the other machine's system legs are its own from now on, and that all are of one instant.
    fn part_lines(&mut self, from: MachineId, to: MachineId, line: MachineId) {
        let (Some(source), Some(other)) = (self.machines.get(&from), self.machines.get(&to)) else {
            return;
        };
        let mut wrong = Vec::new();
        let mut parted = Vec::new();
        for (name, disk) in &other.disks {
            let own = source
                .disks
                .get(name)
                .and_then(|d| d.legs().first().copied());
            let theirs: Vec<Leg> = match &disk.source {
                DiskSource::Legs(legs) => legs.clone(),
                DiskSource::Overlay(leg) => vec![*leg],
                DiskSource::Placeholder => Vec::new(),
            };
            for leg in theirs {
                let key = (name.clone(), leg);
                let same = own
                    .is_some_and(|own| self.legs.get(&(name.clone(), own)) == self.legs.get(&key));
                if !same {
                    wrong.push(format!(
                        "leg {leg} of {name} is not of the instant of the fork"
                    ));
                }
                parted.push(key);
            }
        }
        for (name, leg) in parted {
            if self.role(&name) == DiskRole::System {
                let held = self.truth.shadow.get(&(line, name.clone())).cloned();
                if let Some(shadow) = held {
                    self.truth.shadow.insert((to, name.clone()), shadow);
                }
                self.truth.line.insert((name, leg), to);
            }
        }
        wrong.into_iter().for_each(|w| self.violate(w));
    }

    fn track_fork(&mut self, to: MachineId) -> PortResult<()> {
        let other = self.machine(to)?;
        if other.run == RunState::Paused {
            for (name, disk) in &other.disks {
                if let [leg] = disk.legs() {
                    let key = (name.clone(), *leg);
                    other.bitmaps.entry(key).or_default();
                }
            }
        }
        Ok(())
    }

    pub(crate) fn fork_cancel(&mut self, from: MachineId, part: &mut Part) -> PortResult<()> {
        let machine = self.machine(from)?;
        let Some(fork) = machine.fork.clone() else {
            return Ok(());
        };
        if fork.done.is_some() {
            // The other machine has the disks; the source can only run on without them.
            if machine.run == RunState::PostMigrate {
                self.resume(from)?;
            }
            return Ok(());
        }
        part.step()?;
        let waits = machine.run == RunState::PreSwitchover;
        if waits {
            machine.run = RunState::Paused;
        }
        // An incoming machine whose source went away ends by itself.
        if self
            .machines
            .get(&fork.to)
            .is_some_and(|m| m.run == RunState::Incoming)
        {
            self.machines.remove(&fork.to);
        }
        part.step()?;
        // An interrupted swap is taken back. A leg that has left stays away: the bitmap says by how little.
        for (disk, legs) in &fork.before {
            let plugged = self.machine(from)?.disks.get(disk);
            if plugged.is_some_and(|p| p.source == DiskSource::Placeholder) {
                self.swap_root(from, disk, legs, &mut Part::whole())?;
            }
        }
        part.step()?;
        let machine = self.machine(from)?;
        machine.fork = None;
        if waits || machine.run == RunState::Paused {
            self.resume(from)?;
        }
        Ok(())
    }
}

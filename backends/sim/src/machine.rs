//! The machine port: processes, power and links.

use crate::call::{Class, SimPorts};
use crate::options::BLOCK_BYTES;
use crate::state::{Machine, Part, Plugged, State};
use async_trait::async_trait;
use flipside_model::{DiskName, DiskRole, Firmware, ForkFigures, Leg, MachineId};
use flipside_platform::{
    DiskSource, DiskView, ForkView, MachinePort, MachineView, PortError, PortErrorKind, PortResult,
    RunState, StartMode, StartPlan,
};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(crate) fn view(&self, id: MachineId) -> MachineView {
        let Some(machine) = self.machines.get(&id) else {
            return MachineView::absent();
        };
        if machine.hung {
            return MachineView {
                run: RunState::Unresponsive,
                ..MachineView::absent()
            };
        }
        let disks = machine.disks.iter().map(|(name, plugged)| {
            let first = plugged.legs().first();
            let bits = first.and_then(|leg| machine.bitmaps.get(&(name.clone(), *leg)));
            let round = machine.resyncs.get(name).map(|r| &r.round);
            let dirty = bits.map(|bits| match round {
                Some(round) => bits.union(round).count() as u64 * BLOCK_BYTES,
                None => bits.len() as u64 * BLOCK_BYTES,
            });
            let view = DiskView {
                source: plugged.source.clone(),
                dirty_bytes: dirty,
            };
            (name.clone(), view)
        });
        MachineView {
            run: machine.run,
            disks: disks.collect(),
            link_up: machine.link_up,
            accelerator: Some("tcg".to_owned()),
        }
    }

    pub(crate) fn start(
        &mut self,
        id: MachineId,
        plan: &StartPlan,
        part: &mut Part,
    ) -> PortResult<()> {
        if let Some(machine) = self.machines.get(&id) {
            if &machine.plan != plan {
                let text = format!("Machine {id} exists and was started otherwise.");
                return Err(PortError::new(PortErrorKind::Mismatch, text));
            }
            if !machine.half {
                return Ok(());
            }
        } else {
            if self.lines.contains_key(&id) {
                self.violate(format!("machine id {id} was used twice"));
            }
            part.step()?;
            self.spawn(id, plan)?;
        }
        part.step()?;
        let boots = matches!(plan.mode, StartMode::Boot { .. });
        let machine = self.machine(id)?;
        machine.half = false;
        if boots {
            machine.run = RunState::Running;
            self.boot(id);
        }
        Ok(())
    }

    fn spawn(&mut self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        let first = self.root_disk();
        let root_leg = first.as_ref().and_then(|d| match plan.disks.get(d) {
            Some(DiskSource::Legs(legs)) => legs.first().copied(),
            _ => None,
        });
        let of_leg = root_leg
            .zip(first.clone())
            .and_then(|(leg, disk)| self.truth.line.get(&(disk, leg)).copied());
        let line = match plan.mode {
            StartMode::Incoming { .. } => id,
            StartMode::Boot { after } => {
                let before = after.and_then(|a| self.lines.get(&a).copied());
                // Pitfall 22: variables of the other side are state of the other side.
                if self.spec.firmware == Firmware::Uefi
                    && let (Some(before), Some(of_leg)) = (before, of_leg)
                    && before != of_leg
                {
                    self.violate(format!("{id} has the firmware variables of another side"));
                }
                of_leg.or(before).unwrap_or(id)
            }
        };
        let run = match plan.mode {
            StartMode::Incoming { .. } => RunState::Incoming,
            StartMode::Boot { .. } => RunState::Paused,
        };
        let mut machine = Machine::new(run, plan.clone(), line);
        machine.half = true;
        for (name, source) in &plan.disks {
            if self.spec.disk(name).is_none() {
                return Err(PortError::absent(format!("There is no disk {name}.")));
            }
            machine
                .disks
                .insert(name.clone(), Plugged::new(source.clone()));
            if let (DiskSource::Legs(legs), RunState::Paused) = (source, run)
                && let [leg] = legs[..]
            {
                let key = (name.clone(), leg);
                machine.bitmaps.insert(key, BTreeSet::new());
            }
        }
        self.lock_all(id, &machine.opens())?;
        for (name, source) in &plan.disks {
            let legs = match source {
                DiskSource::Legs(legs) => legs.clone(),
                DiskSource::Overlay(leg) => vec![*leg],
                DiskSource::Placeholder => Vec::new(),
            };
            for leg in legs {
                self.opened(id, name, leg);
            }
        }
        if run == RunState::Paused {
            self.enter_line(line, &machine);
        }
        self.lines.insert(id, line);
        self.machines.insert(id, machine);
        Ok(())
    }

    /// Notes the line of system legs that had none, and what they hold.
    fn enter_line(&mut self, line: MachineId, machine: &Machine) {
        for (name, plugged) in &machine.disks {
            if self.role(name) != DiskRole::System {
                continue;
            }
            for leg in plugged.legs() {
                let key = (name.clone(), *leg);
                self.truth.line.entry(key.clone()).or_insert(line);
                if let Some(content) = self.legs.get(&key) {
                    let shadow = self.truth.shadow.entry((line, name.clone()));
                    let shadow = shadow.or_insert_with(|| content.clone());
                    if Some(leg) != plugged.legs().first() {
                        continue;
                    }
                    // What a death left of a write in flight is now what this line has read.
                    for (block, value) in content.blocks.iter().enumerate() {
                        let maybe = self.truth.maybe.get(&(name.clone(), block));
                        if maybe.is_some_and(|values| values.contains_key(value)) {
                            shadow.copy_block(content, block);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn end(&mut self, id: MachineId, part: &mut Part) -> PortResult<()> {
        part.step()?;
        self.machines.remove(&id);
        part.step()
    }

    pub(crate) fn pause(&mut self, id: MachineId) -> PortResult<()> {
        let machine = self.machine(id)?;
        if machine.run == RunState::Incoming {
            return Err(PortError::failed(format!("Machine {id} waits for a fork.")));
        }
        if machine.run == RunState::Running {
            machine.run = RunState::Paused;
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self, id: MachineId) -> PortResult<()> {
        let machine = self.machine(id)?;
        let no = |what: &str| Err(PortError::failed(format!("Machine {id} {what}.")));
        match machine.run {
            RunState::Running => Ok(()),
            RunState::Paused if machine.half => no("was not started wholly"),
            RunState::Paused | RunState::IoError => {
                if let Some(guest) = &mut machine.guest {
                    guest.clock_late = true;
                }
                self.repeat_write(id)
            }
            RunState::PostMigrate => {
                machine.run = RunState::Paused;
                let opens = machine.opens();
                if let Err(error) = self.lock_all(id, &opens) {
                    self.machine(id)?.run = RunState::PostMigrate;
                    return Err(error);
                }
                self.repeat_write(id)
            }
            RunState::PreSwitchover => no("waits at the end of a fork; give the fork up first"),
            RunState::Incoming => no("waits for a fork"),
            RunState::Shutdown => no("was shut down"),
            RunState::Panicked => no("panicked"),
            RunState::Absent | RunState::Unresponsive => no("does not answer"),
        }
    }

    fn set_link(&mut self, id: MachineId, up: bool) -> PortResult<()> {
        let owner = self.book.owner;
        if up && owner.is_some_and(|o| o != id) {
            self.violate(format!("the link of {id} was raised but another owns it"));
        }
        if up {
            let bad = |s: &State| {
                let guest = s.machines.get(&id).and_then(|m| m.guest.as_ref());
                guest.is_some_and(|g| !g.emergency && g.mounts.values().any(|m| m.overlay))
            };
            if bad(self) {
                self.violate(format!("the link of {id} was raised over throw-away data"));
            }
        }
        self.machine(id)?.link_up = up;
        Ok(())
    }
}

#[async_trait]
impl MachinePort for SimPorts {
    async fn observe(&self, id: MachineId) -> PortResult<MachineView> {
        let name = format!("machine.observe.{id}");
        self.call(Class::Look, Some(id), name, |s, _| Ok(s.view(id)))
            .await
    }

    async fn list(&self) -> PortResult<Vec<MachineId>> {
        let name = "machine.list".to_owned();
        self.call(Class::Look, None, name, |s, _| {
            Ok(s.machines.keys().copied().collect())
        })
        .await
    }

    async fn start(&self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        let name = format!("machine.start.{id}");
        self.call(Class::Leased, Some(id), name, |s, p| s.start(id, plan, p))
            .await
    }

    async fn pause(&self, id: MachineId) -> PortResult<()> {
        let name = format!("machine.pause.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| s.pause(id))
            .await
    }

    async fn resume(&self, id: MachineId) -> PortResult<()> {
        let name = format!("machine.resume.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| s.resume(id))
            .await
    }

    async fn end(&self, id: MachineId) -> PortResult<()> {
        let name = format!("machine.end.{id}");
        self.call(Class::Leased, Some(id), name, |s, p| s.end(id, p))
            .await
    }

    async fn power_down(&self, id: MachineId) -> PortResult<()> {
        let name = format!("machine.power_down.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| {
            s.machine(id)?;
            s.power_button(id);
            Ok(())
        })
        .await
    }

    async fn reset(&self, id: MachineId) -> PortResult<()> {
        let name = format!("machine.reset.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| {
            let machine = s.machine(id)?;
            let forks = [
                RunState::Incoming,
                RunState::PreSwitchover,
                RunState::PostMigrate,
            ];
            if machine.half || forks.contains(&machine.run) {
                let text = format!("Machine {id} takes part in a fork and cannot be reset.");
                return Err(PortError::failed(text));
            }
            machine.run = RunState::Running;
            s.boot(id);
            Ok(())
        })
        .await
    }

    async fn set_link(&self, id: MachineId, up: bool) -> PortResult<()> {
        let name = format!("machine.set_link.{id}.{}", if up { "up" } else { "down" });
        self.call(Class::Leased, Some(id), name, |s, _| s.set_link(id, up))
            .await
    }

    async fn fork_begin(&self, from: MachineId, to: MachineId) -> PortResult<()> {
        let name = format!("machine.fork_begin.{from}");
        self.call(Class::Leased, Some(from), name, |s, _| {
            s.fork_begin(from, to)
        })
        .await
    }

    async fn fork_poll(&self, from: MachineId) -> PortResult<ForkView> {
        let name = format!("machine.fork_poll.{from}");
        self.call(Class::Look, Some(from), name, |s, _| s.fork_poll(from))
            .await
    }

    async fn fork_switch(
        &self,
        from: MachineId,
        to: MachineId,
        keep: &BTreeMap<DiskName, Leg>,
    ) -> PortResult<ForkFigures> {
        let name = format!("machine.fork_switch.{from}");
        self.call(Class::Leased, Some(from), name, |s, p| {
            s.fork_switch(from, to, keep, p)
        })
        .await
    }

    async fn fork_cancel(&self, from: MachineId) -> PortResult<()> {
        let name = format!("machine.fork_cancel.{from}");
        self.call(Class::Leased, Some(from), name, |s, p| {
            s.fork_cancel(from, p)
        })
        .await
    }
}

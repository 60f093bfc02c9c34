//! The invariants of `reliability.md`, section 2, as far as a world can show them (1 to 11 and 18).

use crate::state::{GuestDisk, Machine, State};
use crate::world::SimWorld;
use flipside_model::{DiskName, DiskRole, Leg, LegRole, MachineId};
use flipside_platform::{DiskSource, RunState, StartMode};
use std::collections::BTreeMap;

impl SimWorld {
    /// Checks every invariant on the world as it is, and that nothing forbidden was done on the way. Returns all
    /// that is wrong.
    ///
    /// # Errors
    /// What is wrong, a clause each, separated by semicolons.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.with(|s| {
            let mut wrong = s.truth.violations.clone();
            wrong.extend(s.wrong_now());
            if wrong.is_empty() {
                return Ok(());
            }
            Err(wrong.join("; "))
        })
    }

    /// Lists what was done that must never be done, whatever the world looks like now.
    pub fn violations(&self) -> Vec<String> {
        self.with(|s| s.truth.violations.clone())
    }
}

impl State {
    /// Lists what is wrong at this moment.
    fn wrong_now(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.one_owner(&mut wrong);
        self.one_writer(&mut wrong);
        self.isolation(&mut wrong);
        self.authority(&mut wrong);
        self.shadows(&mut wrong);
        self.mirrors(&mut wrong);
        self.acknowledged(&mut wrong);
        self.caches(&mut wrong);
        self.checkpoints(&mut wrong);
        self.copies(&mut wrong);
        wrong
    }

    /// Remembers what is wrong after the call that was made last.
    pub(crate) fn check_now(&mut self) {
        let wrong = self.wrong_now();
        if wrong.is_empty() {
            return;
        }
        let call = self.calls.last().map(|c| c.name.clone());
        let call = call.unwrap_or_default();
        self.violate(format!("after {call}: {}", wrong.join("; ")));
    }

    fn active(&self) -> impl Iterator<Item = (&MachineId, &Machine)> {
        self.machines.iter().filter(|(_, m)| m.active())
    }

    /// Invariant 1: one side has each data disk, one side has its link up.
    fn one_owner(&self, wrong: &mut Vec<String>) {
        for disk in &self.spec.disks {
            if self.role(&disk.name) != DiskRole::Data {
                continue;
            }
            let owners: Vec<String> = self
                .active()
                .filter(|(_, m)| {
                    let source = m.disks.get(&disk.name).map(|d| &d.source);
                    matches!(source, Some(DiskSource::Legs(_) | DiskSource::Placeholder))
                })
                .map(|(id, _)| id.to_string())
                .collect();
            if owners.len() > 1 {
                wrong.push(format!("{} belongs to {}", disk.name, owners.join(" and ")));
            }
        }
        let up: Vec<String> = self
            .machines
            .iter()
            .filter(|(_, m)| m.link_up)
            .map(|(id, _)| id.to_string())
            .collect();
        if up.len() > 1 {
            wrong.push(format!("the links of {} are up", up.join(" and ")));
        }
    }

    /// Invariant 2: no leg is open for writing by one and at all by another.
    fn one_writer(&self, wrong: &mut Vec<String>) {
        let mut by: BTreeMap<(DiskName, Leg), Vec<(MachineId, bool)>> = BTreeMap::new();
        // One machine alone is in nobody's way.
        let several = self.machines.len() > 1;
        for (id, machine) in self.machines.iter().filter(|_| several) {
            for (disk, leg, writes) in machine.opens() {
                let users = by.entry((disk, leg)).or_default();
                if !users.iter().any(|(user, _)| user == id) {
                    users.push((*id, writes));
                }
            }
        }
        for ((disk, leg), users) in by {
            if users.len() > 1 && users.iter().any(|(_, writes)| *writes) {
                let users: Vec<String> = users.iter().map(|(id, _)| id.to_string()).collect();
                wrong.push(format!(
                    "leg {leg} of {disk} is open in {}",
                    users.join(" and ")
                ));
            }
        }
        for (id, machine) in self.active() {
            for (name, disk) in &machine.disks {
                for leg in disk.legs() {
                    let line = self.truth.line.get(&(name.clone(), *leg));
                    if self.role(name) == DiskRole::System
                        && line.is_some_and(|l| *l != machine.line)
                    {
                        wrong.push(format!(
                            "{id} has leg {leg} of {name}, which belongs to another side"
                        ));
                    }
                }
            }
        }
    }

    /// Invariant 3: while the system is divided, who does not own it has neither data nor network.
    fn isolation(&self, wrong: &mut Vec<String>) {
        let Some(owner) = self.book.owner else {
            return;
        };
        let divided = self.book.disks.values().any(|pair| {
            let apart = [LegRole::Original, LegRole::Upgraded, LegRole::Frozen];
            Leg::BOTH
                .iter()
                .any(|leg| apart.contains(&pair.get(*leg).role))
        });
        // Who was forked from stands still while its fork serves (design 3.2: never the old Production Side in Merge).
        let forked_from = self.machines.get(&owner).and_then(|m| match m.plan.mode {
            StartMode::Incoming { from } => Some(from),
            StartMode::Boot { .. } => None,
        });
        if let Some(old) = forked_from
            && self.machines.get(&old).map(|m| m.run) == Some(RunState::Running)
        {
            wrong.push(format!("{old} runs although its fork {owner} serves"));
        }
        for (id, machine) in self.active().filter(|(id, _)| **id != owner) {
            let live = machine.disks.iter().any(|(name, disk)| {
                self.role(name) == DiskRole::Data
                    && matches!(disk.source, DiskSource::Legs(_) | DiskSource::Placeholder)
            });
            if divided && (live || machine.link_up) {
                wrong.push(format!(
                    "{id} reaches live data or the network but does not own them"
                ));
            }
        }
    }

    /// Invariants 9 and 10: a running machine writes to the authority and to every leg that is recorded live, and
    /// reads from no stale one.
    fn authority(&self, wrong: &mut Vec<String>) {
        for (id, machine) in &self.machines {
            if machine.run != RunState::Running {
                continue;
            }
            for (name, disk) in &machine.disks {
                let (legs, Some(pair)) = (disk.legs(), self.book.disks.get(name)) else {
                    continue;
                };
                let Some(first) = legs.first() else {
                    continue;
                };
                if self.role(name) == DiskRole::Data && !legs.contains(&pair.authority) {
                    let leg = pair.authority;
                    wrong.push(format!("{id} runs {name} without its authority, leg {leg}"));
                }
                // A leg in the root gets every write, so it may lead although the book calls it left behind (the book
                // is written before the switch); then it must hold what the authority holds.
                let witness = legs.contains(&pair.authority) && self.same(name, machine);
                if !self.usable(name, *first) && !witness {
                    wrong.push(format!(
                        "{id} reads {name} from leg {first}, which is not live"
                    ));
                }
                let missed = |leg: &&Leg| pair.get(**leg).role == LegRole::Live;
                for leg in Leg::BOTH
                    .iter()
                    .filter(|l| !legs.contains(l))
                    .filter(missed)
                {
                    wrong.push(format!(
                        "{id} runs {name} without leg {leg}, which is recorded live"
                    ));
                }
            }
        }
    }

    /// Says whether both legs of a disk are equal, as far as no write is in flight.
    fn same(&self, disk: &DiskName, machine: &Machine) -> bool {
        let content = |leg| self.legs.get(&(disk.clone(), leg));
        machine.pending.is_some() || content(Leg::A) == content(Leg::B)
    }

    fn maybe(&self, disk: &DiskName, block: usize, value: u64) -> bool {
        let values = self.truth.maybe.get(&(disk.clone(), block));
        values.is_some_and(|v| v.contains_key(&value))
    }

    /// Invariant 5: a system leg holds what it held at the split and what its own side wrote.
    fn shadows(&self, wrong: &mut Vec<String>) {
        for ((disk, leg), line) in &self.truth.line {
            let (Some(shadow), Some(content)) = (
                self.truth.shadow.get(&(*line, disk.clone())),
                self.legs.get(&(disk.clone(), *leg)),
            ) else {
                continue;
            };
            if !self.usable(disk, *leg) || !self.settled(disk, *leg) {
                continue;
            }
            let foreign = (0..content.blocks.len()).find(|block| {
                !content.same_block(shadow, *block)
                    && !self.maybe(disk, *block, content.blocks[*block])
            });
            if let Some(block) = foreign {
                wrong.push(format!(
                    "block {block} of leg {leg} of {disk} is not what its side wrote"
                ));
            }
        }
    }

    /// Says whether a leg may be compared: it decides, or no write can be in flight to it.
    fn settled(&self, disk: &DiskName, leg: Leg) -> bool {
        let decides = self
            .book
            .disks
            .get(disk)
            .is_some_and(|pair| pair.authority == leg || pair.get(leg).role != LegRole::Live);
        decides || self.quiet(disk)
    }

    /// Says whether no write of a disk can be in flight: some machine has it and did not stop in a write, or the
    /// system was stopped cleanly.
    fn quiet(&self, disk: &DiskName) -> bool {
        let mut users = self
            .machines
            .values()
            // A machine that waits for a fork has not opened anything yet, so it proves nothing.
            .filter(|m| m.active() && m.disks.get(disk).is_some_and(|d| !d.legs().is_empty()))
            .peekable();
        if users.peek().is_none() {
            return self.book.clean;
        }
        users.all(|m| m.pending.is_none())
    }

    /// Invariants 7 and 9: a leg recorded live equals the authority.
    fn mirrors(&self, wrong: &mut Vec<String>) {
        for (disk, pair) in &self.book.disks {
            if !pair.duplexed() || !self.quiet(disk) {
                continue;
            }
            let content = |leg| self.legs.get(&(disk.clone(), leg));
            if content(Leg::A) != content(Leg::B) {
                wrong.push(format!("the legs of {disk} are recorded live but differ"));
            }
        }
    }

    /// Invariant 8: every acknowledged write is on the authority.
    fn acknowledged(&self, wrong: &mut Vec<String>) {
        for (disk, blocks) in &self.truth.acked {
            let leg = self.book.disks.get(disk).map(|pair| pair.authority);
            let content: Option<&GuestDisk> =
                leg.and_then(|leg| self.legs.get(&(disk.clone(), leg)));
            for (block, value) in blocks {
                let there = content.map(|c| c.blocks[*block]);
                if there != Some(*value) && !there.is_some_and(|v| self.maybe(disk, *block, v)) {
                    wrong.push(format!(
                        "the acknowledged write {value} to block {block} of {disk} is lost"
                    ));
                }
            }
        }
    }

    /// What was written to a throw-away copy of data ends with it: no leg ever holds any of it (design 3.5).
    fn copies(&self, wrong: &mut Vec<String>) {
        if self.truth.thrown_away.is_empty() {
            return;
        }
        for ((disk, leg), content) in &self.legs {
            let thrown = |value: &&u64| self.truth.thrown_away.contains(&(disk.clone(), **value));
            if let Some(value) = content.blocks.iter().find(thrown) {
                wrong.push(format!(
                    "leg {leg} of {disk} holds the write {value}, which went to a throw-away copy"
                ));
            }
        }
    }

    /// No guest runs with a file system mounted on a disk that another has written since, or that is gone.
    fn caches(&self, wrong: &mut Vec<String>) {
        for (id, machine) in &self.machines {
            let guest = machine.guest.as_ref();
            let Some(guest) = guest.filter(|_| machine.run == RunState::Running) else {
                continue;
            };
            for (target, mounted) in &guest.mounts {
                match machine.disks.get(&mounted.disk) {
                    None => wrong.push(format!("{id} has {target} mounted without its disk")),
                    Some(disk) if matches!(disk.source, DiskSource::Legs(_)) => {
                        if mounted.overlay || mounted.stamp != self.stamp(&mounted.disk) {
                            wrong.push(format!("{id} has {target} mounted with a stale cache"));
                        }
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

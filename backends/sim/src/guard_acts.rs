//! What a guard does in a world, in the order of the product's `guard/watch.rs` and `guard/act.rs`: look, decide, take the
//! lease, look and decide again, record, act.

use crate::LegFault;
use crate::state::{Part, State};
use crate::world::SimWorld;
use flipside_model::{DiskName, Leg, LegBook, MachineId, planted};
use flipside_platform::guard::{
    Action, DropLeg, FENCE_AFTER, Facts, FaultKind, STALE_INTENT_MS, STEPS_MAX, Suspect, decide,
    pause_is_overdue, record_drops, record_swaps,
};
use flipside_platform::{MachineView, PortError, PortResult, RunState};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a guard sees of a machine.
struct Seen {
    book: LegBook,
    view: MachineView,
    open_legs: BTreeMap<DiskName, Vec<Leg>>,
    jobs: Vec<String>,
    suspects: Vec<Suspect>,
    probed: bool,
    forking: bool,
    still: Duration,
    now_ms: i64,
}

impl Seen {
    fn facts(&self, machine: MachineId) -> Facts<'_> {
        Facts {
            machine,
            book: &self.book,
            view: &self.view,
            open_legs: &self.open_legs,
            jobs: &self.jobs,
            suspects: &self.suspects,
            probed: self.probed,
            forking: self.forking,
            still: self.still,
        }
    }

    fn decide(&self, machine: MachineId) -> Action {
        decide(&self.facts(machine), self.now_ms)
    }
}

/// How the lease of a machine is to be had.
enum Lease {
    Taken,
    /// Somebody else has it, and may have it a while longer.
    Busy,
    /// A server that hangs had it, and was ended.
    Fenced,
}

impl SimWorld {
    /// Lets a guard look at every machine once; time passes for forks that are copying.
    pub(crate) async fn guard_look(&self, id: u64) -> Vec<String> {
        self.guard_gate(id).await;
        let machines = self.with(|s| {
            s.pass_time();
            s.watch_pause();
            s.owner_runs();
            s.worth_a_look(id)
        });
        let mut acts = Vec::new();
        for machine in machines {
            let seen = self.with(|s| s.guard_sees(id, machine));
            let first = seen.decide(machine);
            if first == Action::Nothing {
                continue;
            }
            // Others act between a decision without the lease and the lease.
            tokio::task::yield_now().await;
            self.guard_decided(id, machine).await;
            let overdue = pause_is_overdue(&seen.facts(machine), seen.now_ms);
            match self.with(|s| s.lease_for(id, machine, overdue)) {
                Lease::Busy => continue,
                Lease::Fenced => self.announce_crash(),
                Lease::Taken => {}
            }
            // What cannot be done now is tried again at the next look.
            let _ = self.guard_round(id, machine, first, &mut acts).await;
            self.with(|s| s.guard_gives_lease(id));
        }
        acts
    }

    async fn guard_round(
        &self,
        id: u64,
        machine: MachineId,
        first: Action,
        acts: &mut Vec<String>,
    ) -> PortResult<()> {
        let mut old = planted::is("guard-decides-before-the-lease").then_some(first);
        for _ in 0..STEPS_MAX {
            let seen = self.with(|s| s.guard_sees(id, machine));
            let now = seen.decide(machine);
            let action = old.take().unwrap_or_else(|| now.clone());
            if action != now {
                let what =
                    format!("the guard did what it had decided before its lease: {action:?}");
                self.with(|s| s.violate(what));
            }
            match action {
                Action::Nothing => return Ok(()),
                Action::Stay(why) => {
                    acts.push(format!("left {machine} alone: {why}"));
                    return Ok(());
                }
                action => self.guard_acts(id, machine, &seen, action, acts).await?,
            }
        }
        Ok(())
    }

    async fn guard_acts(
        &self,
        id: u64,
        machine: MachineId,
        seen: &Seen,
        action: Action,
        acts: &mut Vec<String>,
    ) -> PortResult<()> {
        match action {
            Action::Nothing | Action::Stay(_) => Ok(()),
            Action::CancelJobs(jobs) => {
                for job in jobs {
                    let name = format!("job.cancel.{job}");
                    self.guard_call(id, name, |s, _| s.cancel_job(machine, &job))
                        .await?;
                    acts.push(format!("cancelled {job}"));
                }
                Ok(())
            }
            Action::DropLegs(drops) => self.guard_drops(id, machine, seen, &drops, acts).await,
            Action::FinishSwaps(swaps) => {
                let mut book = seen.book.clone();
                let tracked = self.with(|s| s.tracked(machine));
                record_swaps(&mut book, &swaps, |disk, leg| {
                    tracked.contains(&(disk.clone(), leg))
                });
                if book != seen.book {
                    self.guard_stores(id, &book).await?;
                }
                for (disk, leg) in &swaps {
                    self.guard_sets_legs(id, machine, disk, *leg).await?;
                    acts.push(format!("finished the swap of {disk} on {machine}"));
                }
                Ok(())
            }
            Action::Probe => {
                self.with(|s| s.guards.memory.entry((id, machine)).or_default().probed = true);
                self.guard_resumes(id, machine).await
            }
            Action::CancelFork => {
                let name = format!("machine.fork_cancel.{machine}");
                self.guard_call(id, name, |s, p| s.fork_cancel(machine, p))
                    .await?;
                acts.push(format!("gave the fork of {machine} up"));
                self.guard_clears(id, machine, None).await
            }
            Action::Continue => {
                self.guard_resumes(id, machine).await?;
                acts.push(format!("continued {machine}"));
                self.guard_clears(id, machine, None).await
            }
            Action::ClearIntent => self.guard_clears(id, machine, None).await,
        }
    }

    async fn guard_drops(
        &self,
        id: u64,
        machine: MachineId,
        seen: &Seen,
        drops: &[DropLeg],
        acts: &mut Vec<String>,
    ) -> PortResult<()> {
        let runs = seen.view.run == RunState::Running;
        let mut book = seen.book.clone();
        let pause = record_drops(&mut book, machine, drops, runs, seen.now_ms);
        self.guard_stores(id, &book).await?;
        if runs {
            let name = format!("machine.pause.{machine}");
            self.guard_call(id, name, |s, _| s.pause(machine)).await?;
        }
        let mut swapped = Ok(());
        for drop in drops {
            swapped = self
                .guard_sets_legs(id, machine, &drop.disk, drop.survivor)
                .await;
            if swapped.is_err() {
                break;
            }
            acts.push(format!(
                "dropped leg {} of {} from {machine}",
                drop.bad, drop.disk
            ));
        }
        if swapped.is_ok() || runs {
            // A guest that stops again at once is seen by the next look.
            let _ = self.guard_resumes(id, machine).await;
        }
        if pause.is_some() {
            self.guard_clears(id, machine, pause).await?;
        }
        self.with(|s| s.guards.memory.entry((id, machine)).or_default().probed = false);
        swapped
    }

    async fn guard_stores(&self, id: u64, book: &LegBook) -> PortResult<()> {
        let name = "legs.store".to_owned();
        self.guard_call(id, name, |s, p| s.store_book(book, p).map(drop))
            .await
    }

    async fn guard_sets_legs(
        &self,
        id: u64,
        machine: MachineId,
        disk: &DiskName,
        leg: Leg,
    ) -> PortResult<()> {
        let name = format!("disk.set_legs.{machine}.{disk}");
        self.guard_call(id, name, |s, p| {
            s.resync_cancel(machine, disk, &mut Part::whole())?;
            s.set_legs(machine, disk, &[leg], p)
        })
        .await
    }

    async fn guard_resumes(&self, id: u64, machine: MachineId) -> PortResult<()> {
        let name = format!("machine.resume.{machine}");
        self.guard_call(id, name, |s, _| {
            s.guard_may_continue(machine);
            s.resume(machine)
        })
        .await
    }

    /// Clears a pause intent of a machine that runs: the one that is meant, or whichever there is.
    async fn guard_clears(
        &self,
        id: u64,
        machine: MachineId,
        meant: Option<i64>,
    ) -> PortResult<()> {
        let (mut book, run) = self.with(|s| (s.book.clone(), s.view(machine).run));
        let set = book.pause_until_ms;
        let ours = book.owner == Some(machine) && set.is_some();
        if !ours || run != RunState::Running || meant.is_some_and(|m| set != Some(m)) {
            return Ok(());
        }
        book.pause_until_ms = None;
        self.guard_stores(id, &book).await
    }
}

impl State {
    /// A fork's copying goes on whether or not anybody asks.
    fn pass_time(&mut self) {
        let least = self.options.copying_alone;
        let copying: Vec<MachineId> = self
            .machines
            .iter()
            .filter(|(_, m)| m.run == RunState::Running && !m.hung)
            .filter(|(_, m)| {
                let fork = m.fork.as_ref().filter(|f| f.done.is_none());
                fork.is_some_and(|f| f.begun.elapsed() >= least)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in copying {
            // A fork that failed is found by the next poll.
            let _ = self.fork_poll(id);
        }
    }

    /// Lists the machines that may need an act, as far as their state and the book say so.
    fn worth_a_look(&mut self, id: u64) -> Vec<MachineId> {
        let now = self.now_ms();
        let (owner, until) = (self.book.owner, self.book.pause_until_ms);
        let mut found = Vec::new();
        for (machine, m) in &self.machines {
            let suspected = || {
                let mut legs = m
                    .disks
                    .iter()
                    .flat_map(|(n, d)| d.legs().iter().map(move |l| (n, l)));
                !self.leg_faults.is_empty()
                    && legs.any(|(n, l)| {
                        self.leg_faults.get(&(n.clone(), *l)) == Some(&LegFault::Read)
                    })
            };
            let stands = matches!(
                m.run,
                RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
            );
            let worth = match m.run {
                _ if m.hung || m.half => false,
                RunState::IoError => true,
                RunState::Running => {
                    let stale = until.is_some_and(|u| now.saturating_sub(u) >= STALE_INTENT_MS);
                    suspected() || (owner == Some(*machine) && stale)
                }
                _ => {
                    let owns = owner == Some(*machine) || planted::is("guard-continues-a-stranger");
                    stands && owns && until.is_some()
                }
            };
            let memory = &mut self.guards.memory;
            match until.filter(|_| worth && m.run != RunState::Running) {
                Some(until) => {
                    let memory = memory.entry((id, *machine)).or_default();
                    let still = memory.still.filter(|(pause, _)| *pause == until);
                    memory.still = Some(still.unwrap_or((until, Instant::now())));
                }
                None => {
                    if let Some(memory) = memory.get_mut(&(id, *machine)) {
                        (memory.still, memory.waits) = (None, None);
                        memory.probed &= m.run != RunState::Running;
                    }
                }
            }
            if worth {
                found.push(*machine);
            }
        }
        found
    }

    fn guard_sees(&mut self, id: u64, machine: MachineId) -> Seen {
        let now_ms = self.now_ms();
        let memory = self.guards.memory.get(&(id, machine)).copied();
        let memory = memory.unwrap_or_default();
        let mut seen = Seen {
            book: self.book.clone(),
            view: self.view(machine),
            open_legs: BTreeMap::new(),
            jobs: Vec::new(),
            suspects: Vec::new(),
            probed: memory.probed,
            forking: false,
            still: memory
                .still
                .map_or(Duration::ZERO, |(_, since)| since.elapsed()),
            now_ms,
        };
        let Some(m) = self.machines.get(&machine) else {
            return seen;
        };
        seen.forking = m.fork.as_ref().is_some_and(|f| f.done.is_none());
        if m.half {
            seen.view.run = RunState::Unresponsive;
        }
        for (disk, plugged) in &m.disks {
            let targets = m.targets.get(disk).into_iter();
            let open = plugged.held.iter().chain(targets).copied().collect();
            seen.open_legs.insert(disk.clone(), open);
            for leg in plugged.legs() {
                let key = (disk.clone(), *leg);
                let kind = if m.failed.as_ref() == Some(&key) {
                    FaultKind::Write
                } else if self.leg_faults.get(&key) == Some(&LegFault::Read) {
                    FaultKind::Read
                } else {
                    continue;
                };
                seen.suspects.push(Suspect {
                    disk: disk.clone(),
                    leg: *leg,
                    kind,
                    error: "Input/output error".to_owned(),
                });
            }
        }
        let jobs = m.resyncs.iter().filter(|(_, job)| job.failed.is_none());
        seen.jobs = jobs.map(|(disk, _)| format!("resync-{disk}")).collect();
        seen
    }

    /// Takes the lease if it is free. Whoever holds that of an overdue pause has had its time, and is ended.
    fn lease_for(&mut self, id: u64, machine: MachineId, overdue: bool) -> Lease {
        if planted::is("guard-acts-without-its-lease") {
            return Lease::Taken;
        }
        if self.guard_takes_lease(id) {
            self.guards.memory.entry((id, machine)).or_default().waits = None;
            return Lease::Taken;
        }
        if !overdue || planted::is("hung-server-not-fenced") {
            return Lease::Busy;
        }
        let memory = self.guards.memory.entry((id, machine)).or_default();
        let since = *memory.waits.get_or_insert_with(Instant::now);
        if since.elapsed() < FENCE_AFTER {
            return Lease::Busy;
        }
        memory.waits = None;
        let fenced = match self.lease_of_a_guard() {
            Some(other) => {
                self.end_guard(other);
                Lease::Taken
            }
            None => {
                self.crashed = true;
                self.lease = None;
                Lease::Fenced
            }
        };
        if self.guard_takes_lease(id) {
            fenced
        } else {
            Lease::Busy
        }
    }

    /// Design 3.2: only who owns network and data is continued, or, where a disk failed, who is on its way to own them;
    /// never the old Production Side in Merge.
    fn guard_may_continue(&mut self, machine: MachineId) {
        let run = self.machines.get(&machine).map(|m| m.run);
        let allowed = match self.book.owner {
            Some(owner) if owner == machine => true,
            Some(owner) => run == Some(RunState::IoError) && owner < machine,
            None => run == Some(RunState::IoError),
        };
        if !allowed {
            self.violate(format!(
                "the guard continued {machine}, which does not own network and data"
            ));
        }
    }

    /// Ends a copying job; its target stays open and stale.
    fn cancel_job(&mut self, machine: MachineId, name: &str) -> PortResult<()> {
        let jobs = &mut self.machine(machine)?.resyncs;
        let named = jobs
            .iter_mut()
            .find(|(disk, _)| format!("resync-{disk}") == name);
        let (_, job) =
            named.ok_or_else(|| PortError::absent(format!("There is no job {name}.")))?;
        job.failed = Some("The job was cancelled.".to_owned());
        Ok(())
    }

    /// Lists the legs that have a change bitmap in a machine.
    fn tracked(&self, machine: MachineId) -> Vec<(DiskName, Leg)> {
        let machine = self.machines.get(&machine);
        machine.map_or_else(Vec::new, |m| m.bitmaps.keys().cloned().collect())
    }
}

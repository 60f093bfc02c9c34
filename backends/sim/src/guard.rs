//! The guards of a world: processes beside the server that hold the front door and look after the machines.
//!
//! What a guard does is decided by `flipside_platform::guard`, the code of the product. Here it only gets a world to do it
//! in: it can be killed, hang and be doubled at any call of the server and at any call of its own ([`GuardFault`]), and
//! nothing it does may be done without its lease.

use crate::call::take;
use crate::network::DoorCommand;
use crate::state::{Door, Part, State};
use crate::world::SimWorld;
use flipside_model::MachineId;
use flipside_platform::{PortResult, RunState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Where a guard meets a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardAt {
    /// Just before the server's nth changing call is done.
    Before(u64),
    /// Just after it is done.
    After(u64),
    /// Just before a guard's own nth changing call.
    Own(u64),
}

/// What happens to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardFaultKind {
    /// It is killed: its door and its lease are gone.
    Kill,
    /// At a call of its own: it is killed after so many parts of it.
    KillTorn(u32),
    /// At a call of its own: it is killed after it.
    KillAfter,
    /// It hangs, for so long or until it is ended, and then goes on with what it had in mind.
    Hang(Option<Duration>),
    /// A second one is started and gets past the lock that keeps a guard single: two watch the machines.
    Double,
}

/// A planned fault of a guard; it happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardFault {
    /// Where.
    pub at: GuardAt,
    /// What.
    pub kind: GuardFaultKind,
}

/// One changing call of a guard, or a decision to make some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardCall {
    /// Its number, from 1.
    pub n: u64,
    /// Its name, such as `machine.resume.m1`.
    pub name: String,
    /// How many parts it has begun.
    pub parts: u32,
    /// The fault that hit it.
    pub fault: Option<GuardFaultKind>,
}

/// What a guard remembers of a machine between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) probed: bool,
    /// The recorded pause in which it was first seen standing still, and when that was.
    pub(crate) still: Option<(i64, Instant)>,
    /// Since when the lease of its overdue pause is waited for.
    pub(crate) waits: Option<Instant>,
}

/// All guards of a world.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// The one that has the place and holds the door.
    pub(crate) main: Option<u64>,
    /// One that got past it.
    second: Option<u64>,
    next: u64,
    /// The main one hangs, until then or until it is ended.
    hung: Option<Option<Instant>>,
    /// What the server asked the door for while it hung.
    queue: Vec<DoorCommand>,
    /// What the door was told last on this boot: open (`true`) or held.
    pub(crate) note: Option<bool>,
    /// The owner did not run when this guard took an open door over.
    waiting: bool,
    /// The guard that holds the lease, and the lease.
    lease: Option<(u64, u64)>,
    plan: Vec<GuardFault>,
    pub(crate) calls: Vec<GuardCall>,
    pub(crate) memory: BTreeMap<(u64, MachineId), Memory>,
    born: Arc<Notify>,
}

impl Guards {
    fn lives(&self, id: u64) -> bool {
        self.main == Some(id) || self.second == Some(id)
    }

    /// Says until when the main guard hangs, if it does.
    fn hangs(&self) -> Option<Option<Instant>> {
        self.hung
            .filter(|until| until.is_none_or(|t| Instant::now() < t))
    }

    /// Says whether one of them is alive and answers.
    pub(crate) fn well(&self) -> bool {
        self.second.is_some() || (self.main.is_some() && self.hangs().is_none())
    }
}

impl SimWorld {
    /// Runs whatever guards there are, for ever, each looking at the machines so often; a test spawns it.
    pub async fn run_guards(self, every: Duration) {
        let born = self.with(|s| s.guards.born.clone());
        let mut known = 0;
        let mut processes = JoinSet::new();
        loop {
            let all = self.with(|s| [s.guards.main, s.guards.second]);
            for id in all.into_iter().flatten().filter(|id| *id > known) {
                let world = self.clone();
                processes.spawn(async move {
                    loop {
                        world.guard_look(id).await;
                        tokio::time::sleep(every).await;
                    }
                });
            }
            known = self.with(|s| s.guards.next);
            born.notified().await;
        }
    }

    /// Lets the guard look once; returns what it did, a sentence each. It does nothing while the server holds the lease.
    pub async fn guard_tick(&self) -> Vec<String> {
        match self.with(|s| s.guards.main) {
            Some(id) => self.guard_look(id).await,
            None => Vec::new(),
        }
    }

    /// Plans a fault of the guard.
    pub fn plan_guard(&self, fault: GuardFault) {
        self.with(|s| s.guards.plan.push(fault));
    }

    /// Lists what the guards did so far.
    pub fn guard_calls(&self) -> Vec<GuardCall> {
        self.with(|s| s.guards.calls.clone())
    }

    /// Says how many planned faults of the guard have not happened.
    pub fn guard_faults_left(&self) -> usize {
        self.with(|s| s.guards.plan.len())
    }

    /// Lets something happen to the guard now.
    pub fn guard_fault(&self, kind: GuardFaultKind) {
        self.with(|s| s.guard_happens(kind));
    }

    /// Waits while a guard hangs; one that has been killed never goes on.
    pub(crate) async fn guard_gate(&self, id: u64) {
        loop {
            let hung = self.with(|s| {
                s.wake_guard();
                if s.guards.lives(id) {
                    s.guards.hangs().filter(|_| s.guards.main == Some(id))
                } else {
                    // For ever.
                    Some(None)
                }
            });
            match hung {
                None => return,
                Some(Some(until)) => tokio::time::sleep_until(until).await,
                Some(None) => std::future::pending().await,
            }
        }
    }

    /// A guard has decided to do something and has no lease yet: a place of its own, for what is old when it goes on.
    pub(crate) async fn guard_decided(&self, id: u64, machine: MachineId) {
        let name = format!("decide.{machine}");
        if let (_, Some(kind)) = self.with(|s| s.begin_guard_call(name)) {
            self.with(|s| s.guard_happens(kind));
        }
        self.guard_gate(id).await;
    }

    /// Makes one changing call of a guard, which may be its last.
    pub(crate) async fn guard_call<T>(
        &self,
        id: u64,
        name: String,
        mut act: impl FnMut(&mut State, &mut Part) -> PortResult<T>,
    ) -> PortResult<T> {
        self.guard_gate(id).await;
        let (at, fault) = self.with(|s| s.begin_guard_call(name));
        if let Some(
            kind @ (GuardFaultKind::Kill | GuardFaultKind::Hang(_) | GuardFaultKind::Double),
        ) = fault
        {
            self.with(|s| s.guard_happens(kind));
            self.guard_gate(id).await;
        }
        let result = self.with(|s| {
            s.guard_is_allowed(id, at);
            let mut part = Part::whole();
            if let Some(GuardFaultKind::KillTorn(parts)) = fault {
                (part.left, part.dies) = (Some(parts), true);
            }
            let result = act(s, &mut part);
            if let Some(call) = s.guards.calls.get_mut(at) {
                call.parts = part.begun;
            }
            if s.options.check_every_call {
                s.check_now();
            }
            if matches!(
                fault,
                Some(GuardFaultKind::KillTorn(_) | GuardFaultKind::KillAfter)
            ) {
                s.end_guard(id);
            }
            result
        });
        self.guard_gate(id).await;
        result
    }
}

impl State {
    fn begin_guard_call(&mut self, name: String) -> (usize, Option<GuardFaultKind>) {
        let n = self.guards.calls.len() as u64 + 1;
        let mut planned = self.guards.plan.iter();
        let planned = planned.position(|f| matches!(f.at, GuardAt::Own(own) if own == n));
        let fault = planned.map(|index| self.guards.plan.remove(index).kind);
        self.guards.calls.push(GuardCall {
            n,
            name,
            parts: 0,
            fault,
        });
        (self.guards.calls.len() - 1, fault)
    }

    /// A guard never acts without its lease.
    fn guard_is_allowed(&mut self, id: u64, at: usize) {
        let holds = self
            .guards
            .lease
            .is_some_and(|(holder, token)| holder == id && self.lease == Some(token));
        if !holds {
            let name = self.guards.calls.get(at).map(|c| c.name.clone());
            self.violate(format!(
                "the guard did {} without the lease",
                name.unwrap_or_default()
            ));
        }
    }

    /// Lets the faults happen that are planned at a changing call of the server.
    pub(crate) fn guard_place(&mut self, effect: Option<u64>, after: bool) {
        let Some(effect) = effect.filter(|_| !self.guards.plan.is_empty()) else {
            return;
        };
        let here = if after {
            GuardAt::After(effect)
        } else {
            GuardAt::Before(effect)
        };
        while let Some(index) = self.guards.plan.iter().position(|f| f.at == here) {
            let fault = self.guards.plan.remove(index);
            self.guard_happens(fault.kind);
        }
    }

    fn guard_happens(&mut self, kind: GuardFaultKind) {
        let Some(main) = self.guards.main else {
            return;
        };
        match kind {
            GuardFaultKind::Kill | GuardFaultKind::KillTorn(_) | GuardFaultKind::KillAfter => {
                self.end_guard(main);
            }
            GuardFaultKind::Hang(span) => {
                self.guards.hung = Some(span.map(|span| Instant::now() + span));
            }
            GuardFaultKind::Double => {
                self.guards.next += 1;
                self.guards.second = Some(self.guards.next);
                self.guards.born.notify_one();
            }
        }
    }

    /// Starts the guard unless it runs. It takes an open door over as the one before had it, if the book bears it out.
    pub(crate) fn start_guard(&mut self) {
        if self.guards.main.is_some() {
            return;
        }
        self.guards.next += 1;
        self.guards.main = Some(self.guards.next);
        self.guards.born.notify_one();
        self.door = Door {
            up: true,
            held_since: Some(Instant::now()),
            ..Door::default()
        };
        let run = self
            .book
            .owner
            .and_then(|id| self.machines.get(&id))
            .map(|m| m.run);
        self.guards.waiting = self.guards.note == Some(true) && run.is_some();
        self.owner_runs();
    }

    /// Opens a door that was taken over as soon as the owner runs.
    pub(crate) fn owner_runs(&mut self) {
        let Some(owner) = self.book.owner.filter(|_| self.guards.waiting) else {
            return;
        };
        if self.machines.get(&owner).map(|m| m.run) == Some(RunState::Running) {
            self.guards.waiting = false;
            self.door_command(&DoorCommand::Open(owner));
        }
    }

    /// The server has said something of the door: what was taken over does not count any more.
    pub(crate) fn door_is_told(&mut self) {
        self.guards.waiting = false;
    }

    /// Ends a guard: its lease is free, and if it held the door, that is gone.
    pub(crate) fn end_guard(&mut self, id: u64) {
        self.guard_gives_lease(id);
        if self.guards.second == Some(id) {
            self.guards.second = None;
        }
        if self.guards.main == Some(id) {
            self.guards.main = None;
            (self.guards.hung, self.guards.waiting) = (None, false);
            self.guards.queue.clear();
            self.door = Door::default();
        }
    }

    /// Ends all guards, and what they noted for the next: after a loss of power, or when the door is shut.
    pub(crate) fn forget_guards(&mut self) {
        for id in [self.guards.main, self.guards.second].into_iter().flatten() {
            self.end_guard(id);
        }
        self.guards.note = None;
    }

    /// Says whether the guard is there and does not answer.
    pub(crate) fn guard_hangs(&mut self) -> bool {
        self.wake_guard();
        self.guards.main.is_some() && self.guards.hangs().is_some()
    }

    /// A guard that has hung long enough goes on, first with what it was asked for meanwhile.
    pub(crate) fn wake_guard(&mut self) {
        if self.guards.hung.is_none() || self.guards.hangs().is_some() {
            return;
        }
        self.guards.hung = None;
        for command in std::mem::take(&mut self.guards.queue) {
            self.door_command(&command);
        }
    }

    /// Keeps a command for a guard that hangs: its socket is there.
    pub(crate) fn queue_command(&mut self, command: DoorCommand) {
        self.guards.queue.push(command);
    }

    pub(crate) fn guard_takes_lease(&mut self, id: u64) -> bool {
        let Some(token) = take(self) else {
            return false;
        };
        self.guards.lease = Some((id, token));
        true
    }

    pub(crate) fn guard_gives_lease(&mut self, id: u64) {
        if let Some((holder, token)) = self.guards.lease
            && holder == id
        {
            self.guards.lease = None;
            if self.lease == Some(token) {
                self.lease = None;
            }
        }
    }

    /// Returns the guard that holds the lease.
    pub(crate) fn lease_of_a_guard(&self) -> Option<u64> {
        let (id, token) = self.guards.lease?;
        (self.lease == Some(token)).then_some(id)
    }

    /// The server is gone: the kernel takes its lease back.
    pub(crate) fn free_server_lease(&mut self) {
        if self.lease_of_a_guard().is_none() {
            self.lease = None;
        }
    }
}

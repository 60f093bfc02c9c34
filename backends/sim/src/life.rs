//! The server's life as the simulation sees it: which calls of its own (its journal) it makes, and when it dies.

use crate::call::{Class, begin};
use crate::fault::{CallEnd, FaultKind};
use crate::state::State;
use crate::world::SimWorld;
use flipside_model::MachineId;
use std::sync::Arc;
use tokio::sync::Notify;

/// How a call of the server's own passes the gate; given to [`SimWorld::leave`] when it is over.
#[derive(Debug)]
pub struct Passage {
    at: usize,
    /// What happens to it.
    pub fault: Option<FaultKind>,
}

impl SimWorld {
    /// Returns the number of the server's present life.
    pub fn life(&self) -> u64 {
        self.with(|s| s.epoch)
    }

    /// Says whether this life of the server is not over.
    pub fn alive(&self, life: u64) -> bool {
        self.with(|s| !s.crashed && s.epoch == life)
    }

    /// Says whether the server's end was a power cut, until the next start.
    pub fn power_lost(&self) -> bool {
        self.with(|s| s.powerless)
    }

    /// Names the step that the following calls belong to.
    pub fn label(&self, label: &str) {
        self.with(|s| {
            s.label = Arc::from(label);
            let now = s.coming_changes.extract_if(.., |(at, ..)| at == label);
            let now: Vec<_> = now.collect();
            s.changed_legs
                .extend(now.into_iter().map(|(_, leg, what)| (leg, what)));
        });
    }

    /// Rings a bell when the nth changing call from the beginning of the trace is made.
    pub fn ring_at(&self, effect: u64) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        self.with(|s| s.bells.push((effect, bell.clone())));
        bell
    }

    /// Registers a call that the server makes to something of its own, such as its journal; `None` if this life of
    /// it is over: then nothing may be done.
    pub fn enter(&self, life: u64, name: String, changes: bool) -> Option<Passage> {
        self.with(|s| {
            if s.crashed || s.epoch != life {
                return None;
            }
            let class = if changes { Class::Act } else { Class::Look };
            let at = begin(s, class, name);
            s.guard_place(s.calls[at].effect, false);
            let fault = s.calls[at].fault.clone();
            Some(Passage { at, fault })
        })
    }

    /// Ends such a call: `parts` is in how many pieces it can be torn; the server dies if the fault says so.
    pub fn leave(&self, passage: &Passage, parts: u32) {
        let dies = matches!(
            passage.fault,
            Some(FaultKind::CrashBefore | FaultKind::CrashAfter | FaultKind::TornCrash(_))
        );
        self.with(|s| {
            if let Some(call) = s.calls.get_mut(passage.at) {
                call.parts = parts;
                call.end = CallEnd::Ok;
            }
            let effect = s.calls.get(passage.at).and_then(|call| call.effect);
            s.guard_place(effect, true);
            if dies {
                s.die(passage.at);
            }
        });
        if dies {
            self.announce_crash();
        }
    }
}

impl State {
    /// The server dies in a call; with the option for it, the host loses power in the same instant.
    pub(crate) fn die(&mut self, at: usize) {
        if let Some(call) = self.calls.get_mut(at) {
            call.end = CallEnd::Crashed;
        }
        self.crashed = true;
        self.free_server_lease();
        if self.options.crash_cuts_power {
            self.lose_power();
        }
    }

    /// Every machine and the front door are gone.
    pub(crate) fn lose_power(&mut self) {
        self.powerless = true;
        let all: Vec<MachineId> = self.machines.keys().copied().collect();
        all.into_iter().for_each(|id| self.kill(id));
        self.forget_guards();
        self.lease = None;
        self.lose_unsynced_book();
    }

    pub(crate) fn ring(&mut self, effect: Option<u64>) {
        let Some(effect) = effect else { return };
        self.bells.retain(|(at, bell)| {
            if *at == effect {
                bell.notify_one();
            }
            *at != effect
        });
    }
}

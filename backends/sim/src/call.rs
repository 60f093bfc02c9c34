//! The gate that every port call goes through: names, trace, faults, crashes.

use crate::fault::{Call, CallEnd, FaultKind};
use crate::state::{Part, State};
use crate::world::SimWorld;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortErrorKind, PortResult};
use std::time::Duration;

/// The ports as one life of the server sees them.
#[derive(Clone)]
pub(crate) struct SimPorts {
    pub(crate) world: SimWorld,
    pub(crate) epoch: u64,
}

/// What a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It only looks.
    Look,
    /// It changes something that no lease guards.
    Act,
    /// It changes the machine: the lease is needed.
    Leased,
}

/// What the fault made of the call.
enum Verdict {
    Answer,
    Lost(Duration),
    Crash,
}

impl SimPorts {
    /// Waits for ever if this life of the server is over.
    async fn alive(&self) {
        let dead = self.world.with(|s| s.crashed || s.epoch != self.epoch);
        if dead {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn call<T: Send>(
        &self,
        class: Class,
        id: Option<MachineId>,
        name: String,
        mut act: impl FnMut(&mut State, &mut Part) -> PortResult<T> + Send,
    ) -> PortResult<T> {
        self.alive().await;
        let latency = self.world.with(|s| s.options.latency);
        if latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(latency).await;
        }
        self.alive().await;
        self.world.ask_watcher(class, &name);
        let (at, result, verdict, delay) = self.world.with(|s| {
            s.guests_work(class == Class::Leased && !name.starts_with("legs."));
            let at = begin(s, class, name);
            let mut part = Part::whole();
            let effect = s.calls[at].effect;
            s.guard_place(effect, false);
            let (result, verdict) = perform(s, at, id, &mut part, &mut act);
            s.calls[at].parts = part.begun;
            s.guard_place(effect, true);
            s.watch_pause();
            if matches!(verdict, Verdict::Crash) {
                s.die(at);
            } else if s.options.check_every_call && class != Class::Look {
                s.check_now();
            }
            (at, result, verdict, part.delay)
        });
        let (result, delay) = match verdict {
            Verdict::Crash => {
                self.world.announce_crash();
                std::future::pending::<()>().await;
                unreachable!("a pending future never ends")
            }
            Verdict::Lost(after) => (
                Err(PortError::timed_out("No answer came in time.")),
                delay + after,
            ),
            Verdict::Answer => (result, delay),
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
            self.alive().await;
        }
        self.world.with(|s| {
            if let Some(call) = s.calls.get_mut(at) {
                call.end = match &result {
                    Ok(_) => CallEnd::Ok,
                    Err(error) => CallEnd::Err(error.kind),
                };
            }
        });
        result
    }
}

/// Takes the lease of the machines; none if somebody has it.
pub(crate) fn take(s: &mut State) -> Option<u64> {
    if s.lease.is_some() {
        return None;
    }
    s.tokens += 1;
    s.lease = Some(s.tokens);
    s.lease
}

pub(crate) fn begin(s: &mut State, class: Class, name: String) -> usize {
    if class == Class::Leased && (s.lease.is_none() || s.lease_of_a_guard().is_some()) {
        s.violate(format!("{name} was called without the lease"));
    }
    let effect = (class != Class::Look).then(|| {
        s.effects += 1;
        s.effects
    });
    let mut call = Call {
        n: s.calls.len() as u64 + 1,
        effect,
        name,
        label: s.label.clone(),
        parts: 0,
        fault: None,
        end: CallEnd::Open,
    };
    s.ring(call.effect);
    let mut spent = None;
    for (index, fault) in s.plan.iter_mut().enumerate() {
        let (hit, used) = fault.hits(&call);
        if hit {
            call.fault = Some(fault.kind.clone());
            spent = used.then_some(index);
            break;
        }
    }
    if let Some(index) = spent {
        s.plan.remove(index);
    }
    s.calls.push(call);
    s.calls.len() - 1
}

fn perform<T>(
    s: &mut State,
    at: usize,
    id: Option<MachineId>,
    part: &mut Part,
    act: &mut impl FnMut(&mut State, &mut Part) -> PortResult<T>,
) -> (PortResult<T>, Verdict) {
    let deadline = s.options.deadline;
    let fault = s.calls[at].fault.clone();
    let hung = id.is_some_and(|id| s.machines.get(&id).is_some_and(|m| m.hung));
    let observes = s.calls[at].name.starts_with("machine.observe");
    // A machine that does not answer is still ended: its process is killed.
    let ends = s.calls[at].name.starts_with("machine.end");
    if hung && !observes && !ends && fault.is_none() {
        let text = "The machine does not answer.";
        return (Err(PortError::timed_out(text)), Verdict::Lost(deadline));
    }
    let refused = |kind| Err(PortError::new(kind, "The simulation refused this call."));
    let lost = || Err(PortError::timed_out("No answer came in time."));
    match fault {
        None => (act(s, part), Verdict::Answer),
        Some(FaultKind::FailBefore) => (refused(PortErrorKind::Failed), Verdict::Answer),
        Some(FaultKind::FailWith(kind)) => (refused(kind), Verdict::Answer),
        Some(FaultKind::LostReply) => {
            let _ = act(s, part);
            (lost(), Verdict::Lost(Duration::ZERO))
        }
        Some(FaultKind::Hang { done }) => {
            if done {
                let _ = act(s, part);
            }
            (lost(), Verdict::Lost(deadline))
        }
        Some(FaultKind::CrashBefore) => (lost(), Verdict::Crash),
        Some(FaultKind::CrashAfter) => {
            let _ = act(s, part);
            (lost(), Verdict::Crash)
        }
        Some(FaultKind::Torn(n)) => {
            part.left = Some(n);
            let result = act(s, part);
            let kept = result.err().filter(|e| e.kind != PortErrorKind::TimedOut);
            let error = kept.unwrap_or_else(|| PortError::failed("It failed half-way."));
            (Err(error), Verdict::Answer)
        }
        Some(FaultKind::TornLost(n)) => {
            part.left = Some(n);
            let _ = act(s, part);
            (lost(), Verdict::Lost(Duration::ZERO))
        }
        Some(FaultKind::TornCrash(n)) => {
            part.left = Some(n);
            part.dies = true;
            let _ = act(s, part);
            (lost(), Verdict::Crash)
        }
        Some(FaultKind::Twice) => {
            let first = act(s, part);
            if !s.calls[at].name.starts_with("legs.") {
                let _ = act(s, part);
            }
            (first, Verdict::Answer)
        }
    }
}

//! Stops the controlled applications of a side (SP-03, MG-04, SV-04).

use super::{Action, Seen};
use crate::context::{Cx, Halt, Step};
use async_trait::async_trait;
use flipside_model::{Fact, Severity, Side};
use flipside_platform::{RunState, UnitStart};
use std::time::Duration;

pub(super) struct StopApps {
    pub side: Side,
    /// The users are waiting: the outage clock runs, and an Upgrade Side that hangs is not waited for.
    pub users_wait: bool,
}

#[async_trait]
impl Action for StopApps {
    fn proves_itself(&self) -> bool {
        true
    }

    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        if self.users_wait && cx.gave_up(self.side).await? {
            return Ok(Seen::Done);
        }
        let machine = cx.machine(self.side)?;
        if cx.view(machine).await?.run != RunState::Running {
            return Ok(if self.gives_way() {
                Seen::Done
            } else {
                Seen::Todo
            });
        }
        let units = cx.units_and_triggers();
        if units.is_empty() {
            return Ok(Seen::Done);
        }
        match cx.ports.guest.services(machine, &units).await {
            Ok(services) => Ok(if services.iter().any(|s| s.active) {
                Seen::Todo
            } else {
                Seen::Done
            }),
            Err(_) if self.gives_way() => Ok(Seen::Repeat),
            Err(error) => Err(error.into()),
        }
    }

    async fn act(&self, cx: &Cx) -> Step {
        let machine = cx.machine(self.side)?;
        if self.users_wait {
            cx.start_inside_clock();
        }
        if self.side == Side::Production {
            cx.ledger.fact(Fact::Stopped {
                side: self.side,
                stopped: true,
            })?;
        }
        let limit = cx.remaining(Duration::from_secs(u64::from(
            cx.settings().timeouts.service,
        )));
        let units = cx.units_and_triggers();
        match cx.ports.guest.stop(machine, &units, limit).await {
            Ok(()) => Ok(()),
            Err(error) if self.gives_way() => {
                // AB-02: the upgraded side hangs; its machine is ended instead (release), and the users go back.
                cx.ledger.write(flipside_model::Record::problem(
                    Severity::Warning,
                    &error.into(),
                ))?;
                Ok(())
            }
            Err(error) => Err(Halt::from(error)),
        }
    }

    async fn undo(&self, cx: &Cx) -> Step {
        start_again(cx, self.side).await
    }
}

impl StopApps {
    /// In an abort of a merge nothing on the upgraded side may keep the users waiting.
    fn gives_way(&self) -> bool {
        self.side == Side::Upgrade && self.users_wait
    }
}

/// Lists what ran before the session in the order to start it: sockets, because one cannot be added to a service that
/// runs; the controlled units; timers and paths, which may start a unit at once. An application is up without the last.
pub(super) fn to_start(cx: &Cx) -> Vec<UnitStart> {
    let controlled = cx.units();
    let saved = cx.facts().startup.clone().unwrap_or_default();
    let place = |unit: &String| match (controlled.contains(unit), unit.ends_with(".socket")) {
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => 2,
    };
    let running = saved.into_iter().filter(|s| s.active);
    let mut running: Vec<String> = running.map(|s| s.unit).collect();
    running.sort_by_key(place);
    let start = |unit: String| UnitStart {
        required: place(&unit) < 2,
        unit,
    };
    running.into_iter().map(start).collect()
}

/// Starts exactly what was stopped: the controlled units that ran before the session, and the sockets, timers and paths
/// that ran with them (design section 7, G.49).
pub(super) async fn start_again(cx: &Cx, side: Side) -> Step {
    let machine = cx.machine(side)?;
    let units = to_start(cx);
    let limit = cx.remaining(Duration::from_secs(u64::from(
        cx.settings().timeouts.service,
    )));
    cx.ports.guest.start(machine, &units, limit).await?;
    if side == Side::Production {
        cx.ledger.fact(Fact::Stopped {
            side,
            stopped: false,
        })?;
    }
    Ok(())
}

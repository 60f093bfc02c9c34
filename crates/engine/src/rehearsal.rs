//! What an administrator does in a rehearsal: starts and stops the applications on the copies of the data (design 3.5).

use crate::context::{Cx, Halt};
use crate::driver::System;
use crate::steps::rehearsal;
use flipside_model::api::RehearsalStatus;
use flipside_model::{
    MachineId, OperationalState, Problem, ProblemCode, Record, Severity, Side, UpgradeState,
};
use flipside_platform::RunState;

impl System {
    /// Starts (true) or stops the controlled applications on the Upgrade Side, on its copies of the data. The caller makes
    /// sure that no other request is accepted meanwhile.
    pub(crate) async fn rehearse_alone(&self, start: bool) -> Result<RehearsalStatus, Problem> {
        let cx = self.cx();
        ready(cx).await?;
        let told = if start {
            "the applications are started on the Upgrade Side, on copies of the data (rehearsal)"
        } else {
            "the applications of the rehearsal are stopped on the Upgrade Side"
        };
        cx.ledger.log(Severity::Information, told)?;
        cx.begin_stage(cx.settings().timeouts.prepare);
        let done = if start {
            rehearsal::start(cx).await
        } else {
            rehearsal::stop(cx).await
        };
        match done {
            Ok(()) => self.rehearsal().await,
            Err(Halt::Cancelled) => Err(refused("an abort was requested")),
            Err(Halt::Failed(problem)) => {
                cx.ledger
                    .write(Record::problem(Severity::Warning, &problem))?;
                Err(problem)
            }
        }
    }

    /// Says whether the session is a rehearsal, and what runs in it.
    pub async fn rehearsal(&self) -> Result<RehearsalStatus, Problem> {
        let cx = self.cx();
        let (machine, _) = copies(cx).await?;
        let units = cx.units();
        let services = cx.ports.guest.services(machine, &units).await?;
        let running = services.into_iter().filter(|s| s.active);
        Ok(RehearsalStatus {
            units,
            running: running.map(|s| s.unit).collect(),
        })
    }
}

/// Finds the Upgrade Side of a rehearsal and what it does; refuses where there is none.
async fn copies(cx: &Cx) -> Result<(MachineId, RunState), Problem> {
    let state = cx.state();
    if !state.facts.rehearsal || state.session.is_none() {
        return Err(refused("this session is no rehearsal")
            .advise("write `rehearsal = true` into the configuration of the next one"));
    }
    if state.upgrade != UpgradeState::Split || !state.facts.divided {
        return Err(refused(format!(
            "a rehearsal takes place in Split, and this is {}",
            state.upgrade
        )));
    }
    let machine = cx.machine(Side::Upgrade)?;
    let view = cx.view(machine).await?;
    // Whatever the plan says: nothing is started on a machine that has anything but copies of the data.
    if !rehearsal::has_copies(cx, &view) && !cx.disks(flipside_model::DiskRole::Data).is_empty() {
        return Err(refused("the Upgrade Side has no copies of the data"));
    }
    Ok((machine, view.run))
}

async fn ready(cx: &Cx) -> Result<(), Problem> {
    let (_, run) = copies(cx).await?;
    if cx.state().operational == OperationalState::Busy {
        return Err(refused("an operation is in progress"));
    }
    if run != RunState::Running {
        return Err(refused("the Upgrade Side is not running")
            .advise("`flipside restart --side upgrade`, then ask again"));
    }
    Ok(())
}

fn refused(why: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::Refused, why.into())
}

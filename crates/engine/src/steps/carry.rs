//! Carries chosen files of the Production Side over to the Upgrade Side (design 3.5): spools, crontabs, accounts.
//!
//! They travel on a scratch disk that one side at a time has. It is done twice: before the outage, when there may be much,
//! and in it, after the applications have stopped, when little is left. A file that was changed on both sides is never
//! overwritten: the Upgrade Side's stays, Production's is kept beside it, and a warning names it.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{CarriedFiles, Fact, MachineId, Problem, Record, Severity, Side, planted};
use flipside_platform::{CarryPlan, RunState};

/// The most that is carried over, in bytes: what takes longer than seconds belongs on a data disk.
pub(crate) const MOST: u64 = 1 << 30;

/// The scratch disk is a little larger: names, times and attributes need room as well. The file is sparse.
const SCRATCH_BYTES: u64 = MOST + MOST / 4;

pub(super) struct Carry {
    /// The applications have stopped and users wait: it must be whole now.
    pub last: bool,
}

#[async_trait]
impl Action for Carry {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let gone = self.last && cx.gave_up(Side::Production).await?;
        Ok(if gone { Seen::Done } else { Seen::Repeat })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        let upgrade = cx.machine(Side::Upgrade)?;
        fetch(cx).await?;
        let carried = carry(cx, production, upgrade).await;
        let fetched = fetch(cx).await;
        let carried = carried?;
        fetched?;
        tell_conflicts(cx, &carried)?;
        cx.ledger.fact(Fact::CarriedFiles(carried))?;
        Ok(())
    }
}

/// Nobody has the scratch disk after this.
pub(super) async fn fetch(cx: &Cx) -> Result<(), Problem> {
    let _held = cx.exclusive().await?;
    for side in [Side::Production, Side::Upgrade] {
        let Some(machine) = cx.facts().machine(side) else {
            continue;
        };
        let run = cx.view(machine).await?.run;
        if run.is_present() && run != RunState::Incoming {
            cx.ports.disk.unplug_scratch(machine).await?;
        }
    }
    Ok(())
}

async fn lend(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    let _held = cx.exclusive().await?;
    Ok(cx.ports.disk.plug_scratch(machine, SCRATCH_BYTES).await?)
}

async fn carry(cx: &Cx, production: MachineId, upgrade: MachineId) -> Step<CarriedFiles> {
    let settings = cx.settings();
    let facts = cx.facts();
    let before = facts.carried_files.as_ref();
    let plan = CarryPlan {
        rules: settings.carry.clone(),
        since: before.map_or_else(|| "split".to_owned(), |b| b.mark.clone()),
        // Its own mark for every run, so that one that failed is as if it had never been.
        mark: format!("run-{}", cx.state().last_seq),
        most: MOST,
    };
    lend(cx, production).await?;
    let packed = cx.ports.guest.pack(production, &plan).await?;
    fetch(cx).await?;
    lend(cx, upgrade).await?;
    if planted::is("carried-files-left-packed") {
        return Ok(packed);
    }
    let put = cx.ports.guest.unpack(upgrade, &plan.rules).await?;
    Ok(CarriedFiles {
        bytes: packed.bytes,
        mark: plan.mark,
        ..put
    })
}

fn tell_conflicts(cx: &Cx, carried: &CarriedFiles) -> Result<(), Problem> {
    for path in &carried.conflicts {
        cx.ledger.write(Record::Log {
            severity: Severity::Warning,
            text: format!("`{path}` was changed on both sides: the Upgrade Side's stays"),
            detail: None,
            component: Some(path.clone()),
            advice: Some(format!(
                "Production's is `/var/lib/flipside/carried{path}` on the Upgrade Side: put together what belongs together"
            )),
        })?;
    }
    Ok(())
}

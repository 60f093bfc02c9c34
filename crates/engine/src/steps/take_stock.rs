//! Records what a split will change, before it changes anything.
//!
//! Startup types and data mounts are read on the Production Side: at the fork the Upgrade Side is identical. So they
//! are durable before the first of them is touched, and no retry can mistake our own change for the original (SV-09).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Fact, MachineId, Problem, Record, Severity, Side};

pub(super) struct TakeStock;

#[async_trait]
impl Action for TakeStock {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let facts = cx.facts();
        let known = facts.startup.is_some() && facts.quiesced.is_some();
        Ok(if known { Seen::Done } else { Seen::Todo })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        let mounts = cx.ports.guest.mounts(production).await?;
        cx.ledger.fact(Fact::Mounts(mounts))?;
        note_packages(cx, production).await?;
        let held = cx.ports.guest.startup(production, &cx.hold_set()).await?;
        cx.ledger.fact(Fact::Quiesced(held.quiesced))?;
        cx.ledger.fact(Fact::Startup(held.units))?;
        Ok(())
    }
}

/// Records what is installed, so that it can be told later what the upgrade changed (VC-11): in Merge the Production
/// Side is paused and cannot be asked. No upgrade depends on it, so a guest that cannot tell costs a warning.
async fn note_packages(cx: &Cx, production: MachineId) -> Step {
    match cx.ports.guest.packages(production).await {
        Ok(packages) => {
            cx.ledger.fact(Fact::Packages(packages))?;
        }
        Err(error) => {
            let problem = Problem::from(error);
            cx.ledger
                .write(Record::problem(Severity::Warning, &problem))?;
        }
    }
    Ok(())
}

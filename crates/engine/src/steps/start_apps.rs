//! Starts the controlled applications of a side (MG-04, SV-03).

use super::stop_apps::{start_again, to_start};
use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Severity, Side};
use flipside_platform::UnitStart;
use std::time::Duration;

pub(super) struct StartApps {
    pub side: Side,
}

#[async_trait]
impl Action for StartApps {
    fn proves_itself(&self) -> bool {
        true
    }

    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let machine = cx.machine(self.side)?;
        let wanted = to_start(cx).into_iter().filter(|start| start.required);
        let wanted: Vec<String> = wanted.map(|start| start.unit).collect();
        let stopped = self.side == Side::Production && cx.facts().stopped_on_production;
        if wanted.is_empty() {
            return Ok(if stopped { Seen::Todo } else { Seen::Done });
        }
        let services = cx.ports.guest.services(machine, &wanted).await?;
        Ok(if services.iter().all(|s| s.active) && !stopped {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        start_again(cx, self.side).await
    }
}

/// Starts what was stopped on the Upgrade Side because it acts by itself; a failure is only a warning (design 3.5).
pub(super) async fn unquiesce(cx: &Cx) -> Step {
    let machine = cx.machine(Side::Upgrade)?;
    let units: Vec<UnitStart> = cx
        .facts()
        .quiesced
        .clone()
        .unwrap_or_default()
        .into_iter()
        .filter(|s| s.active)
        .map(|s| UnitStart {
            unit: s.unit,
            required: false,
        })
        .collect();
    let limit = cx.remaining(Duration::from_secs(u64::from(
        cx.settings().timeouts.service,
    )));
    if let Err(error) = cx.ports.guest.start(machine, &units, limit).await {
        cx.ledger.write(flipside_model::Record::problem(
            Severity::Warning,
            &error.into(),
        ))?;
    }
    Ok(())
}

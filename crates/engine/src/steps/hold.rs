//! Disables and gates applications, data mounts and what acts by itself on the Upgrade Side (SV-02, SV-08).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::Side;
use flipside_platform::Held;

pub(super) struct Hold;

/// Returns what was saved before the split.
pub(super) fn saved(cx: &Cx) -> Held {
    let facts = cx.facts();
    Held {
        units: facts.startup.clone().unwrap_or_default(),
        quiesced: facts.quiesced.clone().unwrap_or_default(),
    }
}

#[async_trait]
impl Action for Hold {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let upgrade = cx.machine(Side::Upgrade)?;
        let units = cx.units();
        if units.is_empty() {
            return Ok(Seen::Repeat);
        }
        let services = cx.ports.guest.services(upgrade, &units).await?;
        Ok(if services.iter().all(|s| s.gated) {
            Seen::Repeat
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        cx.ports
            .guest
            .hold(upgrade, &cx.hold_set(), &saved(cx))
            .await?;
        Ok(())
    }
}

//! Puts startup types and mount tables back while the gates still hold every unit: before the outage (MG-15).

use super::hold::saved;
use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Side, planted};

pub(super) struct PrepareRelease;

#[async_trait]
impl Action for PrepareRelease {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        if planted::is("startup-types-lost") {
            return Ok(());
        }
        cx.ports
            .guest
            .prepare_release(upgrade, &cx.hold_set(), &saved(cx))
            .await?;
        Ok(())
    }

    /// A failed PrepareMerge holds everything again, so that a restart of the Upgrade Side stays safe.
    async fn undo(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        cx.ports
            .guest
            .hold(upgrade, &cx.hold_set(), &saved(cx))
            .await?;
        Ok(())
    }
}

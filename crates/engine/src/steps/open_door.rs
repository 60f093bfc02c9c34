//! Lets the users in: the outage ends here, and only after the health check (design section 4).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Fact, Outage, Side};

pub(super) struct OpenDoor {
    pub side: Side,
}

#[async_trait]
impl Action for OpenDoor {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let machine = cx.machine(self.side)?;
        let open =
            matches!(cx.ports.network.view().await, Ok(view) if view.open_to == Some(machine));
        Ok(if open && !cx.facts().outage_open {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        open(cx, self.side).await?;
        if self.side == Side::Upgrade {
            // The users are served; what acts by itself may act again, now on this side only.
            super::start_apps::unquiesce(cx).await?;
        }
        Ok(())
    }
}

/// Opens the front door to a side and closes the books on the outage.
pub(super) async fn open(cx: &Cx, side: Side) -> Step {
    let machine = cx.machine(side)?;
    cx.ports.network.ensure().await?;
    let door_ms = cx.ports.network.open(machine).await?;
    if cx.facts().outage_open {
        cx.ledger.fact(Fact::OutageEnded(Outage {
            door_ms,
            inside_ms: cx.inside_ms(),
        }))?;
    }
    Ok(())
}

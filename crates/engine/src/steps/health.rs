//! Waits until the applications are healthy; the users are let in only after that.

use super::{Action, Seen};
use crate::context::{Cx, POLL, Step};
use async_trait::async_trait;
use flipside_model::{Problem, Side};
use std::time::Duration;

pub(super) struct Health {
    pub side: Side,
}

#[async_trait]
impl Action for Health {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Step {
        let machine = cx.machine(self.side)?;
        let settings = cx.settings();
        let limit = tokio::time::Instant::now()
            + cx.remaining(Duration::from_secs(u64::from(settings.timeouts.health)));
        loop {
            cx.safe_point("waiting for health")?;
            match cx.ports.guest.healthy(machine, &settings.health).await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= limit => {
                    return Err(Problem::from(error)
                        .advise(
                            "mend it on the Upgrade Side and `flipside retry`, or `flipside abort`",
                        )
                        .into());
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

//! Writes Production's cached data ahead, so that the unmount in the outage has little left to write.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::Side;

pub(super) struct PreFlush;

#[async_trait]
impl Action for PreFlush {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        cx.ports.guest.sync(production).await?;
        Ok(())
    }
}

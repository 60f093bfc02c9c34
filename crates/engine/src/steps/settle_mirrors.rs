//! Ends a resynchronisation of data disks before they move (design 3.8).
//!
//! One that is nearly done is finished; one that is not is given up, and what is left of it moves with the disk.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;

pub(super) struct SettleMirrors;

#[async_trait]
impl Action for SettleMirrors {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        Ok(if cx.mirrors.idle() {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        crate::mirrors::settle(cx).await?;
        Ok(())
    }
}

//! Ends a resynchronisation of data disks before they move (design 3.8).
//!
//! One that is nearly done is finished; one that is not is given up, and what is left of it moves with the disk.

use super::checkpoint::refuse_simplex;
use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;

pub(super) struct SettleMirrors;

#[async_trait]
impl Action for SettleMirrors {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let whole = !cx.facts().checkpoint || refuse_simplex(cx, &cx.book().await?).is_ok();
        Ok(if cx.mirrors.idle() && whole {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        if cx.facts().checkpoint {
            // It needs both legs, so what is left of the resynchronisation is waited for, before the outage.
            return crate::mirrors::settle_whole(cx).await;
        }
        crate::mirrors::settle(cx).await?;
        Ok(())
    }
}

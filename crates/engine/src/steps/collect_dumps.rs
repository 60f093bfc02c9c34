//! Collects the dump files of the Upgrade Side before its disk is written over (AB-11, AB-12). It blocks no abort: what
//! cannot be had costs a warning.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::crash;
use async_trait::async_trait;

pub(super) struct CollectDumps;

#[async_trait]
impl Action for CollectDumps {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        // Once the machine has ended nothing can be collected any more.
        let facts = cx.facts();
        Ok(if facts.upgrade.is_none() || !facts.divided {
            Seen::Done
        } else {
            Seen::Repeat
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        Ok(crash::collect(cx).await?)
    }
}

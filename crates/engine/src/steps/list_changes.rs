//! Lists what the Production Side changed on its system disks since the split, while it can still be asked: after the merge
//! it is paused, and at Commit all of it is gone (CM-11).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::inspect;
use async_trait::async_trait;
use flipside_model::{Fact, KEPT_CHANGES, Record, Severity, Side};

pub(super) struct ListChanges;

#[async_trait]
impl Action for ListChanges {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    /// No upgrade depends on it, so a guest that cannot tell costs a warning.
    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        match inspect::list_changes(cx, production, KEPT_CHANGES).await {
            Ok(mut list) => {
                list.before_merge = true;
                cx.ledger.fact(Fact::Changes(list))?;
            }
            Err(error) => {
                let problem = error;
                cx.ledger
                    .write(Record::problem(Severity::Warning, &problem))?;
            }
        }
        Ok(())
    }
}

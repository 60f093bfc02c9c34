//! Takes the throw-away copies of the data disks from the Upgrade Side (SP-02, design 3.5): in the split, or, after a
//! rehearsal, when the merge begins.
//!
//! Nothing is detached that is in use: the guest closes its file systems, proves that nobody uses the disks, and only
//! then are they unplugged. After that the second data legs are free to go back to Production.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, LegRole, Problem, ProblemCode, Side, StaleReason, planted,
};
use flipside_platform::RunState;

pub(super) struct RemoveData;

#[async_trait]
impl Action for RemoveData {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let view = cx.view_of(Side::Upgrade).await?;
        let data = cx.disks(DiskRole::Data);
        let plugged = data.iter().any(|d| view.disks.contains_key(d));
        let book = cx.book().await?;
        let frozen = book
            .disks
            .values()
            .any(|p| p.get(p.authority.other()).role == LegRole::Frozen);
        Ok(if plugged || frozen {
            Seen::Todo
        } else {
            Seen::Done
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        let data = cx.disks(DiskRole::Data);
        let view = cx.view(upgrade).await?;
        let plugged: Vec<String> = data
            .iter()
            .filter(|d| view.disks.contains_key(*d))
            .map(|d| d.as_str().to_owned())
            .collect();
        if !plugged.is_empty() {
            match view.run {
                RunState::Running => {}
                // AB-20: it does not come back.
                RunState::Shutdown | RunState::Absent => {
                    let text = "the Upgrade Side was shut down or has ended";
                    return Err(Problem::new(ProblemCode::NotReady, text)
                        .advise("`flipside abort` takes everything back")
                        .into());
                }
                _ => {
                    return Err(Problem::new(
                        ProblemCode::NotReady,
                        "the Upgrade Side is not running",
                    )
                    .advise("`flipside restart --side upgrade`, then `flipside retry`")
                    .into());
                }
            }
            if !planted::is("copies-unplugged-in-use") {
                cx.ports.guest.close_data(upgrade, &plugged).await?;
            }
        }
        let held = cx.exclusive().await?;
        for disk in data.iter().filter(|_| !planted::is("copies-kept")) {
            cx.ports
                .disk
                .unplug(upgrade, disk)
                .await
                .map_err(|error| cannot_disable(disk, error.into()))?;
        }
        // A Production Side that had to boot has lost the bitmap that it kept since the split.
        let reason = if cx.facts().booted_since {
            StaleReason::Unclean
        } else {
            StaleReason::Session
        };
        let rehearsed = cx.facts().rehearsal;
        cx.edit_book(&held, |book| {
            for pair in book.disks.values_mut() {
                let other = pair.authority.other();
                if pair.get(other).role != LegRole::Frozen {
                    continue;
                }
                pair.get_mut(other).role =
                    if rehearsed && planted::is("rehearsed-leg-taken-for-equal") {
                        LegRole::Live
                    } else {
                        LegRole::Stale(reason.clone())
                    };
            }
        })
        .await?;
        Ok(())
    }
}

/// Names the device that cannot be taken from the Upgrade Side, in the guide's own words (SP-23).
fn cannot_disable(disk: &DiskName, why: Problem) -> Problem {
    let mut causes = vec![why.message];
    causes.extend(why.causes);
    Problem {
        message: format!("Failed to disable PCI device: {disk}"),
        component: Some(disk.to_string()),
        causes,
        ..why
    }
}

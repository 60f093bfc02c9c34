//! The rehearsal: applications of the Upgrade Side run on throw-away copies of Production's data (design 3.5).
//!
//! The copies are overlays over legs that nobody writes: the leg below stays `Frozen` in the book from the fork until the
//! copy is gone, and nothing ever leads from an overlay back into a leg. So what a rehearsal writes ends with its copy.

use super::stop_apps::{StopApps, start_again};
use super::{Action, Seen, mount};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{DiskRole, Side};
use flipside_platform::{DiskSource, MachineView, RunState};

/// Stops what was started for the rehearsal, with every gate down again, so that nothing starts while its data goes.
pub(super) struct EndRehearsal;

#[async_trait]
impl Action for EndRehearsal {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        // A side that does not run, or has let go of its copies, is left to the next steps, which say what is to be done.
        let view = cx.view_of(Side::Upgrade).await?;
        Ok(if view.run == RunState::Running && has_copies(cx, &view) {
            Seen::Repeat
        } else {
            Seen::Done
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        stop(cx).await
    }
}

/// Says whether a machine still has a throw-away copy of data.
pub(crate) fn has_copies(cx: &Cx, view: &MachineView) -> bool {
    let copy = |disk| {
        let plugged = view.disks.get(disk);
        plugged.is_some_and(|d| matches!(d.source, DiskSource::Overlay(_)))
    };
    cx.disks(DiskRole::Data).iter().any(copy)
}

/// Lifts the gates of the Upgrade Side, mounts the copies and starts what ran before the session.
pub(crate) async fn start(cx: &Cx) -> Step {
    mount::mount(cx, Side::Upgrade).await?;
    start_again(cx, Side::Upgrade).await
}

/// Lowers the gates and stops the applications; the copies stay, with what was written to them.
pub(crate) async fn stop(cx: &Cx) -> Step {
    let upgrade = cx.machine(Side::Upgrade)?;
    cx.ports.guest.lower(upgrade).await?;
    let applications = StopApps {
        side: Side::Upgrade,
        users_wait: false,
    };
    applications.act(cx).await
}

//! Lifts the gates and mounts the data file systems of a side.

use super::{Action, Seen};
use crate::context::{Cx, POLL, Step};
use async_trait::async_trait;
use flipside_model::{DiskRole, Problem, ProblemCode, Side, planted};
use std::time::Duration;

/// How long a guest may take to see a disk that was plugged, or to answer after it was continued: 25 ms as measured,
/// many times that under load; a guest that boots instead needs a minute or two.
const DISK_WAIT: Duration = Duration::from_secs(300);

pub(super) struct Mount {
    pub side: Side,
}

#[async_trait]
impl Action for Mount {
    fn proves_itself(&self) -> bool {
        true
    }

    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let machine = cx.machine(self.side)?;
        let (Ok(mounted), Ok(lifted)) = (
            cx.ports
                .guest
                .mounts(machine, &cx.disks(DiskRole::Data))
                .await,
            cx.ports.guest.lifted(machine).await,
        ) else {
            return Ok(Seen::Todo);
        };
        let wanted = cx.facts().mounts.clone();
        let all = wanted
            .iter()
            .all(|w| mounted.iter().any(|m| m.target == w.target));
        let gates = self.side == Side::Production || lifted;
        Ok(if all && gates { Seen::Done } else { Seen::Todo })
    }

    async fn act(&self, cx: &Cx) -> Step {
        mount(cx, self.side).await
    }
}

/// Lifts the gates (they are on the Upgrade Side only) and mounts. The guest itself waits for a disk that was just
/// plugged; only if that does not do, a guest that is still booting is waited for.
pub(super) async fn mount(cx: &Cx, side: Side) -> Step {
    if try_mount(cx, side).await.is_ok() {
        return Ok(());
    }
    wait_for_disks(cx, side).await?;
    try_mount(cx, side).await
}

async fn try_mount(cx: &Cx, side: Side) -> Step {
    let machine = cx.machine(side)?;
    if side == Side::Upgrade && !planted::is("gates-not-lifted") {
        cx.ports.guest.lift(machine).await?;
    }
    cx.ports
        .guest
        .open_data(machine, &cx.facts().mounts)
        .await?;
    Ok(())
}

async fn wait_for_disks(cx: &Cx, side: Side) -> Step {
    let machine = cx.machine(side)?;
    let limit = tokio::time::Instant::now() + cx.remaining(DISK_WAIT);
    for disk in cx.disks(DiskRole::Data) {
        loop {
            match cx.ports.guest.has_disk(machine, disk.as_str()).await {
                Ok(true) => break,
                Ok(false) | Err(_) if tokio::time::Instant::now() < limit => {
                    tokio::time::sleep(POLL).await
                }
                Ok(false) => {
                    let text = format!("the {side} does not see `{disk}`");
                    return Err(Problem::new(ProblemCode::TimedOut, text)
                        .about(disk.as_str())
                        .advise(flipside_session::law::recovery(cx.state().upgrade))
                        .into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

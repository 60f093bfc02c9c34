//! Unmounts the data of a side, top down and provably (MG-05), and writes its system disks out.

use super::{Action, Seen};
use crate::context::{Cx, Halt, Step};
use async_trait::async_trait;
use flipside_model::{DiskRole, Problem, ProblemCode, Severity, Side, planted};
use flipside_platform::RunState;

pub(super) struct CloseData {
    pub side: Side,
}

#[async_trait]
impl Action for CloseData {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        if cx.gave_up(self.side).await? {
            return Ok(Seen::Done);
        }
        let view = cx.view_of(self.side).await?;
        let plugged = cx
            .disks(DiskRole::Data)
            .iter()
            .any(|d| view.disks.contains_key(d));
        Ok(match view.run {
            RunState::Running if plugged => Seen::Repeat,
            // It may go on at any moment, with its data mounted: nothing may be taken from it before it is known to have
            // closed it.
            RunState::Unresponsive | RunState::IoError => Seen::Repeat,
            _ => Seen::Done,
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let machine = cx.machine(self.side)?;
        let view = cx.view(machine).await?;
        let plugged: Vec<String> = cx
            .disks(DiskRole::Data)
            .iter()
            .filter(|d| view.disks.contains_key(*d))
            .map(|d| d.as_str().to_owned())
            .collect();
        let closed = match view.run {
            RunState::Unresponsive | RunState::IoError => Err(stands_still(self.side).into()),
            _ => close(cx, machine, &plugged).await,
        };
        match closed {
            Ok(()) => Ok(()),
            // The upgraded side hangs or holds on: its machine is ended by the next step, as a power cut would, and
            // the file system's journal brings every synced write back.
            Err(Halt::Failed(problem)) if self.side == Side::Upgrade => {
                cx.ledger
                    .write(flipside_model::Record::problem(Severity::Warning, &problem))?;
                let text =
                    "the Upgrade Side did not let go of its data; its machine is ended instead";
                cx.ledger.log(Severity::Warning, text)?;
                let _held = cx.exclusive().await?;
                cx.ports.machine.end(machine).await?;
                Ok(())
            }
            Err(_) if planted::is("unmount-failure-ignored") => Ok(()),
            Err(halt) => Err(halt),
        }
    }

    async fn undo(&self, cx: &Cx) -> Step {
        super::mount::mount(cx, self.side).await
    }
}

fn stands_still(side: Side) -> Problem {
    let text = format!("the {side} stands still and cannot let go of its data");
    Problem::new(ProblemCode::Failed, text).about(side.to_string())
}

async fn close(cx: &Cx, machine: flipside_model::MachineId, plugged: &[String]) -> Step {
    if !plugged.is_empty() && !planted::is("data-not-unmounted") {
        cx.ports.guest.close_data(machine, plugged).await?;
    }
    cx.ports.guest.sync(machine).await?;
    Ok(())
}

//! The CD drive: images are put in while no operation runs, in Idle and, in Split, on the Upgrade Side.
//!
//! What is in a drive is recorded, so that a start of the system puts it in again. The Upgrade Side begins with an empty
//! drive: QEMU takes the size of a disc that is put in before a fork for 0 (`max_lba` is set at a reset, and is not
//! migrated), so the guest could not read it. A merge, a commit and an abort leave the drives alone: nothing of a session
//! depends on them, and the medium belongs to the side.

use crate::context::Cx;
use crate::driver::System;
use crate::monitor;
use flipside_model::api::MediumStatus;
use flipside_model::{
    Fact, MachineId, OperationalState, Problem, ProblemCode, Record, Severity, Side, UpgradeState,
};
use std::path::{Path, PathBuf};

impl System {
    /// Puts an image into the drive of a side.
    pub async fn insert_medium(
        &self,
        side: Option<Side>,
        image: &Path,
    ) -> Result<MediumStatus, Problem> {
        let cx = self.cx();
        let side = side_of_drive(cx, side)?;
        cx.ports.side.check_image(image).await?;
        let machine = cx.machine(side)?;
        let held = cx.exclusive().await?;
        side_of_drive(cx, Some(side))?;
        // Recorded first: what is recorded and not there is put in by the next start, never the other way round.
        record(cx, side, Some(image.to_owned()))?;
        cx.ports.side.insert(machine, image).await?;
        drop(held);
        self.medium(Some(side)).await
    }

    /// Empties the drive of a side.
    pub async fn eject_medium(
        &self,
        side: Option<Side>,
        force: bool,
    ) -> Result<MediumStatus, Problem> {
        let cx = self.cx();
        let side = side_of_drive(cx, side)?;
        let machine = cx.machine(side)?;
        let held = cx.exclusive().await?;
        side_of_drive(cx, Some(side))?;
        cx.ports.side.eject(machine, force).await?;
        record(cx, side, None)?;
        drop(held);
        self.medium(Some(side)).await
    }

    /// Says what is in the drive of a side.
    pub async fn medium(&self, side: Option<Side>) -> Result<MediumStatus, Problem> {
        let cx = self.cx();
        let side = monitor::side_for(cx, side)?;
        let medium = cx.ports.side.medium(cx.machine(side)?).await?;
        Ok(MediumStatus {
            side,
            image: medium.image,
            locked: medium.locked,
        })
    }
}

fn record(cx: &Cx, side: Side, image: Option<PathBuf>) -> Result<(), Problem> {
    if cx.facts().media.get(&side) != image.as_ref() {
        cx.ledger.fact(Fact::Media { side, image })?;
    }
    Ok(())
}

/// The side whose drive may be changed now.
fn side_of_drive(cx: &Cx, side: Option<Side>) -> Result<Side, Problem> {
    let side = monitor::side_for(cx, side)?;
    let state = cx.state();
    let fits = state.operational != OperationalState::Busy
        && match side {
            Side::Production => state.upgrade == UpgradeState::Idle,
            Side::Upgrade => {
                state.facts.divided
                    && matches!(
                        state.upgrade,
                        UpgradeState::Split | UpgradeState::PrepareMerge
                    )
            }
        };
    if fits {
        return Ok(side);
    }
    Err(Problem::new(
        ProblemCode::Refused,
        format!(
            "the CD drive of the {side} cannot be changed in {} | {}",
            state.upgrade, state.operational
        ),
    )
    .about(side.to_string())
    .advise("it can in Idle, and in Split on the Upgrade Side, while no operation runs"))
}

/// Puts into a machine that starts what its side had in its drive. An image that is gone costs a warning, not the start.
pub(crate) async fn restore(cx: &Cx, side: Side, machine: MachineId) -> Result<(), Problem> {
    let Some(image) = cx.facts().media.get(&side).cloned() else {
        return Ok(());
    };
    if let Err(error) = cx.ports.side.insert(machine, &image).await {
        let problem =
            Problem::from(error).advise("the CD drive stays empty: `flipside media insert`");
        cx.ledger
            .write(Record::problem(Severity::Warning, &problem))?;
        record(cx, side, None)?;
    }
    Ok(())
}

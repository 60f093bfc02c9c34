//! The steps: one file each; a step that both Merge and Abort need takes the side as its parameter.

mod attach;
mod back_up_logs;
mod cancel_fork;
mod carry;
mod check;
pub(crate) mod checkpoint;
mod clean;
mod close_data;
mod collect_dumps;
pub(crate) mod decide;
mod flush;
mod fork;
mod health;
mod hold;
mod hold_door;
mod list_changes;
mod mirrors;
mod mount;
mod open_door;
mod prepare_release;
pub(crate) mod rehearsal;
mod release;
mod remove_data;
mod retire;
mod run_actions;
mod settle_mirrors;
mod start_apps;
mod start_upgrade;
mod stop_apps;
mod take_stock;
mod wake;

use crate::context::{Cx, Step as Outcome};
use async_trait::async_trait;
use flipside_model::Side;
use flipside_session::Step;

/// What an observation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is as it should be.
    Done,
    /// It is not; acting is needed.
    Todo,
    /// It cannot be seen from outside (a check, a wait): act every time, and the act's success is the proof.
    Repeat,
}

/// One step. `observe` is read-only; `act` is safe to repeat; `undo` leads back to where users are served.
#[async_trait]
pub(crate) trait Action: Send + Sync {
    async fn observe(&self, cx: &Cx) -> Outcome<Seen>;
    async fn act(&self, cx: &Cx) -> Outcome;
    async fn undo(&self, _cx: &Cx) -> Outcome {
        Ok(())
    }
    /// Says whether success of `act` is itself an observation, because the port's contract is to verify what it did
    /// before it answers. Such a step is not observed around its first try: while users wait, every question to the
    /// guest is paid by them. Any failure, and every later try, is observed in full.
    fn proves_itself(&self) -> bool {
        false
    }
}

/// Finds the code of a step.
pub(crate) fn action(step: Step) -> &'static dyn Action {
    match step {
        Step::FinalCheck => &check::FinalCheck,
        Step::TakeStock => &take_stock::TakeStock,
        Step::StartUpgrade => &start_upgrade::StartUpgrade,
        Step::Fork => &fork::Fork,
        Step::Wake => &wake::Wake,
        Step::Hold => &hold::Hold,
        Step::StopUpgradeApps => &stop_apps::StopApps {
            side: Side::Upgrade,
            users_wait: false,
        },
        Step::CloseUpgradeData | Step::DropCopies => &remove_data::RemoveData,
        Step::EndRehearsal => &rehearsal::EndRehearsal,
        Step::MergeCheck => &check::MergeCheck,
        Step::ListChanges => &list_changes::ListChanges,
        Step::PreCarry => &carry::Carry { last: false },
        Step::PrepareRelease => &prepare_release::PrepareRelease,
        Step::SettleMirrors => &settle_mirrors::SettleMirrors,
        Step::PreFlush => &flush::PreFlush,
        Step::HoldDoor => &hold_door::HoldDoor {
            serving: Side::Production,
        },
        Step::StopProductionApps => &stop_apps::StopApps {
            side: Side::Production,
            users_wait: true,
        },
        Step::Carry => &carry::Carry { last: true },
        Step::CloseProductionData => &close_data::CloseData {
            side: Side::Production,
        },
        Step::ReleaseProduction => &release::Release {
            side: Side::Production,
        },
        Step::KeepCheckpoint => &checkpoint::KeepCheckpoint,
        Step::AttachUpgrade => &attach::Attach {
            side: Side::Upgrade,
        },
        Step::MountUpgrade => &mount::Mount {
            side: Side::Upgrade,
        },
        Step::StartUpgradeApps => &start_apps::StartApps {
            side: Side::Upgrade,
        },
        Step::Health => &health::Health {
            side: Side::Upgrade,
        },
        Step::OpenDoor => &open_door::OpenDoor {
            side: Side::Upgrade,
        },
        Step::Decide => &decide::Decide,
        Step::EndProduction => &retire::Retire {
            side: Side::Production,
        },
        Step::CommitMirrors => &mirrors::StartMirrors {
            survivor: Side::Upgrade,
        },
        Step::CancelFork => &cancel_fork::CancelFork,
        Step::AbortHoldDoor => &hold_door::HoldDoor {
            serving: Side::Upgrade,
        },
        Step::AbortStopApps => &stop_apps::StopApps {
            side: Side::Upgrade,
            users_wait: true,
        },
        Step::AbortCloseData => &close_data::CloseData {
            side: Side::Upgrade,
        },
        Step::AbortRelease => &release::Release {
            side: Side::Upgrade,
        },
        Step::AbortCheckpoint => &checkpoint::AbortCheckpoint,
        Step::CollectDumps => &collect_dumps::CollectDumps,
        Step::EndUpgrade => &retire::Retire {
            side: Side::Upgrade,
        },
        Step::AbortAttach => &attach::Attach {
            side: Side::Production,
        },
        Step::AbortMount => &mount::Mount {
            side: Side::Production,
        },
        Step::AbortStartApps => &start_apps::StartApps {
            side: Side::Production,
        },
        Step::AbortOpenDoor => &open_door::OpenDoor {
            side: Side::Production,
        },
        Step::AbortMirrors => &mirrors::StartMirrors {
            survivor: Side::Production,
        },
        Step::PinActions => &run_actions::PinActions,
        Step::BackUpLogs => &back_up_logs::BackUpLogs,
        Step::PrepareSplitActions => &run_actions::RunActions {
            step: Step::PrepareSplitActions,
        },
        Step::SplitActions => &run_actions::RunActions {
            step: Step::SplitActions,
        },
        Step::StopUpgradeActions => &run_actions::RunActions {
            step: Step::StopUpgradeActions,
        },
        Step::PrepareMergeActions => &run_actions::RunActions {
            step: Step::PrepareMergeActions,
        },
        Step::StopProductionActions => &run_actions::RunActions {
            step: Step::StopProductionActions,
        },
        Step::BackupActions => &run_actions::RunActions {
            step: Step::BackupActions,
        },
        Step::LeaveActions => &run_actions::RunActions {
            step: Step::LeaveActions,
        },
        Step::ArriveActions => &run_actions::RunActions {
            step: Step::ArriveActions,
        },
        Step::StartUpgradeActions => &run_actions::RunActions {
            step: Step::StartUpgradeActions,
        },
        Step::CommitActions => &run_actions::RunActions {
            step: Step::CommitActions,
        },
        Step::AbortStopActions => &run_actions::RunActions {
            step: Step::AbortStopActions,
        },
        Step::AbortStartActions => &run_actions::RunActions {
            step: Step::AbortStartActions,
        },
        Step::AbortActions => &run_actions::RunActions {
            step: Step::AbortActions,
        },
        Step::CleanGuest => &clean::CleanGuest,
        Step::CleanHost => &clean::CleanHost,
    }
}

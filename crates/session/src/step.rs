//! The steps of all stages: stable names (also the names of crash points) and the titles people see.

use flipside_model::{StepName, UpgradeState};
use std::borrow::Cow;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $stage:ident, $id:literal, $title:literal;)*) => {
        /// One step of a stage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// Every step, in the order of the stages.
            pub const ALL: &'static [Step] = &[$(Step::$name,)*];

            /// Returns the stable name.
            pub fn id(self) -> &'static str {
                match self { $(Step::$name => $id,)* }
            }

            /// Returns what an administrator calls it.
            pub fn title(self) -> &'static str {
                match self { $(Step::$name => $title,)* }
            }

            /// Returns the stage it belongs to.
            pub fn stage(self) -> UpgradeState {
                match self { $(Step::$name => UpgradeState::$stage,)* }
            }
        }
    };
}

steps! {
    /// Runs the readiness check once more (RC-07).
    FinalCheck = PrepareSplit, "prepare_split.check", "Final readiness check";
    /// Records what belongs where: data mounts, startup types (SV-02, SV-09).
    TakeStock = PrepareSplit, "prepare_split.take_stock", "Record data mounts and startup types";
    /// Records what the files of the custom actions are (fault 60).
    PinActions = PrepareSplit, "prepare_split.pin_actions", "Record the files of the custom actions";
    /// Advanced actions with PrepareSplit (CA-14).
    PrepareSplitActions = PrepareSplit, "prepare_split.actions", "Execute custom actions";

    /// Starts the process that will become the Upgrade Side.
    StartUpgrade = Split, "split.start_upgrade", "Start the Upgrade Side's machine";
    /// Forks memory and takes all legs apart in one instant (SP-01).
    Fork = Split, "split.fork", "Fork the running system";
    /// Proves the isolation, then lets the Upgrade Side run (SP-02, SP-04).
    Wake = Split, "split.wake", "Isolate and wake the Upgrade Side";
    /// Disables and gates the applications there (SV-02).
    Hold = Split, "split.hold", "Disable applications on the Upgrade Side";
    /// Advanced actions with ExecuteSplit on both sides (CA-14, CA-15).
    SplitActions = Split, "split.actions", "Execute custom actions";
    /// Stop Application actions there (CA-12).
    StopUpgradeActions = Split, "split.stop_actions", "Execute custom actions";
    /// Stops the applications there (SP-03).
    StopUpgradeApps = Split, "split.stop_apps", "Stop applications on the Upgrade Side";
    /// Closes and removes the throw-away copies of the data (SP-02).
    CloseUpgradeData = Split, "split.close_data", "Remove data disks from the Upgrade Side";

    /// Stops what was started for the rehearsal, and gates it again.
    EndRehearsal = PrepareMerge, "prepare_merge.end_rehearsal", "Stop the applications of the rehearsal";
    /// Closes and removes the throw-away copies that the rehearsal wrote to.
    DropCopies = PrepareMerge, "prepare_merge.drop_copies", "Remove the rehearsal's copies of the data";
    /// Tests that a merge can work (RC-45).
    MergeCheck = PrepareMerge, "prepare_merge.check", "Check that the Upgrade Side can take over";
    /// Advanced actions with PrepareMerge on both sides (CA-14).
    PrepareMergeActions = PrepareMerge, "prepare_merge.actions", "Execute custom actions";
    /// Lists what Production changed on its system disks: later it cannot be asked (CM-11).
    ListChanges = PrepareMerge, "prepare_merge.changes", "List what the Production Side changed";
    /// Carries chosen files over ahead, so that the outage is short.
    PreCarry = PrepareMerge, "prepare_merge.carry", "Carry files over from the Production Side";
    /// Restores startup types behind the gates, before the outage (MG-15).
    PrepareRelease = PrepareMerge, "prepare_merge.release", "Restore startup types behind the gates";
    /// Ends a running resynchronisation of data disks.
    SettleMirrors = PrepareMerge, "prepare_merge.mirrors", "Settle the data mirrors";
    /// Writes Production's cached data ahead, so that the outage is short.
    PreFlush = PrepareMerge, "prepare_merge.flush", "Write cached data on the Production Side";

    /// Holds new connections and waits for requests in flight.
    HoldDoor = Merge, "merge.hold_door", "Hold new connections";
    /// Stop Application actions on Production (CA-12).
    StopProductionActions = Merge, "merge.stop_actions", "Execute custom actions";
    /// Stops the applications on Production (MG-04).
    StopProductionApps = Merge, "merge.stop_apps", "Stop applications on the Production Side";
    /// Backup actions, while all disks are still there (CA-16, MG-06).
    BackupActions = Merge, "merge.backup_actions", "Execute custom actions";
    /// Copies the selected logs (LB-02, MG-06).
    BackUpLogs = Merge, "merge.back_up_logs", "Save the logs of the Production Side";
    /// Carries over what has changed since, now that nothing is written any more.
    Carry = Merge, "merge.carry", "Carry the last changed files over";
    /// Advanced actions with ExecuteMerge on the side that is left (CA-14).
    LeaveActions = Merge, "merge.leave_actions", "Execute custom actions";
    /// Unmounts the data there (MG-05).
    CloseProductionData = Merge, "merge.close_data", "Unmount data on the Production Side";
    /// Takes disks and network from Production and pauses it.
    ReleaseProduction = Merge, "merge.release", "Take disks and network from the Production Side";
    /// Keeps one leg of each data disk as it is, before the Upgrade Side writes (design 3.9).
    KeepCheckpoint = Merge, "merge.checkpoint", "Keep the data as they are (checkpoint)";
    /// Gives the disks to the Upgrade Side (MG-18).
    AttachUpgrade = Merge, "merge.attach", "Give disks and network to the Upgrade Side";
    /// Lifts the gates and mounts.
    MountUpgrade = Merge, "merge.mount", "Mount data on the Upgrade Side";
    /// Advanced actions with ExecuteMerge on the side that took over (CA-15).
    ArriveActions = Merge, "merge.arrive_actions", "Execute custom actions";
    /// Starts the applications (MG-04).
    StartUpgradeApps = Merge, "merge.start_apps", "Start applications on the Upgrade Side";
    /// Start Application actions there (CA-11, MG-15).
    StartUpgradeActions = Merge, "merge.start_actions", "Execute custom actions";
    /// Waits for health.
    Health = Merge, "merge.health", "Check the health of the applications";
    /// Lets the users in.
    OpenDoor = Merge, "merge.open_door", "Let the users in";

    /// Checks sources and targets, then decides: from here only forward (CM-13, SM-14).
    Decide = Commit, "commit.decide", "Make the upgrade permanent";
    /// Carries Production's change bitmaps over and ends it.
    EndProduction = Commit, "commit.end_production", "End the old Production Side";
    /// Starts the resynchronisation of all stale legs (CM-08).
    CommitMirrors = Commit, "commit.mirrors", "Start the resynchronisation";
    /// Advanced actions with Commit, when redundancy is on its way (CA-14).
    CommitActions = Commit, "commit.actions", "Execute custom actions";

    /// Gives up a fork that was not completed.
    CancelFork = Abort, "abort.cancel_fork", "Give up the fork";
    /// Holds new connections while the users move back.
    AbortHoldDoor = Abort, "abort.hold_door", "Hold new connections";
    /// Stop Application actions on the Upgrade Side; a failure keeps nobody waiting (CA-12).
    AbortStopActions = Abort, "abort.stop_actions", "Execute custom actions";
    /// Stops the applications on the Upgrade Side.
    AbortStopApps = Abort, "abort.stop_apps", "Stop applications on the Upgrade Side";
    /// Unmounts the data there.
    AbortCloseData = Abort, "abort.close_data", "Unmount data on the Upgrade Side";
    /// Takes disks and network from the Upgrade Side.
    AbortRelease = Abort, "abort.release", "Take disks and network from the Upgrade Side";
    /// Takes the data back to the checkpoint, or keeps what was written since (DK-28).
    AbortCheckpoint = Abort, "abort.checkpoint", "Decide what becomes of the data checkpoint";
    /// Collects its dump files (AB-11).
    CollectDumps = Abort, "abort.collect_dumps", "Collect dump files of the Upgrade Side";
    /// Carries the Upgrade Side's change bitmaps over and ends it.
    EndUpgrade = Abort, "abort.end_upgrade", "End the Upgrade Side";
    /// Continues Production with its disks and network.
    AbortAttach = Abort, "abort.attach", "Continue the Production Side";
    /// Mounts the data there.
    AbortMount = Abort, "abort.mount", "Mount data on the Production Side";
    /// Starts what the merge stopped (G.49).
    AbortStartApps = Abort, "abort.start_apps", "Start applications on the Production Side";
    /// Start Application actions there (design section 7).
    AbortStartActions = Abort, "abort.start_actions", "Execute custom actions";
    /// Lets the users in again.
    AbortOpenDoor = Abort, "abort.open_door", "Let the users in";
    /// Starts the resynchronisation of all stale legs (AB-14).
    AbortMirrors = Abort, "abort.mirrors", "Start the resynchronisation";
    /// Advanced actions with Abort, when the system is one again (CA-14).
    AbortActions = Abort, "abort.actions", "Execute custom actions";

    /// Removes gates and saved state from the guest (FN-10).
    CleanGuest = Finish, "finish.guest", "Remove what the session left in the guest";
    /// Removes processes, sockets and carriers (FN-10).
    CleanHost = Finish, "finish.host", "Remove what the session left on the host";
}

impl Step {
    /// Returns the name as recorded.
    pub fn name(self) -> StepName {
        StepName(Cow::Borrowed(self.id()))
    }

    /// Finds a step by its recorded name.
    pub fn find(name: &StepName) -> Option<Step> {
        Step::ALL.iter().copied().find(|s| s.id() == name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_carry_their_stage() {
        for (i, step) in Step::ALL.iter().enumerate() {
            assert!(
                Step::ALL[..i].iter().all(|s| s.id() != step.id()),
                "{}",
                step.id()
            );
            assert_eq!(Step::find(&step.name()), Some(*step));
            let actions = crate::actions::of_step(*step).is_some();
            assert_eq!(
                step.title() == flipside_model::EXECUTE_CUSTOM_ACTIONS,
                actions,
                "{}",
                step.id()
            );
            let prefix = step
                .id()
                .split('.')
                .next()
                .expect("a dotted name")
                .replace('_', "");
            assert_eq!(prefix, step.stage().name().to_lowercase());
        }
    }
}

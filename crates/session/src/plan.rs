//! Which steps a stage takes, known before it starts.

use crate::{Facts, Step};
use flipside_model::{Side, Timeouts, UpgradeState, planted};

/// What becomes of the finished steps of a stage when a later one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// They stay; Retry goes on from there.
    Keep,
    /// They are taken back at once, because users wait or because the Upgrade Side must stay held.
    TakeBack,
}

/// Returns the steps of a stage in order. Only an abort depends on what has happened so far.
pub fn plan(stage: UpgradeState, facts: &Facts) -> Vec<Step> {
    use Step::{
        AbortActions, AbortAttach, AbortCheckpoint, AbortCloseData, AbortHoldDoor, AbortMirrors,
        AbortMount, AbortOpenDoor, AbortRelease, AbortStartActions, AbortStartApps,
        AbortStopActions, AbortStopApps, CancelFork, CollectDumps, EndUpgrade,
    };
    if stage != UpgradeState::Abort {
        let mut steps: Vec<Step> = Step::ALL
            .iter()
            .copied()
            .filter(|s| s.stage() == stage && facts.wants(*s))
            .collect();
        if planted::ENABLED {
            plant_order(&mut steps);
        }
        return steps;
    }
    let mut steps = vec![CancelFork];
    if facts.users_moved() {
        // The paused Production Side continues before anything else is tidied up: seconds count here.
        steps.extend([
            AbortHoldDoor,
            AbortStopActions,
            AbortStopApps,
            AbortCloseData,
            AbortRelease,
        ]);
        steps.extend([
            AbortCheckpoint,
            AbortAttach,
            AbortMount,
            AbortStartApps,
            AbortStartActions,
            AbortOpenDoor,
            CollectDumps,
            EndUpgrade,
        ]);
    } else {
        // Production may have ended and boots from its own leg: then the door must lead to its new machine (fault 25).
        steps.extend([CollectDumps, EndUpgrade, AbortAttach]);
        if facts.actions_stopped {
            // A merge was taken back, and what its Stop actions had stopped could not be started again (gap G.3.49).
            steps.push(AbortStartActions);
        }
        steps.push(AbortOpenDoor);
    }
    // A failing action must never stand between the administrator and redundancy.
    steps.extend([AbortMirrors, AbortActions]);
    steps.retain(|step| facts.wants(*step));
    steps
}

/// Takes two steps in the wrong order, if that is the planted mistake.
fn plant_order(steps: &mut [Step]) {
    let wrong = [
        (
            "attach-before-release",
            Step::ReleaseProduction,
            Step::AttachUpgrade,
        ),
        (
            "applications-before-mount",
            Step::MountUpgrade,
            Step::StartUpgradeApps,
        ),
        ("door-before-health", Step::Health, Step::OpenDoor),
        (
            "production-ended-before-decision",
            Step::Decide,
            Step::EndProduction,
        ),
    ];
    for (name, first, second) in wrong {
        let place = |step| steps.iter().position(|s| *s == step);
        if planted::is(name)
            && let (Some(first), Some(second)) = (place(first), place(second))
        {
            steps.swap(first, second);
        }
    }
}

impl Step {
    /// Says what becomes of this step when a later step of its stage fails.
    ///
    /// In Merge everything up to the release of Production is taken back, so that the users are served again
    /// (faults 42, 43); after it the disks stay where they are, and Retry or Abort decides (fault 45).
    pub fn undo(self) -> Undo {
        match self {
            Step::HoldDoor
            | Step::StopProductionActions
            | Step::StopProductionApps
            | Step::BackupActions
            | Step::BackUpLogs
            | Step::LeaveActions
            | Step::Carry
            | Step::CloseProductionData
            | Step::ReleaseProduction
            | Step::KeepCheckpoint
            | Step::PrepareRelease => Undo::TakeBack,
            _ => Undo::Keep,
        }
    }

    /// Says whether failing here must take back what the stage did before.
    pub fn fails_back(self) -> bool {
        if planted::is("failed-merge-not-taken-back") {
            return false;
        }
        matches!(
            self,
            Step::HoldDoor
                | Step::StopProductionActions
                | Step::StopProductionApps
                | Step::BackupActions
                | Step::BackUpLogs
                | Step::LeaveActions
                | Step::Carry
                | Step::CloseProductionData
                | Step::ReleaseProduction
                | Step::KeepCheckpoint
                | Step::PrepareRelease
                | Step::SettleMirrors
                | Step::PreFlush
        )
    }
}

impl Facts {
    /// Says whether the session's configuration asks for a step; most steps are always taken.
    fn wants(&self, step: Step) -> bool {
        match step {
            Step::KeepCheckpoint | Step::AbortCheckpoint => self.checkpoint,
            Step::PreCarry | Step::Carry => self.carry,
            Step::CloseUpgradeData => !self.rehearsal,
            Step::EndRehearsal | Step::DropCopies => self.rehearsal,
            _ => true,
        }
    }

    /// Says whether the users' way to production was touched, so that an abort must lead them back.
    pub fn users_moved(&self) -> bool {
        self.outage_open || self.owner == Side::Upgrade || self.stopped_on_production
    }
}

/// Returns the deadline of a stage in seconds (SM-20, SP-14, gap G.1.13).
pub fn deadline_seconds(stage: UpgradeState, timeouts: &Timeouts) -> u32 {
    match stage {
        UpgradeState::Idle | UpgradeState::PrepareSplit | UpgradeState::PrepareMerge => {
            timeouts.prepare
        }
        UpgradeState::Split => timeouts.split,
        UpgradeState::Merge => timeouts.merge,
        UpgradeState::Commit => timeouts.commit,
        UpgradeState::Abort => timeouts.abort,
        UpgradeState::Finish => timeouts.finish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(steps: &[Step], step: Step) -> usize {
        steps.iter().position(|s| *s == step).expect("in the plan")
    }

    // MG-04, MG-05, invariant 18: stop < unmount < detach < attach < mount < start; network down before up.
    #[test]
    fn merge_takes_its_steps_in_the_order_of_the_guide() {
        let steps = plan(UpgradeState::Merge, &Facts::default());
        let order = [
            Step::HoldDoor,
            Step::StopProductionActions,
            Step::StopProductionApps,
            // MG-06: what is saved is saved before the unmount.
            Step::BackupActions,
            Step::BackUpLogs,
            Step::LeaveActions,
            Step::CloseProductionData,
            Step::ReleaseProduction,
            Step::AttachUpgrade,
            Step::MountUpgrade,
            Step::ArriveActions,
            Step::StartUpgradeApps,
            Step::StartUpgradeActions,
            Step::Health,
            Step::OpenDoor,
        ];
        assert_eq!(steps, order);
    }

    // DK-28, design 3.9: the data are kept when nobody has them open, and it is decided what becomes of them before
    // anybody has them again. Without the configuration's word for it there is no such step.
    #[test]
    fn a_checkpoint_is_taken_and_settled_while_nobody_has_the_data() {
        let facts = Facts {
            checkpoint: true,
            owner: Side::Upgrade,
            ..Facts::default()
        };
        let merge = plan(UpgradeState::Merge, &facts);
        let kept = position(&merge, Step::KeepCheckpoint);
        assert_eq!(kept, position(&merge, Step::ReleaseProduction) + 1);
        assert_eq!(kept + 1, position(&merge, Step::AttachUpgrade));
        let abort = plan(UpgradeState::Abort, &facts);
        let settled = position(&abort, Step::AbortCheckpoint);
        assert_eq!(settled, position(&abort, Step::AbortRelease) + 1);
        assert_eq!(settled + 1, position(&abort, Step::AbortAttach));
        let plain = Facts {
            checkpoint: false,
            ..facts
        };
        for stage in UpgradeState::ALL {
            let steps = plan(stage, &plain);
            assert!(!steps.contains(&Step::KeepCheckpoint));
            assert!(!steps.contains(&Step::AbortCheckpoint));
        }
    }

    // SP-04: isolation does not wait for the stop of applications. SV-02: disabled before stopped.
    #[test]
    fn split_isolates_before_it_stops_anything() {
        let steps = plan(UpgradeState::Split, &Facts::default());
        assert!(position(&steps, Step::Wake) < position(&steps, Step::Hold));
        assert!(position(&steps, Step::Hold) < position(&steps, Step::StopUpgradeApps));
        assert!(position(&steps, Step::StopUpgradeApps) < position(&steps, Step::CloseUpgradeData));
    }

    // Design 3.5: a rehearsal keeps the copies of the data for as long as the system is divided and not a step longer: they
    // are gone before anything else of the merge, so nothing that was written to them comes near the users.
    #[test]
    fn a_rehearsal_keeps_its_copies_until_the_merge_begins() {
        let facts = Facts {
            rehearsal: true,
            ..Facts::default()
        };
        let split = plan(UpgradeState::Split, &facts);
        assert!(!split.contains(&Step::CloseUpgradeData));
        assert_eq!(split.last(), Some(&Step::StopUpgradeApps));
        let prepare = plan(UpgradeState::PrepareMerge, &facts);
        assert_eq!(prepare[..2], [Step::EndRehearsal, Step::DropCopies]);
        let plain = plan(UpgradeState::PrepareMerge, &Facts::default());
        assert_eq!(prepare[2..], plain);
        assert_eq!(plain[0], Step::MergeCheck);
    }

    // SM-14, CM-13: the decision is recorded before production is ended or anything is overwritten.
    #[test]
    fn commit_decides_first() {
        let steps = plan(UpgradeState::Commit, &Facts::default());
        assert_eq!(
            steps,
            [
                Step::Decide,
                Step::EndProduction,
                Step::CommitMirrors,
                Step::CommitActions
            ]
        );
    }

    // AB-04: an abort in Split touches nothing the users need; AB-06: in Merge it does not wait for the mirrors.
    #[test]
    fn abort_moves_the_users_back_only_if_they_were_moved() {
        let split = plan(UpgradeState::Abort, &Facts::default());
        assert!(!split.contains(&Step::AbortHoldDoor) && !split.contains(&Step::AbortStopApps));
        let moved = Facts {
            owner: Side::Upgrade,
            ..Facts::default()
        };
        let merge = plan(UpgradeState::Abort, &moved);
        // AB-12: dumps are collected when nobody waits any more, and before the leg that holds them is written over.
        assert!(position(&merge, Step::AbortOpenDoor) < position(&merge, Step::CollectDumps));
        assert!(position(&merge, Step::CollectDumps) < position(&merge, Step::AbortMirrors));
        assert!(position(&merge, Step::AbortOpenDoor) < position(&merge, Step::EndUpgrade));
        assert!(position(&merge, Step::AbortOpenDoor) < position(&merge, Step::AbortMirrors));
    }

    // AB-05: whatever touched the users' way to production makes the abort lead them back, in this order.
    #[test]
    fn each_trace_of_a_merge_makes_the_abort_lead_the_users_back() {
        let traces = [
            Facts {
                outage_open: true,
                ..Facts::default()
            },
            Facts {
                owner: Side::Upgrade,
                ..Facts::default()
            },
            Facts {
                stopped_on_production: true,
                ..Facts::default()
            },
        ];
        for facts in traces {
            assert!(facts.users_moved());
            assert_eq!(
                plan(UpgradeState::Abort, &facts),
                [
                    Step::CancelFork,
                    Step::AbortHoldDoor,
                    Step::AbortStopActions,
                    Step::AbortStopApps,
                    Step::AbortCloseData,
                    Step::AbortRelease,
                    Step::AbortAttach,
                    Step::AbortMount,
                    Step::AbortStartApps,
                    Step::AbortStartActions,
                    Step::AbortOpenDoor,
                    Step::CollectDumps,
                    Step::EndUpgrade,
                    Step::AbortMirrors,
                    Step::AbortActions,
                ]
            );
        }
        assert_eq!(
            plan(UpgradeState::Abort, &Facts::default()),
            [
                Step::CancelFork,
                Step::CollectDumps,
                Step::EndUpgrade,
                Step::AbortAttach,
                Step::AbortOpenDoor,
                Step::AbortMirrors,
                Step::AbortActions,
            ]
        );
    }

    // Gap G.3.49: what a taken-back merge could not start again is started by the abort, before the users are let in.
    #[test]
    fn an_abort_starts_what_actions_had_stopped() {
        let facts = Facts {
            actions_stopped: true,
            ..Facts::default()
        };
        let steps = plan(UpgradeState::Abort, &facts);
        assert!(!steps.contains(&Step::AbortHoldDoor));
        assert!(position(&steps, Step::AbortStartActions) < position(&steps, Step::AbortOpenDoor));
    }

    // Every step belongs to the plan of its stage, so that none is forgotten.
    #[test]
    fn the_plans_hold_every_step() {
        let moved = Facts {
            owner: Side::Upgrade,
            checkpoint: true,
            carry: true,
            ..Facts::default()
        };
        let rehearsal = Facts {
            rehearsal: true,
            ..Facts::default()
        };
        let mut planned: Vec<Step> = UpgradeState::ALL
            .into_iter()
            .flat_map(|stage| plan(stage, &moved))
            .collect();
        let prepared = plan(UpgradeState::PrepareMerge, &rehearsal).into_iter();
        planned.extend(
            prepared
                .filter(|s| !planned.contains(s))
                .collect::<Vec<_>>(),
        );
        for step in Step::ALL {
            let times = planned.iter().filter(|s| *s == step).count();
            assert_eq!(times, 1, "{}", step.id());
        }
    }

    // Faults 42, 43: until Production gave its disks up, a failure takes everything back, the release included.
    // Fault 45: from the moment the other side gets them, nothing is taken back by itself.
    #[test]
    fn a_merge_is_taken_back_up_to_the_release_and_not_after_it() {
        let everything = Facts {
            checkpoint: true,
            carry: true,
            ..Facts::default()
        };
        let merge = plan(UpgradeState::Merge, &everything);
        let given = position(&merge, Step::AttachUpgrade);
        for (at, step) in merge.iter().enumerate() {
            assert_eq!(step.undo() == Undo::TakeBack, at < given, "{}", step.id());
            assert_eq!(step.fails_back(), at < given, "{}", step.id());
        }
        // The gates that PrepareMerge opened close again when it fails behind that, so the Upgrade Side stays held.
        let prepare = plan(UpgradeState::PrepareMerge, &Facts::default());
        let released = position(&prepare, Step::PrepareRelease);
        for (at, step) in prepare.iter().enumerate() {
            let undone = step.undo() == Undo::TakeBack;
            assert_eq!(undone, *step == Step::PrepareRelease, "{}", step.id());
            assert_eq!(step.fails_back(), at >= released, "{}", step.id());
        }
        let others = Step::ALL
            .iter()
            .filter(|s| !matches!(s.stage(), UpgradeState::Merge | UpgradeState::PrepareMerge));
        for step in others {
            assert_eq!(step.undo(), Undo::Keep, "{}", step.id());
            assert!(!step.fails_back(), "{}", step.id());
        }
    }

    // SM-20: each stage has the deadline that the configuration gives to it.
    #[test]
    fn every_stage_has_its_own_deadline() {
        let timeouts = Timeouts {
            split: 1,
            prepare: 2,
            merge: 3,
            commit: 4,
            abort: 5,
            finish: 6,
            ..Timeouts::default()
        };
        let deadlines = UpgradeState::ALL.map(|stage| (stage, deadline_seconds(stage, &timeouts)));
        for (stage, seconds) in deadlines {
            let expected = match stage {
                UpgradeState::Split => 1,
                UpgradeState::Idle | UpgradeState::PrepareSplit | UpgradeState::PrepareMerge => 2,
                UpgradeState::Merge => 3,
                UpgradeState::Commit => 4,
                UpgradeState::Abort => 5,
                UpgradeState::Finish => 6,
            };
            assert_eq!(seconds, expected, "{stage}");
        }
    }

    #[test]
    fn the_split_times_out_after_five_minutes() {
        assert_eq!(
            deadline_seconds(UpgradeState::Split, &Timeouts::default()),
            300
        );
    }
}

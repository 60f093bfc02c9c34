use super::*;
use flipside_model::{OnFailure, Timing};

fn action(control_type: ControlType) -> CustomAction {
    CustomAction {
        file: "/a".to_owned(),
        arguments: Vec::new(),
        control_type,
        timing: Timing::Default,
        limit: None,
        place: ActionPlace::Guest,
        on_failure: OnFailure::Stop,
    }
}

/// What the hardware is like where a step runs its actions, in the words of the requirements' table.
fn facts_at(step: Option<Step>) -> Facts {
    let mut facts = Facts::default();
    match step {
        None | Some(Step::PrepareSplitActions) => {}
        // Users on the Upgrade Side, Production paused.
        Some(Step::ArriveActions | Step::StartUpgradeActions | Step::AbortStopActions) => {
            facts.divided = true;
            facts.owner = Side::Upgrade;
        }
        Some(Step::CommitActions) => facts.owner = Side::Upgrade,
        Some(Step::AbortActions) => {}
        _ => facts.divided = true,
    }
    facts
}

// Appendix B, CA-11 to CA-16, CA-27 to CA-31: every place with STATE, REQUEST, SIDE, HW_SPLIT and types, as words.
#[test]
fn the_table_is_the_requirements_table() {
    let mut rows = Vec::new();
    for rule in RULES {
        let state = rule.step.map_or(UpgradeState::Idle, Step::stage);
        for side in rule.sides {
            let context = rule.context(*side, state, &facts_at(rule.step));
            let values: Vec<String> = context
                .environment(1)
                .into_iter()
                .take(4)
                .map(|(_, value)| value)
                .collect();
            let types: Vec<&str> = rule.types.iter().map(|t| t.name()).collect();
            rows.push(format!("{} | {}", values.join(" "), types.join(", ")));
        }
    }
    assert_eq!(
        rows,
        [
            "Production Idle CheckReadiness No | Readiness Check, Advanced",
            "Production PrepareSplit PrepareSplit No | Advanced",
            "Production Split ExecuteSplit Yes | Advanced",
            "Upgrade Split ExecuteSplit Yes | Advanced",
            "Upgrade Split Stop Yes | Stop Application",
            "Production PrepareMerge PrepareMerge Yes | Advanced",
            "Upgrade PrepareMerge PrepareMerge Yes | Advanced",
            "Production Merge Stop Yes | Stop Application",
            "Production Merge Backup Yes | Backup",
            "Production Merge ExecuteMerge Yes | Advanced",
            "Upgrade Merge ExecuteMerge No | Advanced",
            "Upgrade Merge Start No | Start Application",
            "Upgrade Commit Commit No | Advanced",
            // CA-12: applications have to be stopped there before their data can be taken away.
            "Upgrade Abort Stop No | Stop Application",
            // Design section 7.
            "Production Abort Start No | Start Application",
            "Production Abort Abort No | Advanced",
        ]
    );
}

// Gap G.1.1: no action runs in Finish, and every step with actions has its place in the plan of its stage.
#[test]
fn every_rule_has_a_step_of_its_own() {
    for rule in RULES {
        let Some(step) = rule.step else { continue };
        assert_ne!(step.stage(), UpgradeState::Finish);
        assert_eq!(of_step(step), Some(rule));
    }
    assert_eq!(RULES.iter().filter(|r| r.step.is_none()).count(), 1);
}

fn config(types: &[ControlType]) -> UpgradeConfig {
    UpgradeConfig {
        actions: types.iter().map(|t| action(*t)).collect(),
        ..UpgradeConfig::none()
    }
}

// CA-08, CF-20: a session without actions and log backup has no steps for them.
#[test]
fn a_session_without_actions_has_no_steps_for_them() {
    let none = UpgradeConfig::none();
    let steps = Step::ALL.iter().filter(|s| !wanted(**s, &none));
    let left_out = RULES.iter().filter(|r| r.step.is_some()).count();
    assert_eq!(steps.count(), left_out + 2);
}

#[test]
fn steps_are_planned_for_the_types_that_there_are() {
    let of = |types: &[ControlType]| {
        let config = config(types);
        let steps = Step::ALL
            .iter()
            .filter(|s| of_step(**s).is_some() && wanted(**s, &config));
        steps.map(|s| s.id()).collect::<Vec<_>>()
    };
    assert_eq!(of(&[ControlType::Backup]), ["merge.backup_actions"]);
    assert_eq!(of(&[ControlType::ReadinessCheck]), [""; 0]);
    // A stop on Production is taken back by Start actions, so the step is there for either.
    assert_eq!(
        of(&[ControlType::StartApplication]),
        [
            "merge.stop_actions",
            "merge.start_actions",
            "abort.start_actions"
        ]
    );
    assert_eq!(
        of(&[ControlType::StopApplication]),
        [
            "split.stop_actions",
            "merge.stop_actions",
            "abort.stop_actions",
            "abort.start_actions"
        ]
    );
    assert_eq!(of(&[ControlType::Advanced]).len(), 7);
}

// CA-04: an action's file may differ with the circumstances; each is known beforehand.
#[test]
fn the_files_of_all_circumstances_are_known() {
    let mut advanced = action(ControlType::Advanced);
    advanced.file = "/opt/%ACTIVE_UPGRADE_SIDE%-%ACTIVE_UPGRADE_REQUEST%".to_owned();
    let upgrade: Vec<String> = files(&advanced, Some(Side::Upgrade)).into_iter().collect();
    assert_eq!(
        upgrade,
        [
            "/opt/Upgrade-Commit",
            "/opt/Upgrade-ExecuteMerge",
            "/opt/Upgrade-ExecuteSplit",
            "/opt/Upgrade-PrepareMerge"
        ]
    );
    assert!(files(&advanced, None).is_empty());
    advanced.place = ActionPlace::Host;
    assert!(files(&advanced, Some(Side::Upgrade)).is_empty());
    assert_eq!(files(&advanced, None).len(), 10);
    let plain = action(ControlType::Backup);
    assert_eq!(files(&plain, Some(Side::Production)).len(), 1);
    assert!(files(&plain, Some(Side::Upgrade)).is_empty());
}

// CA-20, gap G.3.38: the place in the list is kept beside the order in which actions run.
#[test]
fn actions_keep_their_places() {
    let mut config = config(&[
        ControlType::Advanced,
        ControlType::Backup,
        ControlType::Advanced,
    ]);
    config.actions[2].timing = Timing::Early;
    let rule = of_step(Step::SplitActions).expect("a rule");
    let places: Vec<u32> = rule.actions(&config).iter().map(|(at, _)| *at).collect();
    assert_eq!(places, [2, 0]);
}

//! Which custom actions a step runs, on which side, and what they are told: Appendix B of the requirements as data.

use crate::{Facts, SessionState, Step};
use flipside_model::{
    ActionContext, ActionPlace, ControlType, CustomAction, Side, UpgradeConfig, UpgradeRequest,
    UpgradeState, in_order,
};
use std::collections::BTreeSet;

/// The actions of one step: one row of Appendix B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The step; none for the readiness check in Idle.
    pub step: Option<Step>,
    /// What it is for.
    pub request: UpgradeRequest,
    /// The sides, in the order in which they are visited.
    pub sides: &'static [Side],
    /// The types that run.
    pub types: &'static [ControlType],
}

const fn rule(
    step: Option<Step>,
    request: UpgradeRequest,
    sides: &'static [Side],
    types: &'static [ControlType],
) -> Rule {
    Rule {
        step,
        request,
        sides,
        types,
    }
}

const PRODUCTION: &[Side] = &[Side::Production];
const UPGRADE: &[Side] = &[Side::Upgrade];
const BOTH: &[Side] = &[Side::Production, Side::Upgrade];
const ADVANCED: &[ControlType] = &[ControlType::Advanced];
const START: &[ControlType] = &[ControlType::StartApplication];
const STOP: &[ControlType] = &[ControlType::StopApplication];
const BACKUP: &[ControlType] = &[ControlType::Backup];

/// Every place at which actions run, in the order of a session (CA-11 to CA-16; Appendix B; docs/custom-actions.md).
pub const RULES: &[Rule] = &[
    rule(
        None,
        UpgradeRequest::CheckReadiness,
        PRODUCTION,
        &[ControlType::ReadinessCheck, ControlType::Advanced],
    ),
    rule(
        Some(Step::PrepareSplitActions),
        UpgradeRequest::PrepareSplit,
        PRODUCTION,
        ADVANCED,
    ),
    rule(
        Some(Step::SplitActions),
        UpgradeRequest::ExecuteSplit,
        BOTH,
        ADVANCED,
    ),
    rule(
        Some(Step::StopUpgradeActions),
        UpgradeRequest::Stop,
        UPGRADE,
        STOP,
    ),
    rule(
        Some(Step::PrepareMergeActions),
        UpgradeRequest::PrepareMerge,
        BOTH,
        ADVANCED,
    ),
    rule(
        Some(Step::StopProductionActions),
        UpgradeRequest::Stop,
        PRODUCTION,
        STOP,
    ),
    rule(
        Some(Step::BackupActions),
        UpgradeRequest::Backup,
        PRODUCTION,
        BACKUP,
    ),
    rule(
        Some(Step::LeaveActions),
        UpgradeRequest::ExecuteMerge,
        PRODUCTION,
        ADVANCED,
    ),
    rule(
        Some(Step::ArriveActions),
        UpgradeRequest::ExecuteMerge,
        UPGRADE,
        ADVANCED,
    ),
    rule(
        Some(Step::StartUpgradeActions),
        UpgradeRequest::Start,
        UPGRADE,
        START,
    ),
    rule(
        Some(Step::CommitActions),
        UpgradeRequest::Commit,
        UPGRADE,
        ADVANCED,
    ),
    rule(
        Some(Step::AbortStopActions),
        UpgradeRequest::Stop,
        UPGRADE,
        STOP,
    ),
    rule(
        Some(Step::AbortStartActions),
        UpgradeRequest::Start,
        PRODUCTION,
        START,
    ),
    rule(
        Some(Step::AbortActions),
        UpgradeRequest::Abort,
        PRODUCTION,
        ADVANCED,
    ),
];

/// What takes a stop on the Production Side back when a merge fails: Start actions there (gap G.3.49).
pub const START_AGAIN: Rule = rule(
    Some(Step::StopProductionActions),
    UpgradeRequest::Start,
    PRODUCTION,
    START,
);

/// What a readiness check in Idle runs.
pub fn of_check() -> &'static Rule {
    &RULES[0]
}

/// Returns the rule of a step, none for a step that runs no actions.
pub fn of_step(step: Step) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.step == Some(step))
}

impl Rule {
    /// Returns the actions of a configuration that this rule runs, in their order, with their places in the list.
    pub fn actions<'a>(&self, config: &'a UpgradeConfig) -> Vec<(u32, &'a CustomAction)> {
        let chosen = config
            .actions
            .iter()
            .filter(|a| self.types.contains(&a.control_type));
        let place = |action: &&CustomAction| {
            let at = config.actions.iter().position(|a| std::ptr::eq(a, *action));
            u32::try_from(at.unwrap_or(0)).unwrap_or(u32::MAX)
        };
        in_order(chosen)
            .into_iter()
            .map(|a| (place(&a), a))
            .collect()
    }

    /// Returns what an action is told on a side at this moment (CA-27 to CA-30).
    pub fn context(&self, side: Side, state: UpgradeState, facts: &Facts) -> ActionContext {
        ActionContext {
            side,
            state,
            request: self.request,
            hw_split: hw_split(state, facts),
        }
    }
}

/// Says whether two systems run at this moment (CA-30): from the division until the Upgrade Side has the users. In an
/// abort every action runs after the Upgrade Side has stopped to be a second system, or on that side after a merge.
pub fn hw_split(state: UpgradeState, facts: &Facts) -> bool {
    if flipside_model::planted::is("hardware-split-told-by-the-state") {
        return !matches!(state, UpgradeState::Idle | UpgradeState::PrepareSplit);
    }
    facts.divided && facts.owner == Side::Production && state != UpgradeState::Abort
}

/// Says whether a step has anything to do in a session with these settings; others are no part of its plan.
pub fn wanted(step: Step, config: &UpgradeConfig) -> bool {
    match step {
        Step::PinActions => !config.actions.is_empty(),
        Step::BackUpLogs => config.log_backup.wanted().is_some(),
        // A stop may have to be taken back by Start actions alone.
        Step::StopProductionActions | Step::AbortStartActions => {
            let both = [ControlType::StartApplication, ControlType::StopApplication];
            config
                .actions
                .iter()
                .any(|a| both.contains(&a.control_type))
        }
        _ => of_step(step).is_none_or(|rule| !rule.actions(config).is_empty()),
    }
}

/// Returns the steps of the stage a session is in: [`crate::plan`] without those that have nothing to do.
pub fn planned(state: &SessionState) -> Vec<Step> {
    let config = state.settings();
    let mut steps = crate::plan(state.upgrade, &state.facts);
    steps.retain(|step| wanted(*step, &config));
    steps
}

/// Returns every path at which the program of an action may lie on a side, over all circumstances in which it runs there
/// (CA-04); of the host when no side is given.
pub fn files(action: &CustomAction, side: Option<Side>) -> BTreeSet<String> {
    let guest = action.place == ActionPlace::Guest;
    if guest != side.is_some() {
        return BTreeSet::new();
    }
    let mut files = BTreeSet::new();
    for rule in RULES.iter().chain([&START_AGAIN]) {
        if !rule.types.contains(&action.control_type) {
            continue;
        }
        let state = rule.step.map_or(UpgradeState::Idle, Step::stage);
        let sides = rule
            .sides
            .iter()
            .filter(|s| side.is_none_or(|wanted| wanted == **s));
        for side in sides {
            for hw_split in [false, true] {
                let context = ActionContext {
                    side: *side,
                    state,
                    request: rule.request,
                    hw_split,
                };
                files.insert(context.expand(&action.file, 1));
            }
        }
    }
    files
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;

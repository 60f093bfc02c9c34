//! The transition law: Appendix A of the requirements as data.
//!
//! Two tables say everything. [`COMMANDS`] lists which request is accepted where, and which stage it enters;
//! every pair that is not listed is refused with the state unchanged. [`EDGES`] lists which changes of stage and
//! operational state may ever be recorded.

use crate::SessionState;
use flipside_model::{
    Command, OperationalState as O, Problem, ProblemCode, UpgradeState as S, planted,
};

/// One accepted request: in this stage and operational state, this command enters that stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Stage.
    pub state: S,
    /// Ready, Busy or Broken.
    pub operational: O,
    /// Request.
    pub command: Command,
    /// Stage entered (the same one for a retry).
    pub enters: S,
}

const fn rule(state: S, operational: O, command: Command, enters: S) -> Rule {
    Rule {
        state,
        operational,
        command,
        enters,
    }
}

/// Every accepted pair of state and request (Appendix A; SM-08 to SM-19, SM-23, MG-02, CM-01, AB-01, FN-09; gaps G.1.7, G.1.8, G.1.10).
///
/// `split` runs the readiness check first and enters PrepareSplit only if it passes, so it is accepted in
/// Idle Broken as well (RC-12): the edge Idle → PrepareSplit itself needs Idle Ready.
pub const COMMANDS: [Rule; 25] = [
    rule(S::Idle, O::Ready, Command::Check, S::Idle),
    rule(S::Idle, O::Broken, Command::Check, S::Idle),
    rule(S::Idle, O::Ready, Command::Retry, S::Idle),
    rule(S::Idle, O::Broken, Command::Retry, S::Idle),
    rule(S::Idle, O::Ready, Command::Split, S::PrepareSplit),
    rule(S::Idle, O::Broken, Command::Split, S::PrepareSplit),
    rule(S::PrepareSplit, O::Broken, Command::Retry, S::PrepareSplit),
    rule(S::PrepareSplit, O::Broken, Command::Abort, S::Abort),
    rule(S::PrepareSplit, O::Busy, Command::Abort, S::Abort),
    rule(S::Split, O::Ready, Command::Merge, S::PrepareMerge),
    rule(S::Split, O::Ready, Command::Abort, S::Abort),
    rule(S::Split, O::Broken, Command::Retry, S::Split),
    rule(S::Split, O::Broken, Command::Abort, S::Abort),
    rule(S::Split, O::Busy, Command::Abort, S::Abort),
    rule(S::PrepareMerge, O::Broken, Command::Retry, S::PrepareMerge),
    rule(S::PrepareMerge, O::Broken, Command::Abort, S::Abort),
    rule(S::PrepareMerge, O::Busy, Command::Abort, S::Abort),
    rule(S::Merge, O::Ready, Command::Commit, S::Commit),
    rule(S::Merge, O::Ready, Command::Abort, S::Abort),
    rule(S::Merge, O::Broken, Command::Retry, S::Merge),
    rule(S::Merge, O::Broken, Command::Abort, S::Abort),
    rule(S::Merge, O::Busy, Command::Abort, S::Abort),
    rule(S::Commit, O::Ready, Command::Finish, S::Finish),
    rule(S::Commit, O::Broken, Command::Retry, S::Commit),
    rule(S::Abort, O::Ready, Command::Finish, S::Finish),
];

/// Retries of the last two stages, kept apart only because a const array has a fixed length.
pub const LATE_RETRIES: [Rule; 2] = [
    rule(S::Abort, O::Broken, Command::Retry, S::Abort),
    rule(S::Finish, O::Broken, Command::Retry, S::Finish),
];

/// A recorded change of stage and operational state.
pub type Edge = ((S, O), (S, O));

/// Every change that may be recorded (invariant 12). A failure stays in its stage (SM-18).
pub const EDGES: [Edge; 34] = [
    ((S::Idle, O::Ready), (S::Idle, O::Busy)),
    ((S::Idle, O::Broken), (S::Idle, O::Busy)),
    ((S::Idle, O::Busy), (S::Idle, O::Ready)),
    ((S::Idle, O::Busy), (S::Idle, O::Broken)),
    ((S::Idle, O::Ready), (S::PrepareSplit, O::Busy)),
    ((S::PrepareSplit, O::Busy), (S::PrepareSplit, O::Broken)),
    ((S::PrepareSplit, O::Broken), (S::PrepareSplit, O::Busy)),
    ((S::PrepareSplit, O::Busy), (S::Split, O::Busy)),
    ((S::PrepareSplit, O::Busy), (S::Abort, O::Busy)),
    ((S::PrepareSplit, O::Broken), (S::Abort, O::Busy)),
    ((S::Split, O::Busy), (S::Split, O::Ready)),
    ((S::Split, O::Busy), (S::Split, O::Broken)),
    ((S::Split, O::Broken), (S::Split, O::Busy)),
    ((S::Split, O::Busy), (S::Abort, O::Busy)),
    ((S::Split, O::Broken), (S::Abort, O::Busy)),
    ((S::Split, O::Ready), (S::Abort, O::Busy)),
    ((S::Split, O::Ready), (S::PrepareMerge, O::Busy)),
    ((S::PrepareMerge, O::Busy), (S::PrepareMerge, O::Broken)),
    ((S::PrepareMerge, O::Broken), (S::PrepareMerge, O::Busy)),
    ((S::PrepareMerge, O::Busy), (S::Merge, O::Busy)),
    ((S::PrepareMerge, O::Busy), (S::Abort, O::Busy)),
    ((S::PrepareMerge, O::Broken), (S::Abort, O::Busy)),
    ((S::Merge, O::Busy), (S::Merge, O::Ready)),
    ((S::Merge, O::Busy), (S::Merge, O::Broken)),
    ((S::Merge, O::Broken), (S::Merge, O::Busy)),
    ((S::Merge, O::Busy), (S::Abort, O::Busy)),
    ((S::Merge, O::Broken), (S::Abort, O::Busy)),
    ((S::Merge, O::Ready), (S::Abort, O::Busy)),
    ((S::Merge, O::Ready), (S::Commit, O::Busy)),
    ((S::Commit, O::Busy), (S::Commit, O::Ready)),
    ((S::Commit, O::Busy), (S::Commit, O::Broken)),
    ((S::Commit, O::Broken), (S::Commit, O::Busy)),
    ((S::Commit, O::Ready), (S::Finish, O::Busy)),
    ((S::Abort, O::Busy), (S::Abort, O::Ready)),
];

/// The edges of the last two stages, kept apart only because a const array has a fixed length.
pub const LATE_EDGES: [Edge; 6] = [
    ((S::Abort, O::Busy), (S::Abort, O::Broken)),
    ((S::Abort, O::Broken), (S::Abort, O::Busy)),
    ((S::Abort, O::Ready), (S::Finish, O::Busy)),
    ((S::Finish, O::Busy), (S::Idle, O::Ready)),
    ((S::Finish, O::Busy), (S::Finish, O::Broken)),
    ((S::Finish, O::Broken), (S::Finish, O::Busy)),
];

fn rules() -> impl Iterator<Item = &'static Rule> {
    COMMANDS.iter().chain(LATE_RETRIES.iter())
}

/// Says whether a change may be recorded.
pub fn is_edge(from: (S, O), to: (S, O)) -> bool {
    EDGES
        .iter()
        .chain(LATE_EDGES.iter())
        .any(|e| *e == (from, to))
}

/// Lists the commands that are legal in a state (the `allowed` field).
pub fn allowed(state: &SessionState) -> Vec<Command> {
    rules()
        .filter(|r| r.state == state.upgrade && r.operational == state.operational)
        .filter(|r| !(state.abort_requested && r.command == Command::Abort))
        .map(|r| r.command)
        .collect()
}

/// Decides a request. `Ok` names the stage that is entered; a refusal says why and what is allowed (SM-08, SM-09).
pub fn decide(state: &SessionState, command: Command) -> Result<S, Problem> {
    if state.facts.committed && command == Command::Abort && planted::is("abort-after-commit") {
        return Ok(S::Abort);
    }
    if state.abort_requested && command == Command::Abort {
        return Err(refusal(
            state,
            command,
            "an abort was already requested and waits for the next safe point",
        ));
    }
    rules()
        .find(|r| {
            r.state == state.upgrade && r.operational == state.operational && r.command == command
        })
        .map(|r| r.enters)
        .ok_or_else(|| refusal(state, command, why_not(state, command)))
}

const FORWARD: &str = "the commit was initiated, and from then on the upgrade can only go forward";

/// Says what an administrator does about a stage that is Broken. Before the commit Retry and Abort are open; after it
/// only Retry is, and when that does not help, the message says where to turn (SM-19, CM-09, AB-15, AB-19, FN-03).
pub fn recovery(stage: S) -> &'static str {
    match stage {
        S::Idle => "`flipside check`",
        S::PrepareSplit | S::Split | S::PrepareMerge | S::Merge => {
            "`flipside retry`; if it fails again, `flipside abort`"
        }
        S::Commit | S::Abort | S::Finish => {
            "`flipside retry`; if it fails again, see docs/troubleshooting.md or ask technical support"
        }
    }
}

fn why_not(state: &SessionState, command: Command) -> &'static str {
    match (state.upgrade, state.operational, command) {
        // Also before the decision itself is recorded (docs/decisions/0008).
        (S::Commit, _, Command::Abort) => FORWARD,
        (S::Finish, _, Command::Abort) if state.facts.committed => FORWARD,
        (S::Abort, _, Command::Abort) => "the session is being aborted already",
        (S::Finish, _, Command::Abort) => "the session is being closed",
        (_, O::Busy, _) => "an operation is in progress",
        (S::Idle, _, _) => "there is no session",
        (_, O::Broken, _) => "the last operation failed and must be retried or aborted first",
        (_, _, Command::Check | Command::Split) => "a session is open",
        (_, O::Ready, Command::Retry) => "nothing has failed",
        _ => "the session has not come to that point, or has passed it",
    }
}

fn refusal(state: &SessionState, command: Command, why: &str) -> Problem {
    let allowed = allowed(state);
    let list = if allowed.is_empty() {
        "wait until the operation ends: `flipside status --watch`".to_owned()
    } else {
        let verbs: Vec<String> = allowed.iter().map(|c| format!("`{c}`")).collect();
        format!("allowed now: {}", verbs.join(", "))
    };
    Problem::new(
        ProblemCode::Refused,
        format!(
            "`{command}` is refused in {} | {}: {why}",
            state.upgrade, state.operational
        ),
    )
    .advise(list)
}

/// Says that only an abort can take the data back.
///
/// # Errors
/// A usage error.
pub fn discard_is_asked(command: Command) -> Result<(), Problem> {
    if command == Command::Abort {
        return Ok(());
    }
    let text = format!("`{command}` cannot discard data: only `abort` can");
    Err(Problem::new(ProblemCode::Usage, text))
}

/// Decides whether an abort may take the data back: in Merge, and only when the session keeps a checkpoint (DK-28).
///
/// # Errors
/// Refused, with what an abort does instead.
pub fn discard(state: &SessionState) -> Result<(), Problem> {
    let (why, advice) = if state.upgrade != S::Merge {
        (
            format!("{} has moved no data", state.upgrade),
            "`flipside abort` alone takes the upgrade back; the data stay as they are",
        )
    } else if !state.facts.checkpoint {
        (
            "this session keeps no checkpoint of the data".to_owned(),
            "`flipside abort` keeps what was written since the merge; for the next session write `checkpoint = true`",
        )
    } else {
        return Ok(());
    };
    let text = format!("`abort --discard-data` is refused: {why}");
    Err(Problem::new(ProblemCode::Refused, text).advise(advice))
}

/// Decides whether the system may be started or stopped by hand: never while an operation runs, which starts, pauses and
/// ends machines itself.
///
/// # Errors
/// Refused, with what to wait for.
pub fn power(state: &SessionState) -> Result<(), Problem> {
    if state.operational != O::Busy {
        return Ok(());
    }
    let text = format!(
        "the system cannot be started or stopped in {} | Busy: an operation runs",
        state.upgrade
    );
    Err(Problem::new(ProblemCode::Refused, text)
        .advise("wait for its end (`flipside status --watch`), then ask again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 61; SM-08, SM-09, SM-13, SM-14, SM-16, SM-19, SM-23, MG-02, CM-01, AB-01, FN-09: every state x operational state x command, against the table in words.
    #[test]
    fn every_state_and_command_is_decided_as_appendix_a_says() {
        let mut accepted = 0;
        for upgrade in S::ALL {
            for operational in O::ALL {
                for command in Command::ALL {
                    let state = SessionState {
                        upgrade,
                        operational,
                        ..SessionState::default()
                    };
                    let expected = match (upgrade, operational, command) {
                        (S::Idle, O::Ready | O::Broken, Command::Check | Command::Retry) => {
                            Some(S::Idle)
                        }
                        (S::Idle, O::Ready | O::Broken, Command::Split) => Some(S::PrepareSplit),
                        (S::Split, O::Ready, Command::Merge) => Some(S::PrepareMerge),
                        (S::Merge, O::Ready, Command::Commit) => Some(S::Commit),
                        (S::Commit | S::Abort, O::Ready, Command::Finish) => Some(S::Finish),
                        (S::Split | S::Merge, _, Command::Abort) => Some(S::Abort),
                        (
                            S::PrepareSplit | S::PrepareMerge,
                            O::Busy | O::Broken,
                            Command::Abort,
                        ) => Some(S::Abort),
                        (S::Idle, _, _) => None,
                        (same, O::Broken, Command::Retry) => Some(same),
                        _ => None,
                    };
                    let decided = decide(&state, command);
                    assert_eq!(
                        decided.as_ref().ok(),
                        expected.as_ref(),
                        "{upgrade} {operational} {command}"
                    );
                    accepted += usize::from(decided.is_ok());
                    if let Err(problem) = decided {
                        assert_eq!(problem.code, ProblemCode::Refused);
                        assert!(problem.advice.is_some(), "a refusal says what is allowed");
                    }
                }
            }
        }
        assert_eq!(accepted, COMMANDS.len() + LATE_RETRIES.len());
    }

    // SM-14: once committed, no edge leads to Abort, from anywhere that can be reached.
    #[test]
    fn no_path_leads_from_commit_to_abort() {
        let edges: Vec<Edge> = EDGES.iter().chain(LATE_EDGES.iter()).copied().collect();
        let mut reached = vec![(S::Commit, O::Busy)];
        let mut next = 0;
        while next < reached.len() {
            let here = reached[next];
            next += 1;
            for (from, to) in &edges {
                if *from == here && !reached.contains(to) && to.0 != S::Idle {
                    reached.push(*to);
                }
            }
        }
        assert!(reached.iter().all(|(s, _)| *s != S::Abort), "{reached:?}");
    }

    // SM-14: a commit that was accepted goes forward only, decided or not, and a refusal does not advise an abort.
    #[test]
    fn an_abort_of_a_commit_is_refused_with_the_true_reason() {
        for operational in O::ALL {
            let state = SessionState {
                upgrade: S::Commit,
                operational,
                ..SessionState::default()
            };
            let problem = decide(&state, Command::Abort).expect_err("only forward");
            assert!(problem.message.ends_with(FORWARD), "{}", problem.message);
        }
    }

    // SM-19, SP-15, MG-13, CM-09, AB-15, FN-03: the advice names exactly the commands that are accepted when Broken.
    #[test]
    fn the_advice_for_what_is_broken_names_what_is_allowed() {
        for upgrade in S::ALL.into_iter().filter(|s| *s != S::Idle) {
            let state = SessionState {
                upgrade,
                operational: O::Broken,
                ..SessionState::default()
            };
            let allowed = allowed(&state);
            assert_eq!(allowed.first(), Some(&Command::Retry), "{upgrade}");
            for command in [Command::Retry, Command::Abort] {
                let named = recovery(upgrade).contains(&format!("`flipside {command}`"));
                assert_eq!(named, allowed.contains(&command), "{upgrade} {command}");
            }
            assert!(allowed.len() <= 2, "{upgrade}: {allowed:?}");
        }
    }

    // SM-13, invariant 13: from every state before commit an abort is accepted, at the latest when it is not Busy.
    #[test]
    fn abort_is_open_everywhere_before_commit() {
        for upgrade in [S::PrepareSplit, S::Split, S::PrepareMerge, S::Merge] {
            for operational in [O::Busy, O::Broken] {
                let state = SessionState {
                    upgrade,
                    operational,
                    ..SessionState::default()
                };
                assert!(
                    decide(&state, Command::Abort).is_ok(),
                    "{upgrade} {operational}"
                );
                assert!(is_edge((upgrade, operational), (S::Abort, O::Busy)));
            }
        }
    }

    // DK-28: data are thrown away only where there are some to go back to, and never by the word of a plain abort.
    #[test]
    fn data_are_discarded_in_merge_and_with_a_checkpoint_only() {
        for upgrade in S::ALL {
            for checkpoint in [false, true] {
                let mut state = SessionState {
                    upgrade,
                    ..SessionState::default()
                };
                std::sync::Arc::make_mut(&mut state.facts).checkpoint = checkpoint;
                let decided = discard(&state);
                assert_eq!(decided.is_ok(), upgrade == S::Merge && checkpoint);
                if let Err(problem) = decided {
                    assert_eq!(problem.code, ProblemCode::Refused);
                    assert!(problem.advice.is_some_and(|a| a.contains("flipside abort")));
                }
            }
        }
    }

    #[test]
    fn a_second_abort_is_refused_while_the_first_waits() {
        let state = SessionState {
            upgrade: S::Split,
            operational: O::Busy,
            abort_requested: true,
            ..SessionState::default()
        };
        assert!(decide(&state, Command::Abort).is_err());
        assert!(allowed(&state).is_empty());
    }

    // SM-14: after the decision nothing leads to Abort, whatever is asked in whatever stage is left.
    #[test]
    fn after_the_decision_no_command_enters_abort() {
        for upgrade in [S::Commit, S::Finish] {
            for operational in O::ALL {
                let mut state = SessionState {
                    upgrade,
                    operational,
                    ..SessionState::default()
                };
                std::sync::Arc::make_mut(&mut state.facts).committed = true;
                for command in Command::ALL {
                    assert_ne!(decide(&state, command).ok(), Some(S::Abort), "{command}");
                }
            }
        }
    }

    // SM-09: `allowed` lists what would be accepted, no more and no less, also while an abort waits.
    #[test]
    fn what_is_listed_as_allowed_is_what_is_accepted() {
        for upgrade in S::ALL {
            for operational in O::ALL {
                for abort_requested in [false, true] {
                    let state = SessionState {
                        upgrade,
                        operational,
                        abort_requested,
                        ..SessionState::default()
                    };
                    let listed = allowed(&state);
                    for command in Command::ALL {
                        assert_eq!(
                            listed.contains(&command),
                            decide(&state, command).is_ok(),
                            "{upgrade} {operational} {command}, abort {abort_requested}"
                        );
                    }
                }
            }
        }
    }

    // SM-08, SM-09: a refusal gives the reason that an administrator can act on, and lists what is allowed instead.
    #[test]
    fn a_refusal_says_why_and_what_is_allowed() {
        const WAIT: &str = "wait until the operation ends: `flipside status --watch`";
        let refused = |upgrade, operational, committed, command| {
            let mut state = SessionState {
                upgrade,
                operational,
                ..SessionState::default()
            };
            std::sync::Arc::make_mut(&mut state.facts).committed = committed;
            let problem = decide(&state, command).expect_err("refused");
            assert!(problem.message.starts_with(&format!(
                "`{command}` is refused in {upgrade} | {operational}: "
            )));
            let why = problem.message.split(": ").nth(1).expect("a reason");
            (why.to_owned(), problem.advice.expect("advice"))
        };
        let cases = [
            (
                S::Commit,
                O::Ready,
                true,
                Command::Abort,
                FORWARD,
                "allowed now: `finish`",
            ),
            (S::Finish, O::Busy, true, Command::Abort, FORWARD, WAIT),
            (
                S::Finish,
                O::Busy,
                false,
                Command::Abort,
                "the session is being closed",
                WAIT,
            ),
            (
                S::Abort,
                O::Busy,
                false,
                Command::Abort,
                "the session is being aborted already",
                WAIT,
            ),
            (
                S::Split,
                O::Busy,
                false,
                Command::Merge,
                "an operation is in progress",
                "allowed now: `abort`",
            ),
            (
                S::Idle,
                O::Busy,
                false,
                Command::Split,
                "an operation is in progress",
                WAIT,
            ),
            (
                S::Idle,
                O::Ready,
                false,
                Command::Merge,
                "there is no session",
                "allowed now: `check`, `retry`, `split`",
            ),
            (
                S::Merge,
                O::Broken,
                false,
                Command::Commit,
                "the last operation failed and must be retried or aborted first",
                "allowed now: `retry`, `abort`",
            ),
            (
                S::Split,
                O::Ready,
                false,
                Command::Check,
                "a session is open",
                "allowed now: `merge`, `abort`",
            ),
            (
                S::Split,
                O::Ready,
                false,
                Command::Split,
                "a session is open",
                "allowed now: `merge`, `abort`",
            ),
            (
                S::Merge,
                O::Ready,
                false,
                Command::Retry,
                "nothing has failed",
                "allowed now: `commit`, `abort`",
            ),
            (
                S::Split,
                O::Ready,
                false,
                Command::Commit,
                "the session has not come to that point, or has passed it",
                "allowed now: `merge`, `abort`",
            ),
        ];
        for (upgrade, operational, committed, command, why, advice) in cases {
            assert_eq!(
                refused(upgrade, operational, committed, command),
                (why.to_owned(), advice.to_owned()),
                "{upgrade} {operational} {command}"
            );
        }
    }

    // Invariant 12: the edges are those of the tables; a change that is not there may not be recorded.
    #[test]
    fn only_the_listed_changes_are_edges() {
        let states: Vec<(S, O)> = S::ALL
            .into_iter()
            .flat_map(|s| O::ALL.into_iter().map(move |o| (s, o)))
            .collect();
        let pairs = states
            .iter()
            .flat_map(|from| states.iter().map(move |to| (*from, *to)));
        let edges = pairs.filter(|(from, to)| is_edge(*from, *to)).count();
        assert_eq!(edges, EDGES.len() + LATE_EDGES.len());
        // A stage is entered Busy, except for the end of a session; and no edge skips a stage.
        for (from, to) in EDGES.iter().chain(&LATE_EDGES) {
            if from.0 != to.0 {
                assert!(
                    to.1 == O::Busy || *to == (S::Idle, O::Ready),
                    "{from:?} {to:?}"
                );
            }
        }
    }
}

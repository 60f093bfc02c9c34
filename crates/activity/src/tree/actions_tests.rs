use super::*;
use crate::{Line, Style, render};
use flipside_model::{
    ActionContext, ActionPlace, ControlType, Fact, OperationalState, Problem, ProblemCode, Record,
    Side, UpgradeRequest, UpgradeState,
};
use std::borrow::Cow;

fn run(handle: u64, attempt: u32) -> Record {
    Record::Fact(Fact::ActionStarted(Box::new(ActionRun {
        handle,
        index: 0,
        control_type: ControlType::StopApplication,
        place: ActionPlace::Guest,
        argv: vec!["/usr/local/sbin/shop".to_owned(), "stop".to_owned()],
        context: ActionContext {
            side: Side::Production,
            state: UpgradeState::Merge,
            request: UpgradeRequest::Stop,
            hw_split: true,
        },
        attempt,
    })))
}

fn end(handle: u64, result: ActionResult, out: &str, err: &str) -> Record {
    let text = |text: &str| Captured {
        text: text.to_owned(),
        truncated: false,
    };
    Record::Fact(Fact::ActionEnded(Box::new(ActionEnd {
        handle,
        result,
        out: text(out),
        err: text(err),
        tolerated: false,
    })))
}

fn entered(operational: OperationalState) -> Record {
    Record::Entered {
        state: UpgradeState::Merge,
        operational,
        problem: None,
    }
}

fn intent(step: &'static str) -> Record {
    Record::Intent {
        step: StepName(Cow::Borrowed(step)),
        title: EXECUTE_CUSTOM_ACTIONS.to_owned(),
        attempt: 1,
    }
}

fn outcome(step: &'static str, result: StepResult) -> Record {
    Record::Outcome {
        step: StepName(Cow::Borrowed(step)),
        result,
    }
}

fn lines(records: Vec<Record>) -> Vec<Line> {
    let mut tree = Tree::default();
    for (at, record) in records.into_iter().enumerate() {
        let seq = at as u64 + 1;
        tree.push(&Entry {
            seq,
            at_ms: 1_000 * seq as i64,
            record,
        });
    }
    tree.lines(None)
}

fn told(lines: &[Line]) -> Vec<String> {
    let one = |l: &Line| format!("{}{:?} {}", "  ".repeat(l.depth()), l.severity, l.text);
    lines.iter().map(one).collect()
}

// CA-39, AL-15: one node for a stage, however many of its steps run actions; CA-22: a running one is Pending, by name.
#[test]
fn a_stage_has_one_node_for_all_its_actions() {
    let told = told(&lines(vec![
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        run(1, 1),
        end(1, ActionResult::Exit(0), "stopped\n", ""),
        outcome("merge.stop_actions", StepResult::Done),
        intent("merge.backup_actions"),
        run(2, 1),
    ]));
    assert_eq!(
        told,
        [
            "Pending Merge",
            "  Pending Execute custom actions",
            "    Success Stop Application: /usr/local/sbin/shop stop (Production Side)",
            "    Pending Stop Application: /usr/local/sbin/shop stop (Production Side)",
        ]
    );
}

// CA-35, CA-38, CA-41: the exact text, and both streams after success and failure.
#[test]
fn what_was_printed_is_kept_after_success_and_failure() {
    let problem = Problem::new(
        ProblemCode::Failed,
        "Custom action failed with exit value 3",
    );
    let lines = lines(vec![
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        run(1, 1),
        end(1, ActionResult::Exit(0), "one\n", "two\n"),
        run(2, 1),
        end(2, ActionResult::Exit(3), "", "no such shop\n"),
        outcome("merge.stop_actions", StepResult::Failed(problem.clone())),
        entered(OperationalState::Broken),
    ]);
    assert_eq!(
        told(&lines),
        [
            "Error Merge",
            "  Error Execute custom actions",
            "    Success Stop Application: /usr/local/sbin/shop stop (Production Side)",
            "    Error Stop Application: /usr/local/sbin/shop stop (Production Side): Custom action failed with exit value 3",
        ]
    );
    let detail = |at: usize| lines[at].detail.clone().expect("what it printed");
    assert_eq!(
        detail(2),
        "exit value 0\n--- standard output ---\none\n--- standard error ---\ntwo"
    );
    assert_eq!(
        detail(3),
        "exit value 3\n--- standard error ---\nno such shop"
    );
}

// Fault 57: what a script prints can neither move the terminal nor hide that something is missing.
#[test]
fn hostile_output_is_harmless_and_truncation_is_marked() {
    let mut all = vec![
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        run(1, 1),
    ];
    all.push(Record::Fact(Fact::ActionEnded(Box::new(ActionEnd {
        handle: 1,
        result: ActionResult::Exit(0),
        out: Captured {
            text: "\u{1b}[2J\u{0}</log>]]>\u{202e}\n".to_owned(),
            truncated: true,
        },
        err: Captured::default(),
        tolerated: false,
    }))));
    let lines = lines(all);
    let text = render(&lines, &Style::default());
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(text.contains("was truncated: only the first"));
    assert!(lines[2].json().contains("\\u001b"));
}

// AL-09: a server that ends leaves nothing Pending; the end of the action that was followed on is told where it began.
#[test]
fn an_interrupted_action_is_not_pending_and_its_end_is_told() {
    let mut records = vec![
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        run(1, 1),
        Record::Opened {
            version: "2".to_owned(),
        },
    ];
    let interrupted = told(&lines(records.clone()));
    assert!(
        interrupted.iter().all(|l| !l.contains("Pending")),
        "{interrupted:#?}"
    );
    records.extend([
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        end(1, ActionResult::Exit(0), "", ""),
        outcome("merge.stop_actions", StepResult::Done),
    ]);
    let told = told(&lines(records));
    assert!(
        told.iter()
            .any(|l| l.trim_start().starts_with("Success Stop Application")),
        "{told:#?}"
    );
}

// Gap G.3.49: what takes a stop back stands below the same node, and a second try says so.
#[test]
fn a_run_without_a_step_has_its_place() {
    let told = told(&lines(vec![
        entered(OperationalState::Busy),
        intent("merge.stop_actions"),
        run(1, 1),
        end(1, ActionResult::Exit(1), "", ""),
        outcome(
            "merge.stop_actions",
            StepResult::Failed(Problem::new(
                ProblemCode::Failed,
                "Custom action failed with exit value 1",
            )),
        ),
        run(2, 2),
        end(2, ActionResult::Exit(0), "", ""),
        outcome("merge.stop_actions", StepResult::Undone),
    ]));
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(
        told[1].starts_with("  Error Execute custom actions"),
        "{told:#?}"
    );
    assert!(told[3].ends_with("(Production Side) (try 2)"), "{told:#?}");
}

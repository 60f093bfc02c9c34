//! Sessions, depth, and the walk through items of one severity.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use common::{Tape, problem, sample};
use flipside_activity::{Line, Step, Style, Tree, current, item, render, sessions};
use flipside_model::api::SessionEnd;
use flipside_model::{OperationalState as O, Record, Severity, UpgradeState as S};

// AL-21, AL-24: one log a session, from the checks before it to its end; earlier ones stay.
#[test]
fn each_session_has_its_log_and_they_leave_no_gap() {
    let mut tape = sample();
    let first_end = tape.0.len() as u64;
    // What happens between the sessions belongs to the next one.
    tape.push(Record::log(Severity::Information, "data0: resynchronised"))
        .enter(S::Idle, O::Busy)
        .enter(S::Idle, O::Ready)
        .open_session("next.Config")
        .enter(S::Split, O::Busy)
        .enter(S::Split, O::Ready);
    let found = sessions(&tape.0);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].number, found[0].first, found[0].last),
        (1, 1, first_end)
    );
    assert_eq!(found[0].outcome, SessionEnd::Aborted);
    assert_eq!(
        (found[1].first, found[1].last),
        (first_end + 1, tape.0.len() as u64)
    );
    assert_eq!(found[1].outcome, SessionEnd::Open);
    assert_eq!(found[1].ended_ms, None);
    assert_eq!(current(&found), first_end + 1);
    tape.enter(S::Commit, O::Busy)
        .enter(S::Commit, O::Ready)
        .finish();
    let found = sessions(&tape.0);
    assert_eq!(found[1].outcome, SessionEnd::Committed);
    assert!(found[1].ended_ms.is_some());
    // What came after the last session is shown with it.
    tape.push(Record::log(
        Severity::Information,
        "system0: resynchronised",
    ));
    assert_eq!(current(&sessions(&tape.0)), first_end + 1);
}

#[test]
fn a_session_that_never_began_is_none() {
    let mut tape = Tape::default();
    assert_eq!((sessions(&tape.0).len(), current(&[])), (0, 1));
    tape.enter(S::Idle, O::Busy).enter(S::Idle, O::Ready);
    tape.open_session("a.Config");
    let begun = tape.0.pop().unwrap();
    tape.push(Record::Opened {
        version: "0.1.0".to_owned(),
    });
    assert!(sessions(&tape.0).is_empty());
    tape.push(begun.record);
    assert_eq!(sessions(&tape.0).len(), 1);
}

// AL-10: collapsed into one line that says how much is below it.
#[test]
fn only_the_upper_entries_may_be_shown() {
    let tree = Tree::fold(&sample().0);
    let stages = tree.lines_to(None, 0);
    assert!(stages.iter().all(|line| line.depth() == 0));
    let text = render(&stages, &Style::default());
    assert!(text.contains("Prepare Split (1.5 s)  + 1 below"), "{text}");
    assert_eq!(tree.lines_to(None, usize::MAX), tree.lines(None));
    let steps = tree.lines_to(None, 1);
    assert!(
        steps
            .iter()
            .any(|line| line.hidden == 1 && line.depth() == 1)
    );
    let shown: usize = steps.len() + steps.iter().map(|line| line.hidden).sum::<usize>();
    assert_eq!(shown, tree.lines(None).len());
    // A severity is found even where it is collapsed.
    let warnings = tree.lines_to(Some(Severity::Warning), 0);
    assert!(warnings.iter().any(|line| line.text == "Readiness check"));
}

fn lines() -> Vec<Line> {
    let mut tape = Tape::default();
    tape.enter(S::Idle, O::Busy);
    for (severity, text) in [
        (Severity::Warning, "first"),
        (Severity::Error, "second"),
        (Severity::Information, "third"),
        (Severity::Warning, "fourth"),
    ] {
        tape.push(Record::Log {
            severity,
            text: text.to_owned(),
            detail: Some("line 1\nline 2".to_owned()),
            component: Some("web.service".to_owned()),
            advice: Some("start it".to_owned()),
        });
    }
    tape.broken(S::Idle, &problem("not ready"));
    Tree::fold(&tape.0).lines(None)
}

fn named(lines: &[Line], text: &str) -> u64 {
    lines.iter().find(|line| line.text == text).unwrap().node
}

// AL-11 to AL-14: the detail with everything it says; Previous and Next stay within a severity, which can be changed.
#[test]
fn previous_and_next_walk_through_one_severity() {
    let lines = lines();
    let (first, fourth) = (named(&lines, "first"), named(&lines, "fourth"));
    let shown = item(&lines, first, Step::Stay, None).unwrap();
    assert_eq!(shown.detail.as_deref(), Some("line 1\nline 2"));
    assert_eq!(shown.component.as_deref(), Some("web.service"));
    assert_eq!(shown.path, ["Readiness check"]);
    assert_eq!((shown.previous, shown.next), (None, Some(fourth)));
    let next = item(&lines, first, Step::Next, None).unwrap();
    assert_eq!(
        (next.id, next.previous, next.next),
        (fourth, Some(first), None)
    );
    assert_eq!(
        item(&lines, fourth, Step::Previous, None).unwrap().id,
        first
    );
    assert_eq!(item(&lines, fourth, Step::Next, None), None);
    // Another severity from the same place.
    let error = item(&lines, first, Step::Next, Some(Severity::Error)).unwrap();
    assert_eq!(
        (error.text.as_str(), error.walked),
        ("second", Severity::Error)
    );
    // The stage itself is an Error, and comes before.
    let stage = item(&lines, error.id, Step::Previous, None).unwrap();
    assert_eq!(stage.text, "Readiness check");
    // AL-13: what the log has none of cannot be chosen, and is seen to be none.
    assert_eq!(shown.counts[&Severity::Success], 0);
    assert_eq!(shown.counts[&Severity::Warning], 2);
    assert_eq!(
        item(&lines, first, Step::Next, Some(Severity::Success)),
        None
    );
}

// AL-12: a place that is no item is one to begin from.
#[test]
fn the_first_and_the_last_of_a_severity_are_found() {
    let lines = lines();
    let first = item(&lines, 0, Step::Next, Some(Severity::Warning)).unwrap();
    assert_eq!(first.text, "first");
    let last = item(&lines, u64::MAX, Step::Previous, Some(Severity::Warning)).unwrap();
    assert_eq!(last.text, "fourth");
    assert_eq!(item(&lines, 0, Step::Stay, None), None);
}

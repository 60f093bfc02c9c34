//! The log of whole sessions, against what an administrator should read.

mod common;

use common::Tape;
use flipside_activity::{Line, Style, Tree, render};
use flipside_model::{
    Command, DiskName, Fact, ForkFigures, OperationalState as O, Outage, Problem, ProblemCode,
    Record, ResyncFigures, Severity, StepResult, UpgradeState as S,
};

fn no_pending(tape: &Tape) {
    let open: Vec<Line> = Tree::fold(&tape.0)
        .lines(None)
        .into_iter()
        .filter(|l| l.severity == Severity::Pending)
        .collect();
    assert!(open.is_empty(), "stale Pending: {open:?}");
}

// AL-02, AL-08, AL-10, SM-17: every stage, its steps and their figures.
#[test]
fn a_split_reads_like_this() {
    let mut tape = Tape::default();
    tape.push(Record::Opened {
        version: "0.1.0".to_owned(),
    })
    .enter(S::Idle, O::Busy)
    .push(Record::Log {
        severity: Severity::Warning,
        text: "both enclosures lie on one physical device".to_owned(),
        detail: None,
        component: Some("sda".to_owned()),
        advice: Some("put them on two devices".to_owned()),
    })
    .enter(S::Idle, O::Ready)
    .enter(S::PrepareSplit, O::Busy)
    .begin("prepare_split.check", "Final readiness check")
    .end("prepare_split.check", StepResult::Done)
    .enter(S::Split, O::Busy)
    .begin("split.fork", "Fork the running system")
    .push(Record::Fact(Fact::Forked(ForkFigures {
        pause_us: 74_300,
        precopy_ms: 2_100,
        memory_bytes: 512 << 20,
    })))
    .end("split.fork", StepResult::Done)
    .begin("split.hold", "Disable applications on the Upgrade Side")
    .end("split.hold", StepResult::Already)
    .enter(S::Split, O::Ready);
    no_pending(&tape);
    let expected = "\
2023-11-14 22:13:20  i Information  Server 0.1.0 started
2023-11-14 22:13:21  ! Warning      Readiness check (1.0 s)
2023-11-14 22:13:21  ! Warning        both enclosures lie on one physical device [sda]
                                        → put them on two devices
2023-11-14 22:13:22  ✔ Success      Prepare Split (1.5 s)
2023-11-14 22:13:23  ✔ Success        Final readiness check (500 ms)
2023-11-14 22:13:24  ✔ Success      Split (3.0 s)
2023-11-14 22:13:24  ✔ Success        Fork the running system (1.0 s)
2023-11-14 22:13:25  i Information      Production paused for 74.3 ms; 512 MiB of memory copied in 2.1 s
2023-11-14 22:13:26  i Information    Disable applications on the Upgrade Side (nothing to do) (500 ms)
";
    assert_eq!(tape.text(), expected);
}

// AL-07, AL-09, SM-16: a failure, what was taken back, and the retry.
#[test]
fn a_failure_names_its_cause_once() {
    let problem = Problem {
        causes: vec!["exit status 1".to_owned()],
        ..Problem::new(ProblemCode::Failed, "`nginx.service` did not start")
            .about("nginx.service")
            .advise("see `journalctl -u nginx` on the Upgrade Side, then `flipside retry`")
    };
    let mut tape = Tape::default();
    tape.enter(S::Merge, O::Busy)
        .begin("merge.hold_door", "Hold new connections")
        .end("merge.hold_door", StepResult::Done)
        .begin("merge.start_apps", "Start applications")
        .end("merge.start_apps", StepResult::Failed(problem.clone()))
        .end("merge.hold_door", StepResult::Undone)
        .broken(S::Merge, &problem)
        .push(Record::Accepted {
            command: Command::Retry,
        })
        .enter(S::Merge, O::Busy);
    let plain = tape.plain();
    assert_eq!(
        plain,
        [
            "✘ Error        Merge (3.0 s)",
            "i Information    Hold new connections (taken back) (2.0 s)",
            "✘ Error          Start applications: `nginx.service` did not start (500 ms)",
            "                   exit status 1",
            "                   → see `journalctl -u nginx` on the Upgrade Side, then `flipside retry`",
            "… Pending      Merge (retry)",
        ]
    );
}

#[test]
fn a_stage_that_broke_without_a_failed_step_says_why() {
    let mut tape = Tape::default();
    let problem = Problem::new(ProblemCode::NotReady, "2 errors were found");
    tape.enter(S::Idle, O::Busy)
        .broken(S::Idle, &problem)
        .push(Record::log(Severity::Success, "the system was started"));
    assert_eq!(
        tape.plain(),
        [
            "✘ Error        Readiness check (500 ms)",
            "✘ Error          2 errors were found",
            "✔ Success      the system was started",
        ]
    );
}

// AL-09: a server that was killed in the middle leaves a Warning, and the observed outcome settles the step.
#[test]
fn an_interrupted_step_is_never_left_pending() {
    let mut tape = Tape::default();
    tape.enter(S::Split, O::Busy)
        .begin("split.fork", "Fork the running system")
        .push(Record::Opened {
            version: "0.1.0".to_owned(),
        });
    no_pending(&tape);
    assert_eq!(
        tape.plain(),
        [
            "! Warning      Split (interrupted) (1.0 s)",
            "! Warning        Fork the running system (interrupted) (500 ms)",
            "! Warning        Server 0.1.0 started again; the operation had been interrupted",
        ]
    );
    tape.end("split.fork", StepResult::Done);
    assert!(
        tape.plain()[1].starts_with("✔ Success        Fork the running system ("),
        "{:?}",
        tape.plain()
    );
    tape.enter(S::Split, O::Busy);
    assert!(
        tape.plain()
            .iter()
            .any(|l| l == "… Pending      Split (resumed)")
    );
}

// AL-09: whatever is cut off at whatever record, a settled session holds no Pending.
#[test]
fn every_prefix_settles() {
    let mut whole = Tape::default();
    whole
        .enter(S::Split, O::Busy)
        .begin("split.fork", "Fork")
        .push(Record::Accepted {
            command: Command::Abort,
        })
        .end("split.fork", StepResult::Cancelled)
        .enter(S::Abort, O::Busy)
        .begin("abort.cancel_fork", "Give up the fork")
        .begin("abort.mirrors", "Start the resynchronisation")
        .push(Record::log(Severity::Pending, "waiting"))
        .end("abort.mirrors", StepResult::Done)
        .enter(S::Abort, O::Ready);
    no_pending(&whole);
    for cut in 0..whole.0.len() {
        let mut tape = Tape(whole.0[..cut].to_vec());
        tape.push(Record::Opened {
            version: "1".to_owned(),
        });
        no_pending(&tape);
    }
}

#[test]
fn facts_are_sentences_with_figures() {
    let mut tape = Tape::default();
    tape.push(Record::Fact(Fact::OutageEnded(Outage {
        door_ms: 4520,
        inside_ms: 4310,
    })))
    .push(Record::Fact(Fact::Resynced(ResyncFigures {
        disk: DiskName::new("system0").expect("valid"),
        union_bytes: 51_275_366,
        copied_bytes: 49 << 20,
        disk_bytes: 3 << 30,
        compared: false,
        pause_us: 8_100,
        took_ms: 2_000,
    })))
    .push(Record::Fact(Fact::Committed));
    assert_eq!(
        tape.plain(),
        [
            "i Information  Outage 4.52 s at the front door (4.31 s inside)",
            "i Information  system0: 49.0 MiB copied of 3.0 GiB (union of changes 48.9 MiB) in 2.0 s, last pause 8.1 ms",
            "i Information  From here only forward: the upgrade can no longer be aborted",
        ]
    );
}

// AL-12, AL-13: a filter keeps the way to what it shows.
#[test]
fn a_filter_keeps_what_is_worse_and_its_path() {
    let mut tape = Tape::default();
    tape.enter(S::Split, O::Busy)
        .begin("a", "First")
        .end("a", StepResult::Done)
        .begin("b", "Second")
        .push(Record::log(Severity::Warning, "odd"))
        .end("b", StepResult::Done)
        .enter(S::Split, O::Ready);
    let lines = Tree::fold(&tape.0).lines(Some(Severity::Warning));
    let texts: Vec<&str> = lines.iter().map(|l| l.text.as_str()).collect();
    assert_eq!(texts, ["Split", "Second", "odd"]);
    assert!(Tree::fold(&tape.0).lines(Some(Severity::Error)).is_empty());
}

// AL-03 to AL-07: green, red, and nothing else.
#[test]
fn colours_are_those_of_the_guide_and_guest_text_cannot_add_any() {
    let mut tape = Tape::default();
    for severity in [
        Severity::Success,
        Severity::Information,
        Severity::Warning,
        Severity::Error,
    ] {
        tape.push(Record::log(severity, "evil \x1b[2J\u{202e}text"));
    }
    let style = Style {
        color: true,
        ..Style::default()
    };
    let text = render(&Tree::fold(&tape.0).lines(None), &style);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("\x1b[32m") && lines[3].contains("\x1b[31m"));
    assert_eq!(text.matches('\x1b').count(), 4, "{text:?}");
    assert!(!lines[1].contains('\x1b') && lines[1].contains("evil \\u{1b}[2J\\u{202e}text"));
}

#[test]
fn json_is_one_object_a_line_and_follow_names_the_path() {
    let mut tree = Tree::default();
    let mut tape = Tape::default();
    tape.enter(S::PrepareMerge, O::Busy)
        .begin("prepare_merge.check", "Check")
        .end(
            "prepare_merge.check",
            StepResult::Failed(Problem::new(ProblemCode::Failed, "no\u{9b}answer").advise("wait")),
        );
    let lines: Vec<Line> = tape.0.iter().flat_map(|e| tree.push(e)).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[2].json(),
        r#"{"advice":"wait","component":null,"depth":1,"detail":null,"node":2,"path":["Prepare Merge"],"seq":3,"severity":"Error","text":"Check: no\u009banswer","time":"2023-11-14T22:13:21.500Z","took_ms":500}"#
    );
    assert_eq!(
        lines[2].follow(&Style::default()),
        "2023-11-14 22:13:21  ✘ Error        Prepare Merge › Check: no\\u{9b}answer (500 ms) → wait"
    );
    assert_eq!(
        lines[1].follow(&Style::default()),
        "2023-11-14 22:13:21  … Pending      Prepare Merge › Check"
    );
}

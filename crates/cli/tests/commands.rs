//! Commands against a server that says what the test wants: exit statuses, questions, waiting, reconnecting.

mod fake;

use fake::{Fake, ends, entered, err, idle, out};
use flipside_model::{
    Command, OperationalState as O, Problem, ProblemCode, Record, StepName, StepResult,
    UpgradeState as S,
};
use std::process::Stdio;

fn intent(step: &str, title: &str) -> Record {
    Record::Intent {
        step: StepName(step.to_owned().into()),
        title: title.to_owned(),
        attempt: 1,
    }
}

fn outcome(step: &str, result: StepResult) -> Record {
    Record::Outcome {
        step: StepName(step.to_owned().into()),
        result,
    }
}

fn script(fake: &Fake, records: Vec<Record>) {
    fake.world().script = records;
}

// SP-21, SP-24: what is said before a split, and which tasks are open after it.
#[test]
fn a_split_waits_through_its_check_and_tells_its_steps() {
    let fake = Fake::start();
    fake.world().systems[0].pause_ms = Some(74.3);
    script(
        &fake,
        vec![
            entered(S::Idle, O::Busy),
            entered(S::Idle, O::Ready),
            entered(S::PrepareSplit, O::Busy),
            entered(S::Split, O::Busy),
            intent("split.fork", "Fork the running system"),
            outcome("split.fork", StepResult::Done),
            entered(S::Split, O::Ready),
        ],
    );
    let output = fake.run(&["split"]);
    ends(&output, 0);
    let text = out(&output);
    for part in [
        "each side runs simplex",
        "no configuration file",
        "✔ Fork the running system",
        "Fault Tolerant | Split | Ready",
        "Production paused for 74.3 ms",
        "verify it there: `flipside shell web`",
        "manage production: `flipside shell web --side production`",
        "`flipside merge web`, or `flipside abort web`",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('\x1b'), "no terminal, no colour");
}

#[test]
fn json_is_the_status_at_the_end_and_nothing_else() {
    let fake = Fake::start();
    script(
        &fake,
        vec![entered(S::Idle, O::Busy), entered(S::Idle, O::Ready)],
    );
    let output = fake.run(&["check", "web", "--json"]);
    ends(&output, 0);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(value["operational_state"], "Ready");
    assert_eq!(value["hardware_state"], "Fault Tolerant");
    assert_eq!(value["partner_state"], serde_json::Value::Null);
}

// MG-13, SB-18: cause, and what is open now.
#[test]
fn a_broken_end_is_status_1_with_cause_and_choices() {
    let fake = Fake::start();
    fake.world().systems[0].allowed = vec![Command::Retry, Command::Abort];
    // Even when the cause itself was a refusal.
    let problem = Problem::new(ProblemCode::Refused, "`nginx` did not start").advise("look there");
    script(
        &fake,
        vec![
            entered(S::PrepareMerge, O::Busy),
            entered(S::Merge, O::Busy),
            Record::Entered {
                state: S::Merge,
                operational: O::Broken,
                problem: Some(problem),
            },
        ],
    );
    let output = fake.run(&["merge", "web", "--yes"]);
    ends(&output, 1);
    let text = err(&output);
    assert!(
        text.contains("Merge | Broken: `nginx` did not start"),
        "{text}"
    );
    assert!(
        text.contains("advice: look there") && text.contains("`retry`, `abort`"),
        "{text}"
    );
}

#[test]
fn refusals_of_the_server_keep_their_kind() {
    let fake = Fake::start();
    for (code, status) in [
        (ProblemCode::Refused, 3),
        (ProblemCode::Usage, 2),
        (ProblemCode::NotReady, 1),
        (ProblemCode::Failed, 1),
    ] {
        fake.world().refuse = Some(Problem::new(code, "no").advise("allowed now: `check`"));
        for command in [
            "check", "split", "merge", "commit", "abort", "finish", "retry",
        ] {
            let output = fake.run(&[command, "web", "--yes"]);
            ends(&output, status);
            assert!(err(&output).contains("error: no\n  advice: allowed now: `check`"));
        }
    }
}

#[test]
fn the_system_may_be_left_out_only_when_there_is_one() {
    let fake = Fake::start();
    ends(&fake.run(&["status"]), 0);
    ends(&fake.run(&["status", "nope"]), 2);
    fake.world().systems.push(idle("db"));
    let output = fake.run(&["status"]);
    ends(&output, 2);
    assert!(err(&output).contains("web, db"), "{}", err(&output));
    ends(&fake.run(&["status", "db"]), 0);
    fake.world().systems.clear();
    let output = fake.run(&["check"]);
    ends(&output, 2);
    assert!(err(&output).contains("system create"), "{}", err(&output));
}

#[test]
fn no_wait_returns_at_once_and_yes_sends_the_request() {
    let fake = Fake::start();
    let output = fake.run(&["commit", "web", "--yes", "--no-wait"]);
    ends(&output, 0);
    assert!(out(&output).contains("was accepted"));
    let bodies = fake.world().bodies("POST");
    assert!(bodies[0].contains(r#""command":"commit""#), "{bodies:?}");
    std::fs::write(fake.dir.path().join("w.Config"), "version = 1").expect("written");
    let output = fake.run(&["check", "--config", "w", "--no-wait"]);
    ends(&output, 0);
    assert!(out(&output).contains("configuration: w.Config"));
    assert!(fake.world().bodies("POST")[1].contains("version = 1"));
}

#[test]
fn commit_and_abort_say_that_the_resync_goes_on() {
    let fake = Fake::start();
    for (command, state) in [("commit", S::Commit), ("abort", S::Abort)] {
        script(
            &fake,
            vec![entered(state, O::Busy), entered(state, O::Ready)],
        );
        let output = fake.run(&[command, "web", "--yes"]);
        ends(&output, 0);
        assert!(
            out(&output).contains("`flipside wait web --duplex`"),
            "{}",
            out(&output)
        );
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_is_waited_for() {
    let mut fake = Fake::start();
    script(
        &fake,
        vec![
            entered(S::Split, O::Busy),
            intent("split.fork", "Fork the running system"),
        ],
    );
    let child = fake
        .command(&["split", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    fake.wait_asked("status?watch");
    fake.kill();
    {
        let mut world = fake.world();
        world.record(Record::Opened {
            version: "0.1.0".to_owned(),
        });
        world.record(outcome("split.fork", StepResult::Done));
        world.record(entered(S::Split, O::Ready));
    }
    fake.listen();
    let output = child.wait_with_output().expect("ended");
    ends(&output, 0);
    let text = err(&output);
    assert!(
        text.contains("the server went away") && text.contains("the server is back"),
        "{text}"
    );
    let lines = out(&output);
    assert_eq!(
        lines.matches("✔ Fork the running system").count(),
        1,
        "{lines}"
    );
}

#[test]
fn a_wait_that_will_never_end_well_ends() {
    let fake = Fake::start();
    // Somebody else aborted: the split rests in Abort.
    script(
        &fake,
        vec![
            entered(S::Split, O::Busy),
            entered(S::Abort, O::Busy),
            entered(S::Abort, O::Ready),
        ],
    );
    let output = fake.run(&["split", "web"]);
    ends(&output, 1);
    assert!(
        err(&output).contains("ended in Abort | Ready, not in Split"),
        "{}",
        err(&output)
    );
}

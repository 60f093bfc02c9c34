//! Custom actions (area CA, Appendix B; faults 56, 57, 58, 60).

use super::*;
use flipside_backend_sim::SimAction;
use flipside_model::{
    ActionEnd, ActionPlace, ActionResult, ControlType, CustomAction, OnFailure, Severity, Timing,
    UpgradeConfig,
};

pub(super) fn action(file: &str, control_type: ControlType) -> CustomAction {
    CustomAction {
        file: file.to_owned(),
        arguments: Vec::new(),
        control_type,
        timing: Timing::Default,
        limit: None,
        place: ActionPlace::Guest,
        on_failure: OnFailure::Stop,
    }
}

/// One action of each type, each a script that prints.
fn one_of_each() -> Vec<CustomAction> {
    let of = |control: &ControlType| action(&path(*control), *control);
    ControlType::ALL.iter().map(of).collect()
}

pub(super) fn path(control: ControlType) -> String {
    format!("/opt/{}", control.name().replace(' ', "-").to_lowercase())
}

/// A duplexed system whose guest has these files, with these actions in its configuration.
pub(super) async fn bench(files: &[(&str, &str)], actions: Vec<CustomAction>) -> Bench {
    let file = |(path, text): &(&str, &str)| ((*path).to_owned(), text.as_bytes().to_vec());
    let options = SimOptions {
        check_every_call: true,
        files: files.iter().map(file).collect(),
        ..SimOptions::default()
    };
    let mut bench = Bench::with(1, 1, options).await;
    bench.config = UpgradeConfig {
        actions,
        ..bench.config.clone()
    };
    bench.power_on().await;
    bench
}

/// The Upgrade Side, in every state.
pub(super) fn the_other(bench: &Bench) -> MachineId {
    let side = Some(Side::Upgrade);
    bench.system().machine_for(side).expect("the Upgrade Side")
}

pub(super) async fn with_each() -> Bench {
    let files: Vec<(String, String)> = ControlType::ALL
        .iter()
        .map(|c| (path(*c), format!("out {c}\nerr of {c}\nexit 0")))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(p, t)| (p.as_str(), t.as_str()))
        .collect();
    bench(&files, one_of_each()).await
}

/// SIDE STATE REQUEST HW_SPLIT and the program, of every run.
pub(super) fn told(actions: &[SimAction]) -> Vec<String> {
    let one = |a: &SimAction| {
        let values = ["SIDE", "STATE", "REQUEST", "HW_SPLIT"];
        let values = values.map(|name| a.var(&format!("ACTIVE_UPGRADE_{name}")).to_owned());
        format!(
            "{} {}",
            values.join(" "),
            a.argv[0].trim_start_matches("/opt/")
        )
    };
    actions.iter().map(one).collect()
}

pub(super) fn ends(bench: &Bench) -> Vec<ActionEnd> {
    let entries = bench.system().entries_after(0);
    let end = |e: flipside_model::Entry| match e.record {
        Record::Fact(Fact::ActionEnded(end)) => Some(*end),
        _ => None,
    };
    entries.into_iter().filter_map(end).collect()
}

pub(super) fn logged(bench: &Bench, severity: Severity, text: &str) -> bool {
    bench.system().entries_after(0).iter().any(|e| {
        matches!(&e.record, Record::Log { severity: s, text: t, .. } if *s == severity && t.contains(text))
    })
}

// Appendix B, CA-11 to CA-16, CA-27 to CA-32: a whole session, run by run, with every value on the right side. MG-06, MG-15.
// RC-35, CA-13: the Readiness Check action runs in the check before the session and never again. CA-01: conditions are checked,
// applications stopped and started, files backed up; LB-09: what a Backup action saves is no log of the list.
#[test]
pub(super) fn a_committed_session_runs_its_actions_as_the_table_says() {
    run(|| async {
        let mut bench = with_each().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = the_other(&bench);
        expect(bench.command(Command::Merge).await, S::Merge);
        expect(bench.command(Command::Commit).await, S::Commit);
        expect(bench.command(Command::Finish).await, S::Idle);
        let actions = bench.world.actions();
        assert_eq!(
            told(&actions),
            [
                "Production Idle CheckReadiness No readiness-check",
                "Production Idle CheckReadiness No advanced",
                "Production PrepareSplit PrepareSplit No advanced",
                "Production Split ExecuteSplit Yes advanced",
                "Upgrade Split ExecuteSplit Yes advanced",
                "Upgrade Split Stop Yes stop-application",
                "Production PrepareMerge PrepareMerge Yes advanced",
                "Upgrade PrepareMerge PrepareMerge Yes advanced",
                "Production Merge Stop Yes stop-application",
                "Production Merge Backup Yes backup",
                "Production Merge ExecuteMerge Yes advanced",
                "Upgrade Merge ExecuteMerge No advanced",
                "Upgrade Merge Start No start-application",
                "Upgrade Commit Commit No advanced",
            ]
        );
        // CA-15: SIDE is the side on which it really ran.
        for action in &actions {
            let machine = match action.var("ACTIVE_UPGRADE_SIDE") {
                "Upgrade" => upgrade,
                _ => production,
            };
            assert_eq!(action.machine, Some(machine), "{action:?}");
        }
        // CA-41: output of successful actions is kept, both streams.
        let ends = ends(&bench);
        assert_eq!(ends.len(), actions.len());
        assert_eq!(ends[5].out.text, "Stop Application\n");
        assert_eq!(ends[5].err.text, "of Stop Application\n");
    });
}

// Appendix B: an abort in Split; nothing is stopped or started on either side.
#[test]
fn an_abort_in_split_runs_only_advanced_actions() {
    run(|| async {
        let mut bench = with_each().await;
        expect(bench.command(Command::Split).await, S::Split);
        let before = bench.world.actions().len();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(
            told(&bench.world.actions()[before..]),
            ["Production Abort Abort No advanced"]
        );
    });
}

// Appendix B, design section 7: an abort in Merge stops on the Upgrade Side and starts on Production.
#[test]
fn an_abort_in_merge_stops_there_and_starts_here() {
    run(|| async {
        let mut bench = with_each().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        expect(bench.command(Command::Merge).await, S::Merge);
        let before = bench.world.actions().len();
        expect(bench.command(Command::Abort).await, S::Abort);
        let actions = bench.world.actions();
        assert_eq!(
            told(&actions[before..]),
            [
                "Upgrade Abort Stop No stop-application",
                "Production Abort Start No start-application",
                "Production Abort Abort No advanced",
            ]
        );
        assert_eq!(actions[before + 1].machine, Some(production));
        assert_eq!(bench.world.serving(), Ok(production));
    });
}

// AB-03, Appendix B: an abort from PrepareSplit.
#[test]
fn an_abort_before_the_split_tells_the_advanced_actions() {
    run(|| async {
        let mut bench = with_each().await;
        bench
            .world
            .plan(Fault::next("guest.startup.*", FaultKind::FailBefore));
        breaks(&mut bench, Command::Split, S::PrepareSplit).await;
        let before = bench.world.actions().len();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(
            told(&bench.world.actions()[before..]),
            ["Production Abort Abort No advanced"]
        );
    });
}

// CA-17, CA-19, CA-20, CA-21: Early, Default, Late, each in the order of the list, one after another.
#[test]
pub(super) fn timing_orders_the_actions_of_a_request() {
    run(|| async {
        let mut actions = Vec::new();
        for (name, timing) in [
            ("/opt/1", Timing::Late),
            ("/opt/2", Timing::Default),
            ("/opt/3", Timing::Early),
            ("/opt/4", Timing::Default),
        ] {
            actions.push(CustomAction {
                timing,
                ..action(name, ControlType::Advanced)
            });
        }
        let text = "sleep 2";
        let files = [
            ("/opt/1", text),
            ("/opt/2", text),
            ("/opt/3", text),
            ("/opt/4", text),
        ];
        let mut bench = bench(&files, actions).await;
        expect(bench.command(Command::Split).await, S::Split);
        let run: Vec<String> = bench
            .world
            .actions()
            .iter()
            .map(|a| a.argv[0].clone())
            .collect();
        // The check, PrepareSplit, and the split on both sides; the simulation refuses two at once.
        for request in run.chunks(4) {
            assert_eq!(request, ["/opt/3", "/opt/2", "/opt/4", "/opt/1"]);
        }
        assert_eq!(run.len(), 16);
    });
}

// CA-33, CA-34, CA-04: names are expanded when it runs, with the values of that run, in File as well.
#[test]
fn arguments_and_file_are_expanded_at_each_run() {
    run(|| async {
        let advanced = CustomAction {
            arguments: [
                "%ACTIVE_UPGRADE_SIDE%",
                "%ACTIVE_UPGRADE_STATE% 100%",
                "%NOTHING%",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..action("/opt/%ACTIVE_UPGRADE_HW_SPLIT%", ControlType::Advanced)
        };
        let mut bench = bench(&[("/opt/Yes", ""), ("/opt/No", "")], vec![advanced]).await;
        expect(bench.command(Command::Split).await, S::Split);
        let argv: Vec<String> = bench
            .world
            .actions()
            .iter()
            .map(|a| a.argv.join("|"))
            .collect();
        assert_eq!(
            argv,
            [
                "/opt/No|Production|Idle 100%|%NOTHING%",
                "/opt/No|Production|PrepareSplit 100%|%NOTHING%",
                "/opt/Yes|Production|Split 100%|%NOTHING%",
                "/opt/Yes|Upgrade|Split 100%|%NOTHING%",
            ]
        );
    });
}

const FAILS: &str = "out half done\nerr no such shop\nexit 3";
const WORKS: &str = "out done\nexit 0";

// CA-35, CA-36, CA-37, TS-09, fault 56: the exact text, Broken, nothing behind it is run; corrected and accepted, Retry
// runs the request's actions again and goes on.
#[test]
pub(super) fn a_failing_action_breaks_the_request_and_a_retry_runs_it_again() {
    run(|| async {
        let stop = ControlType::StopApplication;
        let actions = vec![
            action("/opt/first", stop),
            action("/opt/stop", stop),
            action("/opt/last", stop),
        ];
        let files = [
            ("/opt/first", WORKS),
            ("/opt/stop", FAILS),
            ("/opt/last", WORKS),
        ];
        let mut bench = bench(&files, actions).await;
        let problem = breaks(&mut bench, Command::Split, S::Split).await;
        assert_eq!(problem, "Custom action failed with exit value 3");
        let programs = |bench: &Bench| -> Vec<String> {
            bench
                .world
                .actions()
                .iter()
                .map(|a| a.argv[0].clone())
                .collect()
        };
        assert_eq!(programs(&bench), ["/opt/first", "/opt/stop"]);
        // CA-38: what it printed is in the log.
        assert_eq!(ends(&bench)[1].err.text, "no such shop\n");
        // Not corrected: it fails again, and the earlier action ran again too.
        breaks(&mut bench, Command::Retry, S::Split).await;
        assert_eq!(programs(&bench).len(), 4);
        assert_eq!(bench.world.actions()[3].var("ATTEMPT"), "2");
        // Fault 60: a changed file is not run until the administrator says that it is meant.
        let upgrade = the_other(&bench);
        bench
            .world
            .put_guest_file(upgrade, "/opt/stop", WORKS.as_bytes());
        let problem = breaks(&mut bench, Command::Retry, S::Split).await;
        assert!(
            problem.contains("is not the file that was recorded"),
            "{problem}"
        );
        let accepted = bench.system().accept_actions().await.expect("accepts");
        assert_eq!(accepted.len(), 1, "{accepted:?}");
        assert_eq!(accepted[0].side, Some(Side::Upgrade));
        expect(bench.command(Command::Retry).await, S::Split);
        assert!(
            bench
                .system()
                .accept_actions()
                .await
                .expect("accepts")
                .is_empty()
        );
        bench.world.put_guest_file(
            bench.world.serving().expect("serves"),
            "/opt/stop",
            WORKS.as_bytes(),
        );
        // Gap G.2.27: the other side's file is found before the outage, not in it.
        let problem = breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        assert!(
            problem.contains("Production Side is not the file"),
            "{problem}"
        );
        bench.system().accept_actions().await.expect("accepts");
        expect(bench.command(Command::Retry).await, S::Merge);
        bench.check().expect("no invariant is broken");
    });
}

// RC-33, G.2.27: a file that is gone before the merge is told in the guide's words, while nobody waits.
#[test]
fn a_removed_program_is_found_before_the_merge() {
    run(|| async {
        let mut bench = with_each().await;
        expect(bench.command(Command::Split).await, S::Split);
        let file = path(ControlType::StartApplication);
        bench.world.remove_guest_file(the_other(&bench), &file);
        let problem = breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        assert_eq!(problem, format!("The executable {file} does not exist."));
        assert!(bench.world.client_ok());
    });
}

// RC-33, RC-34, RC-35, CA-42: Errors of the check; the session does not begin. RC-08: one hides no other.
#[test]
fn actions_that_cannot_run_are_errors_of_the_check() {
    run(|| async {
        let check = ControlType::ReadinessCheck;
        let actions = vec![
            action("/opt/missing", ControlType::Backup),
            action("/opt/plain", ControlType::Backup),
            action("/srv/data0/tool", ControlType::Backup),
            action("/opt/load", check),
            action("/opt/hour", check),
        ];
        let files = [
            ("/opt/plain", "mode 644"),
            ("/srv/data0/tool", ""),
            ("/opt/load", "exit 7"),
            ("/opt/hour", "exit 0"),
        ];
        let mut bench = bench(&files, actions).await;
        let problem = breaks(&mut bench, Command::Split, S::Idle).await;
        assert_eq!(problem, "the readiness check found 4 error(s)");
        for text in [
            "The executable /opt/missing does not exist.",
            "The executable /opt/plain may not be executed.",
            "`/srv/data0/tool` lies on a data disk `data0`",
            "Custom action failed with exit value 7",
        ] {
            assert!(logged(&bench, Severity::Error, text), "{text}");
        }
        // CA-13: each once in each check, also behind one that failed.
        let programs: Vec<String> = bench
            .world
            .actions()
            .iter()
            .map(|a| a.argv[0].clone())
            .collect();
        assert_eq!(programs, ["/opt/load", "/opt/hour"]);
        assert_eq!(bench.status().session, None);
    });
}

// Our addition: `on_failure = "warn"`; a Warning, and the request goes on.
#[test]
fn a_tolerated_failure_is_a_warning() {
    run(|| async {
        let warn = CustomAction {
            on_failure: OnFailure::Warn,
            ..action("/opt/x", ControlType::Advanced)
        };
        let mut bench = bench(&[("/opt/x", "exit 9")], vec![warn]).await;
        expect(bench.command(Command::Split).await, S::Split);
        assert!(logged(
            &bench,
            Severity::Warning,
            "Custom action failed with exit value 9"
        ));
        assert!(ends(&bench).iter().all(|e| e.tolerated));
    });
}

// Fault 57, CA-22, CA-23, gap G.1.14: one that hangs is ended at its own limit, with its output kept; without one the
// stage's deadline applies. Meanwhile the session is Busy, and the action is named.
#[test]
pub(super) fn a_hanging_action_is_named_and_ended_in_time() {
    run(|| async {
        let files = [("/opt/hangs", "out begun\nsleep 100000")];
        let limited = CustomAction {
            limit: Some(30),
            ..action("/opt/hangs", ControlType::StopApplication)
        };
        let mut bench = bench(&files, vec![limited]).await;
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        let status = bench.status();
        assert_eq!(status.operational_state, O::Busy);
        assert_eq!(
            status.action.as_deref(),
            Some("Stop Application: /opt/hangs (Upgrade Side)")
        );
        let End::State(S::Split, O::Broken, Some(problem)) = bench.settled().await else {
            panic!("{:?}", bench.status());
        };
        assert!(problem.contains("did not end within 30 s"), "{problem}");
        let end = ends(&bench).remove(0);
        assert!(matches!(end.result, ActionResult::TimedOut(_)), "{end:?}");
        assert_eq!(end.out.text, "begun\n");
        assert!(bench.world.actions()[0].killed);
        assert_eq!(bench.status().action, None);
        // Without a limit of its own: the stage's.
        bench.config.actions[0].limit = None;
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        bench.duplex().await.expect("duplexed");
        let problem = breaks(&mut bench, Command::Split, S::Split).await;
        assert!(
            problem.contains("Split timed out during: Stop Application: /opt/hangs"),
            "{problem}"
        );
        assert!(bench.world.actions()[1].killed);
    });
}

// AB-02, gap G.1.7: an abort does not wait for an action that never ends.
#[test]
fn an_abort_ends_a_running_action() {
    run(|| async {
        let files = [("/opt/hangs", "sleep 100000")];
        let actions = vec![action("/opt/hangs", ControlType::StopApplication)];
        let mut bench = bench(&files, actions).await;
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        let began = tokio::time::Instant::now();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{:?}",
            began.elapsed()
        );
        assert!(bench.world.actions()[0].killed);
        assert_eq!(ends(&bench)[0].result, ActionResult::Ended);
    });
}

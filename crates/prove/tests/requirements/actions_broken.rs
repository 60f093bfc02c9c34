//! Custom actions when something fails: a merge that is taken back, a server that ends, the host (faults 57, 58, 59).

use super::actions::{action, bench, ends, logged, the_other, told, with_each};
use super::*;
use flipside_model::{ActionPlace, ActionResult, ControlType, CustomAction, Problem, Severity};

// Gap G.3.49, MG-14: a merge that fails before the disks moved starts again what its Stop actions had stopped.
#[test]
pub(super) fn a_merge_taken_back_starts_what_it_had_stopped() {
    run(|| async {
        let mut bench = with_each().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        let before = bench.world.actions().len();
        bench
            .world
            .plan(Fault::next("guest.close_data.*", FaultKind::FailBefore));
        breaks(&mut bench, Command::Merge, S::Merge).await;
        let actions = bench.world.actions();
        assert_eq!(
            told(&actions[before + 2..]),
            [
                "Production Merge Stop Yes stop-application",
                "Production Merge Backup Yes backup",
                "Production Merge ExecuteMerge Yes advanced",
                "Production Merge Start Yes start-application",
            ]
        );
        assert_eq!(bench.world.serving(), Ok(production));
        // CA-36: the retry saves again what users have changed meanwhile.
        expect(bench.command(Command::Retry).await, S::Merge);
        let actions = bench.world.actions();
        assert_eq!(
            told(&actions[before + 6..before + 8])[1],
            "Production Merge Backup Yes backup"
        );
    });
}

// Gap G.3.49: the start failed when the merge was taken back; the abort starts it, before the users are let in.
#[test]
fn an_abort_starts_what_a_taken_back_merge_could_not() {
    run(|| async {
        let actions = vec![
            action("/opt/stop", ControlType::StopApplication),
            action("/opt/start", ControlType::StartApplication),
        ];
        let mut bench = bench(&[("/opt/stop", ""), ("/opt/start", "")], actions).await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        bench
            .world
            .plan(Fault::next("guest.close_data.*", FaultKind::FailBefore));
        // The next one there is the stop; the one after it starts what that stopped.
        let start = Fault {
            call: At::Name(format!("guest.action_start.{production}"), 2),
            kind: FaultKind::FailBefore,
        };
        bench.world.plan(start);
        breaks(&mut bench, Command::Merge, S::Merge).await;
        assert!(logged(&bench, Severity::Error, "could not be taken back"));
        let before = bench.world.actions().len();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(
            told(&bench.world.actions()[before..]),
            ["Production Abort Start No start"]
        );
    });
}

// CA-12: on the upgraded side nothing keeps the users waiting on their way back, not even a Stop action that hangs.
#[test]
fn an_abort_of_a_merge_does_not_wait_for_a_stop_action() {
    run(|| async {
        let actions = vec![action("/opt/stop", ControlType::StopApplication)];
        let mut bench = bench(&[("/opt/stop", "")], actions).await;
        let production = bench.world.serving().expect("serves");
        bench.config.timeouts.service = 10;
        expect(bench.command(Command::Split).await, S::Split);
        expect(bench.command(Command::Merge).await, S::Merge);
        let upgrade = the_other(&bench);
        bench
            .world
            .put_guest_file(upgrade, "/opt/stop", b"sleep 100000");
        bench.system().accept_actions().await.expect("accepts");
        let began = tokio::time::Instant::now();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{:?}",
            began.elapsed()
        );
        assert!(logged(&bench, Severity::Warning, "did not end within 10 s"));
        assert_eq!(bench.world.serving(), Ok(production));
    });
}

// Fault 58: a server that is ended in the middle of an action follows the same program on; it is not run twice.
#[test]
pub(super) fn a_new_server_follows_the_action_that_runs() {
    run(|| async {
        let actions = vec![action("/opt/slow", ControlType::StopApplication)];
        let mut bench = bench(&[("/opt/slow", "out slow\nsleep 20\nexit 0")], actions).await;
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        bench.world.crash_server();
        bench.bury();
        bench.revive().await.expect("starts");
        assert_eq!(bench.status().operational_state, O::Broken);
        expect(bench.command(Command::Retry).await, S::Split);
        assert_eq!(bench.world.actions().len(), 1);
        assert_eq!(ends(&bench)[0].result, ActionResult::Exit(0));
    });
}

// Fault 58: at least once. When nobody knows of the program any more it is run again, and told so.
#[test]
fn an_action_whose_end_nobody_knows_runs_again() {
    run(|| async {
        let actions = vec![action("/opt/slow", ControlType::StopApplication)];
        let mut bench = bench(&[("/opt/slow", "sleep 20")], actions).await;
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        let upgrade = the_other(&bench);
        bench.world.crash_server();
        bench.bury();
        bench.world.guest_reboot(upgrade);
        bench.revive().await.expect("starts");
        tokio::time::sleep(Duration::from_secs(10)).await;
        expect(bench.command(Command::Retry).await, S::Split);
        let attempts: Vec<String> = bench
            .world
            .actions()
            .iter()
            .map(|a| a.var("ATTEMPT").to_owned())
            .collect();
        assert_eq!(attempts, ["1", "2"]);
        let ends = ends(&bench);
        assert!(
            matches!(ends[0].result, ActionResult::Failed(_)),
            "{ends:?}"
        );
    });
}

// Fault 58: an abort after the server was ended in the middle of an action leaves no program behind.
#[test]
fn an_abort_ends_the_action_of_an_earlier_server() {
    run(|| async {
        let actions = vec![CustomAction {
            place: ActionPlace::Host,
            ..action("/opt/host", ControlType::StopApplication)
        }];
        let mut bench = bench(&[], actions).await;
        bench.world.put_host_file("/opt/host", b"sleep 100000");
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        bench.world.crash_server();
        bench.bury();
        bench.revive().await.expect("starts");
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(bench.world.actions()[0].killed);
        assert_eq!(bench.status().action, None);
    });
}

// Our addition: `where = "host"`; the same places, values and rules.
#[test]
fn actions_of_the_host_run_at_the_same_places() {
    run(|| async {
        let host = CustomAction {
            place: ActionPlace::Host,
            ..action("/opt/host", ControlType::Advanced)
        };
        let mut bench = bench(&[], vec![host]).await;
        let problem = breaks(&mut bench, Command::Split, S::Idle).await;
        assert!(problem.contains("error"), "{problem}");
        assert!(logged(
            &bench,
            Severity::Error,
            "The executable /opt/host does not exist."
        ));
        bench.world.put_host_file("/opt/host", b"exit 0");
        expect(bench.command(Command::Split).await, S::Split);
        let actions = bench.world.actions();
        assert!(actions.iter().all(|a| a.machine.is_none()));
        assert_eq!(
            actions
                .last()
                .map(|a| a.var("ACTIVE_UPGRADE_SIDE").to_owned())
                .as_deref(),
            Some("Upgrade")
        );
        assert_eq!(actions[0].var("FLIPSIDE_SYSTEM"), "demo");
        bench.world.put_host_file("/opt/host", b"exit 1");
        let problem = breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        assert!(
            problem.contains("`/opt/host` on the host is not the file"),
            "{problem}"
        );
    });
}

// Fault 59: what a script asks of its own system while it runs is refused as busy, at once.
#[test]
fn a_script_that_calls_back_is_refused_and_nothing_locks_up() {
    run(|| async {
        let actions = vec![action("/opt/slow", ControlType::StopApplication)];
        let mut bench = bench(&[("/opt/slow", "sleep 20")], actions).await;
        assert!(bench.send(Command::Split).await.expect("accepted"));
        bench
            .until(Duration::from_secs(60), |b| b.status().action.is_some())
            .await;
        for command in [
            Command::Check,
            Command::Split,
            Command::Merge,
            Command::Retry,
            Command::Finish,
        ] {
            let began = tokio::time::Instant::now();
            let problem: Problem = bench.command(command).await.expect_err("refused");
            assert!(problem.to_string().contains("in progress"), "{problem}");
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        assert!(bench.system().accept_actions().await.is_err());
        assert_eq!(bench.settled().await, ready(S::Split));
    });
}

// CA-16, CF-20: a session without actions asks nothing for them.
#[test]
fn a_session_without_actions_makes_no_call_for_them() {
    run(|| async {
        let (bench, _) = merged().await;
        let calls = bench.world.trace();
        let about = [
            "look_at",
            "action_",
            "guest.log",
            "guest.mark_logs",
            "guest.back_up",
        ];
        let made = calls.iter().find(|c| about.iter().any(|a| c.contains(a)));
        assert_eq!(made, None);
    });
}

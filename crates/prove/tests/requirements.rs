//! Rows of the requirements that a whole session proves on the simulated backend: what each command enters, what it
//! touches and what it leaves alone.

use flipside_backend_sim::{At, Fault, FaultKind, SimOptions};
use flipside_engine::Request;
use flipside_model::{
    Command, DiskName, DiskRole, Fact, Leg, MachineId, MirrorStatus, OperationalState as O, Record,
    Side, UpgradeState as S,
};
use flipside_platform::DiskSource;
use flipside_prove::ways::{Way, story};
use flipside_prove::{Bench, End, run};
use std::time::Duration;

fn ready(state: S) -> End {
    End::State(state, O::Ready, None)
}

/// Sends a command that must end well.
#[track_caller]
fn expect(end: Result<End, flipside_model::Problem>, state: S) {
    assert_eq!(end, Ok(ready(state)));
}

/// Sends a command that must break in this stage; returns the problem's text.
async fn breaks(bench: &mut Bench, command: Command, stage: S) -> String {
    match bench.command(command).await {
        Ok(End::State(state, O::Broken, Some(problem))) if state == stage => problem,
        other => panic!("{command} ended in {other:?}, not in {stage} Broken"),
    }
}

async fn duplexed() -> Bench {
    let mut bench = Bench::new(1, 1).await;
    bench.power_on().await;
    bench
}

fn upgrade_side(bench: &Bench) -> MachineId {
    bench.system().machine_for(None).expect("the Upgrade Side")
}

/// Splits, installs the new software, and merges.
async fn merged() -> (Bench, MachineId) {
    let mut bench = duplexed().await;
    expect(bench.command(Command::Split).await, S::Split);
    let upgrade = upgrade_side(&bench);
    bench.world.install(upgrade, "2.0").expect("installs");
    expect(bench.command(Command::Merge).await, S::Merge);
    (bench, upgrade)
}

/// Every stage and operational state that was entered, in order.
fn entered(bench: &Bench) -> Vec<(S, O)> {
    let entries = bench.system().entries_after(0);
    let states = entries.iter().filter_map(|e| match &e.record {
        Record::Entered {
            state, operational, ..
        } => Some((*state, *operational)),
        _ => None,
    });
    states.collect()
}

/// The calls since `clear_trace` that begin so and are about this machine.
fn touched(bench: &Bench, calls: &[&str], machine: MachineId) -> Vec<String> {
    let id = format!(".{machine}");
    let trace = bench.world.trace().into_iter();
    trace
        .filter(|name| calls.iter().any(|c| name.starts_with(c)))
        .filter(|name| name.contains(&id) || name.starts_with("network."))
        .collect()
}

/// The mirrors stand still from now on, so that what waits for them can be told from what does not.
fn stop_mirrors(bench: &Bench) {
    bench.world.set_options(|o| {
        o.resync_blocks_per_poll = 0;
        o.nearly_blocks = 0;
    });
}

fn let_mirrors_go_on(bench: &Bench) {
    let usual = SimOptions::default();
    bench.world.set_options(|o| {
        o.resync_blocks_per_poll = usual.resync_blocks_per_poll;
        o.nearly_blocks = usual.nearly_blocks;
    });
}

/// Which legs were rewritten from which, by role, each said once.
fn directions(bench: &Bench, after: u64) -> Vec<(DiskRole, Leg, Leg)> {
    let mut seen = Vec::new();
    for entry in bench.system().entries_after(after) {
        if let Record::Fact(Fact::Resyncing { disk, from, to, .. }) = entry.record {
            let role = bench.spec.disk(&disk).expect("a disk of the system").role;
            if !seen.contains(&(role, from, to)) {
                seen.push((role, from, to));
            }
        }
    }
    seen
}

// SM-06, SM-07, SM-10, SM-11, SM-12: one command each, and PrepareSplit and PrepareMerge go on by themselves.
// SB-08, SB-09, SB-10, SB-11, SB-12, SB-13, SB-15, SB-16, SB-17: a stage is named when it begins (Busy), not when it is reached (Ready).
#[test]
fn a_committed_session_enters_these_states() {
    run(|| async {
        let (mut bench, _) = merged().await;
        expect(bench.command(Command::Commit).await, S::Commit);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(
            entered(&bench),
            [
                (S::Idle, O::Busy),
                (S::Idle, O::Ready),
                (S::PrepareSplit, O::Busy),
                (S::Split, O::Busy),
                (S::Split, O::Ready),
                (S::PrepareMerge, O::Busy),
                (S::Merge, O::Busy),
                (S::Merge, O::Ready),
                (S::Commit, O::Busy),
                (S::Commit, O::Ready),
                (S::Finish, O::Busy),
                (S::Idle, O::Ready),
            ]
        );
    });
}

// SM-15, SB-14, AB-13, FN-01: Abort, then Finish, as after Commit.
#[test]
fn an_aborted_session_enters_these_states() {
    run(|| async {
        let (mut bench, _) = merged().await;
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(bench.status().line(), "Fault Tolerant | Abort | Ready");
        assert_eq!(bench.status().allowed, [Command::Finish]);
        expect(bench.command(Command::Finish).await, S::Idle);
        let states = entered(&bench);
        assert_eq!(
            states[states.len() - 5..],
            [
                (S::Merge, O::Ready),
                (S::Abort, O::Busy),
                (S::Abort, O::Ready),
                (S::Finish, O::Busy),
                (S::Idle, O::Ready),
            ]
        );
    });
}

// SM-05, SM-22: any number of checks; no session, no lock, nothing touched.
#[test]
fn a_check_is_not_a_session_and_changes_nothing() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        bench.world.clear_trace();
        for _ in 0..3 {
            expect(bench.command(Command::Check).await, S::Idle);
            assert_eq!(bench.status().session, None);
            assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
        }
        let changing = [
            "machine.",
            "disk.",
            "guest.st",
            "guest.hold",
            "network.hold",
        ];
        let looks = ["machine.observe", "guest.startup"];
        let mut touched = touched(&bench, &changing, production);
        touched.retain(|name| !looks.iter().any(|l| name.starts_with(l)));
        assert!(touched.is_empty(), "{touched:?}");
        assert!(bench.world.book().duplexed());
        expect(bench.command(Command::Split).await, S::Split);
    });
}

// AB-03, SM-18, SB-18: what fails before the split leaves `Prepare Split | Broken`; the abort finds nothing to mend.
#[test]
fn an_abort_before_the_split_leaves_the_duplexed_system() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        let fault = Fault::next("guest.startup.*", FaultKind::FailBefore);
        bench.world.plan(fault);
        breaks(&mut bench, Command::Split, S::PrepareSplit).await;
        let status = bench.status();
        assert_eq!(status.line(), "Fault Tolerant | Prepare Split | Broken");
        assert_eq!(status.allowed, [Command::Retry, Command::Abort]);
        let before = status.last_seq;
        bench.world.clear_trace();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(bench.world.book().duplexed(), "nothing to resynchronise");
        assert_eq!(directions(&bench, before), []);
        assert_eq!(bench.world.serving(), Ok(production));
        let services = [
            "guest.stop",
            "guest.start.",
            "machine.pause",
            "network.hold",
        ];
        assert_eq!(touched(&bench, &services, production), [""; 0]);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(bench.world.machines(), [production]);
    });
}

// MG-03, AB-07: a failure in PrepareMerge leaves the users where they are, and so does the abort. AB-21: no startup
// type was changed on Production, and none is restored.
#[test]
fn a_failure_before_the_merge_moves_nobody() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        bench.world.clear_trace();
        let fault = Fault::next("guest.prepare_release.*", FaultKind::FailBefore);
        bench.world.plan(fault);
        breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        let status = bench.status();
        assert_eq!(status.line(), "Production Side | Prepare Merge | Broken");
        assert_eq!(status.allowed, [Command::Retry, Command::Abort]);
        assert_eq!(bench.world.serving(), Ok(production));
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(bench.world.serving(), Ok(production));
        let services = [
            "guest.stop",
            "guest.start.",
            "guest.hold",
            "guest.prepare_release",
            "network.hold",
        ];
        assert_eq!(touched(&bench, &services, production), [""; 0]);
    });
}

// SM-01, CM-05: no application and no operating system is restarted. CM-03, CM-04: which leg overwrites which.
// CM-08, FN-08, SB-07: Ready and Idle do not wait for the mirrors. RS-04, RS-06, RS-07, SM-29: the next session does,
// and how far they are can be read all the time, after a restart of the server too. CM-12: in the end all is duplex.
#[test]
fn a_commit_restarts_nothing_and_its_mirrors_run_on() {
    run(|| async {
        let mut bench = duplexed().await;
        let led = bench
            .world
            .book()
            .disks
            .values()
            .all(|p| p.authority == Leg::A);
        assert!(led, "leg A leads at first");
        stop_mirrors(&bench);
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        bench.world.install(upgrade, "2.0").expect("installs");
        expect(bench.command(Command::Merge).await, S::Merge);
        bench.world.clear_trace();
        let before = bench.status().last_seq;
        expect(bench.command(Command::Commit).await, S::Commit);
        assert_eq!(bench.status().line(), "Fault Tolerant | Commit | Ready");
        assert_eq!(bench.status().allowed, [Command::Finish]);
        expect(bench.command(Command::Finish).await, S::Idle);
        let restarts = [
            "guest.stop",
            "guest.start.",
            "guest.restart",
            "guest.close_data",
            "machine.reset",
            "machine.pause",
            "machine.end",
            "network.hold",
        ];
        assert_eq!(touched(&bench, &restarts, upgrade), [""; 0]);
        let directions = directions(&bench, before);
        assert!(
            directions.contains(&(DiskRole::System, Leg::B, Leg::A)),
            "{directions:?}"
        );
        assert!(
            directions.contains(&(DiskRole::Data, Leg::A, Leg::B)),
            "{directions:?}"
        );
        assert_eq!(directions.len(), 2, "{directions:?}");

        let line = "Fault Tolerant | Idle | Ready";
        for _ in 0..2 {
            let status = bench.system().fresh_status().await;
            assert_eq!(status.line(), line);
            for disk in &status.disks {
                assert!(matches!(disk.mirror, MirrorStatus::Resync(_)), "{disk:?}");
                assert!(disk.mirror.to_string().starts_with("Resync "));
            }
            bench.world.crash_server();
            bench.revive().await.expect("starts");
        }
        let problem = breaks(&mut bench, Command::Split, S::Idle).await;
        assert!(problem.contains("readiness"), "{problem}");
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Broken");
        let_mirrors_go_on(&bench);
        bench.duplex().await.expect("duplexed");
        let status = bench.system().fresh_status().await;
        for disk in &status.disks {
            assert_eq!(disk.mirror.to_string(), "None");
            assert!(bench.world.legs_equal(&disk.name));
        }
        expect(bench.command(Command::Retry).await, S::Idle);
        expect(bench.command(Command::Split).await, S::Split);
        bench.check().expect("invariants");
    });
}

// AB-08, AB-09, AB-10: the original system leg and the live data leg overwrite the others, although the upgraded software
// wrote. AB-06, AB-14: the users are served, and Abort is Ready, while the mirrors still stand. AB-18.
#[test]
fn an_abort_in_merge_serves_before_its_mirrors_are_whole() {
    run(|| async {
        let (mut bench, _) = merged().await;
        let written = bench.world.acknowledged();
        bench
            .until(Duration::from_secs(60), |b| {
                b.world.acknowledged() > written
            })
            .await;
        stop_mirrors(&bench);
        let before = bench.status().last_seq;
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(bench.world.client_ok());
        assert!(!bench.world.book().duplexed());
        assert_eq!(bench.version().as_deref(), Some("1.0"));
        assert!(bench.status().outage_ms.is_some());
        let directions = directions(&bench, before);
        assert!(
            directions.contains(&(DiskRole::System, Leg::A, Leg::B)),
            "{directions:?}"
        );
        assert!(
            directions.iter().all(|d| (d.1, d.2) == (Leg::A, Leg::B)),
            "{directions:?}"
        );
        expect(bench.command(Command::Finish).await, S::Idle);
        breaks(&mut bench, Command::Split, S::Idle).await;
        let_mirrors_go_on(&bench);
        bench.duplex().await.expect("duplexed");
        bench.check().expect("invariants");
        expect(bench.command(Command::Split).await, S::Split);
    });
}

/// The leg of data0 that a machine reads first, if it has the disk.
fn data_leg(bench: &Bench, machine: MachineId) -> Option<Leg> {
    let data = DiskName::numbered(DiskRole::Data, 0);
    match &bench.world.view(machine).disks.get(&data)?.source {
        DiskSource::Legs(legs) => legs.first().copied(),
        other => panic!("{machine} has no leg of it: {other:?}"),
    }
}

// SP-20, SM-24, MG-08: the Upgrade Side is a running copy, and is not restarted by the merge either.
// MG-09: the outage is measured, from outside and from inside. SM-26, SP-02, SP-06, MG-18: who has the live data and
// the network. SB-05, SB-06, SB-20.
#[test]
fn neither_split_nor_merge_boots_anything() {
    run(|| async {
        let mut bench = duplexed().await;
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
        let production = bench.world.serving().expect("serves");
        let guest = bench.system().ports().guest.clone();
        let first = guest.ping(production).await.expect("answers").boot_id;
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        let forked = guest.ping(upgrade).await.expect("answers").boot_id;
        assert_eq!(forked, first, "a fork, not a boot");
        assert_eq!(bench.world.serving(), Ok(production));
        assert_eq!(data_leg(&bench, production), Some(Leg::A));
        assert_eq!(data_leg(&bench, upgrade), None);
        assert!(bench.world.view(production).link_up && !bench.world.view(upgrade).link_up);
        let status = bench.system().fresh_status().await;
        assert_eq!(status.line(), "Production Side | Split | Ready");
        assert_eq!(
            status.partner_state.map(|p| p.to_string()).as_deref(),
            Some("OS Up")
        );
        assert!(status.pause_ms.is_some());
        expect(bench.command(Command::Merge).await, S::Merge);
        assert_eq!(bench.world.serving(), Ok(upgrade));
        assert_eq!(data_leg(&bench, upgrade), Some(Leg::A));
        let after = guest.ping(upgrade).await.expect("answers").boot_id;
        assert_eq!(after, first, "no restart at merge");
        let status = bench.system().fresh_status().await;
        assert!(status.outage_ms.is_some() && status.outage_inside_ms.is_some());
        assert_eq!(status.partner_state, None);
    });
}

// AB-20, SM-21, SM-31: a shut-down Upgrade Side cannot be merged, retried or restarted; the abort takes all back.
#[test]
fn after_a_shutdown_of_the_upgrade_side_only_the_abort_is_left() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        bench.world.install(upgrade, "2.0").expect("installs");
        bench.world.guest_shut_down(upgrade);
        for command in [Command::Merge, Command::Retry] {
            let problem = breaks(&mut bench, command, S::PrepareMerge).await;
            assert!(problem.contains("shut down"), "{problem}");
            let system = bench.system().clone();
            let refused = system.restart(Side::Upgrade).await;
            let advice = refused.expect_err("refused").advice.unwrap_or_default();
            assert!(advice.contains("flipside abort"), "{advice}");
            assert_eq!(bench.world.serving(), Ok(production));
        }
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        bench.duplex().await.expect("duplexed");
        assert_eq!(
            bench.world.serving(),
            Ok(production),
            "it never stopped serving"
        );
        assert_eq!(bench.version().as_deref(), Some("1.0"));
    });
}

// AB-02: an abort stops a running operation at its next safe point. MG-14: a merge that failed half way is taken back.
#[test]
fn an_abort_takes_back_what_runs_and_what_broke() {
    for way in [
        Way::AbortWhileForking,
        Way::AbortWhileMerging,
        Way::UnhealthyThenAbort,
    ] {
        run(|| async {
            let (system, data) = way.disks();
            let mut bench = Bench::with(system, data, way.options()).await;
            bench.power_on().await;
            story(&mut bench, way)
                .await
                .unwrap_or_else(|why| panic!("{}: {why}", way.name()));
        });
    }
}

// CM-13: a commit does not begin on a leg that is not the recorded one, and a retry goes in the same direction.
#[test]
fn a_commit_checks_its_legs_first_and_never_turns_round() {
    run(|| async {
        let (mut bench, _) = merged().await;
        let system = DiskName::numbered(DiskRole::System, 0);
        let before = bench.status().last_seq;
        bench
            .world
            .note_leg(&system, Leg::A, Some("It is another file."));
        breaks(&mut bench, Command::Commit, S::Commit).await;
        assert_eq!(directions(&bench, before), [], "nothing was overwritten");
        bench.world.note_leg(&system, Leg::A, None);
        let fault = Fault::next("disk.resync_start.*.system0", FaultKind::CrashAfter);
        bench.world.plan(fault);
        assert_eq!(bench.command(Command::Retry).await, Ok(End::Crashed));
        bench.revive().await.expect("starts");
        bench.settled().await;
        if bench.status().operational_state == O::Broken {
            expect(bench.command(Command::Retry).await, S::Commit);
        }
        bench.duplex().await.expect("duplexed");
        let directions = directions(&bench, before);
        let of_system: Vec<_> = directions
            .iter()
            .filter(|d| d.0 == DiskRole::System)
            .collect();
        assert_eq!(of_system, [&(DiskRole::System, Leg::B, Leg::A)]);
        assert_eq!(bench.version().as_deref(), Some("2.0"));
        bench.check().expect("invariants");
    });
}

// SP-14, SM-20: a split that does not come to an end is Broken after five minutes, with the users served; SP-15.
#[test]
fn a_split_times_out_after_five_minutes() {
    run(|| async {
        let mut bench = duplexed().await;
        bench.world.set_options(|o| o.precopy_polls = u32::MAX);
        let began = tokio::time::Instant::now();
        breaks(&mut bench, Command::Split, S::Split).await;
        let took = began.elapsed().as_secs();
        assert!((300..310).contains(&took), "{took} s");
        assert!(bench.world.client_ok());
        assert_eq!(bench.status().allowed, [Command::Retry, Command::Abort]);
        bench.world.set_options(|o| o.precopy_polls = 2);
        expect(bench.command(Command::Retry).await, S::Split);
        bench.check().expect("invariants");
    });
}

// SP-23: the guide's own words for a device that cannot be taken from the Upgrade Side; the split fails.
#[test]
fn a_disk_that_cannot_be_removed_breaks_the_split() {
    run(|| async {
        let mut bench = duplexed().await;
        let fault = Fault {
            call: At::Every("disk.unplug.*".to_owned()),
            kind: FaultKind::FailBefore,
        };
        bench.world.plan(fault);
        let problem = breaks(&mut bench, Command::Split, S::Split).await;
        let expected = "Failed to disable PCI device: data0";
        assert!(problem.starts_with(expected), "{problem}");
        bench.world.clear_plan();
        expect(bench.command(Command::Retry).await, S::Split);
    });
}

// SM-27, SM-28: the session outlives whoever watches it, in every state that waits for a command.
#[test]
fn a_session_survives_the_end_of_its_server() {
    run(|| async {
        let mut bench = duplexed().await;
        for (command, state) in [
            (Command::Split, S::Split),
            (Command::Merge, S::Merge),
            (Command::Commit, S::Commit),
        ] {
            expect(bench.command(command).await, state);
            let before = bench.system().fresh_status().await;
            let log = bench.system().entries_after(0);
            bench.world.crash_server();
            bench.revive().await.expect("starts");
            let after = bench.system().fresh_status().await;
            assert_eq!(after.line(), before.line());
            assert!(after.session.is_some());
            assert_eq!(after.session, before.session);
            assert_eq!(after.config.as_deref(), Some("test.Config"));
            assert_eq!(after.allowed, before.allowed);
            assert_eq!(bench.system().entries_after(0)[..log.len()], log);
        }
    });
}

// FN-06: the next session uses the same configuration; FN-10: nothing of the last one is left but the log.
#[test]
fn after_finish_the_next_session_has_the_same_configuration() {
    run(|| async {
        let mut bench = duplexed().await;
        expect(bench.command(Command::Split).await, S::Split);
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(bench.status().session, None);
        assert_eq!(bench.world.machines().len(), 1);
        assert_eq!(bench.world.carried(), []);
        bench.duplex().await.expect("duplexed");
        let system = bench.system().clone();
        let request = Request {
            command: Command::Split,
            config: None,
        };
        let accepted = system.request(request).await.expect("accepted");
        assert_eq!(accepted.config.as_deref(), Some("test.Config"));
        assert_eq!(bench.settled().await, ready(S::Split));
    });
}

// SM-19, CM-09, AB-15, AB-19, FN-03: what broke after the point of no return may only be retried, nobody is told to
// abort, and where that does not help it says where to turn.
#[test]
fn what_breaks_after_the_decision_is_retried_and_never_aborted() {
    run(|| async {
        for (command, state, call) in [
            (Command::Commit, S::Commit, "disk.carry_out.*"),
            (Command::Finish, S::Finish, "guest.cleanup.*"),
        ] {
            let (mut bench, _) = merged().await;
            if state == S::Finish {
                expect(bench.command(Command::Commit).await, S::Commit);
            }
            bench.world.plan(Fault::next(call, FaultKind::CrashBefore));
            assert_eq!(bench.command(command).await, Ok(End::Crashed));
            bench.revive().await.expect("starts");
            let status = bench.status();
            assert_eq!(
                (status.upgrade_state, status.operational_state),
                (state, O::Broken)
            );
            assert_eq!(status.allowed, [Command::Retry]);
            let advice = status.problem.and_then(|p| p.advice).unwrap_or_default();
            assert!(!advice.contains("abort"), "{advice}");
            assert!(
                advice.contains("flipside retry") && advice.contains("troubleshooting"),
                "{advice}"
            );
            let goal = if state == S::Finish { S::Idle } else { state };
            expect(bench.command(Command::Retry).await, goal);
        }
    });
}

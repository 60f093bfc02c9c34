//! What breaks, what is aborted, and what is left to do then.

use super::*;

// AB-03, SM-18, SB-18, RC-52: what fails before the split leaves `Prepare Split | Broken`; the abort finds nothing to mend.
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

// Design 3.5: the users stay where they are until nothing on the Upgrade Side is reached over the network.
#[test]
fn a_merge_waits_until_storage_over_the_network_is_let_go() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        bench.world.set_options(|options| {
            options.surroundings.remote = vec![flipside_model::RemoteStorage {
                kind: "nfs".to_owned(),
                source: "files:/srv".to_owned(),
                target: "/mnt".to_owned(),
            }];
        });
        breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        let problem = bench.status().problem.expect("a reason");
        assert!(problem.message.contains("files:/srv"), "{problem:?}");
        assert_eq!(bench.world.serving(), Ok(production));
        bench
            .world
            .set_options(|options| options.surroundings.remote.clear());
        expect(bench.command(Command::Retry).await, S::Merge);
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

// Faults 25 and 28, invariant 19: the end of the machine that users are on is told once, with the way out, and nothing happens
// by itself. AB-05: the way out brings the users back.
#[test]
fn the_end_of_the_serving_machine_is_told_once() {
    for merged in [false, true] {
        run(|| async {
            let mut bench = duplexed().await;
            expect(bench.command(Command::Split).await, S::Split);
            if merged {
                expect(bench.command(Command::Merge).await, S::Merge);
            }
            let state = bench.status().upgrade_state;
            let serving = bench.world.serving().expect("serves");
            bench.world.kill_machine(serving);
            let told = |bench: &Bench| -> Vec<String> {
                let entries = bench.system().entries_after(0).into_iter();
                let texts = entries.map(|entry| format!("{:?}", entry.record));
                texts
                    .filter(|text| text.contains("which serves the users"))
                    .collect()
            };
            let long = std::time::Duration::from_secs(30);
            bench.until(long, |bench| !told(bench).is_empty()).await;
            tokio::time::sleep(long).await;
            let told = told(&bench);
            assert_eq!(told.len(), 1, "{told:#?}");
            assert!(told[0].contains("flipside abort"), "{told:?}");
            assert_eq!(bench.status().upgrade_state, state);
            assert!(!bench.status().running);
            expect(bench.command(Command::Abort).await, S::Abort);
            expect(bench.command(Command::Finish).await, S::Idle);
            bench.duplex().await.expect("duplexed");
            let boot = std::time::Duration::from_secs(600);
            bench
                .until(boot, |bench| bench.world.serving().is_ok())
                .await;
            bench.check().expect("invariants");
        });
    }
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

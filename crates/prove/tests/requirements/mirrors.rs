//! Which leg overwrites which, and who waits for it.

use super::*;

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

// CM-13: a commit does not begin on a leg that is not the recorded one, and a retry goes in the same direction.
#[test]
fn a_commit_checks_its_legs_first_and_never_turns_round() {
    run(|| async {
        let (mut bench, _) = merged().await;
        let system = DiskName::numbered(DiskRole::System, 0);
        let before = bench.status().last_seq;
        bench
            .world
            .change_leg(&system, Leg::A, Some("is another file"));
        breaks(&mut bench, Command::Commit, S::Commit).await;
        assert_eq!(directions(&bench, before), [], "nothing was overwritten");
        bench.world.change_leg(&system, Leg::A, None);
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

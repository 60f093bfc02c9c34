//! The paths of a session on the simulated backend, without faults.

use flipside_model::{Command, OperationalState as O, UpgradeState as S};
use flipside_prove::{Bench, End, run};

fn ready(state: S) -> End {
    End::State(state, O::Ready, None)
}

// SM-04, SP-13, MG-11, CM-07, FN-02: the whole way to a commit; new software, live data.
#[test]
fn split_merge_commit_finish() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        assert_eq!(bench.command(Command::Split).await, Ok(ready(S::Split)));
        bench.check().expect("invariants");
        assert_eq!(bench.status().line(), "Production Side | Split | Ready");
        let upgrade = bench.system().machine_for(None).expect("the Upgrade Side");
        bench.world.install(upgrade, "2.0").expect("installs");
        assert_eq!(
            bench.version().as_deref(),
            Some("1.0"),
            "production keeps the old software"
        );
        assert_eq!(bench.command(Command::Merge).await, Ok(ready(S::Merge)));
        bench.check().expect("invariants");
        assert_eq!(bench.status().line(), "Fault Tolerant | Merge | Ready");
        assert_eq!(bench.version().as_deref(), Some("2.0"));
        assert!(bench.world.client_ok());
        assert_eq!(bench.command(Command::Commit).await, Ok(ready(S::Commit)));
        assert_eq!(bench.status().line(), "Fault Tolerant | Commit | Ready");
        assert_eq!(bench.command(Command::Finish).await, Ok(ready(S::Idle)));
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
        bench.duplex().await.expect("duplexed");
        bench.check().expect("invariants");
        assert_eq!(bench.version().as_deref(), Some("2.0"));
        for disk in &bench.spec.disks {
            assert!(bench.world.legs_equal(&disk.name), "{}", disk.name);
        }
        assert!(bench.world.acknowledged() > 0);
    });
}

// AB-05 (design 7), AB-09, SM-21, DK-28: back to the old software without a reboot; what was written since stays.
#[test]
fn split_merge_abort_finish() {
    run(|| async {
        let mut bench = Bench::new(2, 2).await;
        bench.power_on().await;
        let production = bench.world.serving().expect("serves");
        assert_eq!(bench.command(Command::Split).await, Ok(ready(S::Split)));
        let upgrade = bench.system().machine_for(None).expect("the Upgrade Side");
        bench.world.install(upgrade, "2.0").expect("installs");
        assert_eq!(bench.command(Command::Merge).await, Ok(ready(S::Merge)));
        assert_eq!(bench.command(Command::Abort).await, Ok(ready(S::Abort)));
        bench.check().expect("invariants");
        assert_eq!(
            bench.world.serving().expect("serves"),
            production,
            "the same process: no reboot"
        );
        assert!(!bench.world.clock_late(production), "its clock was set");
        assert_eq!(bench.version().as_deref(), Some("1.0"));
        assert_eq!(bench.command(Command::Finish).await, Ok(ready(S::Idle)));
        bench.duplex().await.expect("duplexed");
        bench.check().expect("invariants");
        for disk in &bench.spec.disks {
            assert!(bench.world.legs_equal(&disk.name), "{}", disk.name);
        }
    });
}

// AB-04, SM-31, SV-06: an abort in Split costs nothing; a session may be only that.
#[test]
fn split_abort_touches_no_service_and_no_client() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        let production = bench.world.serving().expect("serves");
        assert_eq!(bench.command(Command::Split).await, Ok(ready(S::Split)));
        bench.world.clear_trace();
        assert_eq!(bench.command(Command::Abort).await, Ok(ready(S::Abort)));
        let id = production.to_string();
        let touched: Vec<String> = bench
            .world
            .trace()
            .into_iter()
            .filter(|c| {
                (c.starts_with("guest.stop")
                    || c.starts_with("guest.start.")
                    || c.starts_with("network.hold"))
                    && c.contains(&id)
            })
            .collect();
        assert!(touched.is_empty(), "{touched:?}");
        assert_eq!(bench.command(Command::Finish).await, Ok(ready(S::Idle)));
        bench.duplex().await.expect("duplexed");
        assert!(bench.world.legs_equal(&bench.spec.disks[0].name));
    });
}

// SM-29, RS-01, RS-04, fault 74: the next session waits for the mirrors, and then the other enclosure leads.
#[test]
fn sessions_follow_each_other_only_when_the_mirrors_are_whole() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        for round in 0..3 {
            assert_eq!(
                bench.command(Command::Split).await,
                Ok(ready(S::Split)),
                "round {round}"
            );
            let upgrade = bench.system().machine_for(None).expect("the Upgrade Side");
            bench
                .world
                .install(upgrade, &format!("{}.0", round + 2))
                .expect("installs");
            assert_eq!(
                bench.command(Command::Merge).await,
                Ok(ready(S::Merge)),
                "round {round}"
            );
            assert_eq!(
                bench.command(Command::Commit).await,
                Ok(ready(S::Commit)),
                "round {round}"
            );
            assert_eq!(
                bench.command(Command::Finish).await,
                Ok(ready(S::Idle)),
                "round {round}"
            );
            if !bench.world.book().duplexed() {
                let end = bench.command(Command::Split).await.expect("accepted");
                assert!(
                    matches!(end, End::State(S::Idle, O::Broken, Some(_))),
                    "{end:?}"
                );
            }
            bench.duplex().await.expect("duplexed");
            bench.check().expect("invariants");
        }
        assert_eq!(bench.version().as_deref(), Some("4.0"));
    });
}

// Power: a clean stop keeps both legs, an unclean end makes the authority alone count (fault 7).
#[test]
fn stop_is_clean_and_a_power_cut_is_not() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        let system = bench.system().clone();
        system
            .power(flipside_model::api::PowerAction::Stop)
            .await
            .expect("stops");
        assert!(bench.world.book().clean && bench.world.book().duplexed());
        bench.power_on().await;
        assert!(
            bench.world.book().duplexed(),
            "nothing to resynchronise after a clean stop"
        );
        bench.world.power_cut();
        bench.bury();
        bench.start_server().await.expect("starts");
        bench
            .until(std::time::Duration::from_secs(10), |b| !b.status().running)
            .await;
        bench.power_on().await;
        let log = bench.system().entries_after(0);
        let compared = log.iter().filter(|e| {
            matches!(
                &e.record,
                flipside_model::Record::Fact(flipside_model::Fact::Resyncing { compare: true, .. })
            )
        });
        assert_eq!(
            compared.count(),
            2,
            "the other legs are compared as a whole"
        );
        bench.duplex().await.expect("duplexed");
        bench.check().expect("invariants");
    });
}

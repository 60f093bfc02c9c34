//! What a disk is in a session: marked System, marked Data, System by need, and System by spreading.

use super::*;
use flipside_backend_sim::SimVolume;
use flipside_model::MountPoint;
use std::collections::BTreeMap;

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

/// A system at work whose session marks disks; the world judges by the roles that are meant.
async fn marked(
    disks: (usize, usize),
    mark: impl FnOnce(&mut flipside_model::UpgradeConfig),
    meant: &[(&str, DiskRole)],
    change: impl FnOnce(&mut SimOptions),
) -> Bench {
    let mut options = SimOptions {
        busy_guests: true,
        check_every_call: true,
        roles: meant.iter().map(|(n, role)| (disk(n), *role)).collect(),
        ..SimOptions::default()
    };
    change(&mut options);
    let mut bench = Bench::with(disks.0, disks.1, options).await;
    mark(&mut bench.config);
    bench.power_on().await;
    bench
}

/// Which legs of each disk were rewritten from which.
fn rewritten(bench: &Bench, after: u64) -> BTreeMap<String, (Leg, Leg)> {
    let entries = bench.system().entries_after(after).into_iter();
    let facts = entries.filter_map(|e| match e.record {
        Record::Fact(Fact::Resyncing { disk, from, to, .. }) => {
            Some((disk.to_string(), (from, to)))
        }
        _ => None,
    });
    facts.collect()
}

/// A whole session with the disks that each side must have while split; then all is whole again.
async fn whole_session(bench: &mut Bench, upgrade_has: &[&str], end: Command) {
    expect(bench.command(Command::Split).await, S::Split);
    let upgrade = upgrade_side(bench);
    // DK-04, DK-05: System on both sides, each with its own leg; Data on Production only.
    let view = bench.world.view(upgrade);
    let there: Vec<&str> = view.disks.keys().map(DiskName::as_str).collect();
    assert_eq!(there, upgrade_has);
    for (name, plugged) in &view.disks {
        assert_eq!(plugged.source, DiskSource::Legs(vec![Leg::B]), "{name}");
    }
    for shown in bench.system().fresh_status().await.disks {
        let on_upgrade = upgrade_has.contains(&shown.name.as_str());
        let role = if on_upgrade {
            DiskRole::System
        } else {
            DiskRole::Data
        };
        assert_eq!(shown.role, role, "{}", shown.name);
    }
    bench.world.install(upgrade, "2.0").expect("installs");
    expect(bench.command(Command::Merge).await, S::Merge);
    let before = bench.status().last_seq;
    let (state, version) = match end {
        Command::Commit => (S::Commit, "2.0"),
        _ => (S::Abort, "1.0"),
    };
    expect(bench.command(end).await, state);
    expect(bench.command(Command::Finish).await, S::Idle);
    bench.duplex().await.expect("duplexed");
    // DK-26, DK-27: from the side that stays for System; from the live leg for Data, whoever wins.
    let rewritten = rewritten(bench, before);
    for name in bench.spec.disks.iter().map(|d| d.name.as_str()) {
        let system = upgrade_has.contains(&name);
        let expected = match (system, end) {
            (true, Command::Commit) => (Leg::B, Leg::A),
            _ => (Leg::A, Leg::B),
        };
        assert_eq!(
            rewritten.get(name),
            Some(&expected),
            "{name}: {rewritten:?}"
        );
    }
    for name in bench.spec.disks.iter().map(|d| &d.name) {
        assert!(bench.world.legs_equal(name), "{name}");
    }
    assert_eq!(bench.version().as_deref(), Some(version));
    bench.check().expect("invariants");
}

// DK-03, DK-26, DK-29: both system disks are kept on both sides and go the same way.
#[test]
fn two_system_disks_go_through_a_session_together() {
    for end in [Command::Commit, Command::Abort] {
        run(move || async move {
            let mut bench = marked((2, 1), |_| {}, &[], |_| {}).await;
            whole_session(&mut bench, &["system0", "system1"], end).await;
        });
    }
}

// DK-03, DK-04, DK-26: a disk that was made a data disk and is marked System is forked, kept on both sides with its file
// system mounted, and resynchronised as a system disk; the other data disk stays one.
#[test]
fn a_data_disk_marked_system_is_upgraded() {
    for end in [Command::Commit, Command::Abort] {
        run(move || async move {
            let meant = [("data1", DiskRole::System)];
            let mark = |c: &mut flipside_model::UpgradeConfig| c.system_disks = vec![disk("data1")];
            let mut bench = marked((1, 2), mark, &meant, |_| {}).await;
            whole_session(&mut bench, &["data1", "system0"], end).await;
        });
    }
}

// DK-03, DK-05, DK-27: a disk that was made a system disk and is marked Data stays with the users.
#[test]
fn a_system_disk_marked_data_follows_the_users() {
    for end in [Command::Commit, Command::Abort] {
        run(move || async move {
            let meant = [("system1", DiskRole::Data)];
            let mark = |c: &mut flipside_model::UpgradeConfig| c.data_disks = vec![disk("system1")];
            let mount = |name: &str| MountPoint {
                disk: disk(name),
                target: format!("/srv/{name}"),
                source: format!("LABEL={name}"),
            };
            let mounts = |o: &mut SimOptions| o.mounts = vec![mount("data0"), mount("system1")];
            let mut bench = marked((2, 1), mark, &meant, mounts).await;
            whole_session(&mut bench, &["system0"], end).await;
        });
    }
}

// DK-10, DK-13, DK-15: nothing is configured; swap makes one disk mandatory, a spanned volume takes another along, and
// both are upgraded.
#[test]
fn what_the_running_system_needs_is_upgraded_unasked() {
    run(|| async {
        let meant = [("data1", DiskRole::System), ("data2", DiskRole::System)];
        let volumes = |o: &mut SimOptions| {
            let volume = |disks: &[&str], swap| SimVolume {
                disks: disks.iter().map(|d| disk(d)).collect(),
                target: None,
                swap,
            };
            o.volumes = vec![volume(&["data1"], true), volume(&["data1", "data2"], false)];
            o.mounts = vec![MountPoint {
                disk: disk("data0"),
                target: "/srv/data0".to_owned(),
                source: "LABEL=data0".to_owned(),
            }];
        };
        let mut bench = marked((1, 3), |_| {}, &meant, volumes).await;
        whole_session(&mut bench, &["data1", "data2", "system0"], Command::Commit).await;
    });
}

// DK-08, DK-32, DK-34, RC-20: an impossible selection is a readiness Error, and no session begins.
#[test]
fn an_impossible_selection_of_disks_is_refused_before_the_split() {
    run(|| async {
        let cases: [(&[&str], &[&str], &str); 3] = [
            (&[], &["system0"], "`system0` is a mandatory system disk"),
            (&["data7"], &[], "the configured disk `data7` is no disk of"),
            (&[], &["data1"], "`data1` cannot be marked Data: volume"),
        ];
        let volumes = |o: &mut SimOptions| {
            o.volumes = vec![SimVolume {
                disks: vec![disk("system0"), disk("data1")],
                target: None,
                swap: false,
            }];
            o.mounts = vec![MountPoint {
                disk: disk("data0"),
                target: "/srv/data0".to_owned(),
                source: "LABEL=data0".to_owned(),
            }];
        };
        let mut bench = marked((1, 2), |_| {}, &[("data1", DiskRole::System)], volumes).await;
        for (system, data, told) in cases {
            bench.config.system_disks = system.iter().map(|d| disk(d)).collect();
            bench.config.data_disks = data.iter().map(|d| disk(d)).collect();
            let before = bench.status().last_seq;
            breaks(&mut bench, Command::Split, S::Idle).await;
            let entries = bench.system().entries_after(before);
            let found = entries.iter().any(|e| {
                matches!(&e.record, Record::Log { severity, text, component: Some(_), advice: Some(_), .. }
                    if *severity == flipside_model::Severity::Error && text.contains(told))
            });
            assert!(found, "{told} is not in {entries:#?}");
        }
        (bench.config.system_disks, bench.config.data_disks) = Default::default();
        expect(bench.command(Command::Check).await, S::Idle);
    });
}

// Invariant 20: what was established stays for the session, whatever the guest says after a restart of the server.
#[test]
fn roles_outlive_the_server_and_do_not_change_in_a_session() {
    run(|| async {
        let meant = [("data1", DiskRole::System)];
        let mark = |c: &mut flipside_model::UpgradeConfig| c.system_disks = vec![disk("data1")];
        let mut bench = marked((1, 2), mark, &meant, |_| {}).await;
        for call in [
            "guest.startup.*",
            "machine.start.*",
            "machine.fork_switch.*",
            "guest.close_data.*",
            "disk.unplug.*",
            "guest.open_data.*",
            "disk.carry_out.*",
            "machine.end.*",
        ] {
            bench.world.plan(Fault::next(call, FaultKind::CrashAfter));
            // A careful administrator may have to abort earlier than that.
            let mut at = bench.reach(Command::Split, S::Split).await.expect("split");
            if at == S::Split {
                at = bench.reach(Command::Merge, S::Merge).await.expect("merged");
            }
            if at == S::Merge {
                at = bench
                    .reach(Command::Abort, S::Abort)
                    .await
                    .expect("aborted");
            }
            assert_eq!(at, S::Abort, "{call}");
            bench
                .reach(Command::Finish, S::Idle)
                .await
                .expect("finished");
            bench.world.clear_plan();
            bench.duplex().await.expect("duplexed");
            bench.check().expect(call);
        }
    });
}

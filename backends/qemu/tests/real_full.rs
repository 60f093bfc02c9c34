//! File systems of the host that are full: real ones, a tmpfs in a mount namespace that each test has for itself.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_model::{Leg, LegRole, StaleReason};
use flipside_platform::{LegPort, MachinePort, PortErrorKind, RunState};
use machine::program::Program;
use machine::{Bench, M1, M2, disk, legs, until};
use std::path::Path;
use std::process::Command;

/// Set in the run that has a mount namespace of its own.
const INSIDE: &str = "FLIPSIDE_TEST_MOUNTS";

/// Runs a test again in a mount namespace of its own, and says whether this is that run. Nothing of it is left when it ends.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    let mount = ["mount", "-t", "tmpfs", "none", "/mnt"];
    let permitted = unshare().args(mount).status().is_ok_and(|s| s.success());
    if !permitted {
        println!("NOT RUN: this user may not mount a tmpfs, not even in a namespace of its own");
        return false;
    }
    let own = std::env::current_exe().expect("a program");
    let run = unshare()
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(
        run.expect("started").success(),
        "{test} failed in its namespace"
    );
    false
}

fn mount(size: &str, at: &Path) {
    std::fs::create_dir_all(at).expect("a directory");
    let mut command = Command::new("mount");
    command.args([
        "-t",
        "tmpfs",
        "-o",
        &format!("size={size},mode=700"),
        "none",
    ]);
    assert!(command.arg(at).status().expect("mount runs").success());
}

/// The largest number a leg of `data0` holds: how far the guest is, without its console.
fn reached(bench: &Bench, leg: Leg) -> u32 {
    let content = std::fs::read(bench.leg("data0", leg)).expect("read");
    (0..256)
        .map(|place| Program::BUSY.stored(&content, place))
        .max()
        .expect("many")
}

// Faults 17, 19 and 24: the file system of an enclosure is full when a leg on it grows. The leg is dropped, the guest sees no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_cannot_grow_is_dropped() {
    if !inside("a_leg_that_cannot_grow_is_dropped") {
        return;
    }
    let bench = Bench::new(&Program::BUSY).await;
    let enclosure = bench.dir.path().join("b");
    // The guest's 256 blocks need a page each: half of them fit.
    mount("512k", &enclosure);
    for name in ["system0", "data0"] {
        let (from, to) = (bench.leg(name, Leg::A), bench.leg(name, Leg::B));
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([from, to])
            .status();
        assert!(copied.expect("cp runs").success());
    }
    bench.system.store(&bench.book()).await.expect("stored");
    let guard = bench.guard().await;
    bench.boot().await;
    until("the leg is dropped", || async {
        bench.disk_view(M1, "data0").await.source == legs(&[Leg::A])
    })
    .await;
    bench.writes(M1, 300).await;
    let book = bench.system.load().await.expect("read");
    let LegRole::Stale(StaleReason::Failed(why)) = &book.disks[&disk("data0")].b.role else {
        panic!("{book:?}");
    };
    assert!(why.contains("No space left"), "{why}");
    assert_eq!(book.disks[&disk("system0")].b.role, LegRole::Live);
    assert!(
        guard
            .guard_events(0)
            .await
            .iter()
            .any(|e| e.what.contains("Dropped leg B of data0"))
    );
    bench.system.pause(M1).await.expect("paused");
    let last = bench.acknowledged(M1);
    let content = std::fs::read(bench.leg("data0", Leg::A)).expect("read");
    assert!((last - 255..=last).all(|n| Program::BUSY.stored(&content, n) >= n));
}

// Fault 24: the file system of the state directory is full, before a fork and while the Upgrade Side's throw-away copy grows.
// Production runs on, and the Upgrade Side can be ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_directory_stops_the_upgrade_side_only() {
    if !inside("a_full_state_directory_stops_the_upgrade_side_only") {
        return;
    }
    let bench = Bench::new(&Program::BUSY).await;
    let state = bench.dir.path().join("systems");
    mount("3m", &state);
    let book = bench.system.store(&bench.book()).await.expect("stored");
    bench.boot().await;
    bench.writes(M1, 20).await;

    // Full before the fork: it does not begin, and nothing of it is left.
    let filler = state.join("filler");
    let filled = std::fs::write(&filler, vec![1; 4 << 20]);
    assert!(filled.is_err(), "it is full now");
    let waits = flipside_platform::StartPlan {
        copy_limit: None,
        mode: flipside_platform::StartMode::Incoming { from: M1 },
        disks: [
            (disk("system0"), legs(&[Leg::B])),
            (
                disk("data0"),
                flipside_platform::DiskSource::Overlay(Leg::B),
            ),
        ]
        .into(),
    };
    let refused = bench.system.start(M2, &waits).await.expect_err("no room");
    println!("{refused:?}");
    assert_eq!(refused.kind, PortErrorKind::NoSpace, "{refused:?}");
    assert_eq!(bench.system.list().await.expect("listed"), vec![M1]);
    assert!(!state.join("web/m2").exists());
    let full = bench.system.store(&book).await.expect_err("no room");
    assert_eq!(full.kind, PortErrorKind::NoSpace, "{full:?}");
    assert_eq!(
        bench.system.load().await.expect("the old one is whole"),
        book
    );
    let before = reached(&bench, Leg::A);
    until("production writes", || async {
        reached(&bench, Leg::A) > before + 50
    })
    .await;

    // Full while divided: some two megabytes are left to the copy, and the guest would write sixteen.
    std::fs::remove_file(&filler).expect("removed");
    bench.await_fork().await;
    bench.system.fork_begin(M1, M2).await.expect("begun");
    until("the fork is ready", || async {
        bench.system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    let keep = [(disk("system0"), Leg::A), (disk("data0"), Leg::A)].into();
    let switched = bench.system.fork_switch(M1, M2, &keep).await;
    switched.expect("switched");
    // It may stop again so soon that continuing it is told as a failure.
    let _ = bench.system.resume(M2).await;
    bench.state(M2, RunState::IoError).await;
    let before = reached(&bench, Leg::A);
    until("production writes", || async {
        reached(&bench, Leg::A) > before + 300
    })
    .await;
    assert_eq!(bench.view(M1).await.run, RunState::Running);
    bench.system.end(M2).await.expect("ended");
    assert!(!state.join("web/m2").exists());
    assert_eq!(bench.view(M1).await.run, RunState::Running);
}

//! The machine, disk and leg ports on real QEMU. The guest is a boot sector that writes for ever, so a test takes
//! a second or two.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_model::{Leg, MachineId};
use flipside_platform::{
    DiskPort, DiskSource, MachinePort, PortErrorKind, ResyncPhase, ResyncStart, RunState,
    StartMode, StartPlan,
};
use machine::program::Program;
use machine::{Bench, M1, M2, MIB, disk, legs, until};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BOTH: [Leg; 2] = [Leg::A, Leg::B];

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_boots_on_both_legs_and_both_get_every_write() {
    let bench = Bench::new(&Program::QUIET).await;
    assert_eq!(bench.view(M1).await.run, RunState::Absent);
    let begun = Instant::now();
    bench.boot().await;
    println!("start {} ms", begun.elapsed().as_millis());
    let view = bench.view(M1).await;
    assert_eq!(view.run, RunState::Running);
    assert!(!view.link_up, "the link is down at first");
    assert_eq!(view.accelerator.as_deref(), Some("tcg"));
    for disk in view.disks.values() {
        assert_eq!((&disk.source, disk.dirty_bytes), (&legs(&BOTH), None));
    }
    bench.writes(M1, 50).await;
    println!("first writes {} ms", begun.elapsed().as_millis());

    bench.system.pause(M1).await.expect("paused");
    bench.system.pause(M1).await.expect("twice is once");
    assert_eq!(bench.view(M1).await.run, RunState::Paused);
    let number = bench.acknowledged(M1);
    for leg in BOTH {
        let content = std::fs::read(bench.leg("data0", leg)).expect("read");
        assert!(Program::QUIET.stored(&content, number) >= number);
    }
    assert!(bench.equal("data0"));
    bench.system.resume(M1).await.expect("continued");
    bench.writes(M1, 10).await;

    bench.system.set_link(M1, true).await.expect("raised");
    assert!(bench.view(M1).await.link_up);
    bench.system.set_link(M1, false).await.expect("lowered");
    assert!(!bench.view(M1).await.link_up);

    bench.system.reset(M1).await.expect("reset");
    bench.writes(M1, 10).await;
    assert_eq!(bench.system.list().await.expect("listed"), vec![M1]);
    bench.boot().await; // Starting twice is starting once.
    bench.system.end(M1).await.expect("ended");
    bench.system.end(M1).await.expect("twice is once");
    assert_eq!(bench.view(M1).await.run, RunState::Absent);
    assert!(bench.system.list().await.expect("listed").is_empty());
    assert!(!bench.dir.path().join("systems/web/m1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn legs_leave_and_return_while_the_machine_is_paused() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    let data0 = disk("data0");
    let refused = bench.system.set_legs(M1, &data0, &[Leg::B]).await;
    assert!(refused.expect_err("it runs").message.contains("paused"));

    bench.system.pause(M1).await.expect("paused");
    let begun = Instant::now();
    bench
        .system
        .set_legs(M1, &data0, &[Leg::B])
        .await
        .expect("swapped");
    println!("swap {} µs", begun.elapsed().as_micros());
    bench
        .system
        .set_legs(M1, &data0, &[Leg::B])
        .await
        .expect("twice is once");
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!((view.source, view.dirty_bytes), (legs(&[Leg::B]), Some(0)));
    bench.system.resume(M1).await.expect("continued");
    bench.writes(M1, 20).await;
    assert_eq!(bench.disk_view(M1, "data0").await.dirty_bytes, Some(65_536));
    bench.system.pause(M1).await.expect("paused");
    assert!(!bench.equal("data0"), "leg A is left behind");

    std::fs::copy(bench.leg("data0", Leg::B), bench.leg("data0", Leg::A)).expect("copied");
    bench
        .system
        .set_legs(M1, &data0, &[Leg::B, Leg::A])
        .await
        .expect("swapped");
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!(
        (view.source, view.dirty_bytes),
        (legs(&[Leg::B, Leg::A]), None)
    );
    bench.system.resume(M1).await.expect("continued");
    bench.writes(M1, 20).await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

// Fault 44: this guest never answers an unplug; a disk on the SCSI bus goes all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_unplugged_and_plugged_again() {
    let bench = Bench::new(&Program::SYSTEM).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    let data0 = disk("data0");
    let begun = Instant::now();
    bench.system.unplug(M1, &data0).await.expect("unplugged");
    println!("unplug {} ms", begun.elapsed().as_millis());
    bench
        .system
        .unplug(M1, &data0)
        .await
        .expect("twice is once");
    assert!(!bench.view(M1).await.disks.contains_key(&data0));
    let begun = Instant::now();
    bench
        .system
        .plug(M1, &data0, &[Leg::A])
        .await
        .expect("plugged");
    println!("plug {} ms", begun.elapsed().as_millis());
    bench
        .system
        .plug(M1, &data0, &[Leg::A])
        .await
        .expect("twice is once");
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!((view.source, view.dirty_bytes), (legs(&[Leg::A]), Some(0)));
    let other = bench.system.plug(M1, &data0, &[Leg::B]).await;
    assert_eq!(
        other.expect_err("another leg").kind,
        PortErrorKind::Mismatch
    );
    bench.writes(M1, 5).await;

    // A paused machine lets go as well: so it is at an abort in Merge.
    bench.system.pause(M1).await.expect("paused");
    bench.system.unplug(M1, &data0).await.expect("unplugged");
    bench.system.plug(M1, &data0, &BOTH).await.expect("plugged");
    assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&BOTH));
}

async fn fork(bench: &Bench) -> flipside_model::ForkFigures {
    bench.await_fork().await;
    assert_eq!(bench.view(M2).await.run, RunState::Incoming);
    bench.system.fork_begin(M1, M2).await.expect("begun");
    bench
        .system
        .fork_begin(M1, M2)
        .await
        .expect("twice is once");
    assert!(!bench.dir.path().join("systems/web/m2/fork.sock").exists());
    until("the fork is ready", || async {
        bench.system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    bench
        .system
        .fork_switch(M1, M2, &keep)
        .await
        .expect("switched")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_machine_is_forked() {
    let bench = Bench::new(&Program::BUSY).await;
    bench.boot().await;
    bench.system.set_link(M1, true).await.expect("raised");
    bench.writes(M1, 300).await;
    let before = bench.acknowledged(M1);
    let figures = fork(&bench).await;
    println!("fork {figures:?}");

    let (one, two) = (bench.view(M1).await, bench.view(M2).await);
    assert_eq!((one.run, two.run), (RunState::Running, RunState::Paused));
    assert!(one.link_up && !two.link_up);
    for name in ["system0", "data0"] {
        let view = &one.disks[&disk(name)];
        assert_eq!(view.source, legs(&[Leg::A]));
        assert!(view.dirty_bytes.is_some(), "{name} has a change bitmap");
    }
    let system = &two.disks[&disk("system0")];
    assert_eq!(
        (&system.source, system.dirty_bytes),
        (&legs(&[Leg::B]), Some(0))
    );
    assert_eq!(
        two.disks[&disk("data0")].source,
        DiskSource::Overlay(Leg::B)
    );
    // The frozen leg holds everything acknowledged before the fork began.
    let frozen = std::fs::read(bench.leg("data0", Leg::B)).expect("read");
    let recent = before.saturating_sub(255)..=before;
    assert!(
        recent
            .clone()
            .all(|n| Program::BUSY.stored(&frozen, n) >= n)
    );

    // Both go on by themselves; the Upgrade Side writes into its overlay only.
    bench.writes(M1, 300).await;
    bench.system.resume(M2).await.expect("continued");
    bench.writes(M2, 300).await;
    assert!(std::fs::read(bench.leg("data0", Leg::B)).expect("read") == frozen);
    assert!(bench.disk_view(M1, "data0").await.dirty_bytes >= Some(15 * MIB));

    let overlay = bench.dir.path().join("systems/web/m2/data0.overlay.qcow2");
    assert!(overlay.exists());
    bench
        .system
        .unplug(M2, &disk("data0"))
        .await
        .expect("unplugged");
    assert!(!overlay.exists(), "the throw-away copy is gone");
    bench.system.end(M2).await.expect("ended");
    bench.writes(M1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_given_up_leaves_the_source_as_it_was() {
    let bench = Bench::new(&Program::BUSY).await;
    bench.boot().await;
    bench.writes(M1, 50).await;
    // Without a fork there is nothing to give up.
    bench.system.fork_cancel(M1).await.expect("nothing to do");
    for ready in [false, true] {
        bench.await_fork().await;
        bench.system.fork_begin(M1, M2).await.expect("begun");
        if ready {
            until("the fork is ready", || async {
                bench.system.fork_poll(M1).await.expect("polled").ready
            })
            .await;
            assert_eq!(bench.view(M1).await.run, RunState::PreSwitchover);
            assert!(
                bench.system.resume(M1).await.is_err(),
                "not by mere continuing"
            );
        }
        bench.system.fork_cancel(M1).await.expect("given up");
        bench.system.fork_cancel(M1).await.expect("twice is once");
        let view = bench.view(M1).await;
        assert_eq!(view.run, RunState::Running);
        assert!(view.disks.values().all(|d| d.source == legs(&BOTH)));
        bench.system.end(M2).await.expect("ended");
        bench.writes(M1, 50).await;
    }
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

// A cancellation at the very moment the pause begins was lost in QEMU 7.2 and left production paused.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_can_be_given_up_at_any_moment() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    for moment in 0..12 {
        bench.await_fork().await;
        bench.system.fork_begin(M1, M2).await.expect("begun");
        tokio::time::sleep(Duration::from_millis(5 * moment)).await;
        let begun = Instant::now();
        bench.system.fork_cancel(M1).await.expect("given up");
        print!("{} ms ", begun.elapsed().as_millis());
        assert_eq!(bench.view(M1).await.run, RunState::Running);
        bench.system.end(M2).await.expect("ended");
        bench.writes(M1, 5).await;
    }
}

// Faults 26 and 31: the switch fails, or its reply is lost; production comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_fails_continues_the_source() {
    let bench = Bench::new(&Program::BUSY).await;
    bench.boot().await;
    bench.writes(M1, 50).await;
    bench.await_fork().await;
    bench.system.fork_begin(M1, M2).await.expect("begun");
    until("the fork is ready", || async {
        bench.system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    bench
        .system
        .end(M2)
        .await
        .expect("the other side dies in the pause");
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    bench
        .system
        .fork_switch(M1, M2, &keep)
        .await
        .expect_err("nobody is there");
    bench.system.fork_cancel(M1).await.expect("given up");
    bench.state(M1, RunState::Running).await;
    bench.writes(M1, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_both_sides_are_united() {
    let bench = Bench::new(&Program::SYSTEM).await;
    bench.boot().await;
    bench.writes(M1, 20).await;
    fork(&bench).await;
    let system0 = disk("system0");
    bench.writes(M1, 50).await;
    bench.system.resume(M2).await.expect("continued");
    bench.writes(M2, 50).await;
    // What only production changed: carried out, and it ends.
    bench.system.pause(M1).await.expect("paused");
    let carried = bench
        .system
        .carry_out(M1, &system0)
        .await
        .expect("carried out");
    let again = bench
        .system
        .carry_out(M1, &system0)
        .await
        .expect("twice is once");
    assert_eq!(carried, again);
    assert_eq!(carried.dirty_bytes, 16 * 65_536);
    bench.system.end(M1).await.expect("ended");
    let union = bench
        .system
        .carry_in(M2, &system0)
        .await
        .expect("carried in");
    assert_eq!(
        bench
            .system
            .carry_in(M2, &system0)
            .await
            .expect("twice is once"),
        union
    );
    assert_eq!(union, 16 * 65_536);
    bench.system.drop_carried(&system0).await.expect("removed");
    assert!(bench.system.carry_in(M2, &system0).await.is_err());

    // Commit: the old leg is rewritten from the upgraded side.
    let start = bench
        .system
        .resync_start(M2, &system0, Leg::B, Leg::A, ResyncStart::Bitmap, 0);
    start.await.expect("started");
    until("nearly done", || async {
        let view = bench
            .system
            .resync_poll(M2, &system0)
            .await
            .expect("polled");
        view.phase == ResyncPhase::Nearly
    })
    .await;
    let figures = bench
        .system
        .resync_finish(M2, &system0)
        .await
        .expect("finished");
    println!("commit {figures:?}");
    bench.writes(M2, 20).await;
    bench.system.pause(M2).await.expect("paused");
    assert!(bench.equal("system0"));
}

// Faults 16 and 18: a leg whose writes fail stops the guest; without it the write is repeated and succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_leg_is_dropped_and_no_write_is_lost() {
    let fault = json!({
        "driver": "blkdebug",
        "inject-error": [
            { "event": "write_aio", "iotype": "write", "errno": 5, "once": false, "sector": 128 + 9 },
        ],
    });
    let faults = BTreeMap::from([("data0/B".to_owned(), fault)]);
    let bench = Bench::with_faults(&Program::QUIET, faults).await;
    bench.boot().await;
    bench.state(M1, RunState::IoError).await;
    let acknowledged = bench.acknowledged(M1);
    assert_eq!(acknowledged, 8, "the ninth write fails");
    assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&BOTH));
    let hopeless = bench.system.resume(M1).await.expect_err("it fails again");
    assert!(hopeless.message.contains("disk"), "{hopeless}");
    bench.state(M1, RunState::IoError).await;

    let begun = Instant::now();
    bench
        .system
        .set_legs(M1, &disk("data0"), &[Leg::A])
        .await
        .expect("swapped");
    bench.system.resume(M1).await.expect("continued");
    println!("leg dropped in {} µs", begun.elapsed().as_micros());
    bench.writes(M1, 50).await;
    bench.system.pause(M1).await.expect("paused");
    let number = bench.acknowledged(M1);
    let content = std::fs::read(bench.leg("data0", Leg::A)).expect("read");
    for n in number - 15..=number {
        assert!(
            Program::QUIET.stored(&content, n) >= n,
            "{n} was acknowledged"
        );
    }

    // Fault 17: as the target of a resynchronisation the leg fails, and the guest runs on.
    bench.system.resume(M1).await.expect("continued");
    let data0 = disk("data0");
    let start = bench
        .system
        .resync_start(M1, &data0, Leg::A, Leg::B, ResyncStart::Bitmap, 0);
    start.await.expect("started");
    until("it failed", || async {
        matches!(bench.resync_phase().await, ResyncPhase::Failed(_))
    })
    .await;
    bench.state(M1, RunState::Running).await;
    bench.writes(M1, 50).await;
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!(view.source, legs(&[Leg::A]));
    assert!(
        view.dirty_bytes > Some(0),
        "the bitmap still says what differs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_outlives_its_server_and_is_adopted() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.system.disconnect().await;
    let restarted = bench.reopen();
    assert_eq!(restarted.list().await.expect("listed"), vec![M1]);
    assert_eq!(
        restarted.observe(M1).await.expect("observed").run,
        RunState::Running
    );
    bench.writes(M1, 10).await;

    // Even without its record it is known by its words.
    let launch = bench.dir.path().join("systems/web/m1/launch.json");
    let kept = std::fs::read_to_string(&launch).expect("read");
    let mut record: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
    record["process"] = json!(null);
    std::fs::write(&launch, record.to_string()).expect("written");
    assert_eq!(bench.reopen().list().await.expect("listed"), vec![M1]);
    assert!(restarted.reach(M1).expect("read").is_some());
    restarted.end(M1).await.expect("ended");
    assert!(restarted.list().await.expect("listed").is_empty());
}

// Fault 36: another machine behind the socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_machine_is_refused() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    let other = Bench::new(&Program::QUIET).await;
    other.boot().await;
    bench.system.disconnect().await;
    other.system.disconnect().await;
    let socket = |b: &Bench| b.dir.path().join("systems/web/m1/qmp.sock");
    std::fs::rename(socket(&other), socket(&bench)).expect("swapped");
    let restarted = bench.reopen();
    let refused = restarted.observe(M1).await.expect_err("foreign");
    assert_eq!(refused.kind, PortErrorKind::Mismatch);
    assert!(restarted.pause(M1).await.is_err(), "nothing is done to it");
    // Ending ends our own process, never the one behind the socket.
    restarted.end(M1).await.expect("ended");
    other.writes(M1, 10).await;
}

// Fault 29: a process that does not answer is unresponsive, and one that was killed is absent.
#[tokio::test(flavor = "multi_thread")]
async fn silence_and_death_are_told_apart() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    let pid = std::fs::read_to_string(bench.dir.path().join("systems/web/m1/pid")).expect("read");
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args([name, pid.trim()])
            .status();
        assert!(sent.expect("kill runs").success());
    };
    signal("-STOP");
    assert_eq!(bench.view(M1).await.run, RunState::Unresponsive);
    signal("-CONT");
    bench.state(M1, RunState::Running).await;
    signal("-KILL");
    bench.state(M1, RunState::Absent).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
}

// Fault 35: a leg in use is refused, and nothing of the second machine is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_leg_in_use_is_refused() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Boot { after: None },
        disks: [disk("system0")].map(|d| (d, legs(&[Leg::B]))).into(),
    };
    let refused = bench
        .system
        .start(MachineId(3), &plan)
        .await
        .expect_err("in use");
    assert_eq!(refused.kind, PortErrorKind::InUse, "{refused:?}");
    assert!(refused.advice.is_some());
    assert_eq!(bench.system.list().await.expect("listed"), vec![M1]);
    assert!(!bench.dir.path().join("systems/web/m3").exists());
    bench.writes(M1, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_described() {
    use flipside_platform::HostPort;
    let bench = Bench::new(&Program::QUIET).await;
    let begun = Instant::now();
    let facts = bench.system.facts().await.expect("probed");
    assert!(begun.elapsed() < Duration::from_secs(10));
    println!("{facts:?}");
    assert!(facts.hypervisor.starts_with("QEMU ") && facts.hypervisor_bad.is_none());
    assert!(facts.one_device && facts.memory_available_mib > 0 && facts.state_free_bytes > 0);
}

// Pitfall 22: each side has a variable store of its own.
#[tokio::test(flavor = "multi_thread")]
async fn uefi_variables_belong_to_one_side() {
    if !std::path::Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        println!("not run: OVMF is not installed");
        return;
    }
    let bench = Bench::uefi(&Program::QUIET).await;
    bench.boot().await;
    let vars = |name: &str| bench.dir.path().join("systems/web/vars").join(name);
    assert!(vars("m1.fd").exists());
    let figures = fork(&bench).await;
    println!("uefi fork {figures:?}");
    assert!(vars("m1.fd").exists() && vars("m2.fd").exists());
    bench.system.end(M1).await.expect("ended");
    bench.system.end(M2).await.expect("ended");
    assert!(vars("m2.fd").exists(), "they outlive the process");
    let marked = [7u8; 16];
    let mut kept = std::fs::read(vars("m2.fd")).expect("read");
    let end = kept.len() - 16;
    kept[end..].copy_from_slice(&marked);
    std::fs::write(vars("m2.fd"), &kept).expect("written");
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Boot { after: Some(M2) },
        disks: [disk("system0")].map(|d| (d, legs(&[Leg::B]))).into(),
    };
    bench
        .system
        .start(MachineId(3), &plan)
        .await
        .expect("started");
    let own = std::fs::read(vars("m3.fd")).expect("read");
    assert_eq!(&own[end..], &marked, "it boots with the current ones");
    assert!(
        !vars("m1.fd").exists() && !vars("m2.fd").exists(),
        "older ones go"
    );
}

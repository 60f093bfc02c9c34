//! Legs that are not what they were, jobs that end unheard, slow storage, and an administrator who acts behind our back, on
//! real QEMU with a boot sector for a guest.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_model::Leg;
use flipside_platform::{
    DiskPort, HostPort, LegPort, MachinePort, PortError, PortErrorKind, PortResult, ResyncPhase,
    ResyncStart, RunState, StartMode, StartPlan,
};
use flipside_qmp::QmpClient;
use machine::program::Program;
use machine::{Bench, M1, M2, MIB, disk, legs, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const BOTH: [Leg; 2] = [Leg::A, Leg::B];

/// Somebody else's connection: the guard's socket, which no guard uses here.
async fn stranger(bench: &Bench) -> QmpClient {
    let socket = bench.dir.path().join("systems/web/m1/guard.sock");
    let connected = QmpClient::connect(&socket, machine::PATIENCE).await;
    connected.expect("connected").0
}

async fn tell(qmp: &QmpClient, command: &str, arguments: Value) -> Value {
    let done = qmp.execute(command, arguments, machine::PATIENCE).await;
    done.expect("done")
}

fn plan(on: &[Leg]) -> StartPlan {
    StartPlan {
        copy_limit: None,
        mode: StartMode::Boot { after: None },
        disks: [disk("system0"), disk("data0")]
            .map(|d| (d, legs(on)))
            .into(),
    }
}

/// What a leg may have become while nobody looked; each can be taken back.
const CHANGES: [&str; 5] = ["shorter", "longer", "a copy", "a link", "gone"];

fn change(leg: &Path, how: &str) {
    let kept = leg.with_extension("kept");
    let size = leg.metadata().expect("there").len();
    let resize = |to| {
        std::fs::File::options()
            .write(true)
            .open(leg)
            .expect("opened")
            .set_len(to)
    };
    match how {
        "shorter" => resize(size - MIB).expect("cut"),
        "longer" => resize(size + MIB).expect("grown"),
        _ => std::fs::rename(leg, &kept).expect("moved"),
    }
    match how {
        "a copy" => drop(std::fs::copy(&kept, leg).expect("copied")),
        "a link" => symlink(&kept, leg).expect("linked"),
        _ => {}
    }
}

fn take_back(leg: &Path, how: &str, size: u64) {
    let kept = leg.with_extension("kept");
    if kept.exists() {
        std::fs::rename(&kept, leg).expect("moved back");
    }
    let file = std::fs::File::options().write(true).open(leg);
    file.expect("opened")
        .set_len(size)
        .unwrap_or_else(|e| panic!("{how}: {e}"));
}

fn refused(outcome: PortResult<()>, what: &str) -> PortError {
    let error = outcome.expect_err(what);
    assert_eq!(error.kind, PortErrorKind::Mismatch, "{what}: {error:?}");
    assert!(error.message.contains("leg "), "{what}: {error:?}");
    assert!(
        error.advice.is_some() && error.component.is_some(),
        "{what}"
    );
    error
}

// Fault 22: a leg that is not the recorded file is refused before anything opens it: at a start, below an overlay, when a disk is
// plugged or given the leg, and on both sides of a resynchronisation, copying what is marked or comparing all.
#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_became_another_file_is_refused_everywhere() {
    let bench = Bench::new(&Program::SYSTEM).await;
    let (system, data0) = (&bench.system, disk("data0"));
    system.store(&bench.book()).await.expect("stored");
    for (name, leg) in [("system0", Leg::A), ("data0", Leg::B)] {
        let path = bench.leg(name, leg);
        let size = path.metadata().expect("there").len();
        for how in CHANGES {
            change(&path, how);
            let error = refused(system.start(M1, &plan(&BOTH)).await, how);
            println!("{}", error.message);
            assert!(system.list().await.expect("listed").is_empty(), "{how}");
            assert!(!bench.dir.path().join("systems/web/m1").exists(), "{how}");
            take_back(&path, how, size);
        }
    }
    // A machine that runs goes on with the files it has: what was refused above is found by the readiness check only.
    bench.boot().await;
    bench.writes(M1, 10).await;
    let path = bench.leg("data0", Leg::B);
    change(&path, "a copy");
    system.disconnect().await;
    let adopted = bench.reopen();
    assert_eq!(
        adopted.observe(M1).await.expect("observed").run,
        RunState::Running
    );
    let wrong = adopted.check_legs().await.expect("examined");
    assert!(
        matches!(wrong.as_slice(), [found] if found.disk == disk("data0") && found.text.contains("replaced")),
        "{wrong:?}"
    );
    adopted.disconnect().await;
    take_back(&path, "a copy", 64 * MIB);

    for how in CHANGES {
        bench.simplex().await;
        for (name, leg) in [("the target", Leg::B), ("the source", Leg::A)] {
            let path = bench.leg("data0", leg);
            let before = std::fs::read(bench.leg("data0", Leg::B)).expect("read");
            change(&path, how);
            for kind in [ResyncStart::Bitmap, ResyncStart::Compare] {
                let started = system
                    .resync_start(M1, &data0, Leg::A, Leg::B, kind, 0)
                    .await;
                refused(started, &format!("{name} is {how}, {kind:?}"));
                assert_eq!(bench.resync_phase().await, ResyncPhase::None);
            }
            let compared = system.verify(&data0, 0, &|_, _| {}).await;
            refused(compared.map(drop), &format!("{name} is {how}, verify"));
            take_back(&path, how, 64 * MIB);
            assert!(before == std::fs::read(bench.leg("data0", Leg::B)).expect("read"));
        }
        change(&path, how);
        system.pause(M1).await.expect("paused");
        refused(system.set_legs(M1, &data0, &BOTH).await, how);
        assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&[Leg::A]));
        system.resume(M1).await.expect("continued");
        system.unplug(M1, &data0).await.expect("unplugged");
        refused(system.plug(M1, &data0, &BOTH).await, how);
        let mut waits = plan(&[Leg::B]);
        waits.mode = StartMode::Incoming { from: M1 };
        waits.disks.insert(
            data0.clone(),
            flipside_platform::DiskSource::Overlay(Leg::B),
        );
        refused(system.start(M2, &waits).await, how);
        take_back(&path, how, 64 * MIB);
        system.plug(M1, &data0, &BOTH).await.expect("plugged");
    }
    bench.writes(M1, 5).await;
}

// Fault 20: nothing that was recorded tells of a byte that changed by itself, so copying what is marked leaves it; `Commit` copies
// what is marked. Comparing the legs finds it, and a resynchronisation that compares puts it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_flipped_by_itself_is_found_by_a_comparison() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    let data0 = disk("data0");
    let at = 48 * MIB;
    for how in [ResyncStart::Bitmap, ResyncStart::Compare] {
        bench.simplex().await;
        bench.writes(M1, 20).await;
        let leg = std::fs::File::options()
            .write(true)
            .open(bench.leg("data0", Leg::B));
        leg.expect("opened")
            .write_all_at(&[0x40], at + 77)
            .expect("flipped");
        let started = bench
            .system
            .resync_start(M1, &data0, Leg::A, Leg::B, how, 0);
        started.await.expect("started");
        until("nearly done", || async {
            bench.resync_phase().await == ResyncPhase::Nearly
        })
        .await;
        let figures = bench
            .system
            .resync_finish(M1, &data0)
            .await
            .expect("finished");
        let verified = bench
            .system
            .verify(&data0, 0, &|_, _| {})
            .await
            .expect("compared");
        let damage = (!figures.compared).then_some(at);
        assert_eq!(verified.first_difference, damage, "{how:?}: {verified:?}");
        assert_eq!(
            verified.different_bytes > 0,
            damage.is_some(),
            "{verified:?}"
        );
        bench.system.pause(M1).await.expect("paused");
        assert_eq!(bench.equal("data0"), figures.compared, "{how:?}");
        bench.system.resume(M1).await.expect("continued");
    }
}

/// Gives machine 1 a limit on how fast legs behind the `slow` node are, in bytes per second.
async fn limit(bench: &Bench, bytes: u64) {
    let qmp = stranger(bench).await;
    let group =
        json!({ "qom-type": "throttle-group", "id": "slow", "limits": { "bps-total": bytes } });
    tell(&qmp, "object-add", group).await;
}

fn slow() -> BTreeMap<String, Value> {
    let node = json!({ "driver": "throttle", "throttle-group": "slow" });
    BTreeMap::from([("data0/B".to_owned(), node)])
}

// Fault 21: a leg that is slow and gets on is waited for, longer than any deadline is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "copies for longer than every deadline: `./dev test --full`"]
async fn a_slow_leg_that_gets_on_is_waited_for() {
    let bench = Bench::with_faults(&Program::BUSY, slow()).await;
    bench.boot_on(&[Leg::A]).await;
    bench.writes(M1, 300).await;
    limit(&bench, MIB).await;
    bench.simplex().await;
    bench.writes(M1, 300).await;
    // A guest that writes would make more and more of it.
    bench.system.pause(M1).await.expect("paused");
    std::fs::copy(bench.leg("data0", Leg::A), bench.leg("data0", Leg::B)).expect("copied");
    let begun = Instant::now();
    let data0 = disk("data0");
    let how = ResyncStart::Bitmap;
    bench
        .system
        .set_legs(M1, &data0, &[Leg::A])
        .await
        .expect("set");
    let started = bench
        .system
        .resync_start(M1, &data0, Leg::A, Leg::B, how, 0);
    started.await.expect("started");
    until("nearly done", || async {
        let phase = bench.resync_phase().await;
        assert!(!matches!(phase, ResyncPhase::Failed(_)), "{phase:?}");
        phase == ResyncPhase::Nearly
    })
    .await;
    println!("{} ms", begun.elapsed().as_millis());
    // Every deadline of a command is 10 s.
    assert!(begun.elapsed() > Duration::from_secs(10));
    bench
        .system
        .resync_finish(M1, &data0)
        .await
        .expect("finished");
    assert!(bench.equal("data0"));
}

// Faults 21 and 34: a leg that needs ten seconds for a block is given up after five without progress, and the guest, whose own
// writes waited for it, runs. (QEMU cannot take back a request under way: a target that hangs for minutes is told as a time-out.)
#[tokio::test(flavor = "multi_thread")]
async fn a_leg_on_which_nothing_gets_on_is_given_up() {
    let two_blocks = Program {
        spread: 1,
        stride: 7,
        ..Program::QUIET
    };
    let bench = Bench::with_faults(&two_blocks, slow()).await;
    bench.boot_on(&[Leg::A]).await;
    bench.simplex().await;
    bench.writes(M1, 20).await;
    // The first block passes at once, the second takes ten seconds.
    limit(&bench, 6_554).await;
    let data0 = disk("data0");
    let how = ResyncStart::Bitmap;
    let started = bench
        .system
        .resync_start(M1, &data0, Leg::A, Leg::B, how, 0);
    started.await.expect("started");
    let begun = Instant::now();
    until("it is given up", || async {
        match bench.resync_phase().await {
            ResyncPhase::Failed(why) => {
                assert!(why.contains("no progress"), "{why}");
                true
            }
            ResyncPhase::Copying => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
    println!("given up after {} ms", begun.elapsed().as_millis());
    bench.writes(M1, 20).await;
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!(
        (view.source, view.dirty_bytes),
        (legs(&[Leg::A]), Some(2 * 65_536))
    );
}

// Faults 33 and 34: a round that ends while nobody is connected, well or with an error, is known afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_ends_unheard_is_known_afterwards() {
    let bad = json!({ "driver": "blkdebug", "inject-error": [
        { "event": "none", "iotype": "write", "errno": 28, "once": false },
    ]});
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.simplex().await;
    bench.writes(M1, 20).await;
    // It would answer the failing write itself by stopping.
    bench.system.pause(M1).await.expect("paused");
    let data0 = disk("data0");
    for (faults, well) in [
        (BTreeMap::from([("data0/B".to_owned(), bad)]), false),
        (BTreeMap::new(), true),
    ] {
        bench.system.disconnect().await;
        let first = bench.open_with(faults);
        let how = ResyncStart::Bitmap;
        let started = first.resync_start(M1, &data0, Leg::A, Leg::B, how, 0);
        started.await.expect("started");
        drop(first);
        let qmp = stranger(&bench).await;
        until("the round ends", || async {
            tell(&qmp, "query-jobs", json!({})).await[0]["status"] == "concluded"
        })
        .await;
        drop(qmp);
        let second = bench.reopen();
        let phase = second.resync_poll(M1, &data0).await.expect("polled").phase;
        if well {
            assert_eq!(phase, ResyncPhase::Nearly);
            second.resync_finish(M1, &data0).await.expect("finished");
        } else {
            let ResyncPhase::Failed(why) = phase else {
                panic!("{phase:?}");
            };
            assert!(why.contains("No space left"), "{why}");
            assert_eq!(
                second.observe(M1).await.expect("observed").disks[&data0].dirty_bytes,
                Some(65_536)
            );
        }
        second.disconnect().await;
    }
    assert!(bench.equal("data0"));
}

// Fault 66: what an administrator does behind our back is seen in the machine's own answers, and nothing of it is put right
// without being asked. QEMU itself refuses to close a leg that is in use.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_behind_our_back_is_seen() {
    let bench = Bench::new(&Program::SYSTEM).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    let qmp = stranger(&bench).await;
    let data0 = disk("data0");
    let before = bench.view(M1).await;
    for node in ["leg-data0-a", "root-data0-1-ab", "file-data0-b"] {
        let closed = qmp.execute(
            "blockdev-del",
            json!({ "node-name": node }),
            machine::PATIENCE,
        );
        assert!(closed.await.is_err(), "{node}");
    }
    assert_eq!(bench.view(M1).await, before);

    tell(&qmp, "stop", json!({})).await;
    assert_eq!(bench.view(M1).await.run, RunState::Paused);
    tell(&qmp, "cont", json!({})).await;
    assert_eq!(bench.view(M1).await.run, RunState::Running);

    // A bitmap that was turned off says too little, and counts as none.
    bench.simplex().await;
    let mark = json!({ "node": "leg-data0-a", "name": "changes" });
    tell(&qmp, "block-dirty-bitmap-disable", mark.clone()).await;
    assert_eq!(bench.disk_view(M1, "data0").await.dirty_bytes, None);
    let start = |how| {
        bench
            .system
            .resync_start(M1, &data0, Leg::A, Leg::B, how, 0)
    };
    let refused = start(ResyncStart::Bitmap)
        .await
        .expect_err("not to be trusted");
    assert_eq!(refused.kind, PortErrorKind::Mismatch);
    tell(&qmp, "block-dirty-bitmap-enable", mark).await;

    // Another root below the guest's disk.
    bench.system.pause(M1).await.expect("paused");
    let other = json!({ "driver": "null-co", "node-name": "other", "size": 64 * MIB });
    tell(&qmp, "blockdev-add", other).await;
    let drive = json!({
        "path": "/machine/peripheral/dev-data0", "property": "drive", "value": "other",
    });
    tell(&qmp, "qom-set", drive).await;
    let foreign = bench.system.observe(M1).await.expect_err("not ours");
    assert_eq!(foreign.kind, PortErrorKind::Mismatch);
    assert_eq!(foreign.component.as_deref(), Some("data0"));
    let set = bench.system.set_legs(M1, &data0, &BOTH).await;
    assert_eq!(set.expect_err("not ours").kind, PortErrorKind::Mismatch);
    let drive = json!({
        "path": "/machine/peripheral/dev-data0", "property": "drive", "value": "root-data0-2-a",
    });
    tell(&qmp, "qom-set", drive).await;
    assert_eq!(bench.disk_view(M1, "data0").await.source, legs(&[Leg::A]));
    bench.system.resume(M1).await.expect("continued");

    tell(&qmp, "device_del", json!({ "id": "dev-data0" })).await;
    until("the disk is gone", || async {
        !bench.view(M1).await.disks.contains_key(&data0)
    })
    .await;
    bench.writes(M1, 5).await;
    tell(&qmp, "quit", json!({})).await;
    bench.state(M1, RunState::Absent).await;
    assert!(bench.system.list().await.expect("listed").is_empty());
}

/// A QEMU whose disks may be written by somebody beside the guest: a boot sector can neither discard nor write zeroes.
fn shared(dir: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("qemu-shared");
    let script = "#!/bin/sh\nn=$#\nwhile [ $n -gt 0 ]; do\n  w=$1; shift; n=$((n - 1))\n  \
                  case $w in *'\"driver\":\"scsi-hd\"'*) w=\"${w%\\}},\\\"share-rw\\\":true}\";; esac\n  \
                  set -- \"$@\" \"$w\"\ndone\nexec qemu-system-x86_64 \"$@\"\n";
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
    path
}

// Fault 23: discards and writes of zeroes all over the disk while its other leg is rewritten; both legs are equal in the end.
#[tokio::test(flavor = "multi_thread")]
async fn discards_and_zeroes_during_a_resynchronisation_reach_both_legs() {
    let bench = Bench::with_qemu(&Program::BUSY, shared).await;
    bench.boot().await;
    bench.writes(M1, 300).await;
    bench.simplex().await;
    let qmp = stranger(&bench).await;
    let socket = bench.dir.path().join("storm.sock");
    let address = json!({ "addr": { "type": "unix", "data": { "path": &socket } } });
    tell(&qmp, "nbd-server-start", address).await;
    let export = json!({
        "type": "nbd", "id": "storm", "node-name": "root-data0-2-a", "name": "leg", "writable": true,
    });
    tell(&qmp, "block-export-add", export).await;
    let uri = format!("nbd+unix:///leg?socket={}", socket.display());
    let storm = async |seed: u64| {
        let mut client = tokio::process::Command::new("qemu-io");
        client.args(["-f", "raw", "-d", "unmap"]);
        for step in 0..60 {
            let at = (seed * 7919 + step * 1_048_583) % (60 * MIB) / 4096 * 4096;
            let command = match step % 4 {
                0 => format!("discard {at} 1M"),
                1 => format!("write -z {at} 256k"),
                2 => format!("write -z -u {at} 512k"),
                _ => format!("write -P {} {at} 192k", step + 1),
            };
            client.args(["-c", &command]);
        }
        let done = client.arg(&uri).output().await.expect("qemu-io runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && !said.contains("failed"), "{said}");
    };
    storm(1).await;
    let data0 = disk("data0");
    let how = ResyncStart::Bitmap;
    let started = bench
        .system
        .resync_start(M1, &data0, Leg::A, Leg::B, how, 16 * MIB);
    started.await.expect("started");
    for seed in 2..6 {
        storm(seed).await;
        let phase = bench.resync_phase().await;
        assert!(
            !matches!(phase, ResyncPhase::Failed(_) | ResyncPhase::None),
            "{phase:?}"
        );
    }
    tell(
        &qmp,
        "block-export-del",
        json!({ "id": "storm", "mode": "hard" }),
    )
    .await;
    until("nearly done", || async {
        bench.resync_phase().await == ResyncPhase::Nearly
    })
    .await;
    let figures = bench
        .system
        .resync_finish(M1, &data0)
        .await
        .expect("finished");
    println!("{figures:?}");
    bench.writes(M1, 20).await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

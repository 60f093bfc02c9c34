//! Disks that fail, on real QEMU, in every situation that exists without an operating system: mirrored, divided, handed
//! over, and while a leg is rewritten. The guest is a boot sector that writes for ever, and often reads back what it wrote.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_backend_qemu::QemuSystem;
use flipside_model::{DiskName, Leg, LegBook, LegRole, MachineId, StaleReason};
use flipside_platform::{
    DiskPort, DiskSource, LegPort, MachinePort, ResyncPhase, ResyncStart, RunState,
};
use machine::program::Program;
use machine::{Bench, M1, M2, MIB, disk, legs, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BOTH: [Leg; 2] = [Leg::A, Leg::B];
const EIO: u32 = 5;
const ENOSPC: u32 = 28;

/// Writes to both disks in turn and reads back what it wrote.
const ALL: Program = Program {
    drive: 0x80,
    alternate: true,
    reads: true,
    ..Program::QUIET
};

/// Requests of a kind fail: all writes, all flushes, or reads of one place of the guest's, for it has to boot.
fn failing(name: &str, kind: &str, errno: u32) -> Value {
    let mut rule = json!({ "event": "none", "iotype": kind, "errno": errno, "once": false });
    if kind == "read" {
        // In turn even numbers go to one disk and odd ones to the other.
        let place = if name == "system0" { 8 } else { 9 };
        rule["sector"] = json!(machine::program::FIRST_SECTOR + place);
    }
    json!({ "driver": "blkdebug", "inject-error": [rule] })
}

fn faults(of: &[(&str, Value)]) -> BTreeMap<String, Value> {
    of.iter()
        .map(|(leg, fault)| ((*leg).to_owned(), fault.clone()))
        .collect()
}

/// The numbers the guest acknowledged last are on a leg of the disk they were written to.
fn holds_what_was_acknowledged(bench: &Bench, program: &Program, name: &str, leg: Leg) {
    let last = bench.acknowledged(M1);
    let content = std::fs::read(bench.leg(name, leg)).expect("read");
    let first = if program.drive == 0x80 {
        "system0"
    } else {
        "data0"
    };
    for number in last.saturating_sub(15)..=last {
        let odd = program.alternate && number % 2 == 1;
        if (name == first) != odd {
            let stored = program.stored(&content, number);
            assert!(stored >= number, "{name}/{leg} holds {stored} for {number}");
        }
    }
}

/// The guard looks for machines every second; a failed flush is dealt with in milliseconds then.
const HEARD: std::time::Duration = std::time::Duration::from_secs(3);
const FLUSHES: u32 = 10;

/// Pauses and continues the machine, which flushes its disks, until the guard has dropped a leg for it. What it is not there
/// to hear, because it has just found the machine, is not said again; a guest's own flush would stop the guest.
async fn flush_until_heard(bench: &Bench, bad: &[(&str, Leg, u32)]) {
    let heard = async || {
        let mut any = false;
        for (name, leg, _) in bad {
            any |= bench.disk_view(M1, name).await.source == legs(&[leg.other()]);
        }
        any
    };
    for _ in 0..FLUSHES {
        bench.system.pause(M1).await.expect("paused");
        bench.system.resume(M1).await.expect("continued");
        let until = std::time::Instant::now() + HEARD;
        while std::time::Instant::now() < until {
            if heard().await {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    panic!("the guard heard of none of {FLUSHES} failed flushes");
}

/// One leg of each disk fails while both are mirrored.
async fn duplexed(kind: &str, bad: &[(&str, Leg, u32)]) {
    let keys: Vec<String> = bad.iter().map(|(d, l, _)| format!("{d}/{l}")).collect();
    let chain = keys.iter().zip(bad);
    let chain = chain.map(|(key, (name, _, errno))| (key.as_str(), failing(name, kind, *errno)));
    let bench = Bench::with_faults(&ALL, faults(&chain.collect::<Vec<_>>())).await;
    bench.system.store(&bench.book()).await.expect("stored");
    let guard = bench.guard().await;
    bench.boot().await;
    if kind == "flush" {
        // Nothing flushes a boot sector's writes but a pause.
        bench.writes(M1, 20).await;
        flush_until_heard(&bench, bad).await;
    }
    for (name, leg, _) in bad {
        until(&format!("{kind}: {name}/{leg} is dropped"), || async {
            bench.disk_view(M1, name).await.source == legs(&[leg.other()])
        })
        .await;
    }
    bench.writes(M1, 40).await;
    bench.system.pause(M1).await.expect("paused");
    let book = bench.system.load().await.expect("read");
    for spec in &bench.system.spec().disks {
        let name = spec.name.as_str();
        let pair = &book.disks[&spec.name];
        let failed = bad.iter().find(|(d, _, _)| *d == name);
        let good = failed.map_or(&BOTH[..], |(_, leg, _)| match leg {
            Leg::A => &BOTH[1..],
            Leg::B => &BOTH[..1],
        });
        for leg in good {
            assert_eq!(pair.get(*leg).role, LegRole::Live, "{name}/{leg}");
            holds_what_was_acknowledged(&bench, &ALL, name, *leg);
        }
        if let Some((_, leg, errno)) = failed {
            assert_eq!(pair.authority, leg.other());
            let LegRole::Stale(StaleReason::Failed(why)) = &pair.get(*leg).role else {
                panic!("{name}/{leg} is {:?}", pair.get(*leg).role);
            };
            let words = if *errno == EIO {
                "Input/output"
            } else {
                "No space"
            };
            assert!(why.contains(kind) && why.contains(words), "{why}");
        }
        assert_eq!(bench.disk_view(M1, name).await.source, legs(good), "{name}");
    }
    let told = guard.guard_events(0).await;
    println!("{kind} {bad:?}: {} acts", told.len());
}

// Faults 16, 17 and 19.
#[tokio::test(flavor = "multi_thread")]
async fn each_leg_of_each_disk_may_fail_its_writes() {
    duplexed(
        "write",
        &[("system0", Leg::A, EIO), ("data0", Leg::B, ENOSPC)],
    )
    .await;
    duplexed(
        "write",
        &[("system0", Leg::B, ENOSPC), ("data0", Leg::A, EIO)],
    )
    .await;
}

// Faults 16 and 19: the second leg is read only when the first fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_leg_that_is_read_may_fail_its_reads() {
    duplexed("read", &[("system0", Leg::A, EIO), ("data0", Leg::A, EIO)]).await;
}

// Faults 16 and 19.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not reliable yet: what the guard makes of a flush that failed in a pause depends on when it came: `./dev test --full`"]
async fn each_leg_of_each_disk_may_fail_its_flushes() {
    duplexed("flush", &[("system0", Leg::A, EIO), ("data0", Leg::B, EIO)]).await;
    duplexed(
        "flush",
        &[("system0", Leg::B, EIO), ("data0", Leg::A, ENOSPC)],
    )
    .await;
}

/// Forks machine 1; legs that machine 2 opens have these faults. The book says what a split session's does.
async fn divide(bench: &Bench, of: &[(&str, Value)]) -> LegBook {
    let upgrade = bench.open_with(faults(of));
    let plan = flipside_platform::StartPlan {
        copy_limit: None,
        mode: flipside_platform::StartMode::Incoming { from: M1 },
        disks: BTreeMap::from([
            (disk("system0"), legs(&[Leg::B])),
            (disk("data0"), DiskSource::Overlay(Leg::B)),
        ]),
    };
    upgrade.start(M2, &plan).await.expect("started");
    upgrade.disconnect().await;
    bench.system.fork_begin(M1, M2).await.expect("begun");
    until("the fork is ready", || async {
        bench.system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    let mut book = bench.book();
    for (name, pair) in &mut book.disks {
        let system = name.as_str() == "system0";
        pair.b.role = if system {
            LegRole::Upgraded
        } else {
            LegRole::Frozen
        };
        if system {
            pair.a.role = LegRole::Original;
        }
    }
    let book = bench.system.store(&book).await.expect("stored");
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    let switched = bench.system.fork_switch(M1, M2, &keep).await;
    switched.expect("switched");
    // One whose leg fails stops at its first write.
    let resumed = bench.system.resume(M2).await;
    assert!(resumed.is_ok() || !of.is_empty(), "{resumed:?}");
    book
}

// Fault 18: the Upgrade Side's own leg fails. It stops; Production notices nothing, and the split can be given up.
#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_sides_leg_may_fail_while_divided() {
    let bench = Bench::new(&Program::SYSTEM).await;
    bench.boot().await;
    bench.writes(M1, 20).await;
    let guard = bench.guard().await;
    let fault = failing("system0", "write", ENOSPC);
    let book = divide(&bench, &[("system0/B", fault)]).await;
    bench.state(M2, RunState::IoError).await;
    let upgraded = bench.acknowledged(M2);
    bench.writes(M1, 60).await;
    assert_eq!(bench.view(M2).await.run, RunState::IoError);
    assert_eq!(
        bench.acknowledged(M2),
        upgraded,
        "no write of it was acknowledged"
    );
    assert_eq!(
        bench.system.load().await.expect("read"),
        book,
        "nobody changed roles"
    );
    assert!(
        guard
            .guard_events(0)
            .await
            .iter()
            .all(|e| e.machine != Some(M2))
    );
    // Given up: the Upgrade Side ends, and its leg is rewritten from Production's.
    bench.system.end(M2).await.expect("ended");
    resynchronised(&bench.system, M1, "system0", Leg::A).await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("system0"));
    holds_what_was_acknowledged(&bench, &Program::SYSTEM, "system0", Leg::A);
}

// Faults 16 and 19: the only leg Production has of its data fails while divided. It stops and stays stopped: its disk is not
// exchanged for the other side's, which is older, and the Upgrade Side is neither harmed nor promoted.
#[tokio::test(flavor = "multi_thread")]
async fn productions_only_leg_may_fail_while_divided() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.writes(M1, 20).await;
    let guard = bench.guard().await;
    let book = divide(&bench, &[]).await;
    let data0 = disk("data0");
    bench.system.unplug(M1, &data0).await.expect("unplugged");
    bench.system.disconnect().await;
    let failing = bench.open_with(faults(&[("data0/A", failing("data0", "write", EIO))]));
    failing.plug(M1, &data0, &[Leg::A]).await.expect("plugged");
    failing.reset(M1).await.expect("reset");
    failing.disconnect().await;
    bench.state(M1, RunState::IoError).await;
    until("the guard says so", || async {
        let events = guard.guard_events(0).await;
        events
            .iter()
            .any(|e| e.why.contains("the only leg of data0"))
    })
    .await;
    bench.writes(M2, 20).await;
    let view = bench.view(M1).await;
    assert_eq!(view.run, RunState::IoError);
    assert_eq!(view.disks[&data0].source, legs(&[Leg::A]));
    assert!(!bench.view(M2).await.link_up);
    assert_eq!(bench.system.load().await.expect("read"), book);
}

/// Starts a resynchronisation and waits until it has failed.
async fn fails(
    system: &QemuSystem,
    id: MachineId,
    name: &str,
    from: Leg,
    how: ResyncStart,
) -> String {
    let name = disk(name);
    let started = system
        .resync_start(id, &name, from, from.other(), how, 0)
        .await;
    started.expect("started");
    let why = std::sync::Mutex::new(String::new());
    until("the resynchronisation fails", || async {
        let view = system.resync_poll(id, &name).await.expect("polled");
        assert_ne!(view.phase, ResyncPhase::Nearly, "not treated as success");
        let ResyncPhase::Failed(said) = view.phase else {
            return false;
        };
        *why.lock().expect("not poisoned") = said;
        true
    })
    .await;
    system.resync_cancel(id, &name).await.expect("given up");
    why.into_inner().expect("not poisoned")
}

async fn resynchronised(system: &QemuSystem, id: MachineId, name: &str, from: Leg) {
    let name = disk(name);
    let how = ResyncStart::Bitmap;
    let started = system
        .resync_start(id, &name, from, from.other(), how, 0)
        .await;
    started.expect("started");
    until("nearly done", || async {
        let view = system.resync_poll(id, &name).await.expect("polled");
        assert!(!matches!(view.phase, ResyncPhase::Failed(_)), "{view:?}");
        view.phase == ResyncPhase::Nearly
    })
    .await;
    let finished = system.resync_finish(id, &name).await;
    println!("{:?}", finished.expect("finished"));
}

async fn changes(bench: &Bench, id: MachineId, name: &DiskName) -> u64 {
    let view = bench.disk_view(id, name.as_str()).await;
    view.dirty_bytes.expect("a bitmap that can be trusted")
}

// Faults 17, 19 and 34: after a merge the Upgrade Side has the data, and both stale legs fail while they are rewritten. It runs
// on alone, what differs stays known, and a leg that was mended becomes equal.
#[tokio::test(flavor = "multi_thread")]
async fn the_legs_that_are_rewritten_may_fail_after_a_merge() {
    let program = Program { stride: 7, ..ALL };
    let bench = Bench::new(&program).await;
    bench.boot().await;
    bench.writes(M1, 20).await;
    divide(&bench, &[]).await;
    let data0 = disk("data0");
    bench.system.unplug(M1, &data0).await.expect("unplugged");
    bench.system.end(M1).await.expect("ended");
    bench.system.unplug(M2, &data0).await.expect("unplugged");
    bench
        .system
        .plug(M2, &data0, &[Leg::A])
        .await
        .expect("plugged");
    bench.system.reset(M2).await.expect("reset");
    bench.writes(M2, 40).await;
    for (name, from) in [("system0", Leg::B), ("data0", Leg::A)] {
        let to = format!("{name}/{}", from.other());
        for (kind, errno) in [("write", EIO), ("write", ENOSPC)] {
            bench.system.disconnect().await;
            let fault = failing(name, kind, errno);
            let bad = bench.open_with(faults(&[(to.as_str(), fault)]));
            let why = fails(&bad, M2, name, from, ResyncStart::Bitmap).await;
            bad.disconnect().await;
            println!("{to} {errno}: {why}");
            bench.state(M2, RunState::Running).await;
            bench.writes(M2, 20).await;
            let view = bench.disk_view(M2, name).await;
            assert_eq!(view.source, legs(&[from]));
            assert!(changes(&bench, M2, &disk(name)).await > 0);
        }
    }
    // Data taken over at a merge has no bitmap of what its other leg lacks from before: it is compared as a whole.
    resynchronised(&bench.system, M2, "system0", Leg::B).await;
    let started = bench
        .system
        .resync_start(M2, &data0, Leg::A, Leg::B, ResyncStart::Compare, 0);
    started.await.expect("started");
    until("nearly done", || async {
        let view = bench.system.resync_poll(M2, &data0).await.expect("polled");
        view.phase == ResyncPhase::Nearly
    })
    .await;
    bench
        .system
        .resync_finish(M2, &data0)
        .await
        .expect("finished");
    bench.system.pause(M2).await.expect("paused");
    assert!(bench.equal("data0"));
}

// Faults 17 and 34: the source cannot be read while the other leg is rewritten. The copy fails, the guest is not stopped, and the
// leg stays stale.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_may_fail_while_a_leg_is_rewritten() {
    let bad = |name| failing(name, "read", EIO);
    let program = Program {
        reads: false,
        ..ALL
    };
    let bench = Bench::with_faults(
        &program,
        faults(&[("system0/A", bad("system0")), ("data0/A", bad("data0"))]),
    )
    .await;
    bench.boot().await;
    bench.writes(M1, 20).await;
    bench.system.pause(M1).await.expect("paused");
    for name in ["system0", "data0"] {
        let set = bench.system.set_legs(M1, &disk(name), &[Leg::A]).await;
        set.expect("set");
    }
    bench.system.resume(M1).await.expect("continued");
    bench.writes(M1, 40).await;
    for name in ["system0", "data0"] {
        let why = fails(&bench.system, M1, name, Leg::A, ResyncStart::Bitmap).await;
        println!("{name}: {why}");
        bench.state(M1, RunState::Running).await;
        bench.writes(M1, 20).await;
        assert_eq!(bench.disk_view(M1, name).await.source, legs(&[Leg::A]));
        assert_eq!(changes(&bench, M1, &disk(name)).await, 65_536);
        holds_what_was_acknowledged(&bench, &program, name, Leg::A);
    }
    assert!(bench.leg("data0", Leg::B).metadata().expect("there").len() == 64 * MIB);
}

//! The guard as a real process beside real machines.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "guard/process.rs"]
mod process;
#[path = "guard/world.rs"]
mod world;

use flipside_model::*;
use flipside_platform::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use world::*;

fn both() -> DiskSource {
    DiskSource::Legs(vec![Leg::A, Leg::B])
}

fn is_failed(role: &LegRole, word: &str) -> bool {
    matches!(role, LegRole::Stale(StaleReason::Failed(text)) if text.contains(word))
}

// Faults 16 and 17, design 3.2: the guest goes on without the failed leg and sees no error.
#[tokio::test]
async fn a_failing_write_costs_a_leg_and_no_error() {
    for (bad, errno, word) in [(Leg::B, 5, "write failed"), (Leg::A, 28, "No space left")] {
        let key = format!("system0/{bad}");
        let world = World::new(&[(&key, failing("write", SECTOR, errno))]).await;
        world.network.ensure().await.unwrap();
        world.boot(&[Leg::A, Leg::B]).await;
        let survivor = bad.other();
        until("the leg is dropped", || async {
            world.legs().await == DiskSource::Legs(vec![survivor])
        })
        .await;
        world.guest_writes_to(survivor).await;
        let pair = world.pair().await;
        assert_eq!(pair.authority, survivor);
        assert!(is_failed(&pair.get(bad).role, word), "{pair:?}");
        assert_eq!(pair.get(survivor).role, LegRole::Live);
        assert_eq!(world.counter(bad), 0);
        // What is written from now on is tracked.
        let view = world.system.observe(M1).await.unwrap();
        assert!(view.disks[&disk()].dirty_bytes.is_some());
        let event = world.hears("Dropped leg").await;
        assert_eq!(
            (event.machine, event.severity),
            (Some(M1), Severity::Warning)
        );
        assert!(event.why.contains(word), "{event:?}");
        assert!(
            world
                .network
                .guard_events(event.sequence)
                .await
                .iter()
                .all(|e| e.sequence > event.sequence)
        );
    }
}

// Fault 16.
// A guard that starts after the failure learns by repeating the request.
#[tokio::test]
async fn a_guest_that_waits_on_a_failed_disk_is_helped_by_a_new_guard() {
    let world = World::new(&[("system0/B", failing("write", SECTOR, 5))]).await;
    world.boot(&[Leg::A, Leg::B]).await;
    until("it stops", || async {
        world.run().await == RunState::IoError
    })
    .await;
    world.network.ensure().await.unwrap();
    until("the leg is dropped", || async {
        world.legs().await == DiskSource::Legs(vec![Leg::A])
    })
    .await;
    world.guest_writes_to(Leg::A).await;
    world.hears("to repeat its request").await;
}

// The crash point between recording a stale leg and dropping it.
#[tokio::test]
async fn a_drop_that_was_recorded_is_finished() {
    let world = World::new(&[("system0/A", failing("write", SECTOR, 5))]).await;
    world.boot(&[Leg::A, Leg::B]).await;
    until("it stops", || async {
        world.run().await == RunState::IoError
    })
    .await;
    world
        .edit(|book| {
            let pair = book.disks.get_mut(&disk()).unwrap();
            pair.a.role = LegRole::Stale(StaleReason::Failed("x".to_owned()));
            pair.authority = Leg::B;
        })
        .await;
    world.network.ensure().await.unwrap();
    until("the leg is dropped", || async {
        world.legs().await == DiskSource::Legs(vec![Leg::B])
    })
    .await;
    world.guest_writes_to(Leg::B).await;
}

// The guard is killed at many moments of its work; the next one finishes it, and the guest sees nothing.
#[tokio::test]
async fn a_guard_killed_at_any_moment_leaves_nothing_half_done() {
    for (kind, sector, bad) in [("write", SECTOR, Leg::B), ("read", 0, Leg::A)] {
        for delay in [0, 15, 30, 50, 80] {
            let key = format!("system0/{bad}");
            let world = World::new(&[(&key, failing(kind, sector, 5))]).await;
            world.network.ensure().await.unwrap();
            world.boot(&[Leg::A, Leg::B]).await;
            let begun =
                || async { world.run().await != RunState::Running || world.legs().await != both() };
            until("it begins", begun).await;
            tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
            world.kill_guard();
            world.network.ensure().await.unwrap();
            let done = || async { world.legs().await == DiskSource::Legs(vec![bad.other()]) };
            until("the leg is dropped", done).await;
            world.guest_writes_to(bad.other()).await;
            let pair = world.pair().await;
            assert_eq!(
                (pair.authority, pair.live()),
                (bad.other(), vec![bad.other()])
            );
        }
    }
}

// Fault 16.
// A read error is hidden by the quorum; the leg is dropped all the same.
#[tokio::test]
async fn a_hidden_read_error_costs_the_leg() {
    let world = World::new(&[("system0/A", failing("read", 0, 5))]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    until("the leg is dropped", || async {
        world.legs().await == DiskSource::Legs(vec![Leg::B])
    })
    .await;
    world.guest_writes_to(Leg::B).await;
    assert!(is_failed(&world.pair().await.a.role, "read failed"));
    // The guard's own pause is over, and so is its intent.
    until("no intent", || async {
        world.system.load().await.unwrap().pause_until_ms.is_none()
    })
    .await;
}

#[tokio::test]
async fn without_a_live_survivor_the_machine_is_left_alone() {
    let bad = || failing("write", SECTOR, 5);
    // Both legs fail; or the other leg is not live.
    for (chain, stale) in [
        (vec![("system0/A", bad()), ("system0/B", bad())], false),
        (vec![("system0/A", bad())], true),
    ] {
        let world = World::new(&chain).await;
        if stale {
            let role = LegRole::Stale(StaleReason::Session);
            world
                .edit(|book| book.disks.get_mut(&disk()).unwrap().b.role = role)
                .await;
        }
        world.network.ensure().await.unwrap();
        world.boot(&[Leg::A, Leg::B]).await;
        let before = world.system.load().await.unwrap();
        let said = world.hears("The guard leaves the machine as it is").await;
        assert_eq!(said.severity, Severity::Error);
        let word = if stale {
            "does not hold all its data"
        } else {
            "both legs"
        };
        world.hears(word).await;
        stays((RunState::IoError, both()), || async {
            (world.run().await, world.legs().await)
        })
        .await;
        assert_eq!(world.system.load().await.unwrap(), before);
    }
}

// Faults 17 and 34.
// A failing target of a copy never costs a leg: the copy is cancelled and the guest goes on.
#[tokio::test]
async fn a_failing_target_costs_only_the_copy() {
    let mut world = World::new(&[]).await;
    let stale = LegRole::Stale(StaleReason::Session);
    world
        .edit(|book| book.disks.get_mut(&disk()).unwrap().b.role = stale.clone())
        .await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A]).await;
    world.restart_server();
    let qmp = world.qmp().await;
    let mut fault = failing("write", SECTOR, 5);
    fault["node-name"] = json!("fault-system0-b");
    fault["image"] = json!({ "driver": "file", "filename": world.spec.disks[0].legs.b, "node-name": "file-system0-b" });
    let leg = json!({ "driver": "raw", "node-name": "leg-system0-b", "file": "fault-system0-b" });
    let backup = json!({
        "job-id": "resync-system0", "device": "leg-system0-a", "target": "leg-system0-b", "sync": "full",
        "speed": 1, "auto-dismiss": false,
    });
    let ask = async |command: &str, arguments: Value| {
        qmp.execute(command, arguments, LONG).await.unwrap()
    };
    ask("blockdev-add", fault).await;
    ask("blockdev-add", leg).await;
    ask("blockdev-backup", backup).await;
    world.hears("Cancelled the copy `resync-system0`").await;
    world.guest_writes_to(Leg::A).await;
    let jobs = ask("query-jobs", json!({})).await;
    assert_eq!(jobs[0]["status"], "concluded");
    drop(qmp);
    assert_eq!(world.legs().await, DiskSource::Legs(vec![Leg::A]));
    assert_eq!(world.pair().await.b.role, stale);
    assert!(
        !world
            .events()
            .await
            .iter()
            .any(|e| e.what.contains("Dropped"))
    );
}

#[tokio::test]
async fn only_the_owner_is_continued_and_only_when_its_pause_is_overdue() {
    let world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    world.guest_writes_to(Leg::A).await;
    // Not the owner, no owner, no intent, or the intent lasts: it stays paused.
    for (owner, until_ms) in [
        (Some(M2), Some(0)),
        (None, Some(0)),
        (Some(M1), None),
        (Some(M1), Some(now_ms() + 3_600_000)),
    ] {
        world
            .edit(|book| (book.owner, book.pause_until_ms) = (owner, until_ms))
            .await;
        world.system.pause(M1).await.unwrap();
        stays(RunState::Paused, || world.run()).await;
    }
    // Overdue: it is continued, and the intent is cleared.
    let due = now_ms() + 1500;
    world.edit(|book| book.pause_until_ms = Some(due)).await;
    until("it runs", || async {
        world.run().await == RunState::Running
    })
    .await;
    assert!(now_ms() >= due);
    until("no intent", || async {
        world.system.load().await.unwrap().pause_until_ms.is_none()
    })
    .await;
    world.guest_writes_to(Leg::B).await;
    world.hears("Continued the machine").await;
}

#[tokio::test]
async fn an_interrupted_swap_is_finished_before_the_guest_goes_on() {
    let mut world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    world.guest_writes_to(Leg::A).await;
    world
        .edit(|book| book.disks.get_mut(&disk()).unwrap().authority = Leg::B)
        .await;
    world.system.pause(M1).await.unwrap();
    world.restart_server();
    {
        let qmp = world.qmp().await;
        let kinds = ["read", "write", "flush"];
        let errors =
            kinds.map(|k| json!({ "event": "none", "iotype": k, "once": false, "errno": 5 }));
        let hole = json!({
            "driver": "blkdebug", "node-name": "hole-system0", "inject-error": errors,
            "image": { "driver": "null-co", "size": world.spec.disks[0].size },
        });
        qmp.execute("blockdev-add", hole, LONG).await.unwrap();
        let drive = json!({ "path": "/machine/peripheral/dev-system0", "property": "drive", "value": "hole-system0" });
        qmp.execute("qom-set", drive, LONG).await.unwrap();
    }
    assert_eq!(world.legs().await, DiskSource::Placeholder);
    world
        .edit(|book| book.pause_until_ms = Some(now_ms()))
        .await;
    until("it runs", || async {
        world.run().await == RunState::Running
    })
    .await;
    assert_eq!(world.legs().await, DiskSource::Legs(vec![Leg::B]));
    world.guest_writes_to(Leg::B).await;
    let pair = world.pair().await;
    assert!(
        is_failed(&pair.a.role, "interrupted") && pair.authority == Leg::B,
        "{pair:?}"
    );
}

#[tokio::test]
async fn a_fork_whose_server_died_in_its_pause_is_given_up() {
    let mut world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    world.guest_writes_to(Leg::A).await;
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Incoming { from: M1 },
        disks: BTreeMap::from([(disk(), DiskSource::Legs(vec![Leg::B]))]),
    };
    world.system.start(M2, &plan).await.unwrap();
    world.system.fork_begin(M1, M2).await.unwrap();
    until("the pause", || async {
        world.system.fork_poll(M1).await.unwrap().ready
    })
    .await;
    world.restart_server();
    assert_eq!(world.run().await, RunState::PreSwitchover);
    world
        .edit(|book| book.pause_until_ms = Some(now_ms() + 500))
        .await;
    until("it runs", || async {
        world.run().await == RunState::Running
    })
    .await;
    assert_eq!(world.legs().await, both());
    world.guest_writes_to(Leg::A).await;
    until("no intent", || async {
        world.system.load().await.unwrap().pause_until_ms.is_none()
    })
    .await;
}

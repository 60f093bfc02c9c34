//! The faults themselves: what they do to a call, to the server and to the machines.

mod common;

use common::{LONG, M1, M2, Story, data0, system0};
use flipside_backend_sim::{
    CallEnd, ClientWrite, Fault, FaultKind, GuestFault, LegFault, SimOptions, SimWorld,
};
use flipside_model::{Leg, LegRole, StaleReason};
use flipside_platform::{
    DiskSource, PortErrorKind, ResyncPhase, ResyncStart, RunState, StartMode, StartPlan,
};
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn failures_lost_replies_and_hangs_are_told_apart() {
    let story = Story::new().await;
    let (p, world) = (story.ports.clone(), story.world.clone());
    let kind = |r: flipside_platform::PortResult<()>| r.expect_err("a fault").kind;
    for (fault, answer, done) in [
        (FaultKind::FailBefore, PortErrorKind::Failed, false),
        (
            FaultKind::FailWith(PortErrorKind::NoSpace),
            PortErrorKind::NoSpace,
            false,
        ),
        (FaultKind::LostReply, PortErrorKind::TimedOut, true),
        (
            FaultKind::Hang { done: true },
            PortErrorKind::TimedOut,
            true,
        ),
        (
            FaultKind::Hang { done: false },
            PortErrorKind::TimedOut,
            false,
        ),
    ] {
        world.plan(Fault::next("machine.pause.*", fault.clone()));
        assert_eq!(kind(p.machine.pause(M1).await), answer, "{fault:?}");
        let run = world.view(M1).run;
        assert_eq!(run == RunState::Paused, done, "{fault:?}");
        p.machine.resume(M1).await.expect("continues");
    }
    world.plan(Fault::next("network.hold", FaultKind::Twice));
    p.network.hold().await.expect("holds");
    assert_eq!(world.clear_plan(), 0);
    let last = world.calls().pop().expect("a call");
    assert_eq!(
        (last.fault, last.end),
        (Some(FaultKind::Twice), CallEnd::Ok)
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_silences_the_old_server_for_ever() {
    let mut story = Story::new().await;
    let world = story.world.clone();
    let old = world.ports();
    world.plan(Fault::next("machine.pause.m1", FaultKind::CrashAfter));
    tokio::select! {
        _ = old.machine.pause(M1) => panic!("a dead server hears nothing"),
        () = world.await_crash() => {}
    }
    assert_eq!(world.view(M1).run, RunState::Paused, "machines live on");
    assert!(world.crashed() && !world.leased());
    world.restart_server();
    let zombie = tokio::time::timeout(LONG, old.machine.resume(M1)).await;
    assert!(zombie.is_err(), "a dead server does nothing");
    let new = world.ports();
    let lease = new.legs.lease().await.expect("it is free");
    story.lease = None;
    assert!(world.leased(), "the old lease frees nothing of the new");
    new.machine.resume(M1).await.expect("continues");
    drop(lease);
    assert!(!world.leased());
}

/// Plays a story until it ends or the server dies; true when it died.
async fn until_crash(world: &SimWorld, story: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = world.await_crash() => true,
        () = story => false,
    }
}

// Fault 1: the server dies at every call of a split, before, after and half-way; production serves on with the
// guard alone.
#[tokio::test(start_paused = true)]
async fn production_survives_every_crash_of_a_split() {
    let mut points = 0;
    let kinds = [
        FaultKind::CrashBefore,
        FaultKind::CrashAfter,
        FaultKind::TornCrash(1),
        FaultKind::TornCrash(2),
        FaultKind::TornCrash(3),
        FaultKind::TornCrash(5),
        FaultKind::TornCrash(7),
        FaultKind::TornCrash(8),
    ];
    for kind in kinds {
        for n in 1.. {
            let mut story = Story::new().await;
            let world = story.world.clone();
            world.clear_trace();
            world.plan(Fault::nth(n, kind.clone()));
            let crashed = until_crash(&world, async { story.split().await }).await;
            let last = world.calls().pop().expect("a call").name;
            if !crashed {
                break;
            }
            points += 1;
            world
                .check_invariants()
                .unwrap_or_else(|e| panic!("{kind:?} {n} {last}: {e}"));
            for _ in 0..3 {
                world.jump_clock(120_000);
                world.guard_tick().await;
                world
                    .check_invariants()
                    .unwrap_or_else(|e| panic!("guard after {kind:?} {n} {last}: {e}"));
            }
            assert!(
                world.client_write().acknowledged(),
                "{kind:?} {n} {last}: {:?}",
                world.serving()
            );
            world
                .check_invariants()
                .unwrap_or_else(|e| panic!("write after {kind:?} {n} {last}: {e}"));
        }
    }
    assert!(points > 150, "{points}");
}

async fn ready_to_switch() -> Story {
    let mut story = Story::new().await;
    let world = story.world.clone();
    world.plan(Fault::next(
        "machine.fork_switch.m1",
        FaultKind::CrashBefore,
    ));
    assert!(until_crash(&world, async { story.fork().await }).await);
    let mut story = Story {
        ports: world.ports(),
        ..story
    };
    world.restart_server();
    story.ports = world.ports();
    story.lease = Some(story.ports.legs.lease().await.expect("lease"));
    story
}

#[tokio::test(start_paused = true)]
async fn a_torn_switch_can_be_repeated_or_given_up() {
    let keep = BTreeMap::from([(system0(), Leg::A), (data0(), Leg::A)]);
    let mut seen = std::collections::BTreeSet::new();
    for parts in 0..10 {
        for repeat in [true, false] {
            let story = ready_to_switch().await;
            let (p, world) = (story.ports.clone(), story.world.clone());
            world.plan(Fault::next("machine.fork_switch.*", FaultKind::Torn(parts)));
            let torn = p.machine.fork_switch(M1, M2, &keep).await;
            assert!(torn.is_err());
            world.check_invariants().expect("torn");
            let view = world.view(M1);
            seen.insert(format!("{:?} {:?}", view.run, view.disks));
            if repeat {
                let again = p.machine.fork_switch(M1, M2, &keep).await;
                again.unwrap_or_else(|e| panic!("{parts}: {e}"));
                assert_eq!(world.view(M2).run, RunState::Paused);
            } else {
                p.machine.fork_cancel(M1).await.expect("gives up");
            }
            assert_eq!(world.view(M1).run, RunState::Running, "{parts}");
            assert!(world.client_write().acknowledged(), "{parts}");
            world.check_invariants().expect("afterwards");
        }
    }
    assert!(seen.len() >= 6, "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_torn_end_of_a_resync_is_finished_by_whoever_comes_next() {
    for parts in 1..=4 {
        let mut story = Story::new().await;
        let world = story.world.clone();
        world.plan(Fault::next(
            "disk.resync_finish.*",
            FaultKind::TornCrash(parts),
        ));
        assert!(until_crash(&world, async { story.split().await }).await);
        assert_eq!(world.view(M1).run, RunState::Paused);
        world.restart_server();
        story.ports = world.ports();
        let p = story.ports.clone();
        story.lease = Some(p.legs.lease().await.expect("lease"));
        p.disk.resync_finish(M1, &data0()).await.expect("finishes");
        let run = world.view(M1).run;
        assert_eq!(run, RunState::Paused, "only its own pause is ended");
        p.machine.resume(M1).await.expect("continues");
        world.change_book(|b| {
            b.pause_until_ms = None;
            b.disks.get_mut(&data0()).expect("there").b.role = LegRole::Live;
        });
        story.check();
        assert!(world.legs_equal(&data0()));
    }
}

// The contract of `resync_finish`: on failure the guest runs on and the target stays stale.
#[tokio::test(start_paused = true)]
async fn a_failed_end_of_a_resync_is_taken_back() {
    for parts in 1..=4 {
        let mut story = Story::new().await;
        let world = story.world.clone();
        world.plan(Fault::next("disk.resync_finish.*", FaultKind::CrashBefore));
        assert!(until_crash(&world, async { story.split().await }).await);
        world.restart_server();
        story.ports = world.ports();
        let p = story.ports.clone();
        story.lease = Some(p.legs.lease().await.expect("lease"));
        world.plan(Fault::next("disk.resync_finish.*", FaultKind::Torn(parts)));
        assert!(p.disk.resync_finish(M1, &data0()).await.is_err());
        let view = world.view(M1);
        assert_eq!(view.run, RunState::Running, "{parts}");
        assert_eq!(
            view.disks[&data0()].source,
            DiskSource::Legs(vec![Leg::A]),
            "{parts}"
        );
        story.check();
        story.resync(M1, data0(), Leg::A, ResyncStart::Bitmap).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_compare_dies_with_the_server_and_rounds_do_not() {
    for (how, left) in [
        (ResyncStart::Bitmap, ResyncPhase::Nearly),
        (ResyncStart::Compare, ResyncPhase::None),
    ] {
        let mut story = Story::new().await;
        let world = story.world.clone();
        story
            .book(|b| {
                let stale = LegRole::Stale(StaleReason::Session);
                b.disks.get_mut(&data0()).expect("there").b.role = stale;
            })
            .await;
        let p = story.ports.clone();
        p.machine.pause(M1).await.expect("pauses");
        let one = [Leg::A];
        p.disk.set_legs(M1, &data0(), &one).await.expect("swaps");
        p.machine.resume(M1).await.expect("continues");
        story.check();
        let disk = data0();
        let start = p.disk.resync_start(M1, &disk, Leg::A, Leg::B, how, 0);
        start.await.expect("starts");
        world.restart_server();
        let p = world.ports();
        let phase = p.disk.resync_poll(M1, &disk).await.expect("polls").phase;
        assert_eq!(phase, left);
    }
}

// Design 3.2: a failing leg costs the guest nothing.
#[tokio::test(start_paused = true)]
async fn a_failing_leg_is_dropped_and_the_write_completes() {
    for bad in Leg::BOTH {
        let mut story = Story::new().await;
        let (p, world) = (story.ports.clone(), story.world.clone());
        world.fail_leg(&data0(), bad, LegFault::Write);
        assert_eq!(world.client_write(), ClientWrite::Unknown);
        assert_eq!(world.view(M1).run, RunState::IoError);
        world.check_invariants().expect("stopped");
        assert!(
            world.guard_tick().await.is_empty(),
            "the server has the lease"
        );
        story.lease = None;
        let before = world.acknowledged();
        let acts = world.guard_tick().await;
        assert_eq!(acts, [format!("dropped leg {bad} of data0 from m1")]);
        assert_eq!(world.acknowledged(), before + 1, "the guest repeated it");
        let pair = world.book().disks[&data0()].clone();
        assert_eq!(pair.authority, bad.other());
        assert!(matches!(
            pair.get(bad).role,
            LegRole::Stale(StaleReason::Failed(_))
        ));
        assert!(world.client_write().acknowledged());
        world.check_invariants().expect("swapped");

        // A resynchronisation onto the bad leg fails and harms nothing.
        story.lease = Some(p.legs.lease().await.expect("lease"));
        let good = bad.other();
        let disk = data0();
        let start = p
            .disk
            .resync_start(M1, &disk, good, bad, ResyncStart::Compare, 0);
        start.await.expect("starts");
        let phase = p.disk.resync_poll(M1, &data0()).await.expect("polls").phase;
        assert!(matches!(phase, ResyncPhase::Failed(_)));
        assert!(p.disk.resync_finish(M1, &data0()).await.is_err());
        assert!(world.client_write().acknowledged());
        p.disk.resync_cancel(M1, &data0()).await.expect("cancels");
        world.heal_leg(&data0(), bad);
        story.resync(M1, data0(), good, ResyncStart::Compare).await;
        assert!(world.book().duplexed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_drops_the_leg_without_the_guest_noticing() {
    let mut story = Story::new().await;
    story.lease = None;
    story.world.fail_leg(&system0(), Leg::A, LegFault::Read);
    assert!(story.world.client_ok());
    assert_eq!(story.world.guard_tick().await.len(), 1);
    assert!(story.world.client_ok());
    assert_eq!(story.world.book().disks[&system0()].authority, Leg::B);
    story.check();
}

// Fault 7: after a power cut the authority leg decides.
#[tokio::test(start_paused = true)]
async fn a_power_cut_leaves_one_authority() {
    let mut cut_apart = 0;
    for writes in 0..6 {
        let mut story = Story::new().await;
        let world = story.world.clone();
        (0..writes).for_each(|_| story.check());
        world.power_cut();
        world.check_invariants().expect("off");
        cut_apart += u32::from(!world.legs_equal(&data0()));
        world.restart_server();
        story.ports = world.ports();
        let p = story.ports.clone();
        story.lease = Some(p.legs.lease().await.expect("lease"));
        story
            .book(|b| {
                b.mark_unclean();
                b.last_machine = M2;
                b.owner = Some(M2);
            })
            .await;
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Boot { after: Some(M1) },
            disks: [system0(), data0()]
                .map(|disk| (disk, DiskSource::Legs(vec![Leg::A])))
                .into(),
        };
        p.machine.start(M2, &plan).await.expect("boots");
        p.network.ensure().await.expect("door");
        p.machine.set_link(M2, true).await.expect("link");
        p.network.open(M2).await.expect("opens");
        tokio::time::sleep(Duration::from_secs(4)).await;
        story.check();
        assert!(world.client_ok(), "{:?}", world.serving());
        for disk in [system0(), data0()] {
            story.resync(M2, disk, Leg::A, ResyncStart::Compare).await;
        }
        assert!(world.book().duplexed());
    }
    assert_eq!(cut_apart, 6);

    // Trusting both legs instead is caught.
    let story = Story::new().await;
    let world = story.world.clone();
    world.power_cut();
    world.restart_server();
    world.power_on().expect("boots on both legs");
    let wrong = world.check_invariants().expect_err("a planted bug");
    assert!(wrong.contains("recorded live but differ"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn the_guard_continues_only_what_it_may() {
    let mut story = Story::new().await;
    story.split().await;
    let world = story.world.clone();
    story.ports.machine.pause(M1).await.expect("pauses");
    story.lease = None;
    assert!(world.guard_tick().await.is_empty(), "no intent: leave it");
    let now = story.ports.clock.now_ms();
    world.change_book(|b| b.pause_until_ms = Some(now + 1000));
    assert!(world.guard_tick().await.is_empty(), "not expired");
    world.jump_clock(2000);
    world.change_book(|b| b.owner = Some(M2));
    assert!(world.guard_tick().await.is_empty(), "it belongs to another");
    world.change_book(|b| b.owner = Some(M1));
    assert_eq!(world.guard_tick().await, ["continued m1"]);
    assert_eq!(world.book().pause_until_ms, None);
    assert!(world.client_ok());
}

#[tokio::test(start_paused = true)]
async fn guests_do_not_always_obey() {
    let story = Story::new().await;
    let (p, world) = (story.ports.clone(), story.world.clone());
    let units = story.units();
    let began = tokio::time::Instant::now();
    world.guest_fault(None, GuestFault::WillNotStop("db.service".to_owned()));
    let error = p.guest.stop(M1, &units, LONG).await.expect_err("a fault");
    assert_eq!(error.kind, PortErrorKind::TimedOut);
    assert_eq!(error.component.as_deref(), Some("db.service"));
    assert_eq!(began.elapsed(), LONG);
    world.clear_guest_faults();
    p.guest.stop(M1, &units, LONG).await.expect("stops");

    let busy = GuestFault::MountBusy("/srv/data0".to_owned());
    world.guest_fault(Some(M1), busy);
    let data = ["data0".to_owned()];
    let error = p.guest.close_data(M1, &data).await.expect_err("a fault");
    assert_eq!(error.kind, PortErrorKind::InUse);
    world.clear_guest_faults();

    world.guest_fault(None, GuestFault::WillNotStart("web.service".to_owned()));
    let error = p.guest.start(M1, &story.starts(), LONG).await;
    assert_eq!(error.expect_err("a fault").kind, PortErrorKind::Failed);
    world.clear_guest_faults();
    p.guest
        .start(M1, &story.starts(), LONG)
        .await
        .expect("starts");
    assert!(world.client_ok());

    world.guest_fault(None, GuestFault::AgentSilent);
    let error = p.guest.ping(M1).await.expect_err("a fault");
    assert_eq!(error.kind, PortErrorKind::TimedOut);
    assert!(world.client_ok(), "clients notice nothing");
    world.clear_guest_faults();

    let boot = p.guest.ping(M1).await.expect("answers").boot_id;
    world.guest_reboot(M1);
    assert!(!world.client_ok());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(world.client_ok(), "{:?}", world.serving());
    assert_ne!(p.guest.ping(M1).await.expect("answers").boot_id, boot);
    world.guest_panic(M1);
    assert_eq!(world.view(M1).run, RunState::Panicked);
    world.check_invariants().expect("nothing is lost");
}

// Pitfall 16: a data disk missing at boot drops a guest into emergency mode.
#[tokio::test(start_paused = true)]
async fn a_boot_without_its_data_needs_nofail_or_a_hold() {
    for nofail in [false, true] {
        let options = SimOptions {
            nofail,
            ..SimOptions::default()
        };
        let mut story = Story::with(options).await;
        let p = story.ports.clone();
        let units = story.units();
        p.guest.stop(M1, &units, LONG).await.expect("stops");
        let data = ["data0".to_owned()];
        p.guest.close_data(M1, &data).await.expect("closes");
        p.disk.unplug(M1, &data0()).await.expect("unplugs");
        p.guest.restart(M1).await.expect("restarts");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(p.guest.ping(M1).await.is_ok(), nofail);
        story.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_hangs_times_out_and_can_be_ended() {
    let story = Story::new().await;
    let (p, world) = (story.ports.clone(), story.world.clone());
    world.hang_machine(M1, true);
    assert_eq!(
        p.machine.observe(M1).await.expect("total").run,
        RunState::Unresponsive
    );
    let error = p.machine.pause(M1).await.expect_err("it hangs");
    assert_eq!(error.kind, PortErrorKind::TimedOut);
    p.machine.end(M1).await.expect("ends");
    assert!(world.machines().is_empty());
}

//! Bugs planted on purpose: each must be noticed by `check_invariants`.

mod common;

use common::{LONG, M1, M2, Story, data0, system0};
use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_model::{Firmware, Leg, LegRole, MachineId, StaleReason};
use flipside_platform::{DiskSource, ResyncPhase, ResyncStart, StartMode, StartPlan};
use std::collections::BTreeMap;

/// Expects that the invariants are broken, with these words among what is wrong.
#[track_caller]
fn caught(story: &Story, words: &str) {
    let wrong = story.world.check_invariants().expect_err("a planted bug");
    assert!(wrong.contains(words), "{wrong}");
}

fn unlocked() -> SimOptions {
    SimOptions {
        image_locks: false,
        ..SimOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_merge_before_the_unmount_is_caught() {
    let mut story = Story::new().await;
    story.split().await;
    let p = story.ports.clone();
    p.network.hold().await.expect("holds");
    p.guest.stop(M1, &story.units(), LONG).await.expect("stops");
    p.disk.unplug(M1, &data0()).await.expect("unplugs");
    caught(&story, "data0 was unplugged from m1 while in use");
    caught(&story, "mounted without its disk");
}

#[tokio::test(start_paused = true)]
async fn a_swapped_resync_direction_is_caught() {
    let mut story = Story::new().await;
    story.fork().await;
    let p = story.ports.clone();
    p.machine.end(M2).await.expect("ends");
    // The upgrade is committed: leg B decides; yet leg A is copied over it.
    story.world.change_book(|b| {
        let pair = b.disks.get_mut(&system0()).expect("there");
        pair.a.role = LegRole::Stale(StaleReason::Session);
        pair.b.role = LegRole::Live;
        pair.authority = Leg::B;
    });
    let disk = system0();
    let start = p
        .disk
        .resync_start(M1, &disk, Leg::A, Leg::B, ResyncStart::Bitmap, 0);
    start.await.expect("starts");
    caught(&story, "without a record of that direction");
}

#[tokio::test(start_paused = true)]
async fn two_owners_of_the_data_are_caught() {
    let mut story = Story::with(unlocked()).await;
    story.split().await;
    let p = story.ports.clone();
    p.disk.plug(M2, &data0(), &[Leg::A]).await.expect("plugs");
    caught(&story, "data0 belongs to m1 and m2");
    caught(&story, "data0 was plugged into m2 but another owns it");
}

#[tokio::test(start_paused = true)]
async fn locks_refuse_a_second_owner() {
    let mut story = Story::new().await;
    story.split().await;
    let p = story.ports.clone();
    let refused = p.disk.plug(M2, &data0(), &[Leg::A]).await;
    assert!(refused.is_err());
    caught(&story, "data0 was plugged into m2 but another owns it");
}

#[tokio::test(start_paused = true)]
async fn two_links_are_caught() {
    let mut story = Story::new().await;
    story.split().await;
    let p = story.ports.clone();
    p.machine.set_link(M2, true).await.expect("sets");
    caught(&story, "the links of m1 and m2 are up");
    caught(&story, "m2 reaches live data or the network");
}

#[tokio::test(start_paused = true)]
async fn the_door_to_the_wrong_side_is_caught() {
    let mut story = Story::new().await;
    story.split().await;
    story.ports.network.open(M2).await.expect("opens");
    caught(&story, "the door was opened to m2");
}

#[tokio::test(start_paused = true)]
async fn a_leg_called_live_without_a_resync_is_caught() {
    let mut story = Story::new().await;
    story.fork().await;
    let p = story.ports.clone();
    p.machine.end(M2).await.expect("ends");
    p.machine.pause(M1).await.expect("pauses");
    let both = [Leg::A, Leg::B];
    for disk in [system0(), data0()] {
        p.disk.set_legs(M1, &disk, &both).await.expect("swaps");
        story.world.change_book(|b| {
            let pair = b.disks.get_mut(&disk).expect("there");
            (pair.a.role, pair.b.role) = (LegRole::Live, LegRole::Live);
        });
    }
    p.machine.resume(M1).await.expect("continues");
    caught(&story, "the legs of system0 are recorded live but differ");
    caught(&story, "the legs of data0 are recorded live but differ");
}

#[tokio::test(start_paused = true)]
async fn a_bitmap_that_was_not_carried_is_caught() {
    let mut story = Story::new().await;
    story.split().await;
    story.world.install(M2, "2.0").expect("installs");
    let p = story.ports.clone();
    p.machine.end(M2).await.expect("ends");
    story
        .book(|b| {
            let pair = b.disks.get_mut(&system0()).expect("there");
            (pair.a.role, pair.b.role) = (LegRole::Live, LegRole::Stale(StaleReason::Session));
        })
        .await;
    let disk = system0();
    let start = p
        .disk
        .resync_start(M1, &disk, Leg::A, Leg::B, ResyncStart::Bitmap, 0);
    start.await.expect("starts");
    while p
        .disk
        .resync_poll(M1, &system0())
        .await
        .expect("polls")
        .phase
        != ResyncPhase::Nearly
    {}
    p.disk
        .resync_finish(M1, &system0())
        .await
        .expect("finishes");
    story.world.check_invariants().expect("not yet recorded");
    story.world.change_book(|b| {
        b.disks.get_mut(&system0()).expect("there").b.role = LegRole::Live;
    });
    caught(&story, "the legs of system0 are recorded live but differ");
}

#[tokio::test(start_paused = true)]
async fn a_leg_dropped_before_it_is_recorded_stale_is_caught() {
    let story = Story::new().await;
    let p = story.ports.clone();
    p.machine.pause(M1).await.expect("pauses");
    p.disk
        .set_legs(M1, &data0(), &[Leg::A])
        .await
        .expect("swaps");
    story.world.check_invariants().expect("it is paused");
    p.machine.resume(M1).await.expect("continues");
    caught(
        &story,
        "m1 runs data0 without leg B, which is recorded live",
    );
}

#[tokio::test(start_paused = true)]
async fn an_authority_moved_to_a_stale_leg_is_caught() {
    let mut story = Story::new().await;
    story.fork().await;
    story.check();
    assert!(story.acknowledged > 0);
    story.world.change_book(|b| {
        b.disks.get_mut(&data0()).expect("there").authority = Leg::B;
    });
    caught(&story, "is lost");
    caught(&story, "without its authority");
}

#[tokio::test(start_paused = true)]
async fn a_production_that_wakes_with_a_stale_cache_is_caught() {
    let mut story = Story::with(unlocked()).await;
    story.split().await;
    let p = story.ports.clone();
    // Paused with everything mounted, its disk given to another that writes, then continued.
    p.network.hold().await.expect("holds");
    p.machine.set_link(M1, false).await.expect("sets");
    p.machine.pause(M1).await.expect("pauses");
    story.world.change_book(|b| b.owner = Some(M2));
    let both = [Leg::A, Leg::B];
    p.disk.plug(M2, &data0(), &both).await.expect("plugs");
    assert!(story.world.guest_write(M2, &data0()));
    p.disk.unplug(M2, &data0()).await.expect("unplugs");
    story.world.change_book(|b| b.owner = Some(M1));
    p.machine.resume(M1).await.expect("continues");
    caught(&story, "m1 has /srv/data0 mounted with a stale cache");
}

#[tokio::test(start_paused = true)]
async fn the_other_sides_system_disk_is_caught() {
    let mut story = Story::with(unlocked()).await;
    story.split().await;
    let p = story.ports.clone();
    p.machine.pause(M2).await.expect("pauses");
    let swapped = p.disk.set_legs(M2, &system0(), &[Leg::A]).await;
    swapped.expect("swaps");
    caught(
        &story,
        "m2 has leg A of system0, which belongs to another side",
    );
    caught(&story, "leg A of system0 is open in m1 and m2");
}

// Pitfall 22.
#[tokio::test(start_paused = true)]
async fn the_other_sides_firmware_variables_are_caught() {
    let mut spec = example_spec(1, 1);
    spec.firmware = Firmware::Uefi;
    let mut story = Story::of(SimWorld::new(&spec, SimOptions::default())).await;
    story.split().await;
    let p = story.ports.clone();
    p.machine.end(M2).await.expect("ends");
    p.machine.end(M1).await.expect("ends");
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Boot { after: Some(M2) },
        disks: BTreeMap::from([(system0(), DiskSource::Legs(vec![Leg::A]))]),
    };
    let id = MachineId(3);
    p.machine.start(id, &plan).await.expect("starts");
    caught(&story, "m3 has the firmware variables of another side");
}

#[tokio::test(start_paused = true)]
async fn a_change_without_the_lease_is_caught() {
    let mut story = Story::new().await;
    story.lease = None;
    story.ports.machine.pause(M1).await.expect("pauses");
    caught(&story, "machine.pause.m1 was called without the lease");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_caught() {
    let story = Story::new().await;
    story.world.flip(&system0(), Leg::B, 9);
    caught(&story, "the legs of system0 are recorded live but differ");
    story.world.flip(&system0(), Leg::B, 9);
    story.world.check_invariants().expect("healed");
    story.world.flip(&system0(), Leg::A, 9);
    caught(
        &story,
        "block 9 of leg A of system0 is not what its side wrote",
    );
}

#[tokio::test(start_paused = true)]
async fn legs_of_two_instants_are_caught() {
    let mut story = Story::new().await;
    // Leg B is dropped, production writes on, and the fork takes leg B all the same.
    let p = story.ports.clone();
    story
        .book(|b| {
            b.disks.get_mut(&data0()).expect("there").b.role = LegRole::Frozen;
        })
        .await;
    p.machine.pause(M1).await.expect("pauses");
    p.disk
        .set_legs(M1, &data0(), &[Leg::A])
        .await
        .expect("swaps");
    p.machine.resume(M1).await.expect("continues");
    story.check();
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Incoming { from: M1 },
        disks: BTreeMap::from([
            (system0(), DiskSource::Legs(vec![Leg::B])),
            (data0(), DiskSource::Overlay(Leg::B)),
        ]),
    };
    p.machine.start(M2, &plan).await.expect("starts");
    p.machine.fork_begin(M1, M2).await.expect("begins");
    while !p.machine.fork_poll(M1).await.expect("polls").ready {}
    let keep = BTreeMap::from([(system0(), Leg::A), (data0(), Leg::A)]);
    p.machine
        .fork_switch(M1, M2, &keep)
        .await
        .expect("switches");
    caught(&story, "leg B of data0 is not of the instant of the fork");
}

//! The resynchronisation of a stale leg on real QEMU. The guest is a boot sector that writes for ever, so a test takes
//! a second or two.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other real tests")]
mod machine;

use flipside_model::Leg;
use flipside_platform::{DiskPort, MachinePort, PortErrorKind, ResyncPhase, ResyncStart};
use machine::program::Program;
use machine::{Bench, M1, MIB, disk, legs, until};

const BOTH: [Leg; 2] = [Leg::A, Leg::B];

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_copied_and_the_legs_are_equal() {
    let bench = Bench::new(&Program::QUIET).await;
    bench.boot().await;
    bench.writes(M1, 5).await;
    let data0 = disk("data0");
    bench.simplex().await;
    bench.writes(M1, 100).await;
    assert_eq!(bench.resync_phase().await, ResyncPhase::None);
    let start = |how| {
        bench
            .system
            .resync_start(M1, &data0, Leg::A, Leg::B, how, 0)
    };
    start(ResyncStart::Bitmap).await.expect("started");
    start(ResyncStart::Bitmap).await.expect("twice is once");
    let reversed = bench
        .system
        .resync_start(M1, &data0, Leg::B, Leg::A, ResyncStart::Bitmap, 0);
    assert_eq!(
        reversed.await.expect_err("from stale").kind,
        PortErrorKind::Mismatch
    );
    nearly(&bench).await;
    let figures = bench
        .system
        .resync_finish(M1, &data0)
        .await
        .expect("finished");
    println!("resync by bitmap {figures:?}");
    assert!(!figures.compared && figures.union_bytes == 65_536);
    assert!(figures.copied_bytes <= MIB, "{figures:?}");
    let view = bench.disk_view(M1, "data0").await;
    assert_eq!((view.source, view.dirty_bytes), (legs(&BOTH), None));
    bench.writes(M1, 100).await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

// Also with a guest that never lets the rest get small.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_bitmap_is_compared_as_a_whole() {
    let bench = Bench::new(&Program::BUSY).await;
    bench.boot_on(&[Leg::A]).await;
    bench.writes(M1, 300).await;
    let data0 = disk("data0");
    assert_eq!(bench.disk_view(M1, "data0").await.dirty_bytes, None);
    let start = |how| {
        bench
            .system
            .resync_start(M1, &data0, Leg::A, Leg::B, how, 0)
    };
    assert!(
        start(ResyncStart::Bitmap).await.is_err(),
        "there is no bitmap"
    );
    start(ResyncStart::Compare).await.expect("started");
    nearly(&bench).await;
    let figures = bench
        .system
        .resync_finish(M1, &data0)
        .await
        .expect("finished");
    println!("resync by compare {figures:?}");
    assert!(figures.compared && figures.union_bytes >= 15 * MIB);
    bench.writes(M1, 300).await;
    bench.system.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resynchronisation_given_up_begins_again() {
    let bench = Bench::new(&Program::BUSY).await;
    bench.boot().await;
    bench.writes(M1, 300).await;
    let data0 = disk("data0");
    bench.simplex().await;
    bench.writes(M1, 300).await;
    for (how, rate) in [(ResyncStart::Bitmap, MIB), (ResyncStart::Compare, 4 * MIB)] {
        bench
            .system
            .resync_start(M1, &data0, Leg::A, Leg::B, how, rate)
            .await
            .expect("started");
        assert_eq!(bench.resync_phase().await, ResyncPhase::Copying);
        bench
            .system
            .resync_cancel(M1, &data0)
            .await
            .expect("given up");
        bench
            .system
            .resync_cancel(M1, &data0)
            .await
            .expect("twice is once");
        assert_eq!(bench.resync_phase().await, ResyncPhase::None);
        bench.writes(M1, 100).await;
    }
    // A server that was restarted finds the job in the machine.
    let start = bench
        .system
        .resync_start(M1, &data0, Leg::A, Leg::B, ResyncStart::Bitmap, 0);
    start.await.expect("started");
    let restarted = bench.reopen();
    until_adopted(&bench, &restarted).await;
    let figures = restarted.resync_finish(M1, &data0).await.expect("finished");
    println!("resync adopted {figures:?}");
    restarted.pause(M1).await.expect("paused");
    assert!(bench.equal("data0"));
}

async fn until_adopted(bench: &Bench, restarted: &flipside_backend_qemu::QemuSystem) {
    // The old server's connection goes with its process; here it is made to go.
    drop_connection(bench).await;
    until("the adopted resynchronisation is nearly done", || async {
        let view = restarted
            .resync_poll(M1, &disk("data0"))
            .await
            .expect("polled");
        assert!(
            !matches!(view.phase, ResyncPhase::Failed(_) | ResyncPhase::None),
            "{view:?}"
        );
        view.phase == ResyncPhase::Nearly
    })
    .await;
}

async fn drop_connection(bench: &Bench) {
    bench.system.disconnect().await;
}

async fn nearly(bench: &Bench) {
    until("nearly done", || async {
        let phase = bench.resync_phase().await;
        assert!(!matches!(phase, ResyncPhase::Failed(_)), "{phase:?}");
        phase == ResyncPhase::Nearly
    })
    .await;
}

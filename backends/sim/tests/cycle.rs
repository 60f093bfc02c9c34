//! A whole upgrade through the ports, every invariant checked after every call.

mod common;

use common::{M1, M2, Story, data0, system0};

#[tokio::test(start_paused = true)]
async fn split_merge_commit_keeps_every_invariant() {
    let mut story = Story::new().await;
    story.split().await;
    story.world.install(M2, "2.0").expect("installs");
    story.check();
    story.merge().await;
    story.commit().await;
    assert_eq!(story.world.machines(), [M2]);
    assert_eq!(story.world.version(M2).as_deref(), Some("2.0"));
    assert!(story.world.book().duplexed());
    assert!(story.world.legs_equal(&system0()) && story.world.legs_equal(&data0()));
    assert!(story.acknowledged > 20, "{}", story.acknowledged);
    let copied = &story.resyncs[1];
    assert!(copied.copied_bytes >= copied.union_bytes && !copied.compared);
}

#[tokio::test(start_paused = true)]
async fn split_merge_abort_takes_the_software_back_and_keeps_the_data() {
    let mut story = Story::new().await;
    story.split().await;
    story.world.install(M2, "2.0").expect("installs");
    story.merge().await;
    let boot = story.ports.guest.ping(M1).await;
    assert!(boot.is_err(), "a paused guest does not answer");
    story.abort().await;
    assert_eq!(story.world.machines(), [M1]);
    assert_eq!(story.world.version(M1).as_deref(), Some("1.0"));
    assert!(!story.world.clock_late(M1));
    assert!(story.world.book().duplexed());
    assert!(story.world.legs_equal(&system0()) && story.world.legs_equal(&data0()));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_upgrade_side_keeps_the_hold() {
    let mut story = Story::new().await;
    story.split().await;
    let before = story.ports.guest.ping(M2).await.expect("answers").boot_id;
    story.ports.guest.restart(M2).await.expect("restarts");
    assert!(story.ports.guest.ping(M2).await.is_err(), "it boots");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    story.check();
    assert_ne!(
        story.ports.guest.ping(M2).await.expect("up").boot_id,
        before
    );
    let views = story.ports.guest.services(M2, &story.units()).await;
    for view in views.expect("answers") {
        assert!(view.exists && view.gated && !view.active, "{view:?}");
    }
    story.merge().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_story_leaves_the_same_trace() {
    let mut traces = Vec::new();
    for _ in 0..2 {
        let mut story = Story::new().await;
        story.split().await;
        story.merge().await;
        story.abort().await;
        let legs = story.world.leg(&system0(), flipside_model::Leg::B);
        traces.push((story.world.trace(), legs));
    }
    assert_eq!(traces[0], traces[1]);
}

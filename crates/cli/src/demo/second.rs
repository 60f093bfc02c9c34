//! Chapter 7: a second upgrade, which turns out badly after its merge and is taken back.

use super::figures::{Move, Resync};
use super::limits::{ABORT, DUPLEX, FINISH, SPLIT};
use super::place::SYSTEM;
use super::stage::Stage;
use super::trouble::Trouble;
use std::collections::BTreeSet;
use std::time::Duration;

const SPLITTING: &str = "second split";
const PREPARING: &str = "merge prepared again";
pub(super) const MERGING: &str = "second merge";
const AFTER: &str = "on release 3.0";
pub(super) const ABORTING: &str = "abort";
const RESYNC: &str = "resync after it";

/// How long people write to the upgraded side before it is taken back.
const WATCH: Duration = Duration::from_secs(10);

/// The boot of a Linux kernel has an id; the same id means that there was no reboot.
const BOOT_ID: [&str; 6] = [
    "run",
    "--side",
    "production",
    "--",
    "cat",
    "/proc/sys/kernel/random/boot_id",
];

pub(super) async fn tell(stage: &mut Stage) -> Result<(), Trouble> {
    stage.chapter("a second upgrade, taken back")?;
    stage.say(
        "The next release is split off in the same way, with the configuration that was checked last. Before that, the id of \
         this boot is noted.",
    )?;
    let boot = stage.lines(&BOOT_ID).await?;
    stage.phase(SPLITTING);
    stage.live(&["split"], SPLIT).await?;
    stage.figures.second_split_pause_ms = stage.status().await?.pause_ms;
    stage.say("Release 3.0 is a change of one line. It is merged, and people use it.")?;
    let script = "s/release = '2.0'/release = '3.0'/";
    stage
        .lines(&["run", "--", "sed", "-i", script, "/usr/sbin/demo-page"])
        .await?;
    stage.none_failed(&[SPLITTING])?;
    merge(stage).await?;
    let before = acknowledged(stage);
    tokio::time::sleep(WATCH).await;
    let after = acknowledged(stage);
    abort(stage, boot.first()).await?;
    stage.say(
        "What people wrote while release 3.0 served them is not lost: data follows the users.",
    )?;
    let meanwhile: BTreeSet<u64> = after.difference(&before).copied().collect();
    if stage.missing_writes(&meanwhile).await? > 0 {
        stage.not_held("writes between the merge and the abort are missing".to_owned())?;
    }
    stage.live(&["finish"], FINISH).await?;
    stage.live(&["wait", "--duplex"], DUPLEX).await?;
    stage.figures.abort_resync = Resync::of(&stage.status().await?);
    for resync in stage.figures.abort_resync.clone() {
        stage.note(&resync.text())?;
        if resync.is_too_much() {
            stage.not_held(format!("the resync after the abort: {}", resync.text()))?;
        }
    }
    Ok(stage.none_failed(&[AFTER, RESYNC])?)
}

fn acknowledged(stage: &Stage) -> BTreeSet<u64> {
    let visitors = stage.visitors.as_ref();
    visitors.map_or_else(BTreeSet::new, |visitors| visitors.seen().acknowledged)
}

async fn merge(stage: &mut Stage) -> Result<(), Trouble> {
    stage.phase(PREPARING);
    stage.merge(MERGING).await?;
    let page = stage.show_page().await?;
    let status = stage.status().await?;
    let phase = stage.visitors.as_ref().and_then(|v| v.figures(MERGING));
    stage.phase(AFTER);
    let moved = Move::of(&status, phase);
    stage.note(&moved.text())?;
    stage.figures.second_merge = Some(moved);
    if page.release == "3.0" {
        return Ok(());
    }
    Err(Trouble::new(format!(
        "the page says release {} after the second merge, not 3.0",
        page.release
    )))
}

async fn abort(stage: &mut Stage, boot: &str) -> Result<(), Trouble> {
    stage.say(
        "Somebody finds a mistake in 3.0. Abort moves the people back to the old side, which was only paused: it goes on \
         where it was, without a reboot.",
    )?;
    stage.phase(ABORTING);
    stage.live(&["abort", "--yes", SYSTEM], ABORT).await?;
    let page = stage.show_page().await?;
    let status = stage.status().await?;
    let phase = stage.visitors.as_ref().and_then(|v| v.figures(ABORTING));
    stage.phase(RESYNC);
    let moved = Move::of(&status, phase);
    stage.note(&moved.text())?;
    stage.figures.abort = Some(moved);
    if page.release != "2.0" {
        return Err(Trouble::new(format!(
            "the page says release {} after the abort, not 2.0",
            page.release
        )));
    }
    let kept = stage.lines(&BOOT_ID).await?.first() == boot;
    stage.figures.abort_kept_boot = Some(kept);
    if kept {
        return Ok(stage.note("the same boot as before the split: nothing was rebooted")?);
    }
    Ok(stage.not_held("the abort rebooted the Production Side".to_owned())?)
}

//! Chapters 3 to 6: the first upgrade, from the split to the end of the session.

use super::figures::{Move, Resync};
use super::limits::{COMMIT, DUPLEX, FINISH, INSTALL, OS_UP, RESTART, SHORT, SPLIT};
use super::place::SYSTEM;
use super::runner::Show;
use super::stage::{Stage, late};
use super::trouble::Trouble;
use flipside_activity::duration_us;
use flipside_model::PartnerState;
use std::time::{Duration, Instant};

/// How often the kernel is asked for after a restart.
const ASK_EVERY: Duration = Duration::from_secs(2);

const SPLITTING: &str = "split";
const INSTALLING: &str = "upgrade installed";
const RESTARTING: &str = "restart of the side";
const PREPARING: &str = "merge prepared";
pub(super) const MERGING: &str = "merge";
const AFTER: &str = "after the merge";
const COMMITTING: &str = "commit and resync";

pub(super) async fn tell(stage: &mut Stage) -> Result<(), Trouble> {
    stage.chapter("split")?;
    split(stage).await?;
    stage.chapter("the upgrade, on the Upgrade Side")?;
    install(stage).await?;
    stage.chapter("merge")?;
    merge(stage).await?;
    stage.chapter("commit")?;
    commit(stage).await
}

async fn split(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "The split divides the running machine: its memory is copied to a second one, the legs of its disks are shared out, \
         and both go on. Production pauses for milliseconds; nobody is logged out. The Upgrade Side has neither the network \
         nor live data.",
    )?;
    stage.phase(SPLITTING);
    stage
        .live(&["split", "--config", "shop.Config"], SPLIT)
        .await?;
    stage.phase(INSTALLING);
    let pause = stage.status().await?.pause_ms;
    stage.figures.split_pause_ms = pause;
    if let Some(ms) = pause {
        let text = duration_us((ms * 1000.0) as u64);
        stage.note(&format!("production paused for {text}"))?;
    }
    stage.none_failed(&[SPLITTING])?;
    stage.live(&["status"], SHORT).await?;
    Ok(())
}

async fn install(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(if stage.options.quick {
        "The new release is installed on the Upgrade Side. The people on the Production Side notice nothing."
    } else {
        "Now the real upgrade: `apt` installs the packages on the Upgrade Side, for as long as it takes. The people on the \
         Production Side notice nothing, but that this machine's processors have more to do."
    })?;
    let argv: &[&str] = if stage.options.quick {
        &["run", "--", "dpkg", "-i", "/opt/page-2.0.deb"]
    } else {
        &["run", "--", "sh", "/opt/upgrade/install.sh"]
    };
    stage.runner.flipside(argv, INSTALL, Show::Progress).await?;
    if stage.options.quick {
        return Ok(stage.none_failed(&[INSTALLING])?);
    }
    stage.say(
        "A new kernel needs a restart. Here it costs nothing: only the Upgrade Side restarts.",
    )?;
    stage.phase(RESTARTING);
    stage
        .live(&["restart", "--side", "upgrade"], RESTART)
        .await?;
    new_kernel(stage).await?;
    let side = stage.lines(&["run", "--", "uname", "-r"]).await?;
    side.first().clone_into(&mut stage.figures.new_kernel);
    let argv = ["run", "--side", "production", "--", "uname", "-r"];
    let production = stage.lines(&argv).await?;
    stage.note(&format!(
        "the Upgrade Side runs {}; production still runs {}",
        side.first(),
        production.first()
    ))?;
    Ok(stage.none_failed(&[INSTALLING, RESTARTING])?)
}

/// Waits until the Upgrade Side is up again, with another kernel than production's.
async fn new_kernel(stage: &Stage) -> Result<(), Trouble> {
    let deadline = Instant::now() + OS_UP.after;
    loop {
        let up = |status: &flipside_model::Status| status.partner_state == Some(PartnerState::OsUp);
        stage.until(OS_UP, up).await?;
        let argv = ["run", "--", "uname", "-r"];
        // Right after the restart the state may still be the one before it.
        let asked = stage.runner.flipside(&argv, SHORT, Show::Nothing).await;
        let told = match &asked {
            Ok(done) if done.first() != stage.figures.old_kernel => {
                return Ok(stage.note("Partner: OS Up")?);
            }
            Ok(done) => done.first().to_owned(),
            Err(trouble) => trouble.message.clone(),
        };
        if Instant::now() >= deadline {
            return Err(late(OS_UP, &told));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn merge(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "Merge moves the people over. Everything that can be prepared is done first; then the applications stop on \
         production, the data disks and the network move, and they start on the upgraded side. Who comes meanwhile waits at \
         the front door. The old side stays in memory, paused.",
    )?;
    stage.phase(PREPARING);
    stage.merge(MERGING).await?;
    let page = stage.show_page().await?;
    let status = stage.status().await?;
    let phase = stage.visitors.as_ref().and_then(|v| v.figures(MERGING));
    stage.phase(AFTER);
    let moved = Move::of(&status, phase);
    stage.note(&moved.text())?;
    stage.figures.merge = Some(moved);
    if page.release != "2.0" {
        return Err(Trouble::new(format!(
            "the page says release {} after the merge, not 2.0",
            page.release
        )));
    }
    let quick = stage.options.quick;
    if !quick && page.kernel != stage.figures.new_kernel {
        return Err(Trouble::new(format!(
            "the page runs on kernel {} after the merge, not on {}",
            page.kernel, stage.figures.new_kernel
        )));
    }
    stage.live(&["status"], SHORT).await?;
    Ok(())
}

async fn commit(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "It works, so it is made permanent. The old side ends, and its legs get what changed on either side since the \
         split, and only that.",
    )?;
    stage.phase(COMMITTING);
    stage.live(&["commit", "--yes", SYSTEM], COMMIT).await?;
    stage.live(&["wait", "--duplex"], DUPLEX).await?;
    stage.figures.commit_resync = Resync::of(&stage.status().await?);
    for resync in stage.figures.commit_resync.clone() {
        stage.note(&resync.text())?;
        if resync.is_too_much() {
            stage.not_held(format!("the resync after the commit: {}", resync.text()))?;
        }
    }
    stage.live(&["finish"], FINISH).await?;
    Ok(stage.none_failed(&[AFTER, COMMITTING])?)
}

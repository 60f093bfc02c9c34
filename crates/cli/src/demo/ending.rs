//! The last chapter: every acknowledged write, both legs of every disk, the figures, and how to look around.

use super::compare;
use super::earlier;
use super::figures::Writes;
use super::first;
use super::limits::STOP;
use super::place::SYSTEM;
use super::second;
use super::stage::Stage;
use super::trouble::{Trouble, cannot};
use crate::context::Context;
use flipside_activity::size;
use flipside_model::MirrorStatus;
use std::path::Path;

pub(super) async fn tell(stage: &mut Stage, ctx: &Context) -> Result<(), Trouble> {
    stage.chapter("is everything there?")?;
    writes(stage).await?;
    if stage.options.stop {
        stop(stage).await?;
    }
    stage.end_chapter();
    figures(stage, ctx)?;
    if stage.options.stop {
        stage.say(&format!(
            "Everything was ended. The disks and the logs are in {}; this removes them: {}",
            stage.place.dir.display(),
            stage.options.end
        ))?;
        return Ok(());
    }
    look_around(stage)
}

async fn writes(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say(
        "The client stops, and every write that it was told is done is looked for in the database.",
    )?;
    let Some(visitors) = stage.visitors.take() else {
        return Ok(());
    };
    let seen = visitors.finish().await;
    let moves = [first::MERGING, second::MERGING, second::ABORTING];
    stage.figures.seen(seen.phases, moves);
    stage.figures.failed_requests = seen.told;
    let missing = stage.missing_writes(&seen.acknowledged).await?;
    let acknowledged = seen.acknowledged.len();
    stage.figures.writes = Some(Writes {
        acknowledged: acknowledged as u64,
        found: acknowledged.saturating_sub(missing) as u64,
    });
    if missing > 0 {
        stage.not_held(format!("{missing} acknowledged writes are missing"))?;
    }
    Ok(())
}

async fn stop(stage: &mut Stage) -> Result<(), Trouble> {
    stage.say("The system is stopped, and both legs of every disk are compared byte for byte.")?;
    let before = stage.status().await?;
    stage
        .live(&["system", "stop", SYSTEM, "--yes"], STOP)
        .await?;
    for disk in &before.disks {
        if disk.mirror != MirrorStatus::None {
            stage.not_held(format!("the mirror of {} is {}", disk.name, disk.mirror))?;
        }
        let legs = compare::disk(disk).await?;
        match legs.differs_at {
            None => stage.note(&format!(
                "{}: both legs are identical ({} compared, the rest are holes)",
                legs.disk,
                size(legs.compared)
            ))?,
            Some(at) => stage.not_held(format!("the legs of {} differ at byte {at}", legs.disk))?,
        }
        stage.figures.legs.push(legs);
    }
    if !earlier::end_server(&stage.place).await {
        return Err(Trouble::new("the server does not end"));
    }
    Ok(())
}

fn figures(stage: &Stage, ctx: &Context) -> Result<(), Trouble> {
    stage.teller.chapter("the figures")?;
    stage.teller.line("")?;
    let table = stage.figures.table();
    table.lines().try_for_each(|line| stage.teller.line(line))?;
    if !stage.figures.failed_requests.is_empty() {
        stage.teller.line("")?;
        stage.teller.line("failed requests:")?;
        for line in &stage.figures.failed_requests {
            stage.teller.line(&format!("  {line}"))?;
        }
    }
    if !stage.figures.not_held.is_empty() {
        stage.teller.line("")?;
        stage.teller.wrong("this had to hold and did not:")?;
        for line in &stage.figures.not_held {
            stage.teller.line(&format!("  {line}"))?;
        }
    }
    let json = serde_json::to_string_pretty(&stage.figures)
        .map_err(|error| Trouble::new(format!("cannot write the figures: {error}")))?;
    let write = |path: &Path| {
        std::fs::write(path, format!("{json}\n"))
            .map_err(cannot(format!("write the figures to `{}`", path.display())))
    };
    write(&stage.place.path("figures.json"))?;
    if let Some(path) = &stage.options.figures {
        write(path)?;
    }
    if ctx.json {
        ctx.object(&stage.figures)?;
    }
    Ok(())
}

fn look_around(stage: &Stage) -> Result<(), Trouble> {
    let teller = &stage.teller;
    stage.say("The system is running. To look around:")?;
    teller.line("")?;
    let socket = stage.place.socket();
    for (command, what) in [
        (format!("export FLIPSIDE_SOCKET={}", socket.display()), ""),
        (
            "flipside status".to_owned(),
            "its state, its disks, what is allowed now",
        ),
        (
            "flipside log".to_owned(),
            "what was done and found, step by step",
        ),
        (
            "flipside shell --side production".to_owned(),
            "a shell in it",
        ),
        (
            format!(
                "flipside split --config {}",
                stage.place.path("shop.Config").display()
            ),
            "an upgrade of your own",
        ),
        (format!("curl {}", stage.url()), "the page"),
        (
            format!("psql -h 127.0.0.1 -p {} -U demo", stage.postgres),
            "its database",
        ),
        (
            stage.options.end.clone(),
            "end the demo and remove its files",
        ),
    ] {
        teller.line(format!("  {command:<40}  {what}").trim_end())?;
    }
    Ok(())
}

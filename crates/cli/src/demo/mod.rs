//! The demo: the whole story on this machine, told with real commands of this very binary.
//!
//! ```text
//! Runner ── flipside … (subprocesses, one per command) ──▶ flipside serve ──▶ system `shop`
//! Visitors ── a connection per request ──▶ front door ───────────────────────────▲
//! ```
//!
//! Everything lies in one directory (`place`), which marks itself, so that a later demo can end and remove what it finds.

mod compare;
mod earlier;
mod ending;
mod figures;
mod first;
mod limits;
mod opening;
mod page;
mod place;
mod process;
mod runner;
mod second;
mod stage;
mod stats;
mod teller;
mod trouble;
mod visitors;

use super::Args;
use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED};
use place::{Guest, Place};
use stage::{Options, Stage};
use teller::{Teller, typed};
use trouble::{Trouble, cannot};

/// Lines of the activity log that are shown when something went wrong.
const LOG_TAIL: usize = 40;

/// Tells the story, or ends what an earlier one left.
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let teller = Teller::new(ctx);
    let place = match Place::take(args.dir.as_deref()) {
        Ok(place) => place,
        Err(trouble) => return refused(&teller, &trouble),
    };
    let end = typed(&end_command(&args));
    if args.end {
        return match clear(&teller, &place).await {
            Ok(()) => Ok(()),
            Err(trouble) => refused(&teller, &trouble),
        };
    }
    let options = Options {
        quick: args.quick,
        stop: args.stop || !(args.keep || teller.is_terminal()),
        figures: args.figures.clone(),
        end,
    };
    let exe = std::env::current_exe().map_err(cannot("find this program"));
    let ready = match exe {
        Ok(exe) => match Guest::find(args.guest.as_deref(), &exe) {
            Ok(guest) => prepare(&teller, &place, &guest)
                .await
                .map(|()| (exe, guest)),
            Err(trouble) => Err(trouble),
        },
        Err(trouble) => Err(trouble),
    };
    let (exe, guest) = match ready {
        Ok(ready) => ready,
        Err(trouble) => return refused(&teller, &trouble),
    };
    let mut stage = Stage::new(teller, place, exe, guest, options);
    let told = tokio::select! {
        told = tell(&mut stage, ctx) => told,
        _ = tokio::signal::ctrl_c() => {
            stage.teller.line("")?;
            stage.teller.line(&format!(
                "interrupted; everything stays as it is. End it with: {}",
                stage.options.end
            ))?;
            return Err(Failure::Status(INTERRUPTED));
        }
    };
    match told {
        Ok(()) if stage.figures.not_held.is_empty() => Ok(()),
        Ok(()) => Err(Failure::Status(crate::failure::FAILED)),
        Err(trouble) => failed(&stage, &trouble).await,
    }
}

/// Clears the place; after that, all that the story needs must be there.
async fn prepare(teller: &Teller, place: &Place, guest: &Guest) -> Result<(), Trouble> {
    if earlier::is_there(place)? {
        clear(teller, place).await?;
    }
    place.check_needs(guest)
}

async fn tell(stage: &mut Stage, ctx: &Context) -> Result<(), Trouble> {
    opening::tell(stage).await?;
    first::tell(stage).await?;
    second::tell(stage).await?;
    ending::tell(stage, ctx).await
}

/// Returns the command that ends this demo.
fn end_command(args: &Args) -> Vec<String> {
    let mut words = vec!["flipside".to_owned(), "demo".to_owned(), "--end".to_owned()];
    if let Some(dir) = &args.dir {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        words.extend(["--dir".to_owned(), dir.display().to_string()]);
    }
    words
}

async fn clear(teller: &Teller, place: &Place) -> Result<(), Trouble> {
    if !earlier::is_there(place)? {
        teller.line(&format!("there is no demo in `{}`", place.dir.display()))?;
        return Ok(());
    }
    let ended = earlier::end_processes(place).await?;
    earlier::remove_files(place)?;
    let pids: Vec<String> = ended.iter().map(ToString::to_string).collect();
    let processes = match pids.as_slice() {
        [] => "none of its processes was running".to_owned(),
        [one] => format!("its process {one} was ended"),
        all => format!("its processes {} were ended", all.join(", ")),
    };
    teller.line(&format!(
        "The demo that was in `{}`: {processes}, its files were removed.",
        place.dir.display()
    ))?;
    Ok(())
}

/// Nothing was begun: the usual error is all there is to say.
fn refused(teller: &Teller, trouble: &Trouble) -> Result<(), Failure> {
    explain(teller, trouble)?;
    Err(Failure::Status(trouble.status))
}

/// Something failed in the middle: everything stays, and this says where to look.
async fn failed(stage: &Stage, trouble: &Trouble) -> Result<(), Failure> {
    let teller = &stage.teller;
    teller.line("")?;
    teller.wrong("The demo cannot go on.")?;
    explain(teller, trouble)?;
    let log = stage.log_tail(LOG_TAIL).await;
    if !log.is_empty() {
        teller.line("")?;
        teller.line("the activity log ends:")?;
        for line in &log {
            teller.line(&format!("  {line}"))?;
        }
    }
    teller.line("")?;
    for (what, path) in stage.logs() {
        teller.line(&format!("  {what:<16} {}", path.display()))?;
    }
    teller.line("")?;
    teller.line(&format!(
        "Everything stays as it is, to look into it: export FLIPSIDE_SOCKET={}",
        stage.place.socket().display()
    ))?;
    teller.line(&format!("End it with: {}", stage.options.end))?;
    Err(Failure::Status(trouble.status.max(1)))
}

fn explain(teller: &Teller, trouble: &Trouble) -> Result<(), Failure> {
    if let Some(command) = &trouble.command {
        teller.line(&format!("failed: {command}"))?;
    }
    for line in &trouble.tail {
        teller.line(&format!("  {line}"))?;
    }
    teller.wrong(&format!("error: {}", trouble.message))?;
    if let Some(advice) = &trouble.advice {
        teller.line(&format!("  advice: {advice}"))?;
    }
    Ok(())
}

//! `flipside disk`: the disks of a system and their legs.

use crate::context::Context;
use crate::failure::Failure;
use crate::follow::ended;
use crate::live::Live;
use flipside_activity::size;
use flipside_model::api::{VerifyEvent, VerifyOutcome, VerifyRequest};
use flipside_model::{DiskName, SystemName};

const VERIFY_LONG: &str = "\
Compares both legs of every disk, or of one, while the system runs, and changes nothing. Both legs are read at up to \
200 MB a second; a write in flight is no difference. Exit status 1 when the legs differ.

With `--repair` the leg that does not decide is taken out when they differ, and rewritten from the other one. Which of \
two legs is right no mirror can say: the one that decides is the one the guest reads.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  flipside disk verify web                  all disks
  flipside disk verify web data0 --repair
  flipside disk verify web --json | jq .different_bytes";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Compare both legs of disks while the system runs
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
#[command(long_about = VERIFY_LONG, after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// System; may be left out when there is one and no disk is named
    system: Option<SystemName>,
    /// Disk, such as data0 [default: all of them]
    disk: Option<DiskName>,
    /// Rewrite the leg that does not decide, if they differ
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Verify(args) => verify(ctx, args).await,
    }
}

async fn verify(ctx: &Context, args: VerifyArgs) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let disks = match args.disk {
        Some(disk) => vec![disk],
        None => {
            let disks = ctx.status(&system).await?.disks;
            disks.into_iter().map(|disk| disk.name).collect()
        }
    };
    let mut different = Vec::new();
    for disk in disks {
        let outcome = verify_one(ctx, &system, &disk, args.repair).await?;
        if ctx.json {
            ctx.object(&outcome)?;
        } else {
            ctx.line(&told(&outcome))?;
        }
        if outcome.different_bytes > 0 {
            different.push(disk.to_string());
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    let failure = Failure::failed(format!("the legs differ: {}", different.join(", ")));
    Err(if args.repair {
        failure.advise(format!(
            "`flipside wait {system} --duplex` waits until they are rewritten"
        ))
    } else {
        failure.advise(format!(
            "`flipside disk verify {system} --repair` rewrites the legs that do not decide"
        ))
    })
}

async fn verify_one(
    ctx: &Context,
    system: &SystemName,
    disk: &DiskName,
    repair: bool,
) -> Result<VerifyOutcome, Failure> {
    let live = Live::new(ctx.json, ctx.color);
    let path = format!("/v1/systems/{system}/disks/{disk}/verify");
    let mut events = ctx
        .client
        .post_watch(&path, &VerifyRequest { repair })
        .await?;
    loop {
        match events.next().await? {
            Some(VerifyEvent::Progress(progress)) => live.progress(&progress),
            Some(VerifyEvent::Failed(problem)) => return Err(problem.into()),
            Some(VerifyEvent::Done(outcome)) => return Ok(outcome),
            None => return Err(ended()),
        }
    }
}

fn told(outcome: &VerifyOutcome) -> String {
    let disk = &outcome.disk;
    let Some(first) = outcome.first_difference else {
        return format!(
            "{disk}: both legs hold the same {}",
            size(outcome.compared_bytes)
        );
    };
    let repair = outcome
        .repairing
        .map_or_else(String::new, |leg| format!("; leg {leg} is rewritten now"));
    format!(
        "{disk}: the legs differ in {}, first at byte {first}{repair}",
        size(outcome.different_bytes)
    )
}

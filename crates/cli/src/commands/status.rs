//! `flipside status`.

use super::{SideArg, status_check};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{Patience, ended};
use crate::live::Live;
use crate::report;
use flipside_activity::clean;
use flipside_model::{Condition, Side, Status, SystemName};
use std::io::{IsTerminal as _, Write as _};

const LONG: &str = "\
Shows the state of a system: the status bar (configuration file, Hardware State, Upgrade State, Operational State, \
Partner State), the disks and their mirrors, and the commands that are allowed now.

A mirror is None (both legs in sync), Resync nn% (RDR: the stale leg is being rewritten) or Simplex (one leg only). \
With --side it also asks the operating system of that side: the kernel that runs and the newest one installed, failed \
units, whether a restart is needed. With --check it prints one line for a monitoring system and ends with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.";

const EXAMPLES: &str = "\
Examples:
  flipside status web
  flipside status web --watch
  flipside status web --side upgrade
  flipside status web --json | jq .operational_state
  flipside status --check                     all systems, the worst decides";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Show every change until interrupted; with --json one object a line
    #[arg(long)]
    watch: bool,
    /// Also how the operating system of this side is; with --json that alone
    #[arg(long, conflicts_with_all = ["watch", "check"])]
    side: Option<SideArg>,
    /// Monitoring: one line, exit status 0 / 1 / 2 / 3
    #[arg(long, conflicts_with = "watch")]
    check: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    if args.check {
        return status_check::run(ctx, args.system.as_ref()).await;
    }
    let system = ctx.system(args.system.as_ref()).await?;
    if args.watch {
        return watch(ctx, &system).await;
    }
    if let Some(side) = args.side {
        return of_side(ctx, &system, side).await;
    }
    let status = ctx.status(&system).await?;
    if ctx.json {
        return ctx.object(&status);
    }
    ctx.line(&report::status_text(&status, ctx.color))
}

async fn of_side(ctx: &Context, system: &SystemName, side: SideArg) -> Result<(), Failure> {
    let path = format!("/v1/systems/{system}/condition?side={}", side.query());
    let condition: Condition = ctx.client.get(&path).await?;
    if ctx.json {
        return ctx.object(&condition);
    }
    let status = ctx.status(system).await?;
    let text = report::status_text(&status, ctx.color);
    ctx.line(&format!(
        "{text}\n{}",
        condition_text(side.side(), &condition)
    ))
}

/// How the operating system of a side is (VC-07).
fn condition_text(side: Side, condition: &Condition) -> String {
    let or = |text: &str, otherwise: &str| match text {
        "" => otherwise.to_owned(),
        text => clean(text),
    };
    let list = |items: &[String], none: &str| match items {
        [] => none.to_owned(),
        items => clean(&items.join(", ")),
    };
    let newest = condition.newest_kernel.as_deref().unwrap_or_default();
    [
        format!("{side}: {}", or(&condition.system, "unknown system")),
        format!("  state            {}", or(&condition.state, "unknown")),
        format!("  kernel           {}", or(&condition.kernel, "unknown")),
        format!("  newest installed {}", or(newest, "unknown")),
        format!(
            "  failed units     {}",
            list(&condition.failed_units, "none")
        ),
        format!(
            "  restart needed   {}",
            list(&condition.restart_needed, "no")
        ),
    ]
    .join("\n")
}

async fn watch(ctx: &Context, system: &SystemName) -> Result<(), Failure> {
    let mut patience = Patience::default();
    // The moving line would fight with the redrawn page.
    let quiet = Live::still(ctx.json);
    let mut last: Option<Status> = None;
    loop {
        let path = format!("/v1/systems/{system}/status?watch=true");
        let failure = match ctx.client.watch::<Status>(&path).await {
            Err(failure) => failure,
            Ok(mut lines) => {
                patience.found(&quiet);
                loop {
                    match lines.next().await {
                        // The server repeats itself to show that it is there.
                        Ok(Some(status)) if last.as_ref() == Some(&status) => {}
                        Ok(Some(status)) => {
                            show(ctx, &status)?;
                            last = Some(status);
                        }
                        Ok(None) => break ended(),
                        Err(failure) => break failure,
                    }
                }
            }
        };
        patience.lost(&quiet, failure).await?;
    }
}

fn show(ctx: &Context, status: &Status) -> Result<(), Failure> {
    if ctx.json {
        return ctx.object(status);
    }
    if std::io::stdout().is_terminal() {
        let mut out = std::io::stdout().lock();
        // Home, then clear to the end: less flicker than clearing first.
        write!(
            out,
            "\x1b[H\x1b[J{}",
            report::status_text(status, ctx.color)
        )?;
        return Ok(out.flush()?);
    }
    ctx.line(&line(status))
}

/// One change as one line.
fn line(status: &Status) -> String {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut text = format!("{now}  {}", report::status_bar(status));
    for disk in &status.disks {
        text.push_str(&format!("  {} {}", disk.name, disk.mirror));
    }
    if let Some(step) = &status.step {
        text.push_str(&format!("  {}", clean(step)));
    }
    if let Some(progress) = &status.progress {
        text.push_str(&format!("  {}", report::progress_text(progress)));
    }
    text
}

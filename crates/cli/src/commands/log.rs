//! `flipside log`.

use crate::client::Lines;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{Patience, ended};
use crate::live::Live;
use flipside_activity::{Line, Tree, render};
use flipside_model::{Entry, Severity, SystemName};

const LONG: &str = "\
Shows the activity log of a system as a tree: every stage, its steps, and what was found and measured.

Severities: Success, Pending (in progress), Information, Warning (should be addressed), Error (must be corrected).";

const EXAMPLES: &str = "\
Examples:
  flipside log web
  flipside log web --follow
  flipside log web --severity Warning          Warnings and Errors, and the way to them
  flipside log web --json | jq 'select(.severity == \"Error\")'";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Go on with what is added, one line each, until interrupted
    #[arg(long)]
    follow: bool,
    /// Show only this severity and what is worse
    #[arg(long, value_name = "SEVERITY", ignore_case = true)]
    severity: Option<SeverityArg>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum SeverityArg {
    Success,
    Pending,
    Information,
    Warning,
    Error,
}

impl SeverityArg {
    fn severity(self) -> Severity {
        match self {
            Self::Success => Severity::Success,
            Self::Pending => Severity::Pending,
            Self::Information => Severity::Information,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let least = args.severity.map(SeverityArg::severity);
    if args.follow {
        return follow(ctx, &system, least).await;
    }
    let path = format!("/v1/systems/{system}/log?after=0&follow=false");
    let mut entries: Lines<Entry> = ctx.client.watch(&path).await?;
    let mut tree = Tree::default();
    while let Some(entry) = entries.next().await? {
        tree.push(&entry);
    }
    let lines = tree.lines(least);
    if ctx.json {
        return lines.iter().try_for_each(|line| ctx.line(&line.json()));
    }
    if lines.is_empty() {
        return Ok(());
    }
    ctx.line(&render(&lines, &ctx.style()))
}

async fn follow(
    ctx: &Context,
    system: &SystemName,
    least: Option<Severity>,
) -> Result<(), Failure> {
    let mut patience = Patience::default();
    let quiet = Live::still(ctx.json);
    let mut tree = Tree::default();
    let mut last = 0;
    loop {
        let path = format!("/v1/systems/{system}/log?after={last}&follow=true");
        let failure = match ctx.client.watch::<Entry>(&path).await {
            Err(failure) => failure,
            Ok(mut entries) => {
                patience.found(&quiet);
                loop {
                    match entries.next().await {
                        Ok(Some(entry)) if entry.seq > last => {
                            last = entry.seq;
                            for line in tree.push(&entry) {
                                show(ctx, &line, least)?;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break ended(),
                        Err(failure) => break failure,
                    }
                }
            }
        };
        patience.lost(&quiet, failure).await?;
    }
}

fn show(ctx: &Context, line: &Line, least: Option<Severity>) -> Result<(), Failure> {
    if least.is_some_and(|least| line.severity < least) {
        return Ok(());
    }
    if ctx.json {
        return ctx.line(&line.json());
    }
    ctx.line(&line.follow(&ctx.style()))
}

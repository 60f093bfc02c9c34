//! `flipside log`.

use super::{log_export, log_item};
use crate::client::Lines;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{Patience, ended};
use crate::live::Live;
use crate::report::columns;
use flipside_activity::{Line, SCHEMA, Tree, clean, current, render};
use flipside_model::api::SessionLog;
use flipside_model::{Entry, Severity, SystemName};
use std::path::PathBuf;

const LONG: &str = "\
Shows the activity log of a system as a tree: every stage, its steps, and what was found and measured.

There is one log a session, with the checks that came before it. Shown is the log of the open session or, without one, of \
the last session and what happened since; --session shows an earlier one, --all everything.

Severities: Success, Pending (in progress), Information, Warning (should be addressed), Error (must be corrected).";

const EXAMPLES: &str = "\
Examples:
  flipside log web
  flipside log web --depth 0                   the stages alone; + says how many lines lie below
  flipside log web --follow
  flipside log web --severity Warning          Warnings and Errors, and the way to them
  flipside log web --json | jq 'select(.severity == \"Error\")'
  flipside log web --sessions                  the sessions until now
  flipside log web --session 3 --export third  saves the log of the third as third.xml, for a browser
  flipside log web --item 0 --go next --severity Error      the first Error, with everything it says";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Go on with what is added, one line each, until interrupted
    #[arg(long, conflicts_with_all = ["session", "sessions", "export", "item", "depth"])]
    follow: bool,
    /// Show only this severity and what is worse; with --item: walk through this one
    #[arg(long, value_name = "SEVERITY", ignore_case = true)]
    severity: Option<SeverityArg>,
    /// Show entries down to this depth: 0 stages, 1 steps, 2 what was found
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// List the sessions until now
    #[arg(long, conflicts_with_all = ["session", "all", "export", "item", "severity", "depth"])]
    sessions: bool,
    /// The log of an earlier session, by its number or id (see --sessions)
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The logs of all sessions
    #[arg(long, conflicts_with = "session")]
    all: bool,
    /// Save the log as XML, which a browser shows; `.xml` is added, and no file is replaced
    #[arg(long, value_name = "FILE", conflicts_with_all = ["item", "severity", "depth"])]
    export: Option<PathBuf>,
    /// Show one item with everything it says, by its number (`node` in --json)
    #[arg(long, value_name = "N", conflicts_with_all = ["all", "depth"])]
    item: Option<u64>,
    /// With --item: show the one before or after it of the same severity, or of --severity
    #[arg(long, value_name = "WHERE", requires = "item")]
    go: Option<log_item::GoArg>,
    /// Print the schema (XSD) of saved logs
    #[arg(long, conflicts_with_all = ["follow", "sessions", "session", "all", "export", "item", "severity", "depth"])]
    schema: bool,
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
    if args.schema {
        return ctx.line(SCHEMA);
    }
    let system = ctx.system(args.system.as_ref()).await?;
    let least = args.severity.map(SeverityArg::severity);
    let path = format!("/v1/systems/{system}/sessions");
    let sessions: Vec<SessionLog> = ctx.client.get(&path).await?;
    if args.sessions {
        return list(ctx, &sessions);
    }
    let chosen = args.session.as_ref().map(|id| chosen(id, &sessions));
    let chosen = chosen.transpose()?;
    if let Some(item) = args.item {
        let session = chosen.map(|session| session.number);
        return log_item::run(ctx, &system, item, args.go, least, session).await;
    }
    let (first, last) = match chosen {
        Some(session) => (session.first, session.last),
        None if args.all => (1, u64::MAX),
        None => (current(&sessions), u64::MAX),
    };
    if args.follow {
        return follow(ctx, &system, least, first - 1).await;
    }
    let tree = fold(ctx, &system, first, last).await?;
    if let Some(file) = &args.export {
        let session = chosen.or_else(|| sessions.last().filter(|_| !args.all));
        return log_export::run(ctx, &system, file, &tree, session).await;
    }
    let lines = tree.lines_to(least, args.depth.unwrap_or(usize::MAX));
    if ctx.json {
        return lines.iter().try_for_each(|line| ctx.line(&line.json()));
    }
    if lines.is_empty() {
        return Ok(());
    }
    ctx.line(&render(&lines, &ctx.style()))
}

async fn fold(ctx: &Context, system: &SystemName, first: u64, last: u64) -> Result<Tree, Failure> {
    let after = first - 1;
    let path = format!("/v1/systems/{system}/log?after={after}&until={last}&follow=false");
    let mut entries: Lines<Entry> = ctx.client.watch(&path).await?;
    let mut tree = Tree::default();
    while let Some(entry) = entries.next().await? {
        if (first..=last).contains(&entry.seq) {
            tree.push(&entry);
        }
    }
    Ok(tree)
}

fn chosen<'a>(id: &str, sessions: &'a [SessionLog]) -> Result<&'a SessionLog, Failure> {
    let is =
        |session: &&SessionLog| session.number.to_string() == id || session.id.to_string() == id;
    sessions.iter().find(is).ok_or_else(|| {
        Failure::usage(format!("there was no session `{}`", clean(id)))
            .advise("`flipside log --sessions` lists them")
    })
}

fn list(ctx: &Context, sessions: &[SessionLog]) -> Result<(), Failure> {
    if ctx.json {
        return ctx.object(&sessions);
    }
    if sessions.is_empty() {
        return ctx.line("no session yet");
    }
    let zone = ctx.style().zone;
    let time = |ms: i64| {
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
        let zoned = time.to_zoned(zone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    let head = [
        "SESSION",
        "BEGAN",
        "ENDED",
        "OUTCOME",
        "CONFIGURATION",
        "ID",
    ]
    .map(str::to_owned);
    let mut rows = vec![head];
    for session in sessions {
        let config = session.config.as_deref().map(clean);
        rows.push([
            session.number.to_string(),
            time(session.began_ms),
            session.ended_ms.map_or_else(|| "-".to_owned(), time),
            session.outcome.to_string(),
            config.unwrap_or_else(|| "-".to_owned()),
            session.id.to_string(),
        ]);
    }
    ctx.line(&columns(&rows))
}

async fn follow(
    ctx: &Context,
    system: &SystemName,
    least: Option<Severity>,
    after: u64,
) -> Result<(), Failure> {
    let mut patience = Patience::default();
    let quiet = Live::still(ctx.json);
    let mut tree = Tree::default();
    let mut last = after;
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

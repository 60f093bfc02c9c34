//! `flipside actions`: the custom actions of the configuration in force, and files of theirs that were changed (fault 60).

use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_activity::clean;
use flipside_model::api::StagedConfig;
use flipside_model::{CustomAction, PinnedFile, SystemName};

const LONG: &str = "\
Lists the custom actions of the session, or of the configuration that was checked last, in the order of the list.

A session records in Prepare Split what the files of its actions are, on both sides and on the host. A file that was \
changed since then is not run. `flipside actions accept` looks at all of them again and records those that differ as \
they are now: after you corrected a script that failed, or when the upgrade itself replaced it.";

const EXAMPLES: &str = "\
Examples:
  flipside actions web
  flipside actions accept web && flipside retry web     after a script was corrected";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Record files that were changed as the ones that are meant
    #[command(after_help = "Examples:\n  flipside actions accept web")]
    Accept(AcceptArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match args.command {
        Some(Command::Accept(accept)) => accept_changed(ctx, accept.system.as_ref()).await,
        None => list(ctx, args.system.as_ref()).await,
    }
}

async fn accept_changed(ctx: &Context, named: Option<&SystemName>) -> Result<(), Failure> {
    let system = ctx.system(named).await?;
    let path = format!("/v1/systems/{system}/actions/accept");
    let files: Vec<PinnedFile> = ctx.client.post(&path, &serde_json::json!({})).await?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "accepted": files }));
    }
    if files.is_empty() {
        return ctx.line("no file of a custom action was changed");
    }
    for file in &files {
        let place = file.side.map_or("host".to_owned(), |side| side.to_string());
        ctx.line(&format!("accepted `{}` on the {place}", clean(&file.path)))?;
    }
    Ok(())
}

async fn list(ctx: &Context, named: Option<&SystemName>) -> Result<(), Failure> {
    let system = ctx.system(named).await?;
    let path = format!("/v1/systems/{system}/config");
    let staged: StagedConfig = ctx.client.get(&path).await?;
    let actions = &staged.config.actions;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "actions": actions }));
    }
    if actions.is_empty() {
        return ctx.line("no custom actions: the configuration names none");
    }
    let head = ["CONTROL TYPE", "TIMING", "WHERE", "LIMIT", "ACTION"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(actions.iter().map(row));
    ctx.line(&columns(&rows))
}

fn row(action: &CustomAction) -> [String; 5] {
    [
        action.control_type.to_string(),
        action.timing.to_string(),
        action.place.to_string(),
        action.limit.map_or("-".to_owned(), |s| format!("{s} s")),
        clean(&action.shown()),
    ]
}

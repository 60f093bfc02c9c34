//! `flipside rehearse`: the applications of the Upgrade Side on copies of the data.

use crate::context::Context;
use crate::failure::Failure;
use flipside_activity::clean;
use flipside_model::SystemName;
use flipside_model::api::{RehearsalRequest, RehearsalStatus};

const LONG: &str = "\
Starts and stops the upgraded applications on the Upgrade Side, on throw-away copies of the data: in Split, in a session whose \
configuration says `rehearsal = true`. Nothing that they write reaches the data of the Production Side, and no user reaches \
them; try them with `flipside run`, `shell` or `ssh`.

The copies show the data as they were at the split. They are thrown away when the merge begins, or with an abort. Each may \
grow to 8 GiB; then the guest's writes to it fail. Until then each data disk has one leg: a failure of it is an outage.";

const EXAMPLES: &str = "\
Examples:
  flipside rehearse start web
  flipside run web -- curl -s http://localhost/health
  flipside rehearse stop web
  flipside rehearse show web";

/// The applications on copies of the data.
#[derive(Debug, clap::Subcommand)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Mount the copies and start the controlled services
    Start(On),
    /// Stop the controlled services; the copies stay
    Stop(On),
    /// Say what runs
    Show(On),
}

/// Which system.
#[derive(Debug, clap::Args)]
pub(crate) struct On {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    let (on, start) = match command {
        Command::Start(on) => (on, Some(true)),
        Command::Stop(on) => (on, Some(false)),
        Command::Show(on) => (on, None),
    };
    let system = ctx.system(on.system.as_ref()).await?;
    let path = format!("/v1/systems/{system}/rehearsal");
    let status: RehearsalStatus = match start {
        Some(start) => ctx.client.post(&path, &RehearsalRequest { start }).await?,
        None => ctx.client.get(&path).await?,
    };
    if ctx.json {
        return ctx.object(&status);
    }
    ctx.line(&told(&status))
}

fn told(status: &RehearsalStatus) -> String {
    if status.units.is_empty() {
        return "Rehearsal: the session controls no service".to_owned();
    }
    let mut text = "Rehearsal, on copies of the data:".to_owned();
    for unit in &status.units {
        let does = if status.running.contains(unit) {
            "runs"
        } else {
            "is stopped"
        };
        text.push_str(&format!("\n  {} {does}", clean(unit)));
    }
    text
}

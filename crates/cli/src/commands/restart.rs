//! `flipside restart`.

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::live::Live;
use crate::report;
use flipside_model::api::RestartRequest;
use flipside_model::{Status, SystemName};

const LONG: &str = "\
Restarts the Upgrade Side, for example into a new kernel. It costs nothing: the users are on the other side. \
Production is refused.";

const EXAMPLES: &str = "\
Examples:
  flipside restart web --side upgrade";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side to restart
    #[arg(long)]
    side: SideArg,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let live = Live::new(ctx.json, ctx.color);
    live.message(format!("restarting the {}", args.side.side()));
    let request = RestartRequest {
        side: args.side.side(),
    };
    let path = format!("/v1/systems/{system}/restart");
    let status: Status = ctx.client.post(&path, &request).await?;
    drop(live);
    if ctx.json {
        return ctx.object(&status);
    }
    ctx.line(&report::status_bar(&status))
}

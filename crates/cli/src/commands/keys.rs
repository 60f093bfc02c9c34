//! `flipside keys`: key sequences that a terminal cannot send (US-23).

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::report;
use flipside_model::api::KeysRequest;
use flipside_model::{KeySequence, Status, SystemName};

const LONG: &str = "\
Presses keys on the virtual keyboard of a side: ctrl-alt-del (a Linux guest restarts), ctrl-alt-f1 (the first text \
console), enter.

Without --side it is the Upgrade Side in Split, and in Idle the system. Ctrl-Alt-Del on the Production Side of a divided \
system is refused.";

const EXAMPLES: &str = "\
Examples:
  flipside keys ctrl-alt-del web";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// ctrl-alt-del, ctrl-alt-f1 or enter
    keys: KeySequence,
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side in Split, in Idle the system
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let request = KeysRequest {
        side: args.side.map(SideArg::side),
        keys: args.keys,
    };
    let path = format!("/v1/systems/{system}/keys");
    let status: Status = ctx.client.post(&path, &request).await?;
    if ctx.json {
        return ctx.object(&status);
    }
    ctx.line(&report::status_bar(&status))
}

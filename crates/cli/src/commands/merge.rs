//! `flipside merge`.

use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};

const EXAMPLES: &str = "\
Examples:
  flipside merge web           asks, moves the users, shows the outage
  flipside merge web --yes     does not ask";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

const LONG: &str = "\
Moves the users to the Upgrade Side. The users move; no data is merged: the data disks go with them as they are.

The applications stop on the Production Side and start on the Upgrade Side, a brief outage. The Production Side stays \
in memory, paused, until commit. Data written after the merge stays, also after an abort. Asks first: type the \
system's name, or use --yes.";

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    session::run(ctx, Ask::plain(args.system.as_ref(), Command::Merge)).await
}

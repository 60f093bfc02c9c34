//! `flipside commit`.

use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};

const EXAMPLES: &str = "\
Examples:
  flipside commit web
  flipside commit web --yes && flipside wait web --duplex && flipside finish web";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

const LONG: &str = "\
Makes the upgrade permanent. Irreversible: there is no abort from here on.

What changed on the system disks of the Production Side since the split is lost. Returns when the resync of the \
mirrors (RDR) has started; 'flipside wait --duplex' waits for its end. Asks first: type the system's name, or use --yes.";

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    session::run(ctx, Ask::plain(args.system.as_ref(), Command::Commit)).await
}

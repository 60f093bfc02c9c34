//! `flipside abort`.

use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};

const EXAMPLES: &str = "\
Examples:
  flipside abort web
  flipside abort web --discard-data
  flipside abort web --yes && flipside wait web --duplex && flipside finish web";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// In Merge: take the data back to the checkpoint, which throws away what was written since the merge
    #[arg(long)]
    discard_data: bool,
}

const LONG: &str = "\
Takes the upgrade back, from any point before commit.

In Split it costs no downtime: the Upgrade Side is ended. In Merge the users move back to the paused Production Side, \
a brief outage without a reboot; the data disks are not rolled back. Only when the \
session keeps a checkpoint of the data (`checkpoint = true` in its configuration), `--discard-data` makes them what they \
were at the merge. What was installed on the Upgrade Side is lost. \
Returns when the resync of the mirrors (RDR) has started. Asks first; in Merge by the system's name.";

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let ask = Ask {
        discard_data: args.discard_data,
        ..Ask::plain(args.system.as_ref(), Command::Abort)
    };
    session::run(ctx, ask).await
}

//! `flipside retry`.

use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};

const EXAMPLES: &str = "\
Examples:
  flipside retry web           after the cause was removed";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

const LONG: &str = "\
Repeats the operation of the current state after it failed. Finished steps are not repeated.";

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    session::run(ctx, Ask::plain(args.system.as_ref(), Command::Retry)).await
}

//! `flipside finish`.

use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};

const EXAMPLES: &str = "\
Examples:
  flipside finish web";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

const LONG: &str = "\
Cleans up after commit or abort and ends the session.";

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    session::run(ctx, Ask::plain(args.system.as_ref(), Command::Finish)).await
}

//! `flipside demo`: the whole story on this machine, start to end.

use crate::context::Context;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  flipside demo";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

pub(crate) async fn run(_ctx: &Context, _args: Args) -> Result<(), Failure> {
    Err(Failure::failed("the demo is not built in yet")
        .advise("in a checkout of the sources, run `./dev demo`"))
}

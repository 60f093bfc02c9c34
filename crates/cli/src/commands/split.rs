//! `flipside split`.

use super::check::load;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{self, Ask};
use flipside_model::{Command, SystemName};
use std::path::PathBuf;

const LONG: &str = "\
Divides a system into the Production Side, which keeps serving the users, and the isolated Upgrade Side. It is not \
split-brain: the Upgrade Side has neither the network nor live data.

Checks readiness first: an Error leaves the system as it is. Without --config the configuration checked last is used, \
and named. Until commit or abort each side runs simplex: a failure of the Production Side is then an outage.";

const EXAMPLES: &str = "\
Examples:
  flipside split web                        with the configuration checked last
  flipside split web --config web.Config
  flipside split web --no-config --no-wait";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Upgrade configuration file; `NAME` finds `NAME.Config`
    #[arg(long, value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,
    /// Use no configuration file, not even the one checked last
    #[arg(long)]
    no_config: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let ask = Ask {
        no_config: args.no_config,
        config: load(ctx, args.config)?,
        ..Ask::plain(args.system.as_ref(), Command::Split)
    };
    session::run(ctx, ask).await
}

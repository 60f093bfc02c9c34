//! `flipside shell`: a terminal on a side.

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::{side_banner, terminal, url};
use flipside_model::SystemName;
use rustix::termios::tcgetwinsize;

const LONG: &str = "\
Opens an interactive shell on a side, over the VTM path: it needs no network in the guest. A banner, the terminal's \
title and the prompt say which side it is.

Without --side it opens on the Upgrade Side, and only in Split: after the merge that side is live and must be named. \
'~.' at the start of a line ends it.";

const EXAMPLES: &str = "\
Examples:
  flipside shell web
  flipside shell web --side production";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side, and only in Split
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let status = ctx.status(&system).await?;
    let side = side_banner::meant(&status, args.side.map(SideArg::side));
    let mut uri = format!("/v1/systems/{system}/shell");
    if let Some(side) = args.side {
        url::add(&mut uri, "side", side.query());
    }
    if let Ok(size) = tcgetwinsize(std::io::stdin())
        && size.ws_row > 0
        && size.ws_col > 0
    {
        url::add(&mut uri, "rows", &size.ws_row.to_string());
        url::add(&mut uri, "cols", &size.ws_col.to_string());
    }
    terminal::connect(ctx, &uri, (&status, side), "flipside-shell", "shell").await
}

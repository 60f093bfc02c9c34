//! `flipside demo`: the whole story on this machine, start to end.

use crate::context::Context;
use crate::failure::Failure;
use std::path::PathBuf;

#[path = "../demo/mod.rs"]
mod story;

const LONG: &str = "\
Tells the whole story on this machine, with real commands: a Debian server is created from an image, split, upgraded \
on its Upgrade Side, merged and committed; then a second upgrade is merged and aborted. A client uses the server all \
the time, and a table of what it saw ends the story.

It asks nothing and needs no privileges. It has its own server, socket, ports and directory; a demo that is there \
already is ended and removed first. On a terminal it leaves the system running, to look around.";

const EXAMPLES: &str = "\
Examples:
  flipside demo
  flipside demo --quick --stop          without the Debian upgrade and the new kernel
  flipside demo --figures demo.json     the figures as JSON, also with --json on standard output
  flipside demo --end                   end what a demo left running, and remove its files";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of the demo [default: target/demo in a checkout, else flipside-demo in the XDG state directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Directory of the guest's images [default: target/guest]
    #[arg(long, value_name = "DIR", env = "FLIPSIDE_GUEST")]
    guest: Option<PathBuf>,
    /// Install only the page's new release: no other packages, no kernel, no restart
    #[arg(long)]
    quick: bool,
    /// End server and system at the end, and compare the legs of every disk (default without a terminal)
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Leave server and system running at the end (default on a terminal)
    #[arg(long)]
    keep: bool,
    /// Write the figures as JSON to this file too
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// End the demo that is there and remove its files
    #[arg(long, conflicts_with_all = ["stop", "keep", "quick", "figures", "guest"])]
    end: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    story::run(ctx, args).await
}

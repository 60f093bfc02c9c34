//! `flipside guard`: one process per system that outlives the server; started by the server, never by hand.

use crate::context::Context;
use crate::failure::Failure;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// State directory of the server
    #[arg(long)]
    state_dir: PathBuf,
    /// The system it watches
    #[arg(long)]
    system: String,
}

pub(crate) async fn run(_ctx: &Context, args: Args) -> Result<(), Failure> {
    flipside_server::guard(&args.state_dir, &args.system)
        .await
        .map_err(|error| Failure::failed(format!("the guard ended: {error:#}")))
}

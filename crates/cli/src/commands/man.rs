//! `flipside man`: hidden, for packages.

use crate::args::Cli;
use crate::failure::Failure;
use clap::CommandFactory as _;
use flipside_model::{Problem, ProblemCode};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory; it must exist
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.dir).map_err(|error| {
        let message = format!("cannot write manual pages into `{}`", args.dir.display());
        Problem::new(ProblemCode::Failed, message)
            .because(&error)
            .into()
    })
}

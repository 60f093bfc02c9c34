//! `flipside completion`.

use crate::args::Cli;
use crate::failure::Failure;
use clap::CommandFactory as _;
use std::io::Write as _;

const EXAMPLES: &str = "\
Examples:
  flipside completion bash > ~/.local/share/bash-completion/completions/flipside
  flipside completion zsh > ~/.zfunc/_flipside";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flipside", &mut text);
    Ok(std::io::stdout().lock().write_all(&text)?)
}

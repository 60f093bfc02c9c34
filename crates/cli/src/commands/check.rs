//! `flipside check`.

use crate::context::Context;
use crate::failure::Failure;
use crate::recent;
use crate::session::{self, Ask};
use flipside_model::api::ConfigText;
use flipside_model::{Command, SystemName};
use std::path::PathBuf;

const LONG: &str = "\
Checks whether a system is ready for an upgrade, as often as you like; it changes nothing.

Errors must be corrected before the split, Warnings should be addressed. The configuration checked last is the one \
that 'flipside split' uses, and 'flipside check' too unless another one is named; it is always printed.";

const EXAMPLES: &str = "\
Examples:
  flipside check web --config web.Config
  flipside check               the only system, with the configuration checked last
  flipside check --no-config

A name without a slash is looked for in the working directory, then in the directory used last.";

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
        ..Ask::plain(args.system.as_ref(), Command::Check)
    };
    session::run(ctx, ask).await
}

/// Finds, reads and checks a configuration file, with everything it calls, before anything is asked of the server.
pub(crate) fn load(ctx: &Context, path: Option<PathBuf>) -> Result<Option<ConfigText>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    let opened = recent::open(&path)?;
    if let Some(note) = &opened.note {
        ctx.say(note)?;
    }
    // The server may run elsewhere in the file system: it is told the whole path.
    let text = opened.text;
    let path = std::fs::canonicalize(&text.path).unwrap_or_else(|_| text.path.clone());
    Ok(Some(ConfigText { path, ..text }))
}

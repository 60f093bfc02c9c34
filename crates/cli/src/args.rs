//! The command line as clap sees it: the contract of design section 6.

use crate::commands;
use clap::{ColorChoice, Parser, Subcommand};
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
flipside upgrades a running server on its flip side. It divides a duplexed system into a Production Side, which keeps \
serving the users, and an isolated Upgrade Side, on which software is installed and restarted at will; then it moves \
the applications over in seconds, and makes the change permanent or takes it back.

`flipside serve` is the server; every other command is a client of it.";

const AFTER: &str = "\
A session, start to end:
  flipside check web --config web.Config     is the system ready?
  flipside split web                         divide it (not split-brain: one side is isolated)
  flipside shell web                         work on the Upgrade Side
  flipside merge web                         move the users over (no data is merged)
  flipside commit web                        make it permanent, or take it back: flipside abort web
  flipside finish web                        clean up
  flipside wait web --duplex                 until every mirror is in sync again (RDR, the resync of a mirror)

Exit status: 0 done; 1 failed or Broken; 2 usage; 3 refused in this state, with what is allowed.";

/// Upgrades a running server on its flip side.
#[derive(Debug, Parser)]
#[command(name = "flipside", version, about, long_about = LONG_ABOUT, after_help = AFTER, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Socket of the server [default: flipside.sock in the runtime directory]
    #[arg(long, global = true, value_name = "PATH", env = "FLIPSIDE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON: one object, or one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Answer the question of a command that asks; the system must then be named
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Return at once instead of waiting for the operation
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
    /// When to use colour; NO_COLOR is obeyed too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(commands::serve::Args),
    /// Add, list and remove the users of the web console
    #[command(subcommand)]
    User(commands::user::Command),
    /// Create, start, stop, show, list and delete systems
    #[command(subcommand)]
    System(commands::system::Command),
    /// Compare the legs of disks
    #[command(subcommand)]
    Disk(commands::disk::Command),
    /// Make, edit, show, list and check upgrade configuration files
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Check whether a system is ready for an upgrade; changes nothing
    Check(commands::check::Args),
    /// Divide a system into Production Side and Upgrade Side (not split-brain: one side is isolated)
    Split(commands::split::Args),
    /// Run a program on a side
    Run(commands::run::Args),
    /// Open an interactive shell on a side
    Shell(commands::shell::Args),
    /// Connect to a side by SSH, over its private network card
    Ssh(commands::ssh::Args),
    /// Open the serial console of a side, or show what it printed last
    Console(commands::console::Args),
    /// Press keys on a side, such as ctrl-alt-del
    Keys(commands::keys::Args),
    /// Put an image into the CD drive, or empty it
    #[command(subcommand)]
    Media(commands::media::Command),
    /// Start or stop the applications of the Upgrade Side on copies of the data
    #[command(subcommand)]
    Rehearse(commands::rehearse::Command),
    /// Restart the Upgrade Side
    Restart(commands::restart::Args),
    /// Copy a file into a system, before the split or to a side
    Copy(commands::copy::Args),
    /// Move the users to the Upgrade Side (no data is merged)
    Merge(commands::merge::Args),
    /// Make the upgrade permanent
    Commit(commands::commit::Args),
    /// Take the upgrade back
    Abort(commands::abort::Args),
    /// Clean up after commit or abort and end the session
    Finish(commands::finish::Args),
    /// Repeat the operation that failed
    Retry(commands::retry::Args),
    /// Wait until every mirror is in sync again (RDR, the resync of a mirror)
    Wait(commands::wait::Args),
    /// Show the state of a system
    Status(commands::status::Args),
    /// Show the controlled services of each side
    Services(commands::services::Args),
    /// List what changed on the Production Side since the split, and would be lost at commit
    Changes(commands::changes::Args),
    /// List the installed packages of a side, or what the upgrade changed
    Packages(commands::packages::Args),
    /// Go through what to verify before a merge or a commit
    VerifyList(commands::verify_list::Args),
    /// List the dump files of crashed Upgrade Sides
    Dumps(commands::dumps::Args),
    /// List the logs that a side has, to choose from for log backup
    Logs(commands::logs::Args),
    /// Show the custom actions, and accept files of theirs that were changed
    Actions(commands::actions::Args),
    /// Show the activity log
    Log(commands::log::Args),
    /// Tell the whole story on this machine, start to end
    Demo(commands::demo::Args),
    /// Watch one machine (started by the server)
    #[command(hide = true)]
    Guard(commands::guard::Args),
    /// Show a page of the manual, or explain a command
    Help(commands::help::Args),
    /// Print a completion script for a shell
    Completion(commands::completion::Args),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(commands::man::Args),
}

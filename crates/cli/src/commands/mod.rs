//! One file per command.

pub(crate) mod abort;
pub(crate) mod actions;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod config_edit;
pub(crate) mod config_show;
pub(crate) mod config_summary;
pub(crate) mod console;
pub(crate) mod copy;
pub(crate) mod demo;
pub(crate) mod disk;
pub(crate) mod dumps;
pub(crate) mod finish;
pub(crate) mod guard;
pub(crate) mod help;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod log_export;
pub(crate) mod log_item;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod media;
pub(crate) mod merge;
pub(crate) mod packages;
pub(crate) mod rehearse;
pub(crate) mod restart;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod services;
pub(crate) mod shell;
pub(crate) mod split;
pub(crate) mod ssh;
mod ssh_packages;
pub(crate) mod status;
pub(crate) mod status_check;
pub(crate) mod system;
pub(crate) mod system_create;
pub(crate) mod user;
pub(crate) mod verify_list;
pub(crate) mod wait;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;
use clap::ValueEnum;
use flipside_model::Side;

/// Runs the command that was typed.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let ctx = Context::new(&cli.global);
    match cli.command {
        Command::Serve(args) => serve::run(&ctx, args).await,
        Command::System(command) => system::run(&ctx, command).await,
        Command::Disk(command) => disk::run(&ctx, command).await,
        Command::Config(command) => config::run(&ctx, command).await,
        Command::Check(args) => check::run(&ctx, args).await,
        Command::Split(args) => split::run(&ctx, args).await,
        Command::Run(args) => run::run(&ctx, args).await,
        Command::Shell(args) => shell::run(&ctx, args).await,
        Command::Ssh(args) => ssh::run(&ctx, args).await,
        Command::Console(args) => console::run(&ctx, args).await,
        Command::Keys(args) => keys::run(&ctx, args).await,
        Command::Media(command) => media::run(&ctx, command).await,
        Command::User(args) => user::run(&ctx, args).await,
        Command::Rehearse(command) => rehearse::run(&ctx, command).await,
        Command::Dumps(args) => dumps::run(&ctx, args).await,
        Command::VerifyList(args) => verify_list::run(&ctx, args).await,
        Command::Restart(args) => restart::run(&ctx, args).await,
        Command::Copy(args) => copy::run(&ctx, args).await,
        Command::Merge(args) => merge::run(&ctx, args).await,
        Command::Commit(args) => commit::run(&ctx, args).await,
        Command::Abort(args) => abort::run(&ctx, args).await,
        Command::Finish(args) => finish::run(&ctx, args).await,
        Command::Retry(args) => retry::run(&ctx, args).await,
        Command::Wait(args) => wait::run(&ctx, args).await,
        Command::Services(args) => services::run(&ctx, args).await,
        Command::Packages(args) => packages::run(&ctx, args).await,
        Command::Logs(args) => logs::run(&ctx, args).await,
        Command::Actions(args) => actions::run(&ctx, args).await,
        Command::Changes(args) => changes::run(&ctx, args).await,
        Command::Status(args) => status::run(&ctx, args).await,
        Command::Log(args) => log::run(&ctx, args).await,
        Command::Demo(args) => demo::run(&ctx, args).await,
        Command::Guard(args) => guard::run(&ctx, args).await,
        Command::Help(args) => help::run(&ctx, &args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// A side as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SideArg {
    /// The isolated side, where software is installed
    Upgrade,
    /// The side that serves the users
    Production,
}

impl SideArg {
    pub(crate) fn side(self) -> Side {
        match self {
            Self::Upgrade => Side::Upgrade,
            Self::Production => Side::Production,
        }
    }

    /// Returns the value of the API's query parameter, spelled as the type is serialised.
    pub(crate) fn query(self) -> &'static str {
        match self {
            Self::Upgrade => "Upgrade",
            Self::Production => "Production",
        }
    }
}

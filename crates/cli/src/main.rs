//! The `flipside` command line: a client of the server, and the server itself behind `flipside serve`.
//!
//! One file per command lies in `commands`; it parses nothing and knows one request. What they share: `client`
//! (HTTP over the Unix socket), `follow` (waiting for an operation), `confirm` (questions), `report` (status as text).
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod confirm;
mod context;
mod disks;
mod escape;
mod failure;
mod follow;
mod live;
mod manual;
mod recent;
mod report;
mod selection;
mod session;
mod side_banner;
mod terminal;
mod url;

// Mistakes can be planted in tests, never in what users run.
const _: () = assert!(
    !flipside_model::planted::ENABLED,
    "`flipside` is never built with the feature `planted`"
);

use clap::Parser as _;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(failure::FAILED);
        }
    };
    let ended = runtime.block_on(commands::run(cli));
    // A read of standard input cannot be taken back: do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn tell(failure: &Failure) {
    let text = failure.text();
    if !text.is_empty() {
        eprint!("{text}");
    }
}

//! `flipside serve`.

use crate::context::Context;
use crate::failure::{Failure, from_any};
use flipside_model::{Problem, ProblemCode};
use flipside_server::ServeOptions;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

const LONG: &str = "\
Runs the server. It keeps all state of systems and sessions, and every other command is a client of it.

QEMU processes are not its children: they outlive it, and it adopts them again when it starts. So it may be stopped, \
killed and updated at any moment; an operation goes on from its journal.";

const EXAMPLES: &str = "\
Examples:
  flipside serve                                         as root: /var/lib/flipside, /run/flipside
  flipside serve --state-dir /srv/flipside --socket /tmp/f.sock --listen 127.0.0.1:7071
  FLIPSIDE_LOG=debug flipside serve                      more of the developers' log";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of all state [default: /var/lib/flipside for root, else flipside in the XDG state directory]
    #[arg(long, value_name = "DIR", env = "FLIPSIDE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Address of the console
    #[arg(
        long,
        value_name = "ADDR",
        env = "FLIPSIDE_LISTEN",
        default_value = "127.0.0.1:7070"
    )]
    listen: SocketAddr,
    /// Filter of the developers' log on standard error, such as `debug` or `flipside_engine=trace`
    #[arg(
        long,
        value_name = "FILTER",
        env = "FLIPSIDE_LOG",
        default_value = "info"
    )]
    log: String,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        let message = format!("`--log {}` is not a filter", args.log.escape_debug());
        Problem::new(ProblemCode::Usage, message).because(&error)
    })?;
    let state_dir = match args.state_dir.filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => dir,
        None => default_state_dir()?,
    };
    // Fails only when a subscriber is set already, and then that one is right.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        .try_init();
    let options = ServeOptions {
        state_dir,
        socket: ctx.client.socket().to_owned(),
        listen: args.listen,
    };
    flipside_server::serve(options).await.map_err(from_any)
}

fn default_state_dir() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/flipside"));
    }
    let dir = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    dir("XDG_STATE_HOME")
        .or_else(|| dir("HOME").map(|home| home.join(".local/state")))
        .map(|dir| dir.join("flipside"))
        .ok_or_else(|| {
            Failure::usage("there is no home directory for the state")
                .advise("name a directory: `--state-dir DIR` or FLIPSIDE_STATE_DIR")
        })
}

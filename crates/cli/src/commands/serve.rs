//! `flipside serve`.

use crate::context::Context;
use crate::failure::{Failure, from_any};
use flipside_model::{Problem, ProblemCode};
use flipside_server::{ServeOptions, WebOptions};
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
    /// Address of the web console; one that is no loopback address needs --tls-cert and --tls-key
    #[arg(
        long,
        value_name = "ADDR",
        env = "FLIPSIDE_LISTEN",
        default_value = "127.0.0.1:7070"
    )]
    listen: SocketAddr,
    /// Directory of the console's pages [default: target/console in a checkout, else /usr/share/flipside/console]
    #[arg(long, value_name = "DIR", env = "FLIPSIDE_CONSOLE_DIR")]
    console_dir: Option<PathBuf>,
    /// Another name under which the console is opened, such as `flip.example`; may be given several times
    #[arg(long, value_name = "HOST")]
    console_name: Vec<String>,
    /// Certificate chain of the console, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
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
        web: WebOptions {
            listen: args.listen,
            directory: args.console_dir.unwrap_or_else(default_console_dir),
            tls: args.tls_cert.zip(args.tls_key),
            names: args.console_name,
        },
    };
    flipside_server::serve(options).await.map_err(from_any)
}

/// Beside the binary of a checkout (`target/debug/flipside`), else where the package puts it.
fn default_console_dir() -> PathBuf {
    let target = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
    target
        .filter(|dir| dir.file_name().is_some_and(|name| name == "target"))
        .map_or_else(
            || PathBuf::from("/usr/share/flipside/console"),
            |dir| dir.join("console"),
        )
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

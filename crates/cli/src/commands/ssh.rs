//! `flipside ssh`: the host's own SSH client to a side, over the private card (US-09, SP-07).

use super::SideArg;
use super::ssh_packages::Packages;
use crate::context::Context;
use crate::failure::Failure;
use crate::side_banner::Title;
use crate::url;
use flipside_model::api::SideAccess;
use flipside_model::{Problem, ProblemCode, Side, SystemName};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

const LONG: &str = "\
Connects to a side with this machine's `ssh`, over the side's private network card: it is reached from the host only. The \
guest needs a running SSH server and an account of its own (a local one: no directory server can be asked).

Host keys: the server reads them from the guest itself, so nothing has to be trusted at first sight. They are kept per \
system, apart from your own known_hosts, because both sides have the same ones.

With --print it prints the address, for any other client: `ssh -p PORT`, or a Remote Desktop (RDP) client through \
`flipside ssh web -- -N -L 3389:localhost:3389`. A side that restarts cuts the connection; connect again when `flipside \
status` shows `Partner: OS Up`, which may be a minute or two before a login works.

With --packages the guest of the Upgrade Side has an HTTP proxy on its own 127.0.0.1:3128 as long as the connection lasts: \
through the server it reaches the hosts that were named (ports 80 and 443, or the one given), and no others. What it fetches \
from and what was refused stands in the activity log. It is closed when the system leaves Split.";

const EXAMPLES: &str = "\
Examples:
  flipside ssh web
  flipside ssh web --user admin -- systemctl --failed
  flipside ssh web --side production
  flipside ssh web --packages packages.example.org,security.example.org
  flipside ssh web --print
  flipside ssh web -- -i ~/.ssh/upgrade -N -L 3389:localhost:3389";

/// The client's own failure, as for `ssh` itself.
const SSH_FAILED: u8 = 255;

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side in Split, in Idle the system
    #[arg(long)]
    side: Option<SideArg>,
    /// Account in the guest
    #[arg(long, short, default_value = "root")]
    user: String,
    /// In Split: let the guest fetch from these hosts, `HOST[:PORT],…`, and from no others, until the connection ends
    #[arg(long, value_name = "HOSTS", conflicts_with = "print")]
    packages: Option<String>,
    /// Print the address and the command instead of connecting
    #[arg(long)]
    print: bool,
    /// Options of `ssh`, then a command, after `--`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let mut uri = format!("/v1/systems/{system}/access");
    if let Some(side) = args.side {
        url::add(&mut uri, "side", side.query());
    }
    let access: SideAccess = ctx.client.get(&uri).await?;
    if args.user.starts_with('-') || args.user.is_empty() {
        return Err(Failure::usage(format!("`{}` is no account", args.user)));
    }
    let known = known_hosts(&system, &access)?;
    if args.print {
        return print(ctx, &access, &argv(&system, &args, &access, &known, &[]));
    }
    let packages = match &args.packages {
        None => None,
        Some(_) if access.side == Side::Production => {
            let text =
                "`--packages` is for the Upgrade Side: the Production Side has its own network";
            return Err(Failure::usage(text));
        }
        Some(hosts) => Some(Packages::open(ctx, &system, hosts).await?),
    };
    let forward = packages.as_ref().map(Packages::options).unwrap_or_default();
    let argv = argv(&system, &args, &access, &known, &forward);
    let status = ctx.status(&system).await?;
    let _title = Title::show(ctx, &status, access.side);
    let ended = match &packages {
        None => connect(&argv).await?,
        Some(packages) => {
            ctx.say(&Packages::hint())?;
            tokio::select! {
                ended = connect(&argv) => ended?,
                failure = packages.carry(ctx) => return Err(failure),
            }
        }
    };
    match ended {
        0 => Ok(()),
        status => Err(Failure::Status(status)),
    }
}

fn print(ctx: &Context, access: &SideAccess, argv: &[String]) -> Result<(), Failure> {
    if ctx.json {
        return ctx.object(access);
    }
    let shown: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
    ctx.line(&format!(
        "{}: SSH at {} port {}\nssh {}",
        access.side,
        access.address.ip(),
        access.address.port(),
        shown.join(" ")
    ))
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@:,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The name under which the keys are kept: both sides have the same ones, on ports that change.
fn alias(system: &SystemName, side: Side) -> String {
    let side = match side {
        Side::Production => "production",
        Side::Upgrade => "upgrade",
    };
    format!("{system}.{side}.flipside")
}

fn argv(
    system: &SystemName,
    args: &Args,
    access: &SideAccess,
    known: &Path,
    forward: &[String],
) -> Vec<String> {
    let checking = if known.exists() { "yes" } else { "accept-new" };
    let options = [
        format!("HostKeyAlias={}", alias(system, access.side)),
        format!("UserKnownHostsFile=\"{}\"", known.display()),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "CheckHostIP=no".to_owned(),
        format!("StrictHostKeyChecking={checking}"),
    ];
    let mut argv = vec!["-p".to_owned(), access.address.port().to_string()];
    for option in options {
        argv.extend(["-o".to_owned(), option]);
    }
    argv.extend_from_slice(forward);
    argv.extend(["-l".to_owned(), args.user.clone()]);
    // Options of the user's come before the host, and a command after it.
    let (options, rest) = args.args.split_at(options_of(&args.args));
    argv.extend(options.iter().cloned());
    argv.push(access.address.ip().to_string());
    argv.extend(rest.iter().cloned());
    argv
}

/// How many of these words are options of `ssh` with their values.
fn options_of(words: &[String]) -> usize {
    /// The options that take a value.
    const VALUED: &str = "BbcDEeFIiJLlmOopQRSWw";
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) else {
            break;
        };
        // The last letter decides: in `-L1:x:2` the value follows at once.
        let first = letters.find(|c| VALUED.contains(c));
        at += 1 + usize::from(first.is_some_and(|i| i + 1 == letters.len()));
    }
    at.min(words.len())
}

/// Where the host keys of a side are kept: in the user's state directory, as for every other client of theirs.
fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    state
        .map(|state| state.join("flipside/known_hosts"))
        .ok_or_else(|| {
            Failure::failed("neither HOME nor XDG_STATE_HOME says where host keys are kept")
        })
}

/// Writes the keys that the guest named. Without them the file of the last time stays.
fn known_hosts(system: &SystemName, access: &SideAccess) -> Result<PathBuf, Failure> {
    let folder = folder()?;
    let alias = alias(system, access.side);
    let path = folder.join(&alias);
    if access.host_keys.is_empty() {
        return Ok(path);
    }
    let text: String = access
        .host_keys
        .iter()
        .map(|key| format!("{alias} {key}\n"))
        .collect();
    write(&folder, &path, &text).map_err(|error| {
        Failure::from(
            Problem::new(
                ProblemCode::Failed,
                format!("the host keys cannot be kept in `{}`", path.display()),
            )
            .because(&error),
        )
    })?;
    Ok(path)
}

fn write(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&new)?.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

/// Runs the client to its end; an interrupt is for the guest, not for us.
async fn connect(argv: &[String]) -> Result<u8, Failure> {
    let _interrupts = signal(SignalKind::interrupt())?;
    let status = tokio::process::Command::new("ssh")
        .args(argv)
        .status()
        .await;
    let status = status.map_err(|error| {
        Failure::from(
            Problem::new(ProblemCode::Failed, "`ssh` cannot be run")
                .because(&error)
                .advise("install an SSH client (Debian: openssh-client), or use `flipside shell`"),
        )
    })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let signal = status.signal().and_then(|s| u8::try_from(s & 0x7f).ok());
    Ok(code.or(signal.map(|s| s | 0x80)).unwrap_or(SSH_FAILED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn built(typed: &[&str]) -> Vec<String> {
        let line = Line::parse_from(std::iter::once(&"ssh").chain(typed));
        let access = SideAccess {
            side: Side::Upgrade,
            address: "127.0.0.1:4022".parse().expect("an address"),
            host_keys: Vec::new(),
        };
        let system = SystemName::new("web").expect("valid");
        argv(
            &system,
            &line.args,
            &access,
            Path::new("/no where/known"),
            &[],
        )
    }

    #[test]
    fn options_come_before_the_host_and_a_command_after_it() {
        let words = built(&["web", "--", "uname", "-r"]).join(" ");
        assert!(words.ends_with("-l root 127.0.0.1 uname -r"), "{words}");
        let words = built(&["web", "-u", "me", "--", "-N", "-L", "1:x:2"]).join(" ");
        assert!(words.ends_with("-l me -N -L 1:x:2 127.0.0.1"), "{words}");
        let words = built(&["--", "-vi", "key", "-L1:x:2", "ls", "-l"]).join(" ");
        assert!(
            words.ends_with("-vi key -L1:x:2 127.0.0.1 ls -l"),
            "{words}"
        );
        assert!(words.contains("HostKeyAlias=web.upgrade.flipside"));
        assert!(words.contains("UserKnownHostsFile=\"/no where/known\""));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a-b=c"), "a-b=c");
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
        assert_eq!(quoted(""), "''");
    }
}

//! `flipside run`: a program on a side, as if it ran here.

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flipside_model::SystemName;
use flipside_model::api::{RunEvent, RunRequest};
use std::io::Write;

/// Our own failure, so that it is not taken for the program's. 126 and 127 come from the guest as exit statuses.
const OURS: u8 = 125;

const LONG: &str = "\
Runs a program on a side, without a shell, and shows its output.

Without --side it runs on the Upgrade Side, and only in Split: after the merge that side is live and must be named. \
The exit status is the program's; 125 our own failure, 126 not executable, 127 not found.";

const EXAMPLES: &str = "\
Examples:
  flipside run web -- apt-get -y upgrade
  flipside run web -- sh -c 'uname -r > /tmp/kernel'
  flipside run web --side production -- systemctl is-active nginx";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side, and only in Split
    #[arg(long)]
    side: Option<SideArg>,
    /// Program and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    match follow(ctx, args).await {
        Ok(0) => Ok(()),
        Ok(status) => Err(Failure::Status(status)),
        Err(failure) => {
            eprint!("{}", failure.text());
            Err(Failure::Status(OURS))
        }
    }
}

async fn follow(ctx: &Context, args: Args) -> Result<u8, Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let request = RunRequest {
        side: args.side.map(SideArg::side),
        argv: args.command,
    };
    let path = format!("/v1/systems/{system}/run");
    let mut events = ctx.client.post_watch(&path, &request).await?;
    loop {
        match events.next().await? {
            Some(RunEvent::Out(data)) => write(&mut std::io::stdout().lock(), &data)?,
            Some(RunEvent::Err(data)) => write(&mut std::io::stderr().lock(), &data)?,
            Some(RunEvent::Exit(status)) => return Ok(exit_status(status)),
            Some(RunEvent::Failed(problem)) => return Err(problem.into()),
            None => {
                return Err(Failure::failed(
                    "the server went away before the program ended; whether it ended is unknown",
                ));
            }
        }
    }
}

/// The output is passed on as it is, as `ssh` does: who redirects it wants the bytes.
fn write(to: &mut impl Write, data: &str) -> Result<(), Failure> {
    let bytes = STANDARD
        .decode(data)
        .map_err(|error| Failure::failed(format!("the server's answer is not base64: {error}")))?;
    to.write_all(&bytes)?;
    Ok(to.flush()?)
}

/// A negative status is a signal, reported as shells do.
fn exit_status(status: i32) -> u8 {
    if status < 0 {
        return u8::try_from(status.unsigned_abs() & 0x7f).unwrap_or(0) | 0x80;
    }
    u8::try_from(status & 0xff).unwrap_or(OURS)
}

#[cfg(test)]
mod tests {
    use super::exit_status;

    #[test]
    fn signals_are_reported_as_shells_do() {
        for (given, told) in [
            (0, 0),
            (1, 1),
            (127, 127),
            (255, 255),
            (-9, 137),
            (-15, 143),
        ] {
            assert_eq!(exit_status(given), told);
        }
    }
}

//! `flipside shell`: a terminal on a side.

use super::SideArg;
use crate::client::{checked, empty, request};
use crate::context::Context;
use crate::escape::Escape;
use crate::failure::Failure;
use crate::url;
use flipside_model::SystemName;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// One line of typing or one burst of output.
const CHUNK_BYTES: usize = 16 << 10;

const LONG: &str = "\
Opens an interactive shell on a side, over the VTM path: it needs no network in the guest.

Without --side it opens on the Upgrade Side, and only in Split: after the merge that side is live and must be named. \
'~.' at the start of a line ends it.";

const EXAMPLES: &str = "\
Examples:
  flipside shell web
  flipside shell web --side production";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Side; without it the Upgrade Side, and only in Split
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let mut uri = format!("/v1/systems/{system}/shell");
    if let Some(side) = args.side {
        url::add(&mut uri, "side", side.query());
    }
    if let Ok(size) = tcgetwinsize(std::io::stdin())
        && size.ws_row > 0
        && size.ws_col > 0
    {
        url::add(&mut uri, "rows", &size.ws_row.to_string());
        url::add(&mut uri, "cols", &size.ws_col.to_string());
    }
    let mut get = request(Method::GET, &uri, empty())?;
    let headers = get.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("flipside-shell"));
    let response = ctx.client.send(get).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        drop(checked(response).await?);
        return Err(Failure::failed("the server did not open a shell"));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| Failure::failed(format!("the server did not open a shell: {error}")))?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("`~.` at the start of a line ends this shell.");
    }
    let raw = Raw::enter(terminal)?;
    let ended = pump(TokioIo::new(upgraded), terminal).await;
    drop(raw);
    if terminal {
        eprintln!("The shell on `{system}` ended.");
    }
    ended
}

async fn pump(stream: TokioIo<hyper::upgrade::Upgraded>, terminal: bool) -> Result<(), Failure> {
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let mut stdin = tokio::io::stdin();
    let mut stdout = tokio::io::stdout();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut escape = Escape::new();
    let mut typed = vec![0; CHUNK_BYTES];
    let mut shown = vec![0; CHUNK_BYTES];
    let mut open = true;
    loop {
        tokio::select! {
            read = from_guest.read(&mut shown) => {
                // A side that restarts cuts the stream; that is an end like any other.
                let read = read.unwrap_or(0);
                if read == 0 {
                    return Ok(());
                }
                stdout.write_all(&shown[..read]).await?;
                stdout.flush().await?;
            }
            read = stdin.read(&mut typed), if open => {
                let read = read.unwrap_or(0);
                if read == 0 {
                    open = false;
                    let _ = to_guest.shutdown().await;
                    continue;
                }
                let (send, end) = if terminal {
                    escape.feed(&typed[..read])
                } else {
                    (typed[..read].to_vec(), false)
                };
                if to_guest.write_all(&send).await.is_err() || to_guest.flush().await.is_err() || end {
                    return Ok(());
                }
            }
            _ = hangup.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

/// How the terminal was before; kept where a panic finds it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The raw mode of the terminal, ended when dropped.
struct Raw;

impl Raw {
    fn enter(terminal: bool) -> Result<Option<Self>, Failure> {
        if !terminal {
            return Ok(None);
        }
        let before = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // The message of a panic must not be printed in raw mode.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw).map_err(std::io::Error::from)?;
        Ok(Some(Self))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}

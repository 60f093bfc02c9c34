//! A terminal that is connected to something on a side: raw bytes both ways over an upgraded connection.

use crate::client::{checked, empty, request};
use crate::context::Context;
use crate::escape::Escape;
use crate::failure::Failure;
use crate::side_banner::Title;
use flipside_model::{Side, Status};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// One line of typing or one burst of output.
const CHUNK_BYTES: usize = 16 << 10;

/// Connects to what this path names and carries bytes until either end is over; `what` names it in messages.
pub(crate) async fn connect(
    ctx: &Context,
    uri: &str,
    (status, side): (&Status, Side),
    protocol: &'static str,
    what: &str,
) -> Result<(), Failure> {
    let upgraded = upgraded(ctx, uri, protocol, what).await?;
    let terminal = std::io::stdin().is_terminal();
    let _title = Title::show(ctx, status, side);
    if terminal {
        eprintln!("`~.` at the start of a line ends this {what}.");
    }
    let raw = Raw::enter(terminal)?;
    let ended = pump(TokioIo::new(upgraded), terminal).await;
    drop(raw);
    if terminal {
        eprintln!("\nThe {what} ended.");
    }
    ended
}

/// Asks the server for a connection that carries bytes both ways.
pub(crate) async fn upgraded(
    ctx: &Context,
    uri: &str,
    protocol: &'static str,
    what: &str,
) -> Result<hyper::upgrade::Upgraded, Failure> {
    let mut get = request(Method::GET, uri, empty())?;
    let headers = get.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    let response = ctx.client.send(get).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        drop(checked(response).await?);
        return Err(Failure::failed(format!("the server did not open a {what}")));
    }
    hyper::upgrade::on(response)
        .await
        .map_err(|error| Failure::failed(format!("the server did not open a {what}: {error}")))
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

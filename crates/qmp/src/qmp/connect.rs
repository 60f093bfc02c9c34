//! Connects, hears the greeting and negotiates.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};

use super::client::QmpClient;
use super::error::QmpError;
use super::events::EventStream;
use super::shared::Shared;
use super::task::{READ_CHUNK, serve};
use super::types::{Version, VersionReply};
use crate::deadline::Deadline;
use crate::wire::{Framer, Limits, QmpMessage};

/// Bytes a line from QEMU may have. The longest known, the reply to
/// `query-qmp-schema`, has 207 thousand in QEMU 7.2; the rest is room for
/// machines with many disks.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Commands that may wait for the socket to take them; a client that finds it
/// full waits within its own time-out.
const QUEUE: usize = 64;

/// The pause before another attempt while the listener's queue is full: short
/// against any time-out, long enough to cost nothing.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// Connects and negotiates within one deadline.
pub(super) async fn connect(
    path: &Path,
    timeout: Duration,
) -> Result<(QmpClient, EventStream), QmpError> {
    let deadline = Deadline::after(timeout);
    let no_greeting = || QmpError::NoGreeting {
        path: path.to_owned(),
        after: timeout,
    };
    let mut framer = Framer::new(MAX_LINE_BYTES);
    let greeting = async {
        let mut stream = open(path).await?;
        let version = greet(&mut stream, &mut framer, path).await?;
        Ok::<_, QmpError>((stream, version))
    };
    let (stream, version) = timeout_at(deadline.at, greeting)
        .await
        .map_err(|_| no_greeting())??;

    let shared = Arc::new(Shared::new());
    let events = shared.events.subscribe();
    let (queue, jobs) = mpsc::channel(QUEUE);
    let task = tokio::spawn(serve(stream, framer, Arc::clone(&shared), jobs));
    let client = QmpClient::new(shared, queue, task.abort_handle(), version);
    client
        .execute("qmp_capabilities", Value::Null, deadline.remaining())
        .await
        .map_err(|error| match error {
            // The caller knows the time-out it gave, not what was left of it.
            QmpError::TimedOut { command, .. } => QmpError::TimedOut {
                command,
                after: timeout,
            },
            other => other,
        })?;
    tracing::debug!(path = %path.display(), %version, "connected to QMP");
    Ok((client, events))
}

async fn open(path: &Path) -> Result<UnixStream, QmpError> {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            // The listener's queue is full: others wait there for a greeting
            // too. The deadline makes it `NoGreeting` in the end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(FULL_QUEUE_PAUSE).await;
            }
            Err(source) => {
                return Err(QmpError::Connect {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

async fn greet(
    stream: &mut UnixStream,
    framer: &mut Framer,
    path: &Path,
) -> Result<Version, QmpError> {
    let not_qmp = || QmpError::NotQmp {
        path: path.to_owned(),
    };
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        if let Some(line) = framer.next_line().map_err(QmpError::Protocol)? {
            let message = QmpMessage::read(line, Limits::default()).map_err(QmpError::Protocol)?;
            let QmpMessage::Greeting { version } = message else {
                return Err(not_qmp());
            };
            return serde_json::from_value::<VersionReply>(version)
                .map(|reply| reply.qemu)
                .map_err(|_| not_qmp());
        }
        match stream.read(&mut chunk).await {
            Ok(0) => return Err(QmpError::Closed),
            Ok(count) => framer.push(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::debug!(%error, "cannot read the QMP greeting");
                return Err(QmpError::Closed);
            }
        }
    }
}

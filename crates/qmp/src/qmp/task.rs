//! The task that owns the socket: one loop reads, one writes.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::events::Event;
use super::shared::{End, Shared};
use crate::wire::{Framer, Limits, QmpMessage, Violation};

/// Bytes asked for at a time: QEMU's replies mostly fit in one read.
pub(crate) const READ_CHUNK: usize = 64 * 1024;

/// Is a command on its way to the socket.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) line: Vec<u8>,
}

/// Serves the connection until either side leaves. Whatever ends the task, even
/// an abort, tells those who wait.
pub(crate) async fn serve(
    stream: UnixStream,
    framer: Framer,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
) {
    let mut farewell = Farewell {
        shared,
        end: End::Closed,
    };
    let (reader, writer) = stream.into_split();
    let end = tokio::select! {
        end = read(reader, framer, &farewell.shared) => end,
        () = write(writer, jobs, &farewell.shared) => End::Closed,
    };
    if let End::Broken(violation) = &end {
        tracing::warn!(%violation, "gave up a QMP connection");
    }
    farewell.end = end;
}

struct Farewell {
    shared: Arc<Shared>,
    end: End,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.shared.finish(self.end.clone());
    }
}

async fn read(mut reader: OwnedReadHalf, mut framer: Framer, shared: &Shared) -> End {
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        if let Err(violation) = take_lines(&mut framer, shared) {
            return End::Broken(violation);
        }
        match reader.read(&mut chunk).await {
            Ok(0) => {
                tracing::debug!(unfinished = framer.len(), "the QMP peer closed");
                return End::Closed;
            }
            Ok(count) => {
                framer.push(&chunk[..count]);
                if count == chunk.len() {
                    // A flood: whoever waits for a deadline on this thread comes
                    // first. A socket that always has more would be read a
                    // hundred times before the runtime steps in.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::debug!(%error, "cannot read from the QMP socket");
                return End::Closed;
            }
        }
    }
}

fn take_lines(framer: &mut Framer, shared: &Shared) -> Result<(), Violation> {
    while let Some(line) = framer.next_line()? {
        match QmpMessage::read(line, Limits::default())? {
            QmpMessage::Reply { id, outcome } => shared.deliver(id.as_ref(), outcome),
            QmpMessage::Event {
                name,
                data,
                seconds,
                microseconds,
            } => {
                let event = Event {
                    name,
                    data,
                    seconds,
                    microseconds,
                };
                tracing::trace!(event = event.name, "a QMP event");
                shared.events.push(event, line.len());
            }
            // Only a peer that restarted behind our back would greet again.
            QmpMessage::Greeting { .. } => return Err(Violation::NotAMessage),
        }
    }
    if framer.is_empty() {
        // Gives back the memory of a large reply.
        framer.clear();
    }
    Ok(())
}

/// Returns when the last client has gone.
async fn write(mut writer: OwnedWriteHalf, mut jobs: mpsc::Receiver<Job>, shared: &Shared) {
    while let Some(job) = jobs.recv().await {
        // A command whose caller gave up while QEMU took no input must not be
        // run later, as a surprise.
        if !shared.is_waiting(&job.id) {
            tracing::debug!(id = job.id, "did not send a command given up before");
            continue;
        }
        if let Err(error) = writer.write_all(&job.line).await {
            // The reader finds the end too, after the replies still on the way.
            tracing::debug!(%error, "cannot write to the QMP socket");
            std::future::pending::<()>().await;
        }
    }
}

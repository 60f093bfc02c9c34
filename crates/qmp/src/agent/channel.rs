//! One request and one reply at a time, with the right to distrust both.

use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout_at;

use super::AgentError;
use crate::deadline::Deadline;
use crate::random::random_u64;
use crate::wire::{AgentReply, Failure, Framer, Limits, SENTINEL, SyncScanner};

/// Bytes a reply may have. The largest honest one is `guest-exec-status` with
/// two streams that the agent cuts at 16 MiB each, 43 MiB in base64; chunks of
/// files are asked for in far smaller pieces.
pub const MAX_REPLY_BYTES: usize = 48 * 1024 * 1024;

/// Bytes asked for at a time.
const READ_CHUNK: usize = 64 * 1024;

/// Numbers of synchronisations stay below 2⁵³, which every JSON reader keeps
/// exactly.
const SYNC_ID_MASK: u64 = (1 << 53) - 1;

/// Is the connection and what is known of its state.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    framer: Framer,
    chunk: Vec<u8>,
    /// True only between calls that ended with a whole reply. Every call
    /// lowers it first, so a call that is cancelled leaves it low.
    synced: bool,
    closed: bool,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            framer: Framer::new(MAX_REPLY_BYTES),
            chunk: vec![0; READ_CHUNK],
            synced: false,
            closed: false,
        }
    }

    /// Makes the next call synchronise first.
    pub(super) fn distrust(&mut self) {
        self.synced = false;
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn call(
        &mut self,
        command: &str,
        arguments: Value,
        deadline: Deadline,
    ) -> Result<Value, AgentError> {
        self.ready(command, deadline).await?;
        self.synced = false;
        let exchange = self.exchange(command, request(command, arguments));
        let outcome = match timeout_at(deadline.at, exchange).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(AgentError::TimedOut {
                    command: command.to_owned(),
                    after: deadline.after,
                });
            }
        };
        self.synced = true;
        outcome.map_err(|Failure { class, desc }| AgentError::Command {
            command: command.to_owned(),
            class,
            desc,
        })
    }

    /// Sees to it that the next line read can only be the reply to the next
    /// command.
    pub(super) async fn ready(
        &mut self,
        command: &str,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        if self.closed {
            return Err(AgentError::Closed);
        }
        if self.synced && self.is_quiet()? {
            return Ok(());
        }
        self.synced = false;
        match timeout_at(deadline.at, self.synchronise()).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(AgentError::NoAnswer {
                    command: command.to_owned(),
                    after: deadline.after,
                });
            }
        }
        self.synced = true;
        Ok(())
    }

    /// Tells whether nothing came since the last reply. An honest agent speaks
    /// only when asked; a reply sent twice must not answer the next command.
    fn is_quiet(&mut self) -> Result<bool, AgentError> {
        match self.stream.try_read(&mut self.chunk) {
            Ok(0) => Err(self.close("the peer closed")),
            Ok(count) => {
                tracing::debug!(count, "the guest agent spoke unasked");
                self.framer.push(&self.chunk[..count]);
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(self.framer.is_empty()),
            Err(error) => Err(self.close(&error)),
        }
    }

    async fn synchronise(&mut self) -> Result<(), AgentError> {
        let id = random_u64() & SYNC_ID_MASK;
        let mut line = vec![SENTINEL];
        line.extend(request("guest-sync-delimited", json!({ "id": id })));
        let mut scanner = SyncScanner::new(id);
        // What waits in the buffer is from before the request.
        self.framer.clear();
        self.send(&line).await?;
        while !scanner.scan(&mut self.framer) {
            self.fill().await?;
        }
        self.framer.clear();
        tracing::trace!(id, "the guest agent is in step");
        Ok(())
    }

    async fn exchange(
        &mut self,
        command: &str,
        line: Vec<u8>,
    ) -> Result<Result<Value, Failure>, AgentError> {
        self.send(&line).await?;
        loop {
            let read = match self.framer.next_line() {
                Ok(Some(line)) => AgentReply::read(line, Limits::default()),
                Ok(None) => {
                    self.fill().await?;
                    continue;
                }
                Err(violation) => Err(violation),
            };
            if self.framer.is_empty() {
                // Gives back the memory of a large reply.
                self.framer.clear();
            }
            return read.map(|reply| reply.outcome).map_err(|source| {
                tracing::debug!(command, %source, "the guest agent broke the protocol");
                self.framer.clear();
                AgentError::Protocol {
                    command: command.to_owned(),
                    source,
                }
            });
        }
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), AgentError> {
        let written = self.stream.write_all(line).await;
        written.map_err(|error| self.close(&error))
    }

    async fn fill(&mut self) -> Result<(), AgentError> {
        match self.stream.read(&mut self.chunk).await {
            Ok(0) => Err(self.close("the peer closed")),
            Ok(count) => {
                self.framer.push(&self.chunk[..count]);
                if count == self.chunk.len() {
                    // A flood: the deadline is looked at after every piece of it,
                    // not after the hundred that the runtime would allow.
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.close(&error)),
        }
    }

    fn close(&mut self, reason: impl std::fmt::Display) -> AgentError {
        tracing::debug!(%reason, "the guest agent's connection ended");
        self.closed = true;
        AgentError::Closed
    }
}

fn request(command: &str, arguments: Value) -> Vec<u8> {
    let mut request = json!({ "execute": command });
    if !arguments.is_null() {
        request["arguments"] = arguments;
    }
    format!("{request}\n").into_bytes()
}

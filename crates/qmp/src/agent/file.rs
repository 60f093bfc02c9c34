//! Files in the guest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::exec::decode;
use super::{AgentClient, AgentError, Exec};

/// Bytes of a file sent or asked for at a time. The agent reads its channel 4
/// KiB at a time, so a piece this large still passes well within a time-out.
const CHUNK: usize = 256 * 1024;

/// How the agent opens a file. It has no exclusive creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// For reading; the file must exist.
    Read,
    /// For writing from the start; an existing file is emptied.
    Write,
    /// For writing at the end; the file is created if need be.
    Append,
}

impl FileMode {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "rb",
            Self::Write => "wb",
            Self::Append => "ab",
        }
    }
}

/// Names a file the agent holds open. It stays open, also when this is dropped
/// or the connection ends, until it is closed or the agent restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileHandle(i64);

/// Is a piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChunk {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the end of the file was met.
    pub eof: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ReadReply {
    count: u64,
    #[serde(default)]
    buf_b64: String,
    eof: bool,
}

#[derive(Debug, Deserialize)]
struct WriteReply {
    count: u64,
}

impl AgentClient {
    /// Opens a file (`guest-file-open`).
    ///
    /// # Errors
    /// As for [`AgentClient::execute_as`]. After a time-out the agent may hold
    /// the file open, and nobody knows its handle.
    pub async fn file_open(&self, path: &str, mode: FileMode) -> Result<FileHandle, AgentError> {
        let arguments = json!({ "path": path, "mode": mode.name() });
        let handle = self.execute_as("guest-file-open", arguments).await?;
        Ok(FileHandle(handle))
    }

    /// Reads up to `count` bytes (`guest-file-read`).
    ///
    /// # Errors
    /// As for [`AgentClient::execute_as`]; [`AgentError::NotBase64`];
    /// [`AgentError::Contradiction`] when the agent sends more than it was
    /// asked for, or another amount than it says.
    pub async fn file_read(
        &self,
        handle: FileHandle,
        count: usize,
    ) -> Result<ReadChunk, AgentError> {
        const COMMAND: &str = "guest-file-read";
        let arguments = json!({ "handle": handle.0, "count": count });
        let reply: ReadReply = self.execute_as(COMMAND, arguments).await?;
        let bytes = decode(COMMAND, "buf-b64", &reply.buf_b64)?;
        let contradiction = |reason| AgentError::Contradiction {
            command: COMMAND.to_owned(),
            reason,
        };
        if bytes.len() as u64 != reply.count {
            return Err(contradiction("the count is not that of the bytes"));
        }
        if bytes.len() > count {
            return Err(contradiction("more bytes than were asked for"));
        }
        Ok(ReadChunk {
            bytes,
            eof: reply.eof,
        })
    }

    /// Writes bytes and returns how many were taken (`guest-file-write`).
    ///
    /// # Errors
    /// As for [`AgentClient::execute_as`]; [`AgentError::Contradiction`] when
    /// the agent claims to have written more than it was given.
    pub async fn file_write(&self, handle: FileHandle, bytes: &[u8]) -> Result<usize, AgentError> {
        const COMMAND: &str = "guest-file-write";
        let arguments = json!({ "handle": handle.0, "buf-b64": STANDARD.encode(bytes) });
        let reply: WriteReply = self.execute_as(COMMAND, arguments).await?;
        usize::try_from(reply.count)
            .ok()
            .filter(|count| *count <= bytes.len())
            .ok_or_else(|| AgentError::Contradiction {
                command: COMMAND.to_owned(),
                reason: "more bytes written than were given",
            })
    }

    /// Closes a file (`guest-file-close`). What the agent had buffered is
    /// written, so an error here is an error of writing.
    ///
    /// # Errors
    /// As for [`AgentClient::execute`].
    pub async fn file_close(&self, handle: FileHandle) -> Result<(), AgentError> {
        self.perform("guest-file-close", json!({ "handle": handle.0 }))
            .await
    }

    /// Replaces a file's contents, piece by piece, each within the time-out of
    /// a call.
    ///
    /// With `permissions` (such as `0o600`) the guest's `chmod` sets the access
    /// rights before the first byte is written. The replacement is not atomic
    /// and not synced: after an error the file may be empty or cut short.
    ///
    /// # Errors
    /// As for the single calls; [`AgentError::Permissions`].
    pub async fn write_file(
        &self,
        path: &str,
        bytes: &[u8],
        permissions: Option<u32>,
    ) -> Result<(), AgentError> {
        let handle = self.file_open(path, FileMode::Write).await?;
        let written = self.fill_file(handle, path, bytes, permissions).await;
        let closed = self.file_close(handle).await;
        written.and(closed)
    }

    async fn fill_file(
        &self,
        handle: FileHandle,
        path: &str,
        bytes: &[u8],
        permissions: Option<u32>,
    ) -> Result<(), AgentError> {
        if let Some(permissions) = permissions {
            self.chmod(path, permissions).await?;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(CHUNK)];
            let count = self.file_write(handle, piece).await?;
            if count == 0 {
                return Err(AgentError::Contradiction {
                    command: "guest-file-write".to_owned(),
                    reason: "nothing was written and no error given",
                });
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    async fn chmod(&self, path: &str, permissions: u32) -> Result<(), AgentError> {
        let mode = format!("{permissions:04o}");
        let exec = Exec::new("chmod", [mode.as_str(), "--", path]);
        let status = self.exec_wait(&exec, self.call_timeout()).await?;
        if status.success() {
            return Ok(());
        }
        Err(AgentError::Permissions {
            path: path.to_owned(),
            detail: String::from_utf8_lossy(&status.err).trim().to_owned(),
        })
    }

    /// Reads a whole file of at most `max` bytes, each piece within the
    /// time-out of a call.
    ///
    /// # Errors
    /// As for the single calls; [`AgentError::FileTooLarge`];
    /// [`AgentError::Contradiction`] when the agent neither sends bytes nor
    /// says that the end was met.
    pub async fn read_file(&self, path: &str, max: usize) -> Result<Vec<u8>, AgentError> {
        let handle = self.file_open(path, FileMode::Read).await?;
        let read = self.drain_file(handle, path, max).await;
        let closed = self.file_close(handle).await;
        let bytes = read?;
        if let Err(error) = closed {
            // Every byte is here; an agent that leaks a handle harms itself.
            tracing::debug!(path, %error, "a file of the guest stays open");
        }
        Ok(bytes)
    }

    async fn drain_file(
        &self,
        handle: FileHandle,
        path: &str,
        max: usize,
    ) -> Result<Vec<u8>, AgentError> {
        let mut bytes = Vec::new();
        loop {
            // One byte more than allowed tells a file of just that size from
            // a larger one.
            let wanted = (max - bytes.len()).saturating_add(1).min(CHUNK);
            let piece = self.file_read(handle, wanted).await?;
            bytes.extend_from_slice(&piece.bytes);
            if bytes.len() > max {
                return Err(AgentError::FileTooLarge {
                    path: path.to_owned(),
                    max,
                });
            }
            if piece.eof {
                return Ok(bytes);
            }
            if piece.bytes.is_empty() {
                return Err(AgentError::Contradiction {
                    command: "guest-file-read".to_owned(),
                    reason: "no bytes, and not the end of the file",
                });
            }
        }
    }
}

//! The client of the QEMU guest agent.

mod channel;
mod client;
mod error;
mod exec;
mod file;
mod types;

pub use channel::MAX_REPLY_BYTES;
pub use client::{AgentClient, DEFAULT_CALL_TIMEOUT};
pub use error::AgentError;
pub use exec::{Exec, ExecStatus};
pub use file::{FileHandle, FileMode, ReadChunk};
pub use types::{AgentCommand, AgentInfo, IpAddress, NetworkInterface, OsInfo, ShutdownMode};

//! QMP and guest-agent client; knows nothing of flipside.
//!
//! Two peers, two levels of trust:
//!
//! * [`QmpClient`] talks to QEMU's monitor. Replies are matched to commands by
//!   a unique `id`, so a late, repeated or foreign reply can never be taken
//!   for the answer to another command. Bytes that are not the protocol end
//!   the connection.
//! * [`AgentClient`] talks to the agent inside the guest, whose words are
//!   treated as hostile: size, depth and number of elements are capped, and
//!   after anything unexpected the next call resynchronises first.
//!
//! Every call has a deadline. [`QmpError::TimedOut`] and
//! [`AgentError::TimedOut`] mean that the outcome is *unknown*: the caller
//! observes the machine again, it does not simply repeat.
//!
//! The parsers in [`wire`] are pure functions over bytes, open to fuzzing.
#![forbid(unsafe_code)]

mod agent;
mod deadline;
mod qmp;
mod random;
pub mod wire;

pub use agent::{
    AgentClient, AgentCommand, AgentError, AgentInfo, DEFAULT_CALL_TIMEOUT, Exec, ExecStatus,
    FileHandle, FileMode, IpAddress, MAX_REPLY_BYTES, NetworkInterface, OsInfo, ReadChunk,
    ShutdownMode,
};
pub use qmp::{
    Event, EventStream, MAX_BUFFERED_EVENT_BYTES, MAX_BUFFERED_EVENTS, MAX_LINE_BYTES,
    QUERY_TIMEOUT, QmpClient, QmpError, RecvError, RunState, Schema, Version,
};

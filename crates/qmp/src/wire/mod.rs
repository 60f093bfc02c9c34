//! The bytes of both protocols: lines, limits and messages, without I/O.
//!
//! Nothing here waits, allocates beyond its limits or panics, whatever the
//! bytes are.

mod framer;
mod json;
mod message;
mod sync;

pub use framer::Framer;
pub use json::{Limits, MAX_DEPTH, MAX_ELEMENTS, parse};
pub use message::{AgentReply, Failure, QmpMessage};
pub use sync::{SENTINEL, SYNC_REPLY_BYTES, SyncScanner};

use std::sync::Arc;

/// Tells in which way a peer broke the protocol.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A line went on past the limit.
    #[error("a line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Objects and arrays are nested too deeply.
    #[error("a message is nested more than {limit} deep")]
    TooDeep {
        /// The limit, in levels.
        limit: usize,
    },
    /// A message has so many members that it would take a multiple of its own
    /// size in memory.
    #[error("a message has more than {limit} elements")]
    TooManyElements {
        /// The limit, in commas and opening brackets.
        limit: usize,
    },
    /// A line is not UTF-8.
    #[error("a message is not UTF-8")]
    NotUtf8,
    /// A line is not JSON.
    #[error("a message is not JSON")]
    NotJson(#[source] Arc<serde_json::Error>),
    /// A line is JSON, and yet no message of the protocol.
    #[error("a message has none of the forms of the protocol")]
    NotAMessage,
}

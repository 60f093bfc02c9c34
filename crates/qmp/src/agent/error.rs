//! What can go wrong with a guest agent.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Violation;

/// Tells why a call to the agent failed.
///
/// Texts named `desc` are the guest's own words: escape them wherever they are
/// shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The socket could not be connected to.
    #[error("cannot connect to the guest agent's socket `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another call held the agent all the time; nothing was sent.
    #[error("the guest agent was busy for {after:?}; `{command}` was not sent")]
    Busy {
        /// The command.
        command: String,
        /// The time-out given.
        after: Duration,
    },
    /// The agent did not answer the synchronisation before the command; the
    /// command was not sent. Either no agent runs in the guest, or it hangs,
    /// or another client holds the socket.
    #[error("the guest agent did not answer within {after:?}; `{command}` was not sent")]
    NoAnswer {
        /// The command.
        command: String,
        /// The time-out given.
        after: Duration,
    },
    /// The command was sent, in whole or in part, and no reply came. Whether it
    /// took or will take effect is unknown.
    #[error("no reply to the agent command `{command}` within {after:?}; its outcome is unknown")]
    TimedOut {
        /// The command.
        command: String,
        /// The time-out given.
        after: Duration,
    },
    /// The connection has ended; a command that was sent may have taken effect.
    #[error("the connection to the guest agent is closed")]
    Closed,
    /// The agent refused the command or failed in it.
    #[error("the agent command `{command}` failed: {desc} ({class})")]
    Command {
        /// The command.
        command: String,
        /// The error class, mostly `GenericError`.
        class: String,
        /// The guest's own words.
        desc: String,
    },
    /// The agent answered with something that is no reply. Whether the command
    /// took effect is unknown; the next call synchronises anew.
    #[error("the agent's answer to `{command}` is not a reply")]
    Protocol {
        /// The command.
        command: String,
        /// In which way.
        source: Violation,
    },
    /// The command succeeded with a value of an unexpected form.
    #[error("the agent's reply to `{command}` has an unexpected form")]
    UnexpectedReply {
        /// The command.
        command: String,
        /// What did not fit.
        source: serde_json::Error,
    },
    /// The command succeeded, and a member of its reply is not base64.
    #[error("the member `{member}` of the agent's reply to `{command}` is not base64")]
    NotBase64 {
        /// The command.
        command: String,
        /// The member.
        member: &'static str,
        /// Where it is broken.
        source: base64::DecodeError,
    },
    /// The command succeeded, and its reply contradicts the request.
    #[error("the agent's reply to `{command}` contradicts the request: {reason}")]
    Contradiction {
        /// The command.
        command: String,
        /// In which way.
        reason: &'static str,
    },
    /// A program started in the guest had not ended in time; it runs on.
    #[error("the guest's process {pid} still runs after {after:?}")]
    StillRunning {
        /// The process, to ask about later.
        pid: i64,
        /// The time-out given.
        after: Duration,
    },
    /// A file in the guest is larger than the caller allows.
    #[error("the guest's file `{path}` is larger than {max} bytes")]
    FileTooLarge {
        /// The file.
        path: String,
        /// The greatest size allowed, in bytes.
        max: usize,
    },
    /// The access rights of a file in the guest could not be set.
    #[error("cannot set the access rights of the guest's file `{path}` ({detail})")]
    Permissions {
        /// The file.
        path: String,
        /// The guest's own words.
        detail: String,
    },
}

impl AgentError {
    /// Tells whether the command may have taken effect in spite of the error,
    /// so that the caller has to observe before it decides.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. } | Self::Closed | Self::Protocol { .. }
        )
    }
}

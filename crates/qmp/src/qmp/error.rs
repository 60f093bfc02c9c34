//! What can go wrong with QEMU's monitor.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Violation;

/// Tells why a connection or a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket could not be connected to.
    #[error("cannot connect to the QMP socket `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is there, but nobody speaks. QEMU serves one client per
    /// socket and leaves others waiting without a word.
    #[error(
        "no greeting on the QMP socket `{}` within {after:?}: \
         another client holds the socket, or QEMU is stopped", path.display()
    )]
    NoGreeting {
        /// The socket.
        path: PathBuf,
        /// How long the client listened.
        after: Duration,
    },
    /// The first message was not a greeting.
    #[error("the peer on `{}` does not greet as a QMP server does", path.display())]
    NotQmp {
        /// The socket.
        path: PathBuf,
    },
    /// QEMU refused the command or failed in it.
    #[error("the QMP command `{command}` failed: {desc} ({class})")]
    Command {
        /// The command.
        command: String,
        /// QEMU's error class, mostly `GenericError`.
        class: String,
        /// QEMU's own words.
        desc: String,
    },
    /// No reply came in time. Whether the command took or will take effect is
    /// unknown.
    #[error("no reply to the QMP command `{command}` within {after:?}; its outcome is unknown")]
    TimedOut {
        /// The command.
        command: String,
        /// The time-out given.
        after: Duration,
    },
    /// The connection has ended; a command in flight may have taken effect.
    #[error("the QMP connection is closed")]
    Closed,
    /// The peer sent something that is not QMP; the connection was given up,
    /// and a command in flight may have taken effect.
    #[error("the QMP connection was given up because the peer broke the protocol")]
    Protocol(#[source] Violation),
    /// The command succeeded with a value of an unexpected form.
    #[error("the reply to the QMP command `{command}` has an unexpected form")]
    UnexpectedReply {
        /// The command.
        command: String,
        /// What did not fit.
        source: serde_json::Error,
    },
}

impl QmpError {
    /// Tells whether a command may have taken effect in spite of the error, so
    /// that the caller has to observe before it decides.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. } | Self::Closed | Self::Protocol(_)
        )
    }

    /// Tells whether the connection is lost and a new one is needed.
    #[must_use]
    pub fn connection_lost(&self) -> bool {
        matches!(self, Self::Closed | Self::Protocol(_))
    }
}

/// Tells why no event was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// None arrived in time.
    #[error("no event arrived in time")]
    TimedOut,
    /// The connection has ended and every buffered event was handed out.
    #[error("the QMP connection is closed; no more events will come")]
    Closed,
}

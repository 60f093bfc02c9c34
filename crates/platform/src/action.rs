//! What running a custom action and saving logs asks of a platform.

use flipside_model::LogSelection;
use std::time::Duration;

/// A custom action to start: a program with its arguments and its whole environment, never a shell line. It runs in the
/// directory of the program, in a session and, where there are such, a control group of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRequest {
    /// The number by which it is found again. Starting the same one twice is an error or starts nothing.
    pub handle: u64,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// How many bytes of each output stream are kept at least; more may be dropped, and must never fill a disk.
    pub keep: usize,
}

/// Logs to save in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// The directory that the copies are put into; made with what is missing below the one that the administrator gave.
    pub target: String,
    /// The administrator's directory; it must be there, since nothing must be written where a disk should be mounted.
    pub directory: String,
    /// The logs.
    pub logs: Vec<LogSelection>,
    /// How long copying may take.
    pub limit: Duration,
}

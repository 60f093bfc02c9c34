//! What an operator can ask of a session.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A request of the operator; the transition law decides whether it is legal now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Run the readiness check; changes nothing on the system (SM-05).
    Check,
    /// Divide the system (SM-06).
    Split,
    /// Move the users to the Upgrade Side; no data is merged (SM-10).
    Merge,
    /// Make the upgrade permanent (SM-11).
    Commit,
    /// Take everything back (SM-13).
    Abort,
    /// Clean up and return to Idle (SM-12).
    Finish,
    /// Repeat the current state's operation after a failure (SM-16).
    Retry,
}

impl Command {
    /// Every command.
    pub const ALL: [Command; 7] = [
        Command::Check,
        Command::Split,
        Command::Merge,
        Command::Commit,
        Command::Abort,
        Command::Finish,
        Command::Retry,
    ];

    /// Returns the verb as typed on the command line.
    pub fn verb(self) -> &'static str {
        match self {
            Command::Check => "check",
            Command::Split => "split",
            Command::Merge => "merge",
            Command::Commit => "commit",
            Command::Abort => "abort",
            Command::Finish => "finish",
            Command::Retry => "retry",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}

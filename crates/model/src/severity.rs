//! The severities of the activity log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much an entry of the activity log matters (AL-03 to AL-07), mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Task completed without error.
    Success,
    /// Task in progress.
    Pending,
    /// No action necessary.
    Information,
    /// Should be addressed; never blocks.
    Warning,
    /// Must be corrected before continuing.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Success => "Success",
            Severity::Pending => "Pending",
            Severity::Information => "Information",
            Severity::Warning => "Warning",
            Severity::Error => "Error",
        })
    }
}

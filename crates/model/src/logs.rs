//! Log backup: which logs are saved from the Production Side, and what became of them (requirements area LB).

use serde::{Deserialize, Serialize};
use std::fmt;

/// The word for the journal of the system in a configuration file.
const SYSTEM_JOURNAL: &str = "system journal";

/// The word for the journals of users.
const USER_JOURNALS: &str = "user journals";

/// One log that is selected (LB-01).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum LogSelection {
    /// The system journal, copied as journal files.
    SystemJournal,
    /// The journals of all users.
    UserJournals,
    /// A file, or a directory with everything below it.
    Path(String),
}

impl From<String> for LogSelection {
    fn from(text: String) -> Self {
        match text.as_str() {
            SYSTEM_JOURNAL => LogSelection::SystemJournal,
            USER_JOURNALS => LogSelection::UserJournals,
            _ => LogSelection::Path(text),
        }
    }
}

impl From<LogSelection> for String {
    fn from(selection: LogSelection) -> Self {
        selection.to_string()
    }
}

impl fmt::Display for LogSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogSelection::SystemJournal => SYSTEM_JOURNAL,
            LogSelection::UserJournals => USER_JOURNALS,
            LogSelection::Path(path) => path,
        })
    }
}

/// The logs to save and where to (LB-03, LB-05).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogBackup {
    /// A directory on a data or external disk of the guest; there is no default (LB-03).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The selected logs.
    pub logs: Vec<LogSelection>,
}

impl LogBackup {
    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.directory.is_none() && self.logs.is_empty()
    }

    /// Returns the directory and the logs, if both are there.
    pub fn wanted(&self) -> Option<(&str, &[LogSelection])> {
        let directory = self.directory.as_deref()?;
        (!self.logs.is_empty()).then_some((directory, self.logs.as_slice()))
    }
}

/// A log that a guest has, for a list to choose from (LB-01).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSource {
    /// What is written into the configuration to select it.
    pub log: LogSelection,
    /// What it is: `journal`, `file` or `directory`.
    pub kind: String,
    /// Its size in bytes, with everything below a directory.
    pub bytes: u64,
}

/// What became of one selected log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCopy {
    /// Which log.
    pub log: LogSelection,
    /// How many files were copied.
    pub files: u32,
    /// Their size in bytes.
    pub bytes: u64,
    /// Why it was not, or not wholly, copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The outcome of the log backup of a merge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsSaved {
    /// The directory in the guest that holds the copies.
    pub directory: String,
    /// One entry for each selected log.
    pub copies: Vec<LogCopy>,
}

impl LogsSaved {
    /// Returns the logs that were not wholly saved: a Commit loses them (LB-11).
    pub fn lost(&self) -> Vec<&LogCopy> {
        self.copies.iter().filter(|c| c.failure.is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_its_words_in_every_form() {
        for (text, selection) in [
            ("system journal", LogSelection::SystemJournal),
            ("user journals", LogSelection::UserJournals),
            (
                "/var/log/nginx",
                LogSelection::Path("/var/log/nginx".to_owned()),
            ),
        ] {
            assert_eq!(LogSelection::from(text.to_owned()), selection);
            assert_eq!(selection.to_string(), text);
            let json = serde_json::to_string(&selection).expect("serialises");
            assert_eq!(json, format!("\"{text}\""));
            let back: LogSelection = serde_json::from_str(&json).expect("parses");
            assert_eq!(back, selection);
        }
    }

    // LB-03: without a directory nothing is copied, and that is not the same as nothing selected.
    #[test]
    fn both_a_directory_and_logs_are_needed() {
        let logs = vec![LogSelection::SystemJournal];
        let none = LogBackup {
            directory: None,
            logs: logs.clone(),
        };
        assert!(none.wanted().is_none() && !none.is_empty());
        let both = LogBackup {
            directory: Some("/srv/x".to_owned()),
            logs,
        };
        assert!(both.wanted().is_some());
        assert!(LogBackup::default().is_empty());
    }
}

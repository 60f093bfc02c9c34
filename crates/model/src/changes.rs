//! What changed on a side's system disks since the split, and what of it was carried over.

use serde::{Deserialize, Serialize};

/// Changed files that are kept in the journal for the time after the Production Side was paused: enough to see what is
/// lost, little against everything else that is kept.
pub const KEPT_CHANGES: usize = 200;

/// What a changed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedKind {
    /// A file with content.
    File,
    /// A symbolic link.
    Link,
    /// Anything else, such as a device.
    Other,
}

/// A file that was written, replaced or renamed, or whose owner or mode changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Its path in the guest.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: ChangedKind,
    /// It is a log: shown apart, because nobody misses it who keeps a log backup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log: bool,
    /// The rule of the configuration by which a merge carries it over, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The changed files of a side, by path; perhaps not all of them are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeList {
    /// How many files changed in all.
    pub total: u64,
    /// How many of them are listed in `files` and could be listed at all.
    pub listed: u64,
    /// Some of them, by path.
    pub files: Vec<ChangedFile>,
    /// When it was taken, in milliseconds since 1970.
    pub at_ms: i64,
    /// It was taken before the merge: the Production Side is paused since, and cannot be asked.
    #[serde(default)]
    pub before_merge: bool,
}

/// What one run of the carry-forward did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFiles {
    /// Files, links and directories that the Upgrade Side has from Production now.
    pub files: u64,
    /// Bytes of content that were changed on Production.
    pub bytes: u64,
    /// Files that Production had removed since the split.
    pub removed: u64,
    /// Files that changed on both sides: the Upgrade Side's stay, Production's lie beside them.
    pub conflicts: Vec<String>,
    /// The mark in the guest from which the next run goes on.
    pub mark: String,
}

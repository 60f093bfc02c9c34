//! The few typed replies.

use std::fmt;

use serde::Deserialize;

/// Is a version of QEMU; later versions are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Version {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// The micro number.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Is the state of a machine, as `query-status` names it.
///
/// Names from QEMU 7.2 to 10; another becomes [`RunState::Other`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
#[non_exhaustive]
pub enum RunState {
    /// The guest runs.
    Running,
    /// The guest was stopped by `stop`.
    Paused,
    /// QEMU was started with `-S` and the guest has not begun.
    Prelaunch,
    /// QEMU waits for an incoming migration, or takes one.
    InMigrate,
    /// The guest is paused to finish a migration, or at `pre-switchover`.
    FinishMigrate,
    /// The guest is paused after a migration completed.
    PostMigrate,
    /// A failed request to a disk with `werror=stop` or `rerror=stop` paused
    /// the guest.
    IoError,
    /// QEMU cannot go on with the guest.
    InternalError,
    /// The guest has shut down and QEMU was told to stay.
    Shutdown,
    /// The guest sleeps (ACPI S3).
    Suspended,
    /// The watchdog paused the guest.
    Watchdog,
    /// The guest reported a panic.
    GuestPanicked,
    /// A debugger paused the guest.
    Debug,
    /// The guest is paused while a snapshot is saved.
    SaveVm,
    /// The guest is paused while a snapshot is restored.
    RestoreVm,
    /// The guest is paused by COLO.
    Colo,
    /// A state this crate has no name for.
    Other(String),
}

impl From<String> for RunState {
    fn from(name: String) -> Self {
        match name.as_str() {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "prelaunch" => Self::Prelaunch,
            "inmigrate" => Self::InMigrate,
            "finish-migrate" => Self::FinishMigrate,
            "postmigrate" => Self::PostMigrate,
            "io-error" => Self::IoError,
            "internal-error" => Self::InternalError,
            "shutdown" => Self::Shutdown,
            "suspended" => Self::Suspended,
            "watchdog" => Self::Watchdog,
            "guest-panicked" => Self::GuestPanicked,
            "debug" => Self::Debug,
            "save-vm" => Self::SaveVm,
            "restore-vm" => Self::RestoreVm,
            "colo" => Self::Colo,
            _ => Self::Other(name),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionReply {
    pub(super) qemu: Version,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) status: RunState,
}

#[derive(Debug, Deserialize)]
pub(super) struct Uuid {
    #[serde(rename = "UUID")]
    pub(super) uuid: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommandName {
    pub(super) name: String,
}

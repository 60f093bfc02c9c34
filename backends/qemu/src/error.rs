//! Turns failures of QEMU and of the system into answers of a port.

use flipside_platform::{PortError, PortErrorKind};
use flipside_qmp::QmpError;
use std::io;
use std::path::Path;

/// Kinds told apart by QEMU's own words: there are no finer error classes.
fn kind_of(words: &str) -> PortErrorKind {
    let words = words.to_ascii_lowercase();
    if words.contains("lock") && words.contains("failed to get") {
        return PortErrorKind::InUse;
    }
    if words.contains("is busy") || words.contains("in use") {
        return PortErrorKind::InUse;
    }
    if words.contains("no space left") {
        return PortErrorKind::NoSpace;
    }
    PortErrorKind::Failed
}

/// Makes a port error of a QMP error; `what` says what was tried.
pub(crate) fn qmp(error: &QmpError, what: &str) -> PortError {
    let kind = match error {
        QmpError::TimedOut { .. }
        | QmpError::NoGreeting { .. }
        | QmpError::Closed
        | QmpError::Protocol(_) => PortErrorKind::TimedOut,
        QmpError::Connect { .. } => PortErrorKind::Absent,
        QmpError::Command { desc, .. } => kind_of(desc),
        _ => PortErrorKind::Failed,
    };
    let failed = PortError::new(kind, format!("{what} failed")).because(error);
    match kind {
        PortErrorKind::InUse => failed.advise(
            "Another process uses the file; end it. flipside never opens a leg without its lock",
        ),
        PortErrorKind::NoSpace => failed.advise("Free space on that file system and retry"),
        _ => failed,
    }
}

/// Makes a port error of a system error on a file.
pub(crate) fn file(error: &io::Error, what: &str, path: &Path) -> PortError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => PortErrorKind::Absent,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PortErrorKind::NoSpace,
        io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => PortErrorKind::InUse,
        _ => PortErrorKind::Failed,
    };
    PortError::new(kind, format!("cannot {what} `{}`", path.display()))
        .about(path.display().to_string())
        .because(error)
}

/// Makes a port error for something that is not what was meant.
pub(crate) fn mismatch(message: impl Into<String>) -> PortError {
    PortError::new(PortErrorKind::Mismatch, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 35: a refused lock is told apart from other failures.
    #[test]
    fn locks_and_full_disks_are_told_apart() {
        let refused = QmpError::Command {
            command: "blockdev-add".into(),
            class: "GenericError".into(),
            desc: "Failed to get \"write\" lock".into(),
        };
        assert_eq!(qmp(&refused, "opening").kind, PortErrorKind::InUse);
        assert_eq!(qmp(&QmpError::Closed, "x").kind, PortErrorKind::TimedOut);
        assert_eq!(kind_of("No space left on device"), PortErrorKind::NoSpace);
    }
}

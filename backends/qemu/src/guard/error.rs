//! Why a guard could not begin.

use crate::door::DoorError;
use flipside_model::{Problem, SystemName};
use flipside_platform::{PortError, PortErrorKind};
use std::io;
use std::path::PathBuf;

/// Says why a guard could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// There is one already.
    #[error("system {system} has a guard already (process {pid})")]
    AlreadyRuns {
        /// The system.
        system: SystemName,
        /// Process id of the other guard, as far as it can be read.
        pid: String,
    },
    /// The system has no directory.
    #[error("there is no system {system} in `{}`", path.display())]
    NoSystem {
        /// The system.
        system: SystemName,
        /// Where its directory would be.
        path: PathBuf,
    },
    /// A published port could not be taken.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The record of what the guard does cannot be kept.
    #[error("the guard's event file cannot be opened: {0}")]
    Events(io::Error),
    /// The process could not be set up.
    #[error("the guard's runtime cannot be made: {0}")]
    Runtime(io::Error),
    /// Something on the host.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl From<&GuardError> for PortError {
    fn from(error: &GuardError) -> Self {
        let text = error.to_string();
        match error {
            GuardError::AlreadyRuns { .. } => PortError::new(PortErrorKind::InUse, text),
            GuardError::NoSystem { path, .. } => {
                PortError::absent(text).about(path.display().to_string())
            }
            GuardError::Door(DoorError::InUse { listen, .. }) => {
                PortError::new(PortErrorKind::InUse, text).about(listen.to_string()).advise(format!(
                    "End the program that listens there (`ss -ltnp 'sport = :{0}'` names it), or publish the guest's \
                     port elsewhere",
                    listen.port()
                ))
            }
            GuardError::Door(DoorError::Listen { listen, source, .. }) => {
                let advice = match source.kind() {
                    io::ErrorKind::PermissionDenied => "Publish a host port from 1024 on, or allow this user the lower ones",
                    io::ErrorKind::AddrNotAvailable => "Publish on an address that this host has",
                    _ => "Publish the guest's port on another address or port",
                };
                PortError::failed(text).about(listen.to_string()).advise(advice)
            }
            GuardError::Port(error) => error.clone(),
            _ => PortError::failed(text),
        }
    }
}

impl From<&GuardError> for Problem {
    fn from(error: &GuardError) -> Self {
        PortError::from(error).into()
    }
}

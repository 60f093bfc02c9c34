//! An interactive shell on a side: a virtio port of its own, so that it needs no network, no SSH and no key.

use super::LinuxGuest;
use super::limits;
use super::link;
use super::script;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortErrorKind, PortResult, ShellStream};
use std::time::Duration;
use tokio::net::UnixStream;

/// The socket is on this host and QEMU answers at once, unless somebody else is connected to it.
const CONNECT: Duration = Duration::from_secs(5);

static SHELL: link::Script = script!("start a shell", "shell");

impl LinuxGuest {
    /// Connects to the port first, so that nothing the shell prints is lost, then starts the shell in the guest.
    pub(super) async fn open_shell(
        &self,
        id: MachineId,
        (rows, columns): (u16, u16),
    ) -> PortResult<Box<dyn ShellStream>> {
        let path = self
            .shells
            .as_ref()
            .and_then(|resolve| resolve(id))
            .ok_or_else(|| {
                PortError::new(
                    PortErrorKind::Absent,
                    format!("machine {id} has no shell port"),
                )
            })?;
        let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(&path)).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(
                    PortError::failed(format!("the shell port of {id} cannot be reached"))
                        .because(&error),
                );
            }
            Err(_) => {
                return Err(PortError::new(
                    PortErrorKind::InUse,
                    format!("the shell port of {id} does not answer"),
                )
                .advise("end the other shell on this side first"));
            }
        };
        let arguments = [rows.to_string(), columns.to_string()];
        let status = self
            .link
            .attempt(id, &SHELL, &arguments, limits::LOOK)
            .await?;
        if !status.success() {
            return Err(link::refused(id, SHELL.what, &status));
        }
        Ok(Box::new(stream))
    }
}

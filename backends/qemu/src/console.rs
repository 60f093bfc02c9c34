//! The serial console: a socket of QEMU's, private to the server, with the log beside it.

use crate::system::QemuSystem;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortErrorKind, PortResult, ShellStream};
use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// QEMU is on this host and accepts at once, unless it hangs.
const CONNECT: Duration = Duration::from_secs(5);

/// Who has the console of which machine.
pub(crate) type Claims = Arc<Mutex<HashSet<MachineId>>>;

/// One machine's console, given back when dropped. QEMU accepts a second client silently and never speaks to it.
struct Claim {
    id: MachineId,
    claims: Claims,
}

impl Claim {
    fn new(id: MachineId, claims: &Claims) -> Option<Self> {
        let mut held = claims.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(id).then(|| Self {
            id,
            claims: Arc::clone(claims),
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.id);
    }
}

struct Console {
    stream: UnixStream,
    _claim: Claim,
}

impl QemuSystem {
    pub(crate) async fn open_console(&self, id: MachineId) -> PortResult<Box<dyn ShellStream>> {
        let spec = &self.inner.spec;
        if spec.layout < crate::signs::APPENDING_LAYOUT {
            return Err(PortError::new(
                PortErrorKind::Unsupported,
                format!(
                    "system {} was made with machine layout {}, whose serial console is only logged",
                    spec.name, spec.layout
                ),
            )
            .advise("`flipside console --tail` shows the log; `flipside shell` opens a shell"));
        }
        if self.find(id)?.is_none() {
            return Err(
                PortError::absent(format!("machine {id} does not run")).about(id.to_string())
            );
        }
        let Some(claim) = Claim::new(id, &self.inner.consoles) else {
            return Err(PortError::new(
                PortErrorKind::InUse,
                format!("the serial console of {id} is open already"),
            )
            .advise("end the other `flipside console` first"));
        };
        let path = self.files(id).tty();
        let connected = tokio::time::timeout(CONNECT, UnixStream::connect(&path)).await;
        let stream = connected
            .map_err(|_| {
                PortError::timed_out(format!("the serial console of {id} does not answer"))
            })?
            .map_err(|e| {
                PortError::failed(format!("the serial console of {id} cannot be reached"))
                    .because(&e)
            })?;
        Ok(Box::new(Console {
            stream,
            _claim: claim,
        }))
    }
}

impl AsyncRead for Console {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Console {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

//! The leg book on durable storage, and the lease.

use crate::error;
use crate::paths::{private_dir, write_atomically};
use crate::process::Identity;
use crate::system::QemuSystem;
use async_trait::async_trait;
use flipside_model::LegBook;
use flipside_platform::{Lease, LegPort, PortError, PortErrorKind, PortResult};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the other holder may take. The guard's longest act, swapping the legs of every disk, takes
/// milliseconds; its longest wait is one command's deadline (10 s).
const LEASE_TIMEOUT: Duration = Duration::from_secs(15);

/// The pause before another try; short, because the wait is mostly for an act of milliseconds.
const LEASE_PAUSE: Duration = Duration::from_millis(2);

/// More than any book has: a hundred disks take some 30 KiB.
const LARGEST_BOOK: u64 = 1024 * 1024;

#[async_trait]
impl LegPort for QemuSystem {
    async fn lease(&self) -> PortResult<Lease> {
        private_dir(self.inner.paths.root())?;
        let path = self.inner.paths.lease();
        let file = open_lease(&path)?;
        let deadline = Instant::now() + LEASE_TIMEOUT;
        loop {
            // The lock belongs to the open file: it goes when the lease is dropped or the process dies.
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    sign(&file);
                    return Ok(Lease::new(file));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(e) => return Err(error::file(&e.into(), "lock", &path)),
            }
            if Instant::now() >= deadline {
                return Err(PortError::new(
                    PortErrorKind::InUse,
                    format!(
                        "the lease of system {} was not given back within {} s",
                        self.inner.spec.name,
                        LEASE_TIMEOUT.as_secs()
                    ),
                )
                .about(path.display().to_string())
                .advise("Another flipside server or the guard of this system holds it"));
            }
            sleep(LEASE_PAUSE).await;
        }
    }

    async fn load(&self) -> PortResult<LegBook> {
        read(&self.inner.paths.book())
    }

    async fn store(&self, book: &LegBook) -> PortResult<LegBook> {
        let _writing = self
            .inner
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = self.inner.paths.book();
        private_dir(self.inner.paths.root())?;
        let stored = match read(&path) {
            Ok(stored) => stored.generation,
            // The first book of a system.
            Err(e) if e.kind == PortErrorKind::Absent => 0,
            Err(e) => return Err(e),
        };
        if book.generation != stored {
            return Err(error::mismatch(format!(
                "the leg book has generation {stored}, the change was made to generation {}",
                book.generation
            ))
            .about(path.display().to_string())
            .advise("Somebody else changed it: read it again"));
        }
        let mut next = book.clone();
        next.generation += 1;
        let bytes = serde_json::to_vec_pretty(&next)
            .map_err(|e| PortError::failed("cannot write down the leg book").because(&e))?;
        write_atomically(&path, &bytes)?;
        Ok(next)
    }
}

impl QemuSystem {
    /// Ends the process that holds the lease, so that the kernel takes it back; returns its process id. None if nobody
    /// holds it, if it is this very process, or if it is not known which one it is.
    pub(crate) async fn end_lease_holder(&self) -> PortResult<Option<i32>> {
        let path = self.inner.paths.lease();
        let file = open_lease(&path)?;
        let Some(holder) = signature(&file).filter(|h| h.pid.cast_unsigned() != std::process::id())
        else {
            return Ok(None);
        };
        // Whoever signed and is alive while the lock is held, and has signed last, holds it.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            _ => return Ok(None),
        }
        if !holder.is_alive() || signature(&file).as_ref() != Some(&holder) {
            return Ok(None);
        }
        holder.kill().await?;
        Ok(Some(holder.pid))
    }
}

fn open_lease(path: &Path) -> PortResult<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|e| error::file(&e, "open", path))
}

/// Says in the lease who holds it, so that one that hangs can be ended. Without it nobody is ended: so a full disk is no
/// reason not to act.
fn sign(file: &File) {
    let signed = i32::try_from(std::process::id())
        .ok()
        .and_then(Identity::of);
    let text = signed.and_then(|identity| serde_json::to_vec(&identity).ok());
    let text = text.unwrap_or_default();
    let written = file.set_len(0).and_then(|()| file.write_all_at(&text, 0));
    if let Err(error) = written {
        tracing::debug!(%error, "the lease is not signed");
    }
}

/// Reads who signed the lease last.
fn signature(file: &File) -> Option<Identity> {
    let mut bytes = [0; 512];
    let length = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(bytes.get(..length)?).ok()
}

/// Reads a book from a plain file of ours that nobody else can write (fault 14).
pub(crate) fn read(path: &Path) -> PortResult<LegBook> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|e| error::file(&e, "read the leg book", path))?;
    check(&file, path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_BOOK + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| error::file(&e, "read the leg book", path))?;
    decode(path, &bytes)
}

/// Reads the text of a book; `path` is for messages. Total over any bytes.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> PortResult<LegBook> {
    let damaged = || {
        error::mismatch(format!("the leg book `{}` is damaged", path.display()))
            .about(path.display().to_string())
            .advise(
                "No leg can be trusted without it; restore it from a backup of the state directory",
            )
    };
    // The version first: a later one may have what this program calls damage.
    let found: Version = serde_json::from_slice(bytes).map_err(|e| damaged().because(&e))?;
    if found.version != LegBook::VERSION {
        return Err(error::mismatch(format!(
            "the leg book `{}` has version {}, this flipside reads version {}",
            path.display(),
            found.version,
            LegBook::VERSION
        ))
        .about(path.display().to_string())
        .advise("Use the version of flipside that wrote it, or a later one"));
    }
    serde_json::from_slice(bytes).map_err(|e| damaged().because(&e))
}

/// What every version of the book has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

fn check(file: &File, path: &Path) -> PortResult<()> {
    let meta = file
        .metadata()
        .map_err(|e| error::file(&e, "examine", path))?;
    let ours = rustix::process::geteuid().as_raw();
    let problem = if !meta.is_file() {
        "is not a plain file"
    } else if meta.uid() != ours {
        "belongs to another user"
    } else if meta.mode() & 0o022 != 0 {
        "can be written by others"
    } else if meta.nlink() != 1 {
        "has a second name"
    } else {
        return Ok(());
    };
    Err(
        error::mismatch(format!("the leg book `{}` {problem}", path.display()))
            .about(path.display().to_string()),
    )
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;

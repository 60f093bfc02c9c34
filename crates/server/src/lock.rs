//! One server for one state directory.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Held as long as the server lives; the kernel gives it back when it dies.
pub(crate) struct ServerLock {
    _file: File,
}

impl ServerLock {
    pub(crate) fn take(state_dir: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| {
                format!(
                    "cannot create the state directory `{}`",
                    state_dir.display()
                )
            })?;
        crate::private::check_dir(state_dir)
            .with_context(|| format!("the state directory `{}` is refused", state_dir.display()))?;
        let path = state_dir.join("server.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Only for the message: a lock file that cannot be read is still a held lock.
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another flipside server (process {}) uses the state directory `{}`; stop it first, or give this one \
                 another `--state-dir`",
                holder.trim(),
                state_dir.display()
            );
        }
        file.set_len(0).context("cannot write the server lock")?;
        file.seek(SeekFrom::Start(0))
            .context("cannot write the server lock")?;
        writeln!(file, "{}", std::process::id()).context("cannot write the server lock")?;
        Ok(Self { _file: file })
    }
}

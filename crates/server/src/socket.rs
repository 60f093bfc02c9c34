//! The Unix socket of the API: only for the user that runs the server.

use anyhow::{Context, bail};
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use tokio::net::{UnixListener, UnixStream};

/// The longest path a Unix socket may have (`sun_path` of Linux, without the final zero).
const MAX_SOCKET_PATH: usize = 107;

pub(crate) async fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        bail!(
            "the socket path `{}` is longer than {MAX_SOCKET_PATH} bytes; give a shorter one with `--socket`",
            path.display()
        );
    }
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .with_context(|| format!("cannot create `{}`", parent.display()))?;
        refuse_open_dir(parent)?;
    }
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            bail!(
                "`{}` exists and is not a socket; move it away or give another `--socket`",
                path.display()
            );
        }
        if UnixStream::connect(path).await.is_ok() {
            bail!(
                "another server listens on `{}`; stop it first, or give another `--socket`",
                path.display()
            );
        }
        std::fs::remove_file(path)
            .with_context(|| format!("cannot remove the stale socket `{}`", path.display()))?;
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot listen on `{}`", path.display()))?;
    set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect `{}`", path.display()))?;
    Ok(listener)
}

/// Refuses a directory in which others could put a socket of theirs in the place of ours. In one like `/tmp`, whose sticky
/// bit keeps them from that, it is safe.
fn refuse_open_dir(directory: &Path) -> anyhow::Result<()> {
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let mode = std::fs::metadata(directory)
        .with_context(|| format!("cannot look at `{}`", directory.display()))?
        .permissions()
        .mode();
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        bail!(
            "others may write to `{}` (mode {:04o}), so they could replace the socket; `chmod go-w` mends that",
            directory.display(),
            mode & 0o7777
        );
    }
    Ok(())
}

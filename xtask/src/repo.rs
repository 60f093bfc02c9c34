//! What all chores need to know of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Returns the top folder of the repository.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Lists the files that git tracks and that still exist, relative to the top folder.
pub(crate) fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached"])
        .current_dir(root())
        .output()
        .context("cannot run `git ls-files`")?;
    ensure!(
        output.status.success(),
        "`git ls-files` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let list = String::from_utf8(output.stdout).context("a tracked file's name is not UTF-8")?;
    let files = list
        .split_terminator('\0')
        .map(PathBuf::from)
        // Neither removed files nor symbolic links, which would lead outside.
        .filter(|file| {
            root()
                .join(file)
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_file())
        })
        .collect();
    Ok(files)
}

/// Reads a file of the repository; what is not UTF-8 in it is replaced.
pub(crate) fn read(file: &Path) -> Result<String> {
    let bytes = std::fs::read(root().join(file))
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Says whether a path is a Rust source file.
pub(crate) fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

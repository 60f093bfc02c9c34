//! Files and directories of the state that nobody else may have put there or may write to (fault 14).

use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a plain file of ours: no symbolic link, no pipe, no second name, and nobody else may write to it. What is
/// checked is what is read: one descriptor.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let meta = file.metadata()?;
    let problem = if !meta.is_file() {
        "it is not a plain file"
    } else if meta.nlink() != 1 {
        "it has a second name"
    } else {
        return ours(&meta).map(|()| file);
    };
    Err(io::Error::other(problem))
}

/// Reads a text of at most so many bytes from such a file.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(text)
}

/// Fails unless a directory belongs to us and nobody else may change what is in it.
pub(crate) fn check_dir(path: &Path) -> io::Result<()> {
    ours(&fs::metadata(path)?)
}

fn ours(meta: &fs::Metadata) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let problem = if meta.uid() != us {
        format!("it belongs to user {}, not to user {us}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        format!("others may write to it (mode {mode:04o}); `chmod go-w` mends that")
    } else {
        return Ok(());
    };
    Err(io::Error::other(problem))
}

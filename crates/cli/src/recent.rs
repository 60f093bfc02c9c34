//! The directory in which a user saved or opened a configuration file last, and where files named without one are found.

use crate::failure::Failure;
use flipside_activity::clean;
use flipside_config::with_extension;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The longest path that is remembered, in bytes, as Linux has it.
const MAX_PATH_BYTES: usize = 4096;

/// Finds a file that was named: as it stands if the name has a slash in it, else in the working directory, then in the
/// directory used last (CF-04), then in the default one (CF-02). The second value says where, when it is not obvious.
pub(crate) fn locate(given: &Path) -> (PathBuf, Option<String>) {
    let named = given.as_os_str().as_bytes();
    if named.is_empty() || named.contains(&b'/') || with_extension(given).exists() || given.exists()
    {
        return (given.to_owned(), None);
    }
    let known = [
        (last(), "the directory used last"),
        (default_directory(), "the default directory"),
    ];
    for (directory, what) in known {
        let Some(directory) = directory else { continue };
        let file = with_extension(&directory.join(given));
        if file.exists() {
            let note = format!("using `{}`, from {what}", clean(&file.to_string_lossy()));
            return (file, Some(note));
        }
    }
    (given.to_owned(), None)
}

/// Returns the directory of files when none is named: the one used last, then the default one if it is there, else the
/// working directory.
pub(crate) fn start_directory() -> PathBuf {
    last()
        .or_else(|| default_directory().filter(|dir| dir.is_dir()))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// Remembers the directory of a file that was saved or opened (CF-04). The command has done what was asked, so a memory
/// that cannot be written is no failure of it.
pub(crate) fn remember(file: &Path) {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (Ok(directory), Some(memory)) = (directory.canonicalize(), memory()) else {
        return;
    };
    if last().as_ref() != Some(&directory) {
        let _ = write(&memory, &directory);
    }
}

fn write(memory: &Path, directory: &Path) -> std::io::Result<()> {
    if let Some(parent) = memory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Renamed into place: two commands at once leave one of the two, never a mixture.
    let draft = memory.with_extension(std::process::id().to_string());
    std::fs::write(&draft, directory.as_os_str().as_bytes())?;
    std::fs::rename(&draft, memory)
}

/// The directory used last, if it is still there.
fn last() -> Option<PathBuf> {
    let bytes = std::fs::read(memory()?).ok()?;
    let sound = !bytes.is_empty() && bytes.len() <= MAX_PATH_BYTES && !bytes.contains(&0);
    let directory = sound.then(|| PathBuf::from(OsString::from_vec(bytes)))?;
    (directory.is_absolute() && directory.is_dir()).then_some(directory)
}

fn from_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
}

fn memory() -> Option<PathBuf> {
    let state = from_environment("XDG_STATE_HOME")
        .or_else(|| Some(from_environment("HOME")?.join(".local/state")))?;
    Some(state.join("flipside/last-directory"))
}

/// The one fixed directory for configuration files (CF-02): of the machine for root, else of the user.
fn default_directory() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/etc/flipside"));
    }
    let config = from_environment("XDG_CONFIG_HOME")
        .or_else(|| Some(from_environment("HOME")?.join(".config")))?;
    Some(config.join("flipside"))
}

/// Finds, reads and checks a configuration file with everything it calls, and remembers where it was. The note says where
/// it was found, when that is not obvious.
pub(crate) fn open(given: &Path) -> Result<Opened, Failure> {
    let (path, note) = locate(given);
    let (text, resolved) = flipside_config::load(&path)?;
    remember(&text.path);
    Ok(Opened {
        text,
        resolved,
        note,
    })
}

/// A configuration file that was opened.
pub(crate) struct Opened {
    pub(crate) text: flipside_model::api::ConfigText,
    pub(crate) resolved: flipside_config::Resolved,
    pub(crate) note: Option<String>,
}

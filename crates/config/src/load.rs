//! Reads configuration files from disk.

use crate::nest::Unfetched;
use crate::resolve::{Resolved, gather, to_send};
use flipside_model::api::ConfigText;
use flipside_model::{Problem, ProblemCode};
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// The largest configuration, in bytes, all files together: far above any real one, far below what could hurt the server.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The extension of configuration files, spelled as the guide spells it (CF-08).
pub const EXTENSION: &str = ".Config";

/// Appends `.Config` unless it is there already (CF-08).
pub fn with_extension(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    if path.as_os_str().is_empty() || has_extension(path) {
        return path.to_owned();
    }
    let mut name = name.to_owned();
    name.push(EXTENSION);
    path.with_file_name(name)
}

fn has_extension(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with(EXTENSION))
}

/// Reads the text of one configuration file, without those it calls; `NAME` finds `NAME.Config`.
///
/// Only a regular file of at most [`MAX_FILE_BYTES`] in UTF-8 is read. The text is not parsed.
pub fn read(path: &Path) -> Result<ConfigText, Problem> {
    let found = with_extension(path);
    let usage = |message: String| {
        Problem::new(ProblemCode::Usage, message).about(found.display().to_string())
    };
    let shown = found.display();
    if found != path && !found.exists() && path.exists() {
        return Err(usage(format!(
            "`{}` is not called like a configuration file",
            path.display()
        ))
        .advise(format!("rename it to `{shown}`")));
    }
    let file = openat(rustix::fs::CWD, &found, READ, Mode::empty()).map_err(|error| {
        let error = std::io::Error::from(error);
        if error.kind() == ErrorKind::NotFound {
            return usage(format!("the configuration file `{shown}` does not exist"))
                .advise(format!("`flipside config new {shown}` makes one"));
        }
        usage(format!("`{shown}` cannot be read")).because(&error)
    })?;
    let text = contents(File::from(file), MAX_FILE_BYTES).map_err(|unfetched| {
        let mut problem = usage(format!("`{shown}` {}", unfetched.why));
        problem.causes.extend(unfetched.cause);
        problem
    })?;
    Ok(ConfigText {
        path: found,
        text,
        children: Vec::new(),
    })
}

/// For reading, without waiting for the writer of a named pipe and without getting a terminal.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Reads a file that is open: what is checked is what is read (security checklist 17).
fn contents(file: File, limit: usize) -> Result<String, Unfetched> {
    let failed = |error: &std::io::Error| Unfetched {
        why: "cannot be read".to_owned(),
        cause: Some(error.to_string()),
    };
    let refused = |why: String| Err(Unfetched { why, cause: None });
    let meta = file.metadata().map_err(|error| failed(&error))?;
    if !meta.is_file() {
        return refused("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() > MAX_FILE_BYTES {
        return refused(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    // A child over what is left of the limit may be cut within a character; its length is refused first.
    if bytes.len() > limit {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| Unfetched {
        why: "is not text in UTF-8".to_owned(),
        cause: Some(error.to_string()),
    })
}

/// Reads and checks a configuration file with everything it calls; returns what is sent to the server as well.
pub fn load(path: &Path) -> Result<(ConfigText, Resolved), Problem> {
    let text = read(path)?;
    resolve_beside(&text.path, &text.text)
}

/// Checks a text as the file of that name, with the children that lie beside that file.
///
/// The directory is opened once and children are opened in it by their names only: never a link, never elsewhere (CF-29,
/// security checklist 17).
pub fn resolve_beside(path: &Path, text: &str) -> Result<(ConfigText, Resolved), Problem> {
    // A link to the first file is followed, as for every file that a user names; its children lie beside the file itself.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = match real.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut opened = None;
    let resolved = gather(path, text, &mut |name, limit| {
        let failed = |error: rustix::io::Errno| {
            let error = std::io::Error::from(error);
            Unfetched {
                why: "cannot be read".to_owned(),
                cause: Some(error.to_string()),
            }
        };
        if opened.is_none() {
            let dir = openat(rustix::fs::CWD, directory, flags, Mode::empty());
            opened = Some(dir.map_err(failed)?);
        }
        let Some(dir) = &opened else {
            return Err(failed(rustix::io::Errno::NOENT));
        };
        match openat(dir, name, READ | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => contents(File::from(file), limit),
            Err(rustix::io::Errno::NOENT) => Err(Unfetched {
                why: "does not exist".to_owned(),
                cause: None,
            }),
            Err(rustix::io::Errno::LOOP) => Err(Unfetched {
                why: "is a symbolic link".to_owned(),
                cause: None,
            }),
            Err(error) => Err(failed(error)),
        }
    })?;
    resolved.staged()?;
    Ok((to_send(path.to_owned(), &resolved), resolved))
}

//! Reads configuration files from disk.

use crate::file::parse;
use flipside_model::api::ConfigText;
use flipside_model::{Problem, ProblemCode, UpgradeConfig};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest configuration file, in bytes: far above any real one, far below what could hurt the server.
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

/// Reads the text of a configuration file; `NAME` finds `NAME.Config`.
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
    // Looked at before it is opened: opening a named pipe would wait for ever.
    let regular = |meta: std::fs::Metadata| meta.is_file();
    let cannot = |error: &std::io::Error| usage(format!("`{shown}` cannot be read")).because(error);
    match std::fs::metadata(&found) {
        Ok(meta) if !regular(meta.clone()) => {
            return Err(usage(format!("`{shown}` is not a regular file")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(
                usage(format!("the configuration file `{shown}` does not exist"))
                    .advise(format!("`flipside config new {shown}` makes one")),
            );
        }
        Err(error) => return Err(cannot(&error)),
    }
    let file = File::open(&found).map_err(|error| cannot(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot(&error))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(usage(format!(
            "`{shown}` is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| usage(format!("`{shown}` is not text in UTF-8")).because(&error))?;
    Ok(ConfigText { path: found, text })
}

/// Reads and checks a configuration file; returns what was read as well, to be sent to the server.
pub fn load(path: &Path) -> Result<(ConfigText, UpgradeConfig), Problem> {
    let text = read(path)?;
    let config = parse(&text.path, &text.text)?;
    Ok((text, config))
}

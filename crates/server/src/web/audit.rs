//! Who changed what through the console: a file that only grows, each line bound to the one before by its digest.

use super::guard::Peer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tracing::{error, info};

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    time: String,
    user: String,
    from: String,
    what: String,
    status: u16,
    /// Digest of the line before, as it stands in the file; so no line can be changed or taken out unnoticed.
    before: String,
}

/// The file, and the digest of its last line.
pub(crate) struct Audit(Mutex<(Option<File>, String)>);

fn digest(line: &str) -> String {
    let bytes = Sha256::digest(line.as_bytes());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Audit {
    /// Opens the file and goes on where it ended. One that cannot be opened is logged; what would be written is logged too.
    pub(crate) fn open(path: &Path) -> Self {
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path);
        let opened = opened.and_then(|file| {
            let mut last = String::new();
            for line in BufReader::new(&file).lines() {
                last = digest(&line?);
            }
            Ok((Some(file), last))
        });
        Self(Mutex::new(opened.unwrap_or_else(|error| {
            error!(%error, path = %path.display(), "what is done through the console is only logged here");
            (None, String::new())
        })))
    }

    /// Writes down one request.
    pub(crate) fn write(&self, user: &str, peer: Option<Peer>, what: &str, status: u16) {
        let from = peer.map_or_else(String::new, |peer| peer.0.to_string());
        let shown = user.escape_debug();
        info!(user = %shown, from, what, status, "console");
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            time: jiff::Timestamp::now().to_string(),
            user: user.to_owned(),
            from,
            what: what.to_owned(),
            status,
            before: state.1.clone(),
        };
        let Ok(text) = serde_json::to_string(&line) else {
            return;
        };
        if let Some(file) = &mut state.0
            && let Err(error) = file.write_all(format!("{text}\n").as_bytes())
        {
            error!(%error, "what is done through the console cannot be written down");
        }
        state.1 = digest(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Security 16: every line holds the digest of the one before, over restarts too.
    #[test]
    fn the_lines_are_a_chain() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.jsonl");
        Audit::open(&path).write("ada", None, "login", 200);
        let again = Audit::open(&path);
        again.write("eve\n{}", None, "POST /v1/x", 403);
        again.write("ada", None, "logout", 204);
        let text = std::fs::read_to_string(&path).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let mut before = String::new();
        for line in lines {
            let parsed: Line = serde_json::from_str(line).expect("JSON");
            assert_eq!(parsed.before, before);
            before = digest(line);
        }
    }
}

//! What the guard did, on disk, so that the server can tell it whenever it comes back.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::limits::{EVENTS_BATCH, EVENTS_MAX_BYTES};
use flipside_model::{MachineId, Severity};

/// One act of the guard, or something it saw and may not act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardEvent {
    /// Grows by one with every event of a system, over all its guards.
    pub sequence: u64,
    /// Wall-clock time in milliseconds since 1970.
    pub at_ms: i64,
    /// How serious it is.
    pub severity: Severity,
    /// The machine it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// What was done, or seen.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The event file and the one before it: together a bounded history.
pub(crate) struct EventLog {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Option<File>,
    bytes: u64,
    next: u64,
    /// The latest ones, so that asking costs no file access.
    recent: VecDeque<GuardEvent>,
}

/// Wall-clock time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl EventLog {
    /// Opens the history. What cannot be read of it is skipped: it is told to people, nothing is decided by it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut recent = VecDeque::new();
        let mut next = 1;
        let mut torn = false;
        for file in [older(path), path.to_owned()] {
            let bytes = read_bounded(&file)?;
            torn = bytes.last().is_some_and(|last| *last != b'\n');
            for line in bytes.split(|b| *b == b'\n') {
                if let Ok(event) = serde_json::from_slice::<GuardEvent>(line) {
                    next = next.max(event.sequence.saturating_add(1));
                    keep(&mut recent, event);
                }
            }
        }
        let mut file = append_to(path)?;
        if torn {
            // A line cut off by a crash must not spoil the next one.
            file.write_all(b"\n")?;
        }
        let bytes = file.metadata()?.len();
        let inner = Inner {
            file: Some(file),
            bytes,
            next,
            recent,
        };
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. If the disk is full it is kept in memory only: the guard's work goes on.
    pub(crate) fn add(
        &self,
        severity: Severity,
        machine: Option<MachineId>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        let mut inner = self.lock();
        let event = GuardEvent {
            sequence: inner.next,
            at_ms: now_ms(),
            severity,
            machine,
            what: what.into(),
            why: why.into(),
        };
        inner.next += 1;
        tracing::info!(machine = ?event.machine, what = event.what, why = event.why, "guard");
        let line = super::wire::line(&event);
        keep(&mut inner.recent, event);
        if let Err(error) = self.write(&mut inner, &line) {
            tracing::warn!(%error, "the guard's event file cannot be written");
        }
    }

    fn write(&self, inner: &mut Inner, line: &[u8]) -> io::Result<()> {
        if inner.bytes >= EVENTS_MAX_BYTES {
            fs::rename(&self.path, older(&self.path))?;
            inner.file = None;
            inner.bytes = 0;
        }
        let file = match inner.file.as_mut() {
            Some(file) => file,
            None => inner.file.insert(append_to(&self.path)?),
        };
        file.write_all(line)?;
        inner.bytes += line.len() as u64;
        file.sync_data()
    }

    /// Returns the events after a sequence number, the oldest first; ask again from the last one on.
    pub(crate) fn after(&self, sequence: u64) -> Vec<GuardEvent> {
        let inner = self.lock();
        let later = inner.recent.iter().filter(|e| e.sequence > sequence);
        later.take(EVENTS_BATCH).cloned().collect()
    }
}

/// Events kept in memory: as many as one answer takes, twice.
const RECENT: usize = 2 * EVENTS_BATCH;

fn keep(recent: &mut VecDeque<GuardEvent>, event: GuardEvent) {
    if recent.len() == RECENT {
        recent.pop_front();
    }
    recent.push_back(event);
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".old");
    path.with_file_name(name)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // A file that is longer than we ever make it is not read to its end.
        Ok(file) => file
            .take(4 * EVENTS_MAX_BYTES)
            .read_to_end(&mut bytes)
            .map(drop)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Reads the events of a system whose guard does not run.
pub(crate) fn read_after(path: &Path, sequence: u64) -> Vec<GuardEvent> {
    let files = [older(path), path.to_owned()];
    let bytes = files.iter().filter_map(|file| read_bounded(file).ok());
    let events = bytes.flat_map(|bytes| {
        let lines = bytes.split(|b| *b == b'\n');
        let read = lines.filter_map(|line| serde_json::from_slice::<GuardEvent>(line).ok());
        read.filter(|e| e.sequence > sequence).collect::<Vec<_>>()
    });
    events.take(EVENTS_BATCH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(log: &EventLog, what: &str) {
        log.add(Severity::Information, Some(MachineId(1)), what, "a test");
    }

    #[test]
    fn events_are_numbered_over_restarts_and_torn_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("guard-events.jsonl");
        let log = EventLog::open(&path).expect("open");
        add(&log, "one");
        add(&log, "two");
        drop(log);
        let torn = OpenOptions::new().append(true).open(&path);
        torn.expect("open").write_all(b"{\"seq").expect("written");
        let log = EventLog::open(&path).expect("open");
        add(&log, "three");
        let seen: Vec<_> = log
            .after(1)
            .into_iter()
            .map(|e| (e.sequence, e.what))
            .collect();
        assert_eq!(seen, [(2, "two".to_owned()), (3, "three".to_owned())]);
        assert_eq!(read_after(&path, 1), log.after(1));
        assert!(log.after(3).is_empty());
    }

    #[test]
    fn the_history_is_bounded_on_disk_and_in_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("guard-events.jsonl");
        let log = EventLog::open(&path).expect("open");
        let long = "x".repeat(16 * 1024);
        for _ in 0..100 {
            add(&log, &long);
        }
        let sizes = fs::read_dir(dir.path()).expect("listed");
        let total: u64 = sizes
            .map(|e| e.expect("read").metadata().expect("read").len())
            .sum();
        assert!(total < 2 * EVENTS_MAX_BYTES + 64 * 1024, "{total}");
        assert_eq!(log.after(99).len(), 1);
        let again = EventLog::open(&path).expect("open");
        assert_eq!(again.lock().next, 101);
    }
}

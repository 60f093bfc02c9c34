//! The guard's own files in the directory of its system.
//!
//! ```text
//! STATE/systems/NAME/
//!   guard.json            what the guard needs to know of the system; written by the server
//!   guard-control.sock    where the server talks to it, 0600
//!   guard.pid             its process id, locked while it lives
//!   guard.log             what it printed
//!   guard-events.jsonl    what it did, and guard-events.jsonl.old
//!   guard-door.json       what the door was told last, on this boot of the host
//! ```

use crate::error;
use crate::paths::{SystemPaths, remove_file, write_atomically};
use crate::process::host_boot;
use flipside_model::SystemSpec;
use flipside_platform::{PortError, PortResult};
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Names the guard's files of one system.
#[derive(Debug, Clone)]
pub(crate) struct GuardFiles {
    root: PathBuf,
}

impl GuardFiles {
    pub(crate) fn new(paths: &SystemPaths) -> Self {
        Self {
            root: paths.root().to_owned(),
        }
    }
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("guard.json")
    }
    pub(crate) fn control(&self) -> PathBuf {
        self.root.join("guard-control.sock")
    }
    pub(crate) fn pid(&self) -> PathBuf {
        self.root.join("guard.pid")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("guard.log")
    }
    pub(crate) fn events(&self) -> PathBuf {
        self.root.join("guard-events.jsonl")
    }
    fn door(&self) -> PathBuf {
        self.root.join("guard-door.json")
    }

    /// Notes what the door was told, for a guard that takes over. Not synced: after a power cut there are no
    /// connections, and the note is of another boot.
    pub(crate) fn note_door(&self, told: Told) -> PortResult<()> {
        let path = self.door();
        let note = DoorNote {
            boot: host_boot().unwrap_or_default(),
            told,
        };
        let bytes = serde_json::to_vec(&note).unwrap_or_default();
        fs::write(&path, bytes).map_err(|e| error::file(&e, "write", &path))
    }

    /// Takes that note back: the next door is a new one.
    pub(crate) fn forget_door(&self) -> PortResult<()> {
        remove_file(&self.door())
    }

    /// Returns what the door of a guard that ended on this boot, without being told to, was told last.
    pub(crate) fn door_was(&self) -> Option<Told> {
        let note: DoorNote = serde_json::from_slice(&fs::read(self.door()).ok()?).ok()?;
        (Some(note.boot) == host_boot()).then_some(note.told)
    }

    /// Takes the place of the system's one guard; none if another one has it.
    pub(crate) fn occupy(&self) -> PortResult<Option<File>> {
        let path = self.pid();
        let fail = |what, e: io::Error| error::file(&e, what, &path);
        let mut file = self.open_pid().map_err(|e| fail("open", e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(fail("lock", e.into())),
        }
        file.set_len(0).map_err(|e| fail("write", e))?;
        writeln!(file, "{}", std::process::id()).map_err(|e| fail("write", e))?;
        Ok(Some(file))
    }

    /// Returns the process id of the guard that runs; none if none does.
    pub(crate) fn occupant(&self) -> Option<String> {
        let file = OpenOptions::new().read(true).open(self.pid()).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.take(32).read_to_string(&mut pid).ok()?;
                Some(pid.trim().to_owned())
            }
            _ => None,
        }
    }

    fn open_pid(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.pid())
    }
}

/// What a door is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Hold,
    Open,
}

#[derive(Debug, Serialize, Deserialize)]
struct DoorNote {
    boot: String,
    told: Told,
}

/// What the server tells the guard before it starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardConfig {
    pub(crate) version: u32,
    pub(crate) spec: SystemSpec,
}

/// More than any definition has: a hundred disks take some 40 KiB.
const LARGEST_CONFIG: u64 = 1024 * 1024;

impl GuardConfig {
    const VERSION: u32 = 1;

    pub(crate) fn new(spec: SystemSpec) -> Self {
        Self {
            version: Self::VERSION,
            spec,
        }
    }

    pub(crate) fn load(files: &GuardFiles) -> PortResult<Self> {
        let path = files.config();
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LARGEST_CONFIG).read_to_end(&mut bytes))
            .map_err(|e| error::file(&e, "read", &path))?;
        let config: Self = serde_json::from_slice(&bytes)
            .map_err(|e| error::mismatch(format!("`{}` is damaged", path.display())).because(&e))?;
        if config.version != Self::VERSION {
            return Err(error::mismatch(format!(
                "`{}` has version {}, this guard reads version {}",
                path.display(),
                config.version,
                Self::VERSION
            )));
        }
        Ok(config)
    }

    /// Writes it, unless it is there already.
    pub(crate) fn store(&self, files: &GuardFiles) -> PortResult<()> {
        if Self::load(files).is_ok_and(|stored| stored == *self) {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| PortError::failed("cannot write down what the guard needs").because(&e))?;
        write_atomically(&files.config(), &bytes)
    }
}

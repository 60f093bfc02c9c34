//! The journal's files on the simulated disk: every append and sync is a call of the simulated world, so it can be hit
//! by the same faults as a call to a machine, and a server that is dead writes nothing more.

use flipside_backend_sim::{FaultKind, SimWorld};
use flipside_journal::{MemoryDisk, MemoryStorage, Storage};
use flipside_platform::PortErrorKind;
use std::io;

/// In how many places an append is torn: after one quarter, after half, and after three quarters of its line.
const PARTS: u32 = 4;

/// A [`Storage`] that goes through the gate of a simulated world.
#[derive(Debug)]
pub struct SimStorage {
    inner: MemoryStorage,
    world: SimWorld,
    life: u64,
}

impl SimStorage {
    /// Opens a disk in the present life of the world's server.
    pub fn new(disk: &MemoryDisk, world: &SimWorld) -> Self {
        Self {
            inner: MemoryStorage::new(disk),
            world: world.clone(),
            life: world.life(),
        }
    }

    /// Runs one call; `work` is given how much of the call is to be done, in parts of [`PARTS`].
    fn pass<T>(
        &mut self,
        name: String,
        changes: bool,
        parts: u32,
        work: impl FnOnce(&mut MemoryStorage, u32) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(passage) = self.world.enter(self.life, name, changes) else {
            return Err(io::Error::other("this server is dead"));
        };
        let broken = || Err(io::Error::other("injected"));
        let result = match &passage.fault {
            None | Some(FaultKind::Twice) => work(&mut self.inner, PARTS),
            Some(FaultKind::FailWith(PortErrorKind::NoSpace)) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(FaultKind::FailWith(PortErrorKind::TimedOut)) => {
                Err(io::ErrorKind::Interrupted.into())
            }
            Some(FaultKind::FailBefore | FaultKind::FailWith(_) | FaultKind::CrashBefore) => {
                broken()
            }
            Some(FaultKind::Hang { done: false }) => broken(),
            Some(FaultKind::Torn(n) | FaultKind::TornLost(n) | FaultKind::TornCrash(n)) => {
                let _ = work(&mut self.inner, (*n).min(PARTS));
                broken()
            }
            Some(FaultKind::LostReply | FaultKind::Hang { done: true } | FaultKind::CrashAfter) => {
                let _ = work(&mut self.inner, PARTS);
                broken()
            }
        };
        self.world.leave(&passage, parts);
        result
    }
}

impl Storage for SimStorage {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn generation(&self) -> u32 {
        self.inner.generation()
    }

    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        self.pass("journal.read".to_owned(), false, 1, |s, _| s.read_all())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        // Changes nothing that a crash could show, so it is a place for failures, not for crashes.
        self.pass("journal.reserve".to_owned(), false, 1, |s, _| {
            s.reserve(bytes)
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let kind = kind_of(bytes);
        if kind.starts_with("entered.") && self.world.alive(self.life) {
            self.world.label(&kind);
        }
        let name = format!("journal.append.{kind}");
        self.pass(name, true, PARTS, |s, parts| {
            s.append(&bytes[..bytes.len() * parts as usize / PARTS as usize])
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.pass("journal.sync".to_owned(), true, 1, |s, _| s.sync())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.pass("journal.truncate".to_owned(), true, 1, |s, _| {
            s.truncate(len)
        })
    }

    fn start_next(&mut self, contents: &[u8]) -> io::Result<()> {
        self.pass("journal.start".to_owned(), true, 1, |s, _| {
            s.start_next(contents)
        })
    }

    fn prune(&mut self, keep: u32) -> io::Result<()> {
        self.pass("journal.prune".to_owned(), true, 1, |s, _| s.prune(keep))
    }
}

/// Returns what kind of record a line holds, such as `intent.merge.mount`.
fn kind_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let word = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.split('"').next()
    };
    let kind = word("\"record\":{\"").unwrap_or("record");
    let more = match kind {
        "intent" | "outcome" => word("\"step\":\""),
        "entered" => word("\"state\":\""),
        "accepted" => word("\"command\":\""),
        "fact" => word("\"fact\":{\"").or_else(|| word("\"fact\":\"")),
        _ => None,
    };
    match more {
        Some(more) => format!("{kind}.{more}"),
        None => kind.to_owned(),
    }
}

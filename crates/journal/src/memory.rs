//! A journal's files in memory, with faults and power cuts, for tests and for the simulation.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{ABORT_RESERVE, Storage};

/// A failure to inject into one call of a [`MemoryStorage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of error that the call returns.
    pub kind: io::ErrorKind,
    /// What the call still does: an append writes this many bytes of its data, and any other call does its work when this
    /// is not 0 (and then reports the error nevertheless).
    pub written: usize,
}

/// The disk under a [`MemoryStorage`]: survives it, as a disk survives a process. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    calls: u64,
    faults: Vec<(u64, Fault)>,
    space: Option<u64>,
}

#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// How much of `bytes` a power cut leaves.
    durable: usize,
    /// What a power cut brings back while a truncation is not synced.
    before_truncation: Option<Vec<u8>>,
    reserved: u64,
}

impl MemoryDisk {
    /// Returns the contents of the current file as a process sees them; empty when there is none.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.lock()
            .files
            .last()
            .map(|file| file.bytes.clone())
            .unwrap_or_default()
    }

    /// Returns the size of every file of the row, oldest first, as a process sees it; a pruned one has none.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        let state = self.lock();
        state.files.iter().map(|file| file.bytes.len()).collect()
    }

    /// Replaces the current file, durably; makes the first one if there is none.
    pub fn set_contents(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.files.is_empty() {
            state.files.push(File::default());
        }
        if let Some(file) = state.files.last_mut() {
            *file = File {
                bytes: bytes.to_vec(),
                durable: bytes.len(),
                before_truncation: None,
                reserved: file.reserved,
            };
        }
    }

    /// Returns the number of calls that storages on this disk have made; asking for the generation or a name is none.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Makes the call with this number fail; the next call has the number [`calls`](Self::calls)` + 1`.
    pub fn fail_call(&self, number: u64, fault: Fault) {
        self.lock().faults.push((number, fault));
    }

    /// Limits how long a file may grow, in bytes; `None` is no limit. Space that is reserved already stays usable.
    pub fn set_space(&self, limit: Option<u64>) {
        self.lock().space = limit;
    }

    /// Cuts the power: what was not synced is lost, except for the first `kept` bytes of what was appended since.
    pub fn power_cut(&self, kept: usize) {
        for file in &mut self.lock().files {
            if let Some(before) = file.before_truncation.take() {
                file.bytes = before;
            } else {
                file.bytes.truncate(file.durable.saturating_add(kept));
            }
            file.durable = file.bytes.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has left a state that is still worth looking at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self) -> Option<Fault> {
        self.calls += 1;
        let calls = self.calls;
        self.faults
            .iter()
            .find(|(number, _)| *number == calls)
            .map(|(_, fault)| *fault)
    }

    /// Runs one call with whatever fault is due.
    fn call<T>(&mut self, work: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.begin() {
            None => work(self),
            Some(fault) => {
                if fault.written > 0 {
                    work(self)?;
                }
                Err(fault.kind.into())
            }
        }
    }

    fn current(&mut self) -> io::Result<&mut File> {
        self.files
            .last_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let limit = self.space.unwrap_or(u64::MAX);
        let file = self.current()?;
        let end = file.bytes.len() as u64 + bytes;
        if end > limit.max(file.reserved) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.reserved = file.reserved.max(end);
        Ok(())
    }
}

/// A [`Storage`] on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStorage {
    disk: MemoryDisk,
}

impl MemoryStorage {
    /// Opens a disk.
    #[must_use]
    pub fn new(disk: &MemoryDisk) -> Self {
        Self { disk: disk.clone() }
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> String {
        format!("memory:{:04}", self.generation().max(1))
    }

    fn generation(&self) -> u32 {
        u32::try_from(self.disk.lock().files.len()).unwrap_or(u32::MAX)
    }

    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        self.disk
            .lock()
            .call(|state| Ok(state.current()?.bytes.clone()))
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.disk.lock().call(|state| state.reserve(bytes))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fault = state.begin();
        let written = fault.map_or(bytes.len(), |fault| fault.written.min(bytes.len()));
        state.reserve(written as u64)?;
        state.current()?.bytes.extend_from_slice(&bytes[..written]);
        fault.map_or(Ok(()), |fault| Err(fault.kind.into()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.lock().call(|state| {
            let file = state.current()?;
            file.durable = file.bytes.len();
            file.before_truncation = None;
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.lock().call(|state| {
            let file = state.current()?;
            file.before_truncation = Some(file.bytes.clone());
            file.bytes
                .truncate(usize::try_from(len).unwrap_or(usize::MAX));
            file.durable = file.durable.min(file.bytes.len());
            Ok(())
        })
    }

    fn start_next(&mut self, contents: &[u8]) -> io::Result<()> {
        self.disk.lock().call(|state| {
            let reserved = contents.len() as u64 + ABORT_RESERVE;
            if state.space.is_some_and(|limit| reserved > limit) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let durable = contents.len();
            state.files.push(File {
                bytes: contents.to_vec(),
                durable,
                before_truncation: None,
                reserved,
            });
            Ok(())
        })
    }

    fn prune(&mut self, keep: u32) -> io::Result<()> {
        self.disk.lock().call(|state| {
            // The emptied files stay in the row, because their number is the generation.
            let last = state.files.len().saturating_sub(keep.max(1) as usize);
            state.files[..last]
                .iter_mut()
                .for_each(|file| *file = File::default());
            Ok(())
        })
    }
}

//! The side port: what surrounds a machine. Its consoles and keys, its CD drive, the private way to it, the signs by
//! which its partner state is told, and the dump files that it leaves.

use crate::{PortResult, ShellStream};
use async_trait::async_trait;
use flipside_model::{Dump, KeySequence, MachineId};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Evidence of what an operating system is doing, from outside of it (PS-04 to PS-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs {
    /// Resets since the process began, as far as anybody listened.
    pub resets: u64,
    /// Bytes read from its disks since the last of them: firmware reads next to nothing, a boot loader megabytes.
    pub read_bytes: u64,
    /// Bytes that its serial console has printed so far.
    pub printed: u64,
}

/// What is in a CD drive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Medium {
    /// The image, none when the drive is empty.
    pub image: Option<PathBuf>,
    /// The guest uses it and has locked the tray.
    pub locked: bool,
}

/// What surrounds the machines of one system.
#[async_trait]
pub trait SidePort: Send + Sync {
    /// Returns the address on the host that leads to the guest's SSH on its private card.
    async fn access(&self, id: MachineId) -> PortResult<SocketAddr>;
    /// Reads the signs; read-only.
    async fn signs(&self, id: MachineId) -> PortResult<Signs>;
    /// Returns what the serial console printed after so many bytes: the last `most` of it, as far as it is kept.
    async fn printed(&self, id: MachineId, after: u64, most: usize) -> PortResult<Vec<u8>>;
    /// Opens the serial console; one at a time, another one is told `InUse`.
    async fn console(&self, id: MachineId) -> PortResult<Box<dyn ShellStream>>;
    /// Presses keys.
    async fn send_keys(&self, id: MachineId, keys: KeySequence) -> PortResult<()>;

    /// Says whether a file can be put into the drive; returns its size. Read-only.
    async fn check_image(&self, image: &Path) -> PortResult<u64>;
    /// Says what is in the drive.
    async fn medium(&self, id: MachineId) -> PortResult<Medium>;
    /// Puts an image into the drive, read-only; it replaces another one that the guest does not use.
    async fn insert(&self, id: MachineId, image: &Path) -> PortResult<()>;
    /// Empties the drive. While the guest has the tray locked that is `InUse`, unless it is forced.
    async fn eject(&self, id: MachineId, force: bool) -> PortResult<()>;

    /// Lists the dump files that are kept, oldest first.
    async fn dumps(&self) -> PortResult<Vec<Dump>>;
    /// Writes the memory of a machine to the next free `MemoryN.dmp`; the guest stands still meanwhile. `NoSpace` when
    /// the disk would be left too full.
    async fn dump_memory(&self, id: MachineId) -> PortResult<Dump>;
    /// Takes a piece of a file that is being collected; offset 0 begins it anew.
    async fn dump_part(&self, offset: u64, bytes: &[u8]) -> PortResult<()>;
    /// Keeps what was collected under the next free number: as `MemoryN.dmp`, or as `CrashN-NAME`.
    async fn dump_keep(&self, name: Option<&str>) -> PortResult<Dump>;
}

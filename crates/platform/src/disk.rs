//! The disk port: block graphs, change bitmaps and the resynchronisation of a stale leg.

use crate::PortResult;
use async_trait::async_trait;
use flipside_model::{Carried, DiskName, Leg, MachineId, ResyncFigures};

/// The serial number by which a guest finds the scratch disk.
pub const SCRATCH: &str = "flipside-scratch";

/// How a resynchronisation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResyncStart {
    /// Only what the change bitmaps name.
    Bitmap,
    /// Compare the whole disk, because no bitmap can be trusted.
    Compare,
}

/// Where a resynchronisation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResyncPhase {
    /// None is running on this disk.
    None,
    /// Copying (or comparing) while the guest runs.
    Copying,
    /// So little is left that a pause of milliseconds ends it.
    Nearly,
    /// It failed; the target stays stale, the machine runs on.
    Failed(String),
}

/// Progress of a resynchronisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncView {
    /// Phase.
    pub phase: ResyncPhase,
    /// Bytes copied or compared so far.
    pub done_bytes: u64,
    /// Bytes to copy or compare in all, as known now.
    pub total_bytes: u64,
}

/// What a comparison of both legs found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes compared: the size of the disk.
    pub compared_bytes: u64,
    /// Bytes of blocks of 4 KiB that rest and differ.
    pub different_bytes: u64,
    /// Where the first of them begins.
    pub first_difference: Option<u64>,
}

/// Is told how many bytes of how many were compared.
pub type VerifyProgress<'a> = dyn Fn(u64, u64) + Send + Sync + 'a;

/// Changes the block graph of a machine. Every call but `verify` needs the lease.
#[async_trait]
pub trait DiskPort: Send + Sync {
    /// Gives a plugged disk of a paused machine exactly these legs as its root. With one leg a change bitmap is
    /// put on it, unless there is one already. Finishes an interrupted swap.
    async fn set_legs(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()>;
    /// Unplugs a disk and closes everything below it; an overlay's file is removed. The guest must have let go.
    async fn unplug(&self, id: MachineId, disk: &DiskName) -> PortResult<()>;
    /// Plugs a disk with these legs and waits until the machine has it.
    async fn plug(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()>;
    /// Stores the change bitmap of a disk outside the machine, so that it survives the machine's end.
    async fn carry_out(&self, id: MachineId, disk: &DiskName) -> PortResult<Carried>;
    /// Merges a stored bitmap into the machine's own. Returns the dirty bytes of the union.
    async fn carry_in(&self, id: MachineId, disk: &DiskName) -> PortResult<u64>;
    /// Removes stored bitmaps.
    async fn drop_carried(&self, disk: &DiskName) -> PortResult<()>;
    /// Starts to rewrite the stale leg from the authority leg while the guest runs. `rate` limits the copying in
    /// bytes per second, 0 for no limit.
    async fn resync_start(
        &self,
        id: MachineId,
        disk: &DiskName,
        from: Leg,
        to: Leg,
        how: ResyncStart,
        rate: u64,
    ) -> PortResult<()>;
    /// Says how far it is. Starts the next round by itself when one has ended.
    async fn resync_poll(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncView>;
    /// Ends it: pauses the guest for milliseconds, copies the rest, proves both legs equal, flushes the target, takes
    /// it into the quorum and continues the guest; one that was paused before stays paused. On failure the guest
    /// runs on and the target stays stale.
    async fn resync_finish(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncFigures>;
    /// Gives it up; the bitmaps stay as they are, so that it can begin again.
    async fn resync_cancel(&self, id: MachineId, disk: &DiskName) -> PortResult<()>;
    /// Plugs the scratch disk ([`SCRATCH`]) into a machine for reading and writing; makes it, of this size, if there is
    /// none. Refused while another machine has it. It is no disk of the system, and no view shows it.
    async fn plug_scratch(&self, id: MachineId, bytes: u64) -> PortResult<()>;
    /// Takes the scratch disk from a machine; one that does not have it is done. What is on it stays.
    async fn unplug_scratch(&self, id: MachineId) -> PortResult<()>;
    /// Removes the scratch disk, which no machine may have.
    async fn drop_scratch(&self) -> PortResult<()>;
    /// Compares both legs of a duplexed disk, whether its machine runs or not, and changes nothing. Writes in flight are
    /// no difference. `rate` limits the reading in bytes per second, 0 for no limit. Ends when it is dropped.
    async fn verify(
        &self,
        disk: &DiskName,
        rate: u64,
        progress: &VerifyProgress<'_>,
    ) -> PortResult<Verified>;
}

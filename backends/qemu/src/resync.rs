//! Resynchronisation: a stale leg is made equal to the authority while the guest runs, in rounds.
//!
//! ```text
//! guest ─ dev ─ root-…-a ─ leg-a (bitmap `changes`)      blockdev-backup      leg-b (open, in no root)
//!                            └────────────── what the bitmap names ──────────────┘
//! ```
//! **A round** is a backup job from leg to leg of what the bitmap names (`sync=bitmap`, `bitmap-mode=on-success`):
//! when it succeeds its bits are cleared and the bits of writes since its start remain; when it fails or is
//! cancelled nothing is cleared, so it can always begin again. Writes of the guest to blocks not yet copied wait
//! until the job has copied the old content, so a target that fails or hangs fails or holds up the guest's own
//! write: whenever the guest is in `io-error` and a job exists, the job is cancelled, the target stays stale, the
//! guest is continued, and only what fails then is the source's own trouble. A job that makes no progress for
//! some seconds is cancelled as well: a hung target raises no event.
//!
//! **Nearly.** When a round ends with so little marked that copying it takes some milliseconds (4 MiB; 49 MB were
//! measured to take 60 ms) the rounds stop. A guest that always writes more than that would never get there, so
//! from the sixth round on the bound doubles with every round, up to 256 MiB.
//!
//! **The last pause.** Stop the guest; put a bitmap `proof` on the source; copy the rest; both bitmaps must count
//! 0; swap the root to a quorum over both legs; flush the target's file; look again: both bitmaps 0, no `RESUME`
//! heard, still paused. Then nothing was written since the stop that the target lacks, whoever else acted on the
//! machine. Only now are the bitmaps dropped and the guest continued. Any doubt, and the root is swapped back and
//! the target stays stale.
//!
//! **What survives our restart** is read from QEMU: the job (`auto-dismiss=false`, so the outcome of one that
//! ended meanwhile is known), the open target, the bitmap. Only figures are lost. A full compare (`compare.rs`)
//! is ours and dies with us; it leaves nothing that looks like a resynchronisation.

use crate::compare::Compare;
use crate::conn::Conn;
use crate::error;
use crate::nodes;
use crate::system::QemuSystem;
use flipside_model::{DiskName, DiskSpec, Leg, MachineId};
use flipside_platform::{
    DiskSource, PortError, PortErrorKind, PortResult, ResyncPhase, ResyncStart, ResyncView,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// So few marked bytes that the last pause stays within milliseconds.
const NEARLY: u64 = 4 * 1024 * 1024;
/// Rounds after which the bound doubles.
const PATIENT_ROUNDS: u32 = 5;
/// The bound never doubles beyond this: a third of a second at 800 MB/s.
const NEARLY_AT_MOST: u64 = 256 * 1024 * 1024;
/// How long a compare may take to notice that it is to stop: one chunk.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is remembered of a resynchronisation; a restart loses it.
#[derive(Debug, Clone)]
pub(crate) struct ResyncMemory {
    pub(crate) how: ResyncStart,
    pub(crate) begun: Instant,
    /// What differed at most when it began.
    pub(crate) union: u64,
    /// Bytes of completed rounds, and of the compare.
    pub(crate) copied: u64,
    /// Bytes of progress that stand for the compare.
    pub(crate) base: u64,
    pub(crate) rounds: u32,
    pub(crate) rate: u64,
    pub(crate) compare: Option<Arc<Compare>>,
    /// The progress last seen, and when it last changed.
    pub(crate) seen: (u64, Instant),
    pub(crate) failed: Option<String>,
}

impl ResyncMemory {
    pub(crate) fn new(how: ResyncStart, union: u64, rate: u64) -> Self {
        let now = Instant::now();
        Self {
            how,
            begun: now,
            union,
            copied: 0,
            base: 0,
            rounds: 0,
            rate,
            compare: None,
            seen: (0, now),
            failed: None,
        }
    }

    pub(crate) fn bound(&self) -> u64 {
        let doublings = self.rounds.saturating_sub(PATIENT_ROUNDS).min(16);
        (NEARLY << doublings).min(NEARLY_AT_MOST)
    }
}

/// One resynchronisation on one machine, with what every step of it needs.
pub(crate) struct Resync<'a> {
    pub(crate) system: &'a QemuSystem,
    pub(crate) conn: Arc<Conn>,
    pub(crate) spec: &'a DiskSpec,
    pub(crate) from: Leg,
    pub(crate) to: Leg,
}

impl QemuSystem {
    pub(crate) async fn start_resync(
        &self,
        id: MachineId,
        disk: &DiskName,
        from: Leg,
        to: Leg,
        how: ResyncStart,
        rate: u64,
    ) -> PortResult<()> {
        let resync = self.resync(id, disk).await?;
        if from != resync.from || to != resync.to {
            return Err(error::mismatch(format!(
                "{disk} runs on leg {} in machine {id}; it cannot be resynchronised from leg {from} \
                 to leg {to}",
                resync.from
            ))
            .about(disk.to_string()));
        }
        let underway = self
            .remembered(id, disk)
            .is_some_and(|m| m.failed.is_none());
        if underway || resync.job().await?.is_some() {
            return Ok(());
        }
        self.resyncs().remove(&(id, disk.clone()));
        resync.check_files()?;
        match how {
            ResyncStart::Bitmap => {
                let graph = resync.conn.graph().await?;
                let union = resync.marked(&graph, nodes::CHANGES)?;
                let memory = ResyncMemory::new(how, union, rate);
                resync.begin_rounds(&memory).await?;
                self.remember(id, disk, memory);
            }
            ResyncStart::Compare => {
                let memory = resync.begin_compare(rate).await?;
                self.remember(id, disk, memory);
            }
        }
        Ok(())
    }

    pub(crate) async fn poll_resync(
        &self,
        id: MachineId,
        disk: &DiskName,
    ) -> PortResult<ResyncView> {
        let memory = self.remembered(id, disk);
        if let Some(failed) = memory.as_ref().and_then(|m| m.failed.clone()) {
            return Ok(view(ResyncPhase::Failed(failed), 0, 0));
        }
        let resync = match self.resync(id, disk).await {
            Ok(resync) => resync,
            // Not a disk with one leg: nothing can be running.
            Err(e) if e.kind == PortErrorKind::Unsupported => {
                return Ok(view(ResyncPhase::None, 0, 0));
            }
            Err(e) => return Err(e),
        };
        if let Some(memory) = &memory
            && let Some(compare) = memory.compare.clone()
        {
            return resync.poll_compare(memory, &compare).await;
        }
        let job = resync.job().await?;
        let graph = resync.conn.graph().await?;
        if job.is_none() && !resync.target_is_open(&graph) {
            return Ok(view(ResyncPhase::None, 0, 0));
        }
        let memory = memory.unwrap_or_else(|| {
            // We were restarted: what is left is all that is known.
            let marked = graph.bitmap(disk, resync.from, nodes::CHANGES);
            ResyncMemory::new(ResyncStart::Bitmap, marked.map_or(0, |b| b.count), 0)
        });
        resync.poll_rounds(memory, job, &graph).await
    }

    pub(crate) async fn cancel_resync(&self, id: MachineId, disk: &DiskName) -> PortResult<()> {
        let memory = self.remembered(id, disk);
        if let Some(compare) = memory.and_then(|m| m.compare) {
            stop_compare(&compare).await?;
        }
        let resync = match self.resync(id, disk).await {
            Ok(resync) => resync,
            Err(e) if matches!(e.kind, PortErrorKind::Unsupported | PortErrorKind::Absent) => {
                self.resyncs().remove(&(id, disk.clone()));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        resync.give_up().await?;
        self.resyncs().remove(&(id, disk.clone()));
        Ok(())
    }

    /// Finds the legs of a resynchronisation: from the one the disk runs on to the other.
    pub(crate) async fn resync(&self, id: MachineId, disk: &DiskName) -> PortResult<Resync<'_>> {
        let spec = self.disk_spec(disk)?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        crate::disk::plugged(&graph, id, disk)?;
        let source = graph.source(disk, &spec.legs).map_err(error::mismatch)?;
        let DiskSource::Legs(legs) = &source else {
            return Err(not_simplex(id, disk, &source));
        };
        let [from] = legs.as_slice() else {
            return Err(not_simplex(id, disk, &source));
        };
        Ok(Resync {
            system: self,
            conn,
            spec,
            from: *from,
            to: from.other(),
        })
    }

    pub(crate) fn remembered(&self, id: MachineId, disk: &DiskName) -> Option<ResyncMemory> {
        self.resyncs().get(&(id, disk.clone())).cloned()
    }

    pub(crate) fn remember(&self, id: MachineId, disk: &DiskName, memory: ResyncMemory) {
        self.resyncs().insert((id, disk.clone()), memory);
    }
}

async fn stop_compare(compare: &Arc<Compare>) -> PortResult<()> {
    let compare = Arc::clone(compare);
    let stopped = tokio::task::spawn_blocking(move || compare.stop(STOP_TIMEOUT)).await;
    if stopped.unwrap_or(false) {
        return Ok(());
    }
    Err(PortError::timed_out(
        "the compare of a disk did not stop in time: its storage hangs",
    ))
}

fn not_simplex(id: MachineId, disk: &DiskName, source: &DiskSource) -> PortError {
    PortError::new(
        PortErrorKind::Unsupported,
        format!("{disk} of machine {id} is backed by {source:?}: there is no stale leg to rewrite"),
    )
    .about(disk.to_string())
}

pub(crate) fn view(phase: ResyncPhase, done_bytes: u64, total_bytes: u64) -> ResyncView {
    ResyncView {
        phase,
        done_bytes,
        total_bytes,
    }
}

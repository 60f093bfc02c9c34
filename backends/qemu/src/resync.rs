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

use crate::blocks::Graph;
use crate::compare::Compare;
use crate::conn::{Conn, SHORT_PAUSE};
use crate::error;
use crate::nodes;
use crate::swap::Bitmaps;
use crate::system::QemuSystem;
use flipside_model::{DiskName, DiskSpec, Leg, MachineId};
use flipside_platform::{
    DiskSource, PortError, PortErrorKind, PortResult, ResyncPhase, ResyncStart, ResyncView,
};
use flipside_qmp::RunState as Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// So few marked bytes that the last pause stays within milliseconds.
const NEARLY: u64 = 4 * 1024 * 1024;
/// Rounds after which the bound doubles.
const PATIENT_ROUNDS: u32 = 5;
/// The bound never doubles beyond this: a third of a second at 800 MB/s.
const NEARLY_AT_MOST: u64 = 256 * 1024 * 1024;
/// How long a job may make no progress. Healthy storage never takes that long for one block.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancelled job may take to end: it waits for its requests in flight.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
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
    base: u64,
    rounds: u32,
    rate: u64,
    compare: Option<Arc<Compare>>,
    /// The progress last seen, and when it last changed.
    seen: (u64, Instant),
    failed: Option<String>,
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

    fn bound(&self) -> u64 {
        let doublings = self.rounds.saturating_sub(PATIENT_ROUNDS).min(16);
        (NEARLY << doublings).min(NEARLY_AT_MOST)
    }
}

/// A backup job as QEMU reports it.
#[derive(Debug)]
pub(crate) struct Job {
    status: String,
    pub(crate) current: u64,
    total: u64,
    error: Option<String>,
}

impl Job {
    pub(crate) fn is_over(&self) -> bool {
        self.status == "concluded"
    }

    /// Its failure. One that was cancelled says so in its error as well.
    pub(crate) fn failure(&self) -> Option<String> {
        let short = self.current < self.total;
        let silent = short.then(|| "the job ended before its end".to_owned());
        self.error.clone().or(silent)
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
        resync.check_target()?;
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
        if job.is_none() && !graph.has(&nodes::leg(disk, resync.to)) {
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

    fn remember(&self, id: MachineId, disk: &DiskName, memory: ResyncMemory) {
        self.resyncs().insert((id, disk.clone()), memory);
    }
}

impl Resync<'_> {
    fn id(&self) -> MachineId {
        self.conn.launch.machine
    }

    fn disk(&self) -> &DiskName {
        &self.spec.name
    }

    fn remember(&self, memory: ResyncMemory) {
        self.system.remember(self.id(), self.disk(), memory);
    }

    /// The target must be a file of the right size before anything is written to it.
    fn check_target(&self) -> PortResult<()> {
        let path = self.spec.legs.get(self.to);
        let meta = std::fs::symlink_metadata(path).map_err(|e| error::file(&e, "examine", path))?;
        if meta.is_file() && meta.len() != self.spec.size {
            return Err(error::mismatch(format!(
                "leg {} of {} has {} bytes instead of {}",
                self.to,
                self.disk(),
                meta.len(),
                self.spec.size
            ))
            .about(path.display().to_string())
            .advise("Replace the leg: `flipside disk replace`"));
        }
        Ok(())
    }

    /// Bytes marked in a bitmap of the source that can be trusted.
    pub(crate) fn marked(&self, graph: &Graph, name: &str) -> PortResult<u64> {
        match graph.bitmap(self.disk(), self.from, name) {
            Some(bitmap) if bitmap.recording && !bitmap.inconsistent => Ok(bitmap.count),
            _ => Err(error::mismatch(format!(
                "leg {} of {} has no bitmap `{name}` that can be trusted",
                self.from,
                self.disk()
            ))
            .about(self.disk().to_string())
            .advise("The disk has to be compared as a whole")),
        }
    }

    async fn begin_rounds(&self, memory: &ResyncMemory) -> PortResult<()> {
        let graph = self.conn.graph().await?;
        self.system
            .open_leg(&self.conn, &graph, self.spec, self.to)
            .await?;
        let begun = self.start_round(memory.rate).await;
        if begun.is_err() {
            self.close_target().await?;
        }
        begun
    }

    /// Starts one round.
    pub(crate) async fn start_round(&self, rate: u64) -> PortResult<()> {
        let job = json!({
            "job-id": nodes::job(self.disk()),
            "device": nodes::leg(self.disk(), self.from),
            "target": nodes::leg(self.disk(), self.to),
            "sync": "bitmap",
            "bitmap": nodes::CHANGES,
            "bitmap-mode": "on-success",
            "auto-dismiss": false,
            "speed": rate,
        });
        self.conn.run("blockdev-backup", job).await.map(drop)
    }

    async fn begin_compare(&self, rate: u64) -> PortResult<ResyncMemory> {
        // A target left open by a resynchronisation that failed is closed first.
        self.close_target().await?;
        let target = self.spec.legs.get(self.to);
        crate::img::check_unused(target).await?;
        let graph = self.conn.graph().await?;
        let leg = nodes::leg(self.disk(), self.from);
        self.conn
            .remove_bitmap(&graph, &leg, nodes::COMPARE)
            .await?;
        self.conn.add_bitmap(&leg, nodes::COMPARE).await?;
        let source = self.spec.legs.get(self.from).clone();
        let compare = Compare::start(source, target.clone(), self.spec.size, rate)?;
        let mut memory = ResyncMemory::new(ResyncStart::Compare, 0, rate);
        memory.compare = Some(compare);
        Ok(memory)
    }

    async fn poll_compare(
        &self,
        memory: &ResyncMemory,
        compare: &Arc<Compare>,
    ) -> PortResult<ResyncView> {
        let (done, written) = compare.progress();
        let size = self.spec.size;
        match compare.ended() {
            None => Ok(view(ResyncPhase::Copying, done, size)),
            Some(Err(e)) => {
                let mut why = e.message;
                e.causes
                    .iter()
                    .for_each(|cause| why.push_str(&format!(": {cause}")));
                self.fail(memory.clone(), why).await
            }
            Some(Ok(())) => {
                self.trust_compare().await?;
                let next = ResyncMemory {
                    compare: None,
                    union: written,
                    copied: written,
                    base: size - written,
                    seen: (0, Instant::now()),
                    ..memory.clone()
                };
                self.begin_rounds(&next).await?;
                self.remember(next);
                Ok(view(ResyncPhase::Copying, size, size))
            }
        }
    }

    /// The compare is complete: what its bitmap marked since is all that differs. In one transaction, so that no
    /// write falls between.
    async fn trust_compare(&self) -> PortResult<()> {
        let graph = self.conn.graph().await?;
        let node = nodes::leg(self.disk(), self.from);
        let (changes, compare) = (nodes::CHANGES, nodes::COMPARE);
        let make = match graph.on(&node, changes) {
            Some(_) => json!({
                "type": "block-dirty-bitmap-clear", "data": { "node": node, "name": changes } }),
            None => json!({
                "type": "block-dirty-bitmap-add",
                "data": { "node": node, "name": changes, "granularity": nodes::GRANULARITY } }),
        };
        let actions = json!({ "actions": [
            make,
            { "type": "block-dirty-bitmap-merge",
              "data": { "node": node, "target": changes, "bitmaps": [compare] } },
            { "type": "block-dirty-bitmap-remove", "data": { "node": node, "name": compare } },
        ]});
        self.conn.run("transaction", actions).await.map(drop)
    }

    async fn poll_rounds(
        &self,
        mut memory: ResyncMemory,
        job: Option<Job>,
        graph: &Graph,
    ) -> PortResult<ResyncView> {
        let Some(job) = job else {
            return self.next_round(memory, graph).await;
        };
        if self.conn.status().await? == Status::IoError {
            let why = "a write failed while the leg was being rewritten".to_owned();
            return self.fail(memory, why).await;
        }
        if job.is_over() {
            if let Some(why) = job.failure() {
                return self.fail(memory, why).await;
            }
            memory.copied += job.total;
            memory.rounds += 1;
            memory.seen = (0, Instant::now());
            self.dismiss().await?;
            return self.next_round(memory, &self.conn.graph().await?).await;
        }
        if memory.seen.0 != job.current {
            memory.seen = (job.current, Instant::now());
        } else if memory.seen.1.elapsed() > STALL_TIMEOUT {
            let why = format!("no progress for {} s", STALL_TIMEOUT.as_secs());
            return self.fail(memory, why).await;
        }
        let done = memory.base + memory.copied + job.current;
        let total = memory.base + memory.copied + job.total;
        self.remember(memory);
        Ok(view(ResyncPhase::Copying, done, total))
    }

    /// Between two rounds: ends them, or starts the next.
    async fn next_round(&self, memory: ResyncMemory, graph: &Graph) -> PortResult<ResyncView> {
        let left = self.marked(graph, nodes::CHANGES)?;
        let done = memory.base + memory.copied;
        if left <= memory.bound() {
            self.remember(memory);
            return Ok(view(ResyncPhase::Nearly, done, done + left));
        }
        self.start_round(memory.rate).await?;
        self.remember(memory);
        Ok(view(ResyncPhase::Copying, done, done + left))
    }

    /// Ends a resynchronisation that failed: the target stays stale, the guest runs on.
    async fn fail(&self, mut memory: ResyncMemory, why: String) -> PortResult<ResyncView> {
        tracing::warn!(disk = %self.disk(), "resynchronisation failed: {why}");
        self.give_up().await?;
        memory.compare = None;
        memory.failed = Some(why.clone());
        self.remember(memory);
        Ok(view(ResyncPhase::Failed(why), 0, 0))
    }

    /// Cancels the job, closes the target and continues a guest that the job's trouble stopped.
    async fn give_up(&self) -> PortResult<()> {
        let had_job = self.job().await?.is_some();
        self.cancel_job().await?;
        let graph = self.conn.graph().await?;
        let leg = nodes::leg(self.disk(), self.from);
        self.conn
            .remove_bitmap(&graph, &leg, nodes::COMPARE)
            .await?;
        if had_job && self.conn.status().await? == Status::IoError {
            self.conn.run("cont", json!({})).await?;
        }
        self.close_target().await
    }

    /// Ends the job whatever state it is in. Its bits stay.
    pub(crate) async fn cancel_job(&self) -> PortResult<()> {
        let deadline = Instant::now() + CANCEL_TIMEOUT;
        let name = json!({ "id": nodes::job(self.disk()) });
        let mut asked = false;
        while let Some(job) = self.job().await? {
            if job.is_over() {
                self.dismiss().await?;
            } else if !asked {
                self.conn.run("job-cancel", name.clone()).await?;
                asked = true;
            } else if Instant::now() >= deadline {
                return Err(PortError::timed_out(format!(
                    "the resynchronisation of {} could not be cancelled in time",
                    self.disk()
                ))
                .about(self.disk().to_string()));
            } else {
                sleep(SHORT_PAUSE).await;
            }
        }
        Ok(())
    }

    pub(crate) async fn dismiss(&self) -> PortResult<()> {
        let job = json!({ "id": nodes::job(self.disk()) });
        self.conn.run("job-dismiss", job).await.map(drop)
    }

    pub(crate) async fn close_target(&self) -> PortResult<()> {
        let graph = self.conn.graph().await?;
        self.system
            .close_leg(&self.conn, &graph, self.disk(), self.to)
            .await
    }

    /// Looks for our job.
    pub(crate) async fn job(&self) -> PortResult<Option<Job>> {
        let jobs = self.conn.query("query-jobs").await?;
        let name = nodes::job(self.disk());
        let ours = jobs
            .as_array()
            .into_iter()
            .flatten()
            .find(|job| job.get("id").and_then(Value::as_str) == Some(&name));
        let number = |job: &Value, key: &str| job.get(key).and_then(Value::as_u64).unwrap_or(0);
        let text = |job: &Value, key: &str| job.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(ours.map(|job| Job {
            status: text(job, "status").unwrap_or_default(),
            current: number(job, "current-progress"),
            total: number(job, "total-progress"),
            error: text(job, "error"),
        }))
    }

    /// Puts the root back to the source alone, as it was before the last pause.
    pub(crate) async fn put_root_back(&self) -> PortResult<()> {
        self.system
            .swap_root(&self.conn, self.spec, &[self.from], Bitmaps::Leave)
            .await
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

fn view(phase: ResyncPhase, done_bytes: u64, total_bytes: u64) -> ResyncView {
    ResyncView {
        phase,
        done_bytes,
        total_bytes,
    }
}

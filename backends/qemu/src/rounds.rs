//! The rounds of one resynchronisation, and the compare before them. `resync.rs` explains them.

use crate::blocks::Graph;
use crate::compare::Compare;
use crate::conn::SHORT_PAUSE;
use crate::error;
use crate::nodes;
use crate::resync::{Resync, ResyncMemory, view};
use crate::swap::Bitmaps;
use flipside_model::{DiskName, MachineId};
use flipside_platform::{PortError, PortResult, ResyncPhase, ResyncStart, ResyncView};
use flipside_qmp::RunState as Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a job may make no progress. Healthy storage never takes that long for one block.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancelled job may take to end: it waits for its requests in flight.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// Both legs must be the recorded files: a compare opens the source by its name too, and would take another file's
    /// content for the guest's.
    pub(crate) fn check_files(&self) -> PortResult<()> {
        self.system.check_leg(self.spec, self.from)?;
        self.system.check_leg(self.spec, self.to)
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

    pub(crate) async fn begin_rounds(&self, memory: &ResyncMemory) -> PortResult<()> {
        let graph = self.conn.graph().await?;
        self.system
            .open_leg(&self.conn, &graph, self.spec, self.to)
            .await?;
        let begun = async {
            self.mark_target(&graph).await?;
            self.start_round(memory.rate).await
        };
        let begun = begun.await;
        if begun.is_err() {
            self.close_target().await?;
        }
        begun
    }

    /// Says whether the target is open for rounds. A leg that is open for another reason (a swap that failed half
    /// way) is not marked, and must not be taken for one whose rounds are nearly done.
    pub(crate) fn target_is_open(&self, graph: &Graph) -> bool {
        let node = nodes::leg(self.disk(), self.to);
        graph.on(&node, nodes::TARGET).is_some()
    }

    async fn mark_target(&self, before: &Graph) -> PortResult<()> {
        if self.target_is_open(before) {
            return Ok(());
        }
        let mark = json!({
            "node": nodes::leg(self.disk(), self.to),
            "name": nodes::TARGET,
            "granularity": nodes::GRANULARITY,
            "disabled": true,
        });
        self.conn
            .run("block-dirty-bitmap-add", mark)
            .await
            .map(drop)
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

    pub(crate) async fn begin_compare(&self, rate: u64) -> PortResult<ResyncMemory> {
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

    pub(crate) async fn poll_compare(
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

    pub(crate) async fn poll_rounds(
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
    pub(crate) async fn give_up(&self) -> PortResult<()> {
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

//! The end of a resynchronisation: the last pause. `resync.rs` explains it.

use crate::blocks::Graph;
use crate::conn::Pace;
use crate::error;
use crate::nodes;
use crate::resync::{Resync, ResyncMemory};
use crate::swap::Bitmaps;
use crate::system::QemuSystem;
use flipside_model::{DiskName, Leg, MachineId, ResyncFigures};
use flipside_platform::{DiskSource, PortError, PortResult, ResyncStart};
use flipside_qmp::{EventStream, RunState as Status};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long the last round may take; production stalls for less than two seconds in all.
const LAST_ROUND_TIMEOUT: Duration = Duration::from_millis(1000);

/// How long flushing the target may take in the pause; it was flushed just before.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How long flushing the target may take before the pause: all rounds may lie in the device's cache.
const FIRST_FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

impl QemuSystem {
    pub(crate) async fn finish_resync(
        &self,
        id: MachineId,
        disk: &DiskName,
    ) -> PortResult<ResyncFigures> {
        let resync = match self.resync(id, disk).await {
            Ok(resync) => resync,
            Err(e) => return self.finished_before(id, disk, e).await,
        };
        let remembered = self.remembered(id, disk);
        let graph = resync.conn.graph().await?;
        if !resync.target_is_open(&graph) || resync.job().await?.is_some() {
            return Err(PortError::failed(format!(
                "the resynchronisation of {disk} is not at the point where it can be finished"
            ))
            .about(disk.to_string()));
        }
        let left = resync.marked(&graph, nodes::CHANGES)?;
        let memory = remembered.unwrap_or_else(|| ResyncMemory::new(ResyncStart::Bitmap, left, 0));
        let target = self.disk_spec(disk)?.legs.get(resync.to);
        flush(target, FIRST_FLUSH_TIMEOUT).await?;

        let running = match resync.conn.status().await? {
            Status::Running => true,
            Status::Paused => false,
            other => {
                return Err(PortError::failed(format!(
                    "machine {id} is `{other:?}`: {disk} cannot be taken into the mirror now"
                ))
                .about(disk.to_string()));
            }
        };
        // Whatever needs no pause is done before it.
        let leg = nodes::leg(disk, resync.from);
        resync
            .conn
            .remove_bitmap(&graph, &leg, nodes::PROOF)
            .await?;
        self.prepare_swap(&resync.conn, &graph, resync.spec).await?;
        let heard = resync.conn.listen();
        let paused = Instant::now();
        let last = resync.last_pause(running, heard, target).await;
        let last = match last {
            Ok(copied) => copied,
            Err(failure) => {
                resync.undo_pause(running).await;
                return Err(failure);
            }
        };
        let pause = match running {
            true => self.run_again(&resync.conn).await?.duration_since(paused),
            false => paused.elapsed(),
        };
        // Marked bits do no harm on two legs; a bitmap left by a crash here says too much, never too little.
        self.clear_away(&resync.conn, disk).await?;
        let graph = resync.conn.graph().await?;
        let target_node = nodes::leg(disk, resync.to);
        for (node, bitmap) in [
            (&leg, nodes::CHANGES),
            (&leg, nodes::PROOF),
            (&target_node, nodes::TARGET),
        ] {
            resync.conn.remove_bitmap(&graph, node, bitmap).await?;
        }
        self.resyncs().remove(&(id, disk.clone()));
        let in_pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let took = u64::try_from(memory.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(ResyncFigures {
            disk: disk.clone(),
            union_bytes: memory.union,
            copied_bytes: memory.copied + last,
            disk_bytes: self.disk_spec(disk)?.size,
            compared: memory.how == ResyncStart::Compare,
            pause_us: in_pause,
            took_ms: took,
        })
    }
}

impl QemuSystem {
    /// A disk that has both legs already: somebody ended it before us, or died just before the end. The proof
    /// that was begun is completed; the figures went with whoever began it.
    async fn finished_before(
        &self,
        id: MachineId,
        disk: &DiskName,
        otherwise: PortError,
    ) -> PortResult<ResyncFigures> {
        let spec = self.disk_spec(disk)?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        match graph.source(disk, &spec.legs) {
            Ok(DiskSource::Legs(legs)) if legs.len() == 2 => {}
            _ => return Err(otherwise),
        }
        for leg in Leg::BOTH {
            let marked = graph
                .bitmap(disk, leg, nodes::PROOF)
                .map_or(0, |proof| proof.count);
            if marked != 0 {
                // Written before the swap or after it? Nobody can tell any more.
                return Err(error::mismatch(format!(
                    "{disk} was taken into the mirror by somebody who could not prove it"
                ))
                .about(disk.to_string())
                .advise("Take the leg out again and compare the disk as a whole"));
            }
            flush(spec.legs.get(leg), FIRST_FLUSH_TIMEOUT).await?;
        }
        for leg in Leg::BOTH {
            let node = nodes::leg(disk, leg);
            for bitmap in [nodes::CHANGES, nodes::PROOF, nodes::TARGET] {
                conn.remove_bitmap(&graph, &node, bitmap).await?;
            }
        }
        Ok(ResyncFigures {
            disk: disk.clone(),
            union_bytes: 0,
            copied_bytes: 0,
            disk_bytes: spec.size,
            compared: false,
            pause_us: 0,
            took_ms: 0,
        })
    }
}

impl Resync<'_> {
    /// From the stop to the proof. Returns the bytes of the last round.
    async fn last_pause(
        &self,
        running: bool,
        mut heard: EventStream,
        target: &Path,
    ) -> PortResult<u64> {
        let conn = &self.conn;
        let disk = &self.spec.name;
        if running {
            conn.run("stop", json!({})).await?;
        }
        conn.add_bitmap(&nodes::leg(disk, self.from), nodes::PROOF)
            .await?;
        let graph = conn.graph().await?;
        let left = self.marked(&graph, nodes::CHANGES)?;
        if left > 0 {
            self.last_round().await?;
        }
        let both = [self.from, self.to];
        let graph = self.prove(&mut heard, &[self.from]).await?;
        self.system
            .swap_in(conn, &graph, self.spec, &both, Bitmaps::Leave)
            .await?;
        flush(target, FLUSH_TIMEOUT).await?;
        self.prove(&mut heard, &both).await?;
        Ok(left)
    }

    async fn last_round(&self) -> PortResult<()> {
        self.start_round(0).await?;
        let deadline = Instant::now() + LAST_ROUND_TIMEOUT;
        let mut pace = Pace::default();
        loop {
            match self.job().await? {
                Some(job) if job.is_over() => {
                    let failure = job.failure();
                    self.dismiss().await?;
                    return match failure {
                        None => Ok(()),
                        Some(why) => Err(PortError::failed(format!(
                            "the last round of {} failed: {why}",
                            self.spec.name
                        ))
                        .about(self.spec.name.to_string())),
                    };
                }
                Some(_) if Instant::now() < deadline => pace.wait().await,
                _ => {
                    return Err(PortError::timed_out(format!(
                        "the last round of {} took longer than a guest may be paused",
                        self.spec.name
                    ))
                    .about(self.spec.name.to_string()));
                }
            }
        }
    }

    /// Nothing was written since the stop, nobody continued the guest, and the root is what it should be.
    async fn prove(&self, heard: &mut EventStream, legs: &[Leg]) -> PortResult<Graph> {
        let (graph, status) = tokio::join!(self.conn.graph(), self.conn.status());
        let (graph, status) = (graph?, status?);
        let mut resumed = heard.lagged() > 0;
        while let Ok(Some(event)) = heard.try_recv() {
            resumed |= event.name == "RESUME";
        }
        let marked = self.marked(&graph, nodes::CHANGES)? + self.marked(&graph, nodes::PROOF)?;
        let source = graph.source(&self.spec.name, &self.spec.legs);
        let doubt = if status != Status::Paused || resumed {
            "the guest was continued meanwhile".to_owned()
        } else if marked != 0 {
            format!("{marked} bytes were written in the pause")
        } else if source != Ok(DiskSource::Legs(legs.to_vec())) {
            "its root is not what was built".to_owned()
        } else {
            return Ok(graph);
        };
        Err(error::mismatch(format!(
            "{} was not taken into the mirror: {doubt}",
            self.spec.name
        ))
        .about(self.spec.name.to_string())
        .advise("The resynchronisation can be started again"))
    }

    /// Whatever failed in the pause: back to the source alone, and the guest runs on.
    async fn undo_pause(&self, running: bool) {
        let undo = async {
            self.cancel_job().await?;
            // A guest that runs again may write to one leg only: it is stopped for the swap.
            if self.conn.status().await? == Status::Running && self.on_both().await? {
                self.conn.run("stop", json!({})).await?;
            }
            self.put_root_back().await?;
            let graph = self.conn.graph().await?;
            let leg = nodes::leg(&self.spec.name, self.from);
            self.conn.remove_bitmap(&graph, &leg, nodes::PROOF).await?;
            if running {
                self.system.resume_machine(&self.conn).await?;
            }
            self.close_target().await
        };
        if let Err(e) = undo.await {
            tracing::error!(disk = %self.spec.name, "the end of a resynchronisation could not be undone: {e}");
        }
        let key = (self.conn.launch.machine, self.spec.name.clone());
        self.system.resyncs().remove(&key);
    }

    async fn on_both(&self) -> PortResult<bool> {
        let graph = self.conn.graph().await?;
        let source = graph.source(&self.spec.name, &self.spec.legs);
        Ok(source != Ok(DiskSource::Legs(vec![self.from])))
    }
}

/// Writes what the device may still keep of a file. The data belongs to the file, so any handle will do, one for reading too.
async fn flush(path: &Path, timeout: Duration) -> PortResult<()> {
    let file = path.to_owned();
    // Only for reading: the machine has it open for writing, and nobody else may.
    let flushed = tokio::task::spawn_blocking(move || std::fs::File::open(file)?.sync_data());
    match tokio::time::timeout(timeout, flushed).await {
        Ok(Ok(done)) => done.map_err(|e| error::file(&e, "flush", path)),
        Ok(Err(_)) | Err(_) => Err(PortError::timed_out(format!(
            "flushing `{}` took too long",
            path.display()
        ))
        .about(path.display().to_string())),
    }
}

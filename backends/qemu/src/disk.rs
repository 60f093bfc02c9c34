//! The disk port: legs, plugging and unplugging. Carriers are in `carry.rs`, copying in `resync.rs`.

use crate::blocks::Graph;
use crate::conn::{Conn, SHORT_PAUSE};
use crate::error;
use crate::nodes;
use crate::paths::remove_file;
use crate::swap::Bitmaps;
use crate::system::QemuSystem;
use crate::verify;
use async_trait::async_trait;
use flipside_model::{Carried, DiskName, Leg, MachineId, ResyncFigures};
use flipside_platform::{
    DiskPort, DiskSource, PortError, PortErrorKind, PortResult, ResyncStart, ResyncView, Verified,
    VerifyProgress,
};
use flipside_qmp::RunState as Status;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the machine may take to let go of an unplugged disk. It was seen to take 50 ms and needs no help
/// from the guest, but requests in flight are waited for.
const UNPLUG_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a comparison tells how far it is: fast enough for a progress bar.
const VERIFY_TELLS: Duration = Duration::from_millis(200);

/// Ends the reading thread when nobody waits for its result any more.
struct StopsWhenDropped(Arc<verify::Watch>);

impl Drop for StopsWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[async_trait]
impl DiskPort for QemuSystem {
    async fn set_legs(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
        let spec = self.disk_spec(disk)?;
        check_legs(disk, legs)?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        plugged(&graph, id, disk)?;
        let now = graph.source(disk, &spec.legs);
        let running = conn.status().await? == Status::Running;
        if running && now != Ok(DiskSource::Legs(legs.to_vec())) {
            return Err(PortError::failed(format!(
                "the legs of {disk} can only be changed while machine {id} is paused"
            ))
            .about(disk.to_string()));
        }
        self.swap_in(&conn, &graph, spec, legs, Bitmaps::Follow)
            .await?;
        self.clear_away(&conn, disk).await
    }

    async fn unplug(&self, id: MachineId, disk: &DiskName) -> PortResult<()> {
        self.disk_spec(disk)?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        if graph.disks.contains_key(disk) {
            let device = json!({ "id": nodes::device(disk) });
            // Refused when an earlier unplugging is still under way: then waiting is all there is to do.
            let asked = conn.run("device_del", device).await;
            wait_unplugged(&conn, disk, asked).await?;
        }
        self.close_all(&conn, disk).await?;
        remove_file(&self.files(id).overlay(disk))
    }

    async fn plug(&self, id: MachineId, disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
        let spec = self.disk_spec(disk)?;
        check_legs(disk, legs)?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        if graph.disks.contains_key(disk) {
            return match graph.source(disk, &spec.legs) {
                // Which leg leads is the book's business, and may have changed since it was plugged.
                Ok(DiskSource::Legs(now))
                    if now.len() == legs.len() && legs.iter().all(|leg| now.contains(leg)) =>
                {
                    Ok(())
                }
                Ok(other) => Err(error::mismatch(format!(
                    "disk {disk} is plugged into machine {id} already, with {other:?}"
                ))
                .about(disk.to_string())),
                Err(e) => Err(error::mismatch(e).about(disk.to_string())),
            };
        }
        // What an interrupted plugging left is closed and opened anew.
        self.close_all(&conn, disk).await?;
        let plugged = self.plug_fresh(&conn, disk, legs).await;
        if plugged.is_err()
            && let Err(e) = self.close_all(&conn, disk).await
        {
            tracing::warn!(%disk, "nodes of a disk that could not be plugged are left: {e}");
        }
        plugged
    }

    async fn carry_out(&self, id: MachineId, disk: &DiskName) -> PortResult<Carried> {
        self.store_carrier(id, disk).await
    }

    async fn carry_in(&self, id: MachineId, disk: &DiskName) -> PortResult<u64> {
        self.merge_carrier(id, disk).await
    }

    async fn drop_carried(&self, disk: &DiskName) -> PortResult<()> {
        remove_file(&self.inner.paths.carrier(disk))?;
        remove_file(&self.inner.paths.carrier_note(disk))
    }

    async fn resync_start(
        &self,
        id: MachineId,
        disk: &DiskName,
        from: Leg,
        to: Leg,
        how: ResyncStart,
        rate: u64,
    ) -> PortResult<()> {
        self.start_resync(id, disk, from, to, how, rate).await
    }

    async fn resync_poll(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncView> {
        self.poll_resync(id, disk).await
    }

    async fn resync_finish(&self, id: MachineId, disk: &DiskName) -> PortResult<ResyncFigures> {
        self.finish_resync(id, disk).await
    }

    async fn resync_cancel(&self, id: MachineId, disk: &DiskName) -> PortResult<()> {
        self.cancel_resync(id, disk).await
    }

    async fn plug_scratch(&self, id: MachineId, bytes: u64) -> PortResult<()> {
        self.lend_scratch(id, bytes).await
    }

    async fn unplug_scratch(&self, id: MachineId) -> PortResult<()> {
        self.fetch_scratch(id).await
    }

    async fn drop_scratch(&self) -> PortResult<()> {
        self.remove_scratch()
    }

    async fn verify(
        &self,
        disk: &DiskName,
        rate: u64,
        progress: &VerifyProgress<'_>,
    ) -> PortResult<Verified> {
        let spec = self.disk_spec(disk)?;
        for leg in Leg::BOTH {
            self.check_leg(spec, leg)?;
        }
        let (legs, size) = (spec.legs.clone(), spec.size);
        let watch = Arc::new(verify::Watch::default());
        let _stops = StopsWhenDropped(Arc::clone(&watch));
        let own = Arc::clone(&watch);
        let read = move || verify::verify([&legs.a, &legs.b], size, rate, &own);
        let mut reading = tokio::task::spawn_blocking(read);
        loop {
            let ended = tokio::time::timeout(VERIFY_TELLS, &mut reading).await;
            progress(watch.done(), size);
            if let Ok(ended) = ended {
                return ended
                    .map_err(|e| PortError::failed("the comparison was lost").because(&e))?;
            }
        }
    }
}

impl QemuSystem {
    async fn plug_fresh(&self, conn: &Conn, disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
        let spec = self.disk_spec(disk)?;
        let graph = Graph::default();
        for leg in legs {
            self.open_leg(conn, &graph, spec, *leg).await?;
        }
        conn.add_node(&nodes::quorum(disk, 1, legs)).await?;
        if let [only] = legs {
            // Before the guest can write.
            conn.add_bitmap(&nodes::leg(disk, *only), nodes::CHANGES)
                .await?;
        }
        let root = nodes::root(disk, 1, legs);
        let device = nodes::device_options(disk, &root, nodes::named_role(disk));
        conn.run("device_add", device)
            .await
            .map_err(|e| e.about(disk.to_string()))?;
        let graph = conn.graph().await?;
        plugged(&graph, conn.launch.machine, disk)
    }

    /// Closes every node of a disk that is not plugged, top down.
    async fn close_all(&self, conn: &Conn, disk: &DiskName) -> PortResult<()> {
        let graph = conn.graph().await?;
        for (_, root) in graph.roots(disk) {
            conn.remove_node(&graph, &root).await?;
        }
        conn.remove_node(&graph, &nodes::hole(disk)).await?;
        for leg in Leg::BOTH {
            conn.remove_node(&graph, &nodes::overlay(disk, leg)).await?;
        }
        for leg in Leg::BOTH {
            self.close_leg(conn, &graph, disk, leg).await?;
        }
        Ok(())
    }
}

async fn wait_unplugged(
    conn: &Conn,
    disk: &DiskName,
    asked: PortResult<serde_json::Value>,
) -> PortResult<()> {
    let deadline = Instant::now() + UNPLUG_TIMEOUT;
    loop {
        if !conn.graph().await?.disks.contains_key(disk) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let late = PortError::timed_out(format!(
                "machine {} did not let go of disk {disk} within {} s",
                conn.launch.machine,
                UNPLUG_TIMEOUT.as_secs()
            ));
            return Err(asked.err().unwrap_or(late).about(disk.to_string()));
        }
        sleep(SHORT_PAUSE * 5).await;
    }
}

/// Refuses anything but one leg or two different ones.
fn check_legs(disk: &DiskName, legs: &[Leg]) -> PortResult<()> {
    match legs {
        [_] => Ok(()),
        [one, two] if one != two => Ok(()),
        _ => Err(
            PortError::failed(format!("{legs:?} are not the legs of a disk"))
                .about(disk.to_string()),
        ),
    }
}

pub(crate) fn plugged(graph: &Graph, id: MachineId, disk: &DiskName) -> PortResult<()> {
    if graph.disks.contains_key(disk) {
        return Ok(());
    }
    Err(PortError::new(
        PortErrorKind::Absent,
        format!("machine {id} has no disk {disk}"),
    )
    .about(disk.to_string()))
}

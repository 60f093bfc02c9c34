//! Giving a fork up, and bringing the source back when its switch failed.

use crate::conn::{Conn, SHORT_PAUSE};
use crate::fork::word;
use crate::nodes;
use crate::swap::Bitmaps;
use crate::system::QemuSystem;
use flipside_model::{DiskName, Leg, MachineId};
use flipside_platform::{PortError, PortResult};
use flipside_qmp::RunState as Status;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a cancelled migration mostly takes to end; after that it is helped.
const CANCEL_PATIENCE: Duration = Duration::from_millis(50);
/// How long a cancelled migration may take to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

impl QemuSystem {
    pub(crate) async fn cancel_fork(&self, from: MachineId) -> PortResult<()> {
        let source = self.conn(from).await?;
        let cancelled = self.bring_back(&source, &BTreeMap::new()).await;
        self.forks().remove(&from);
        cancelled
    }

    pub(crate) async fn rescue(&self, source: &Conn, keep: &BTreeMap<DiskName, Leg>) {
        let machine = source.launch.machine;
        match self.bring_back(source, keep).await {
            Ok(()) => tracing::warn!(%machine, "the switch failed; the guest was continued"),
            Err(e) => tracing::error!(%machine, "the switch failed and the guest is paused: {e}"),
        }
    }

    /// Brings the source back from any state of a fork: swaps are finished first, because cancelling may
    /// continue the guest by itself.
    async fn bring_back(&self, source: &Conn, keep: &BTreeMap<DiskName, Leg>) -> PortResult<()> {
        let graph = source.graph().await?;
        for (disk, root) in &graph.disks {
            if *root != nodes::hole(disk) {
                continue;
            }
            let old = graph.roots(disk);
            let old = old
                .iter()
                .find_map(|(_, root)| nodes::read_root(disk, root));
            let legs = match (keep.get(disk), old) {
                (Some(leg), _) => vec![*leg],
                (None, Some((_, legs))) => legs,
                (None, None) => graph.open_legs(disk),
            };
            let spec = self.disk_spec(disk)?;
            self.swap_root(source, spec, &legs, Bitmaps::Follow).await?;
        }
        cancel_migration(source).await?;
        // QEMU continues a guest by itself a moment after a cancelled migration; so do we if it does not.
        let away = [
            Status::Running,
            Status::Paused,
            Status::PostMigrate,
            Status::IoError,
        ];
        source.wait_status(&away, CANCEL_TIMEOUT).await?;
        self.resume_machine(source).await?;
        self.drop_holes(source).await
    }

    /// Removes placeholders that no disk uses.
    pub(crate) async fn drop_holes(&self, conn: &Conn) -> PortResult<()> {
        let graph = conn.graph().await?;
        for (disk, root) in &graph.disks {
            let hole = nodes::hole(disk);
            if *root != hole {
                conn.remove_node(&graph, &hole).await?;
            }
        }
        Ok(())
    }
}

/// Cancels a migration and waits until it is over.
///
/// A cancellation that comes just when the source enters the pause before the switch-over is lost in QEMU (seen in
/// 7.2): the state is `cancelling`, and the migration thread waits for a `migrate-continue` nobody sends, with the
/// guest paused for ever. So it is sent, naming the very state `cancelling`: the thread wakes and sees that it is
/// cancelled.
async fn cancel_migration(source: &Conn) -> PortResult<()> {
    let deadline = Instant::now() + CANCEL_TIMEOUT;
    let mut kick = Instant::now() + CANCEL_PATIENCE;
    let mut asked = false;
    loop {
        let migration = source.query("query-migrate").await?;
        match word(&migration, "status").as_str() {
            "setup" | "active" | "pre-switchover" | "device" if !asked => {
                source.run("migrate_cancel", json!({})).await?;
                asked = true;
                continue;
            }
            "cancelling" if Instant::now() >= kick => {
                // Refused if it ended this moment.
                let wake = json!({ "state": "cancelling" });
                if source.run("migrate-continue", wake).await.is_ok() {
                    tracing::info!("woke a migration whose cancellation was lost");
                }
                kick = Instant::now() + CANCEL_PATIENCE;
            }
            "setup" | "active" | "pre-switchover" | "device" | "cancelling" => {}
            _ => return Ok(()),
        }
        if Instant::now() >= deadline {
            return Err(PortError::timed_out(
                "the fork could not be cancelled in time",
            ));
        }
        sleep(SHORT_PAUSE).await;
    }
}

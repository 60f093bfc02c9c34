//! The scratch disk: a small raw file that one machine at a time has, to carry files from one side to the other.
//!
//! It is a way for bytes that is fast (a tar stream at the speed of a disk; the agent's channel did 0.8 MB/s) and leads
//! nowhere else: no network, and never two machines at once, which QEMU's image lock keeps as well. It is no disk of the
//! system: it has no leg, no book knows it, and an error of it goes to the guest instead of stopping the machine.

use crate::conn::{Conn, SHORT_PAUSE};
use crate::error;
use crate::nodes;
use crate::paths::remove_file;
use crate::system::QemuSystem;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortResult, SCRATCH};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The device's id and its node's name.
const NODE: &str = "scratch";

/// Its place on the bus: above the CD drive, where no disk is.
const SCSI_ID: u32 = nodes::CD_ID + 10;

/// How long a machine may take to let go of it; it was seen to take 50 ms.
const LET_GO: Duration = Duration::from_secs(10);

impl QemuSystem {
    pub(crate) async fn lend_scratch(&self, id: MachineId, bytes: u64) -> PortResult<()> {
        let conn = self.conn(id).await?;
        if present(&conn).await? {
            return Ok(());
        }
        let path = self.inner.paths.scratch();
        make(&path, bytes)?;
        let graph = conn.graph().await?;
        conn.remove_node(&graph, NODE).await?;
        conn.add_node(&json!({
            "driver": "raw",
            "node-name": NODE,
            "file": {
                "driver": "file",
                "node-name": "file-scratch",
                "filename": path,
                "locking": "on",
                "discard": "unmap",
            },
        }))
        .await?;
        let device = json!({
            "driver": "scsi-hd",
            "id": NODE,
            "bus": "scsi0.0",
            "channel": 0,
            "scsi-id": SCSI_ID,
            "lun": 0,
            "drive": NODE,
            "serial": SCRATCH,
            "device_id": SCRATCH,
            // A full state directory fails the copy, never the machine.
            "werror": "report",
            "rerror": "report",
        });
        match conn.run("device_add", device).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let graph = conn.graph().await?;
                conn.remove_node(&graph, NODE).await?;
                Err(error.about(SCRATCH))
            }
        }
    }

    pub(crate) async fn fetch_scratch(&self, id: MachineId) -> PortResult<()> {
        let conn = self.conn(id).await?;
        if present(&conn).await? {
            // Refused when an earlier unplugging is still under way: then waiting is all there is to do.
            let asked = conn.run("device_del", json!({ "id": NODE })).await;
            let limit = Instant::now() + LET_GO;
            while present(&conn).await? {
                if Instant::now() >= limit {
                    let late = PortError::timed_out(format!(
                        "machine {id} did not let go of the scratch disk within {} s",
                        LET_GO.as_secs()
                    ));
                    return Err(asked.err().unwrap_or(late).about(SCRATCH));
                }
                sleep(SHORT_PAUSE * 5).await;
            }
        }
        // The device is out of the tree a moment before it lets go of its node: seen on QEMU 7.2.
        let limit = Instant::now() + LET_GO;
        loop {
            let graph = conn.graph().await?;
            match conn.remove_node(&graph, NODE).await {
                Err(_) if Instant::now() < limit => sleep(SHORT_PAUSE * 5).await,
                removed => return removed,
            }
        }
    }

    pub(crate) fn remove_scratch(&self) -> PortResult<()> {
        remove_file(&self.inner.paths.scratch())
    }
}

/// Says whether the machine has the device.
async fn present(conn: &Conn) -> PortResult<bool> {
    let path = json!({ "path": "/machine/peripheral" });
    let listed = conn.run("qom-list", path).await?;
    let named = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some(NODE);
    Ok(listed.as_array().is_some_and(|all| all.iter().any(named)))
}

/// Makes the file, sparse and for its owner alone; a file that is there keeps what it holds.
fn make(path: &Path, bytes: u64) -> PortResult<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| error::file(&e, "create", path))?;
    let length = file
        .metadata()
        .map_err(|e| error::file(&e, "read", path))?
        .len();
    if length < bytes {
        file.set_len(bytes)
            .map_err(|e| error::file(&e, "grow", path))?;
    }
    Ok(())
}

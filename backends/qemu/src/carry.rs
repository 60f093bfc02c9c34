//! Carriers: change bitmaps on their way from one machine to another.
//!
//! QMP cannot set bits, and a bitmap lives in the process that made it. So it travels in an empty qcow2 of the
//! disk's size: a persistent bitmap is added to that file, ours is merged into it, and closing the file stores
//! it. The other machine opens the file read-only and merges the stored bitmap into its own: the union of both.
//! The count is compared before and after storing, and written down beside the file; a carrier that holds less
//! than its note says, or that a crash left marked inconsistent, is refused, and a full compare is due instead.
//! Bitmaps never stay in a leg: qcow2 marks them unusable after a crash, and legs are raw (pitfall 11).

use crate::blocks::Graph;
use crate::conn::Conn;
use crate::error;
use crate::img;
use crate::nodes;
use crate::paths::{private_dir, remove_file, sync_dir, write_atomically};
use crate::system::QemuSystem;
use flipside_model::{Carried, DiskName, Leg, MachineId};
use flipside_platform::{DiskSource, PortError, PortResult};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

impl QemuSystem {
    /// Stores the change bitmap of a disk in its carrier.
    pub(crate) async fn store_carrier(
        &self,
        id: MachineId,
        disk: &DiskName,
    ) -> PortResult<Carried> {
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        let (leg, count) = self.changes(&graph, id, disk)?;
        let path = self.inner.paths.carrier(disk);
        private_dir(path.parent().unwrap_or(Path::new("/")))?;
        close_carrier(&conn, disk).await?;
        // Until the note is there the carrier is worth nothing.
        self.remove_carrier(disk)?;
        img::create_empty(&path, self.disk_spec(disk)?.size).await?;
        let stored = store(&conn, disk, leg, &path).await;
        // Closing the carrier is what stores the bitmap.
        close_carrier(&conn, disk).await?;
        let stored = stored?;
        if stored != count {
            return Err(error::mismatch(format!(
                "the changes of {disk} grew from {count} to {stored} bytes while they were carried \
                 out: machine {id} writes"
            ))
            .about(disk.to_string()));
        }
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|e| error::file(&e, "sync", &path))?;
        let carried = Carried {
            disk: disk.clone(),
            dirty_bytes: stored,
        };
        let note = serde_json::to_vec(&carried)
            .map_err(|e| PortError::failed("cannot write down a carrier").because(&e))?;
        write_atomically(&self.inner.paths.carrier_note(disk), &note)?;
        sync_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok(carried)
    }

    /// Merges the carrier of a disk into a machine's own change bitmap; returns the dirty bytes of the union.
    pub(crate) async fn merge_carrier(&self, id: MachineId, disk: &DiskName) -> PortResult<u64> {
        let path = self.inner.paths.carrier(disk);
        let note = self.inner.paths.carrier_note(disk);
        let bytes = fs::read(&note).map_err(|e| error::file(&e, "read", &note))?;
        let carried: Carried = serde_json::from_slice(&bytes)
            .map_err(|e| unusable(disk, "its note is damaged").because(&e))?;
        let conn = self.conn(id).await?;
        let graph = conn.graph().await?;
        let (leg, before) = self.changes(&graph, id, disk)?;
        close_carrier(&conn, disk).await?;
        let merged = merge(&conn, disk, leg, &path, carried.dirty_bytes).await;
        close_carrier(&conn, disk).await?;
        let union = merged?;
        if union < before.max(carried.dirty_bytes) {
            return Err(unusable(disk, "the union is smaller than its parts"));
        }
        Ok(union)
    }

    fn remove_carrier(&self, disk: &DiskName) -> PortResult<()> {
        remove_file(&self.inner.paths.carrier_note(disk))?;
        remove_file(&self.inner.paths.carrier(disk))
    }

    /// Finds the leg that bears the change bitmap of a disk, and its count.
    fn changes(&self, graph: &Graph, id: MachineId, disk: &DiskName) -> PortResult<(Leg, u64)> {
        let spec = self.disk_spec(disk)?;
        crate::disk::plugged(graph, id, disk)?;
        let source = graph.source(disk, &spec.legs).map_err(error::mismatch)?;
        let leg = match &source {
            DiskSource::Legs(legs) => legs.first().copied(),
            DiskSource::Overlay(_) | DiskSource::Placeholder => None,
        };
        let found = leg.and_then(|leg| Some((leg, graph.bitmap(disk, leg, nodes::CHANGES)?)));
        match found {
            Some((leg, bitmap)) if bitmap.recording && !bitmap.inconsistent => {
                Ok((leg, bitmap.count))
            }
            _ => Err(error::mismatch(format!(
                "machine {id} has no change bitmap of {disk} that can be trusted"
            ))
            .about(disk.to_string())
            .advise("The disk has to be compared as a whole")),
        }
    }
}

fn unusable(disk: &DiskName, why: &str) -> PortError {
    error::mismatch(format!(
        "the carried changes of {disk} cannot be used: {why}"
    ))
    .about(disk.to_string())
    .advise("The disk has to be compared as a whole")
}

fn carrier_node(disk: &DiskName, path: &Path, read_only: bool) -> Value {
    json!({
        "driver": "qcow2",
        "node-name": nodes::carrier(disk),
        "read-only": read_only,
        "file": {
            "driver": "file",
            "node-name": format!("cfile-{disk}"),
            "filename": path,
            "locking": "on",
            "read-only": read_only,
        },
    })
}

async fn store(conn: &Conn, disk: &DiskName, leg: Leg, path: &Path) -> PortResult<u64> {
    conn.add_node(&carrier_node(disk, path, false)).await?;
    let carrier = nodes::carrier(disk);
    let bitmap = json!({
        "node": carrier, "name": nodes::CHANGES, "granularity": nodes::GRANULARITY,
        "persistent": true, "disabled": true,
    });
    conn.run("block-dirty-bitmap-add", bitmap).await?;
    conn.run(
        "block-dirty-bitmap-merge",
        pour(&carrier, &nodes::leg(disk, leg)),
    )
    .await?;
    count(conn, &carrier).await
}

async fn merge(conn: &Conn, disk: &DiskName, leg: Leg, path: &Path, noted: u64) -> PortResult<u64> {
    conn.add_node(&carrier_node(disk, path, true)).await?;
    let carrier = nodes::carrier(disk);
    let held = conn.graph().await?.on(&carrier, nodes::CHANGES);
    match held {
        None => return Err(unusable(disk, "the carrier holds no bitmap")),
        Some(bitmap) if bitmap.inconsistent => {
            return Err(unusable(disk, "the carrier was not stored completely"));
        }
        Some(bitmap) if bitmap.count != noted => {
            return Err(unusable(
                disk,
                &format!(
                    "the carrier holds {} bytes instead of {noted}",
                    bitmap.count
                ),
            ));
        }
        Some(_) => {}
    }
    let leg = nodes::leg(disk, leg);
    conn.run("block-dirty-bitmap-merge", pour(&leg, &carrier))
        .await?;
    count(conn, &leg).await
}

fn pour(into: &str, from: &str) -> Value {
    json!({
        "node": into, "target": nodes::CHANGES,
        "bitmaps": [{ "node": from, "name": nodes::CHANGES }],
    })
}

async fn count(conn: &Conn, node: &str) -> PortResult<u64> {
    let found = conn.graph().await?.on(node, nodes::CHANGES);
    let bitmap = found.ok_or_else(|| error::mismatch(format!("`{node}` has no bitmap")))?;
    Ok(bitmap.count)
}

async fn close_carrier(conn: &Conn, disk: &DiskName) -> PortResult<()> {
    let graph = conn.graph().await?;
    conn.remove_node(&graph, &nodes::carrier(disk)).await
}

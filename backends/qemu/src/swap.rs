//! Swaps what backs a disk while its guest is paused.
//!
//! ```text
//! dev-data0 ─ root-data0-1-ab ─┬─ leg-data0-a        1. open the legs wanted (nothing changed yet)
//!                              └─ leg-data0-b        2. add the placeholder
//! dev-data0 ─ hole-data0        (fails all)          3. drive = placeholder
//!             leg-data0-a   leg-data0-b              4. remove the old quorum, close the leg that leaves
//! dev-data0 ─ hole-data0                             5. quorum over the legs wanted; bitmap
//!             root-data0-2-a ─ leg-data0-a
//! dev-data0 ─ root-data0-2-a ─ leg-data0-a           6. drive = new quorum; later: no placeholder
//! ```
//! Every step looks whether it is already done, so the function finishes whatever another run left. If the guest
//! were continued between 3 and 6 it would stop at its first request, and finishing loses nothing. A quorum owns
//! its children, so the new one cannot be made before the old one is gone.

use crate::blocks::Graph;
use crate::conn::Conn;
use crate::error;
use crate::nodes::{self, LegOpen};
use crate::system::QemuSystem;
use flipside_model::{DiskName, DiskSpec, Leg};
use flipside_platform::{DiskSource, PortError, PortResult};
use serde_json::json;

/// What happens to change bitmaps in a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bitmaps {
    /// One leg gets one unless it has one; on two legs there is none.
    Follow,
    /// None is made and none removed: a resynchronisation decides that when it is proved.
    Leave,
}

impl QemuSystem {
    /// Opens a leg in a machine unless it is open.
    pub(crate) async fn open_leg(
        &self,
        conn: &Conn,
        graph: &Graph,
        disk: &DiskSpec,
        leg: Leg,
    ) -> PortResult<()> {
        let path = disk.legs.get(leg).as_path();
        if let Some(node) = graph.nodes.get(&nodes::leg(&disk.name, leg)) {
            if node.read_only {
                return Err(error::mismatch(format!(
                    "leg {leg} of {} is open read-only below an overlay",
                    disk.name
                ))
                .about(disk.name.to_string()));
            }
            return Ok(());
        }
        self.check_leg(disk, leg)?;
        let open = LegOpen {
            path,
            direct: !crate::host::refuses_direct(path)?,
            read_only: false,
            waits: false,
            fault: self.leg_fault(&disk.name, leg),
        };
        let node = nodes::leg_node(&disk.name, leg, open);
        let opened = conn.add_node(&node).await;
        opened.map_err(|e| e.about(path.display().to_string()))
    }

    /// Closes a leg, and with it gives its lock back.
    pub(crate) async fn close_leg(
        &self,
        conn: &Conn,
        graph: &Graph,
        disk: &DiskName,
        leg: Leg,
    ) -> PortResult<()> {
        conn.remove_node(graph, &nodes::leg(disk, leg)).await
    }

    /// Adds a disk's placeholder, ahead of the pause in which it will be needed.
    pub(crate) async fn prepare_swap(
        &self,
        conn: &Conn,
        graph: &Graph,
        disk: &DiskSpec,
    ) -> PortResult<()> {
        if graph.has(&nodes::hole(&disk.name)) {
            return Ok(());
        }
        conn.add_node(&nodes::placeholder(&disk.name, disk.size))
            .await
    }

    /// Gives a disk of a paused machine exactly these legs as its root, and clears everything else away.
    pub(crate) async fn swap_root(
        &self,
        conn: &Conn,
        disk: &DiskSpec,
        legs: &[Leg],
        bitmaps: Bitmaps,
    ) -> PortResult<()> {
        let graph = conn.graph().await?;
        self.swap_in(conn, &graph, disk, legs, bitmaps).await?;
        self.clear_away(conn, &disk.name).await
    }

    /// As [`Self::swap_root`], in a graph that was just read; the placeholder is left, because its removal need not
    /// lengthen a pause.
    pub(crate) async fn swap_in(
        &self,
        conn: &Conn,
        graph: &Graph,
        disk: &DiskSpec,
        legs: &[Leg],
        bitmaps: Bitmaps,
    ) -> PortResult<()> {
        let name = &disk.name;
        let now = graph
            .source(name, &disk.legs)
            .map_err(|e| error::mismatch(e).about(name.to_string()))?;
        if let DiskSource::Overlay(_) = now {
            return Err(error::mismatch(format!(
                "disk {name} of machine {} is a throw-away copy and has no legs",
                conn.launch.machine
            ))
            .about(name.to_string()));
        }
        if now == DiskSource::Legs(legs.to_vec()) {
            return self.follow_bitmaps(conn, name, legs, bitmaps, graph).await;
        }
        for leg in legs {
            self.open_leg(conn, graph, disk, *leg).await?;
        }
        if now != DiskSource::Placeholder {
            self.prepare_swap(conn, graph, disk).await?;
            set_drive(conn, name, &nodes::hole(name)).await?;
        }
        let built = self.build_root(conn, graph, disk, legs, bitmaps).await;
        if built.is_err()
            && let DiskSource::Legs(before) = &now
        {
            // Better the old root than none; what counts is the first failure.
            if let Err(e) = self.put_back(conn, disk, before).await {
                tracing::error!(disk = %name, "the old root could not be put back: {e}");
            }
        }
        built
    }

    async fn build_root(
        &self,
        conn: &Conn,
        graph: &Graph,
        disk: &DiskSpec,
        legs: &[Leg],
        bitmaps: Bitmaps,
    ) -> PortResult<()> {
        let name = &disk.name;
        for (_, root) in graph.roots(name) {
            conn.remove_node(graph, &root).await?;
        }
        for leg in graph.open_legs(name) {
            if !legs.contains(&leg) {
                self.close_leg(conn, graph, name, leg).await?;
            }
        }
        let number = graph.next_root(name);
        conn.add_node(&nodes::quorum(name, number, legs)).await?;
        self.follow_bitmaps(conn, name, legs, bitmaps, graph)
            .await?;
        set_drive(conn, name, &nodes::root(name, number, legs)).await
    }

    async fn follow_bitmaps(
        &self,
        conn: &Conn,
        disk: &DiskName,
        legs: &[Leg],
        bitmaps: Bitmaps,
        graph: &Graph,
    ) -> PortResult<()> {
        if bitmaps == Bitmaps::Leave {
            return Ok(());
        }
        if let [only] = legs {
            if graph.bitmap(disk, *only, nodes::CHANGES).is_none() {
                conn.add_bitmap(&nodes::leg(disk, *only), nodes::CHANGES)
                    .await?;
            }
            return Ok(());
        }
        for leg in legs {
            conn.remove_bitmap(graph, &nodes::leg(disk, *leg), nodes::CHANGES)
                .await?;
        }
        Ok(())
    }

    /// Removes what a swap leaves, or an interrupted one left, beside a root that is right: the placeholder and
    /// quorums nobody uses. Legs are left alone: one of them may be the target of a resynchronisation.
    pub(crate) async fn clear_away(&self, conn: &Conn, disk: &DiskName) -> PortResult<()> {
        let graph = conn.graph().await?;
        let used = graph.disks.get(disk);
        if used != Some(&nodes::hole(disk)) {
            conn.remove_node(&graph, &nodes::hole(disk)).await?;
        }
        for (_, root) in graph.roots(disk) {
            if Some(&root) != used {
                conn.remove_node(&graph, &root).await?;
            }
        }
        Ok(())
    }

    async fn put_back(&self, conn: &Conn, disk: &DiskSpec, before: &[Leg]) -> PortResult<()> {
        let graph = conn.graph().await?;
        if graph.source(&disk.name, &disk.legs) == Ok(DiskSource::Placeholder) {
            for leg in before {
                // A leg that was closed already may lack what was written since; it was not, the guest is paused.
                self.open_leg(conn, &graph, disk, *leg).await?;
            }
            let graph = conn.graph().await?;
            return self
                .build_root(conn, &graph, disk, before, Bitmaps::Leave)
                .await;
        }
        conn.remove_node(&graph, &nodes::hole(&disk.name)).await
    }

    fn leg_fault(&self, disk: &DiskName, leg: Leg) -> Option<&serde_json::Value> {
        let key = crate::layout::fault_key(disk, leg);
        self.inner.options.test_chain.get(&key)
    }
}

/// Points the guest's device to another root.
async fn set_drive(conn: &Conn, disk: &DiskName, root: &str) -> PortResult<()> {
    let path = format!("/machine/peripheral/{}", nodes::device(disk));
    let arguments = json!({ "path": path, "property": "drive", "value": root });
    let set = conn.run("qom-set", arguments).await;
    set.map(drop)
        .map_err(|e: PortError| e.about(disk.to_string()))
}

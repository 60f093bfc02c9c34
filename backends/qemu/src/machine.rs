//! The machine port: observing, starting, pausing and ending processes. Forks are in `fork.rs`.

use crate::conn::{Conn, QUERY_TIMEOUT, SHORT_PAUSE};
use crate::error;
use crate::nodes;
use crate::process::running_machines;
use crate::system::QemuSystem;
use async_trait::async_trait;
use flipside_model::{DiskName, ForkFigures, Leg, MachineId};
use flipside_platform::{
    DiskSource, DiskView, ForkView, MachinePort, MachineView, PortError, PortErrorKind, PortResult,
    RunState, StartPlan,
};
use flipside_qmp::RunState as Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long QEMU may take to quit by itself: it flushes all disks first.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a guest that was continued is watched before it counts as running: a request that failed and is
/// repeated fails again within a few milliseconds.
const RESUME_WATCH: Duration = Duration::from_millis(20);

/// The id of the production card.
pub(crate) const PRODUCTION_CARD: &str = "nic-prod";

#[async_trait]
impl MachinePort for QemuSystem {
    async fn observe(&self, id: MachineId) -> PortResult<MachineView> {
        let Some((launch, _)) = self.find(id)? else {
            return Ok(MachineView::absent());
        };
        let accelerator = Some(launch.accelerator.name().to_owned());
        match self.look(id).await {
            Ok(view) => Ok(MachineView {
                accelerator,
                ..view
            }),
            Err(e) if matches!(e.kind, PortErrorKind::TimedOut | PortErrorKind::Absent) => {
                // It may have ended while it was asked.
                if self.find(id)?.is_none() {
                    return Ok(MachineView::absent());
                }
                Ok(MachineView {
                    run: RunState::Unresponsive,
                    disks: BTreeMap::new(),
                    link_up: self.link_is_up(id),
                    accelerator,
                })
            }
            Err(e) => Err(e),
        }
    }

    async fn list(&self) -> PortResult<Vec<MachineId>> {
        self.running()
    }

    async fn start(&self, id: MachineId, plan: &StartPlan) -> PortResult<()> {
        self.start_machine(id, plan).await
    }

    async fn pause(&self, id: MachineId) -> PortResult<()> {
        let conn = self.conn(id).await?;
        match conn.status().await? {
            Status::Running => conn.run("stop", json!({})).await.map(drop),
            Status::InMigrate => Err(PortError::failed(format!(
                "machine {id} waits for a fork: there is nothing to pause"
            ))),
            _ => Ok(()),
        }
    }

    async fn resume(&self, id: MachineId) -> PortResult<()> {
        let conn = self.conn(id).await?;
        self.resume_machine(&conn).await.map(drop)
    }

    async fn end(&self, id: MachineId) -> PortResult<()> {
        self.end_machine(id).await
    }

    async fn power_down(&self, id: MachineId) -> PortResult<()> {
        let conn = self.conn(id).await?;
        if conn.status().await? == Status::Shutdown {
            return Ok(());
        }
        conn.run("system_powerdown", json!({})).await.map(drop)
    }

    async fn reset(&self, id: MachineId) -> PortResult<()> {
        let conn = self.conn(id).await?;
        let before = conn.status().await?;
        if matches!(
            before,
            Status::InMigrate | Status::FinishMigrate | Status::PostMigrate
        ) {
            return Err(PortError::failed(format!(
                "machine {id} takes part in a fork and cannot be reset now"
            )));
        }
        conn.run("system_reset", json!({})).await?;
        if before == Status::Running {
            return Ok(());
        }
        self.resume_machine(&conn).await.map(drop)
    }

    async fn set_link(&self, id: MachineId, up: bool) -> PortResult<()> {
        let conn = self.conn(id).await?;
        self.switch_link(&conn, up).await
    }

    async fn fork_begin(&self, from: MachineId, to: MachineId) -> PortResult<()> {
        self.begin_fork(from, to).await
    }

    async fn fork_poll(&self, from: MachineId) -> PortResult<ForkView> {
        self.poll_fork(from).await
    }

    async fn fork_switch(
        &self,
        from: MachineId,
        to: MachineId,
        keep: &BTreeMap<DiskName, Leg>,
    ) -> PortResult<ForkFigures> {
        self.switch_fork(from, to, keep).await
    }

    async fn fork_cancel(&self, from: MachineId) -> PortResult<()> {
        self.cancel_fork(from).await
    }
}

impl QemuSystem {
    async fn look(&self, id: MachineId) -> PortResult<MachineView> {
        let conn = self.conn(id).await?;
        let (status, graph) = tokio::join!(conn.status(), conn.graph());
        let (status, graph) = (status?, graph?);
        let run = run_state(&conn, status).await?;
        let mut disks = BTreeMap::new();
        for disk in graph.disks.keys() {
            let spec = self.disk_spec(disk).map_err(|_| {
                error::mismatch(format!(
                    "machine {id} has a disk {disk} that the system has not"
                ))
            })?;
            let source = graph.source(disk, &spec.legs).map_err(|e| {
                error::mismatch(format!("machine {id}: {e}")).about(disk.to_string())
            })?;
            let dirty_bytes = match &source {
                DiskSource::Legs(legs) => legs.first().and_then(|leg| {
                    let bitmap = graph.bitmap(disk, *leg, nodes::CHANGES)?;
                    (bitmap.recording && !bitmap.inconsistent).then_some(bitmap.count)
                }),
                DiskSource::Overlay(_) | DiskSource::Placeholder => None,
            };
            disks.insert(
                disk.clone(),
                DiskView {
                    source,
                    dirty_bytes,
                },
            );
        }
        Ok(MachineView {
            // An incoming machine's card is not connected to anything that runs.
            link_up: run != RunState::Incoming && self.link_is_up(id),
            run,
            disks,
            accelerator: None,
        })
    }

    /// Continues a paused machine; returns the moment at which it ran. Refuses where that would harm.
    pub(crate) async fn resume_machine(&self, conn: &Conn) -> PortResult<Instant> {
        let id = conn.launch.machine;
        let refuse = |why: &str| PortError::failed(format!("machine {id} {why}"));
        match conn.status().await? {
            Status::Running => return Ok(Instant::now()),
            Status::InMigrate => return Err(refuse("waits for a fork and has no guest yet")),
            Status::FinishMigrate => {
                return Err(refuse(
                    "is in the pause of a fork: make the switch or cancel it",
                ));
            }
            _ => {}
        }
        let graph = conn.graph().await?;
        for (disk, root) in &graph.disks {
            if *root == nodes::hole(disk) {
                return Err(refuse(&format!("has disk {disk} in the middle of a swap"))
                    .about(disk.to_string())
                    .advise("Finish the swap by giving the disk its legs"));
            }
        }
        self.run_again(conn).await
    }

    /// Continues a machine that was just seen to be in order.
    pub(crate) async fn run_again(&self, conn: &Conn) -> PortResult<Instant> {
        let id = conn.launch.machine;
        let refuse = |why: &str| PortError::failed(format!("machine {id} {why}"));
        conn.run("cont", json!({})).await?;
        let running = Instant::now();
        let deadline = running + RESUME_WATCH;
        loop {
            match conn.status().await? {
                Status::Running if Instant::now() >= deadline => return Ok(running),
                Status::Running => {}
                Status::IoError => {
                    return Err(refuse("stopped again at once: a disk fails"));
                }
                other => return Err(refuse(&format!("was continued and is `{other:?}`"))),
            }
            sleep(SHORT_PAUSE).await;
        }
    }

    /// QEMU cannot be asked for a card's link, so what it was told is recorded: before it is raised and after it
    /// was lowered, so that a crash in between errs towards "up".
    pub(crate) async fn switch_link(&self, conn: &Conn, up: bool) -> PortResult<()> {
        let id = conn.launch.machine;
        if up {
            self.join_bridge(id).await?;
            self.record_link(id, true)?;
        } else {
            self.leave_bridge(id).await?;
        }
        conn.run("set_link", json!({ "name": PRODUCTION_CARD, "up": up }))
            .await?;
        if !up {
            return self.record_link(id, false);
        }
        self.announce(id).await
    }

    pub(crate) fn record_link(&self, id: MachineId, up: bool) -> PortResult<()> {
        let path = self.files(id).link();
        // Not synced: after a power cut there is no process that it could be about.
        fs::write(&path, if up { "up" } else { "down" })
            .map_err(|e| error::file(&e, "write", &path))
    }

    /// Frames flow while the card has its link and the tap, where there is one, is on the bridge: the kernel's own word.
    fn link_is_up(&self, id: MachineId) -> bool {
        self.recorded_link(id) && self.is_joined(id)
    }

    /// A process without a record is one that was not started completely; anything unreadable counts as up.
    fn recorded_link(&self, id: MachineId) -> bool {
        fs::read_to_string(self.files(id).link()).map_or(true, |word| word != "down")
    }

    async fn end_machine(&self, id: MachineId) -> PortResult<()> {
        if let Some((_, identity)) = self.find(id)? {
            if let Ok(conn) = self.conn(id).await {
                // The reply to `quit` may be lost with the process.
                let _ = conn.run_for("quit", json!({}), QUERY_TIMEOUT).await;
                identity.wait_gone(QUIT_TIMEOUT).await?;
            }
            identity.kill().await?;
        }
        let spec = &self.inner.spec;
        for (other, identity) in running_machines(spec.name.as_str(), spec.uuid) {
            // A process whose directory was taken away: it cannot be talked to, and it is ours by its words.
            if other == id {
                identity.kill().await?;
            }
        }
        self.forget(id);
        self.remove_tap(id).await?;
        let dir = self.files(id).dir().to_owned();
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(error::file(&e, "remove", &dir))
            }
            _ => Ok(()),
        }
    }
}

/// Translates what QEMU calls the state; where that is ambiguous the migration is asked.
async fn run_state(conn: &Conn, status: Status) -> PortResult<RunState> {
    Ok(match status {
        Status::Running => RunState::Running,
        Status::InMigrate => RunState::Incoming,
        Status::PostMigrate => RunState::PostMigrate,
        Status::IoError => RunState::IoError,
        Status::Shutdown => RunState::Shutdown,
        Status::GuestPanicked => RunState::Panicked,
        Status::FinishMigrate => {
            let migration = conn.query("query-migrate").await?;
            match migration.get("status").and_then(Value::as_str) {
                Some("pre-switchover") => RunState::PreSwitchover,
                _ => RunState::Paused,
            }
        }
        _ => RunState::Paused,
    })
}

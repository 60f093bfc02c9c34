//! The live fork of a running machine (design 3.4), as `qemu.md` found it to work.
//!
//! 1. *Begin.* The other process listens on a socket in its private directory, the source connects to it and
//!    copies memory while its guest runs. The placeholders for the swaps are made now, not in the pause.
//! 2. *Ready.* `pause-before-switchover` stops the source with little memory left to copy. Nothing has moved yet.
//! 3. *Switch.* In that pause every disk of the source gets the one leg it keeps, with an empty change bitmap; the
//!    other legs are closed. This instant is the split, for all disks at once. Then the migration completes and
//!    the source is continued: it takes its disks back. The other process activates its own legs: they are
//!    other files, so no lock is ever in the way and none is turned off.
//! 4. The other process stays paused; its link is lowered (the migration brought it up) and its own legs get
//!    change bitmaps. None of that is in the source's pause.
//!
//! Whatever fails in the switch, the source comes first: a half-made swap is finished, the migration is cancelled,
//! the guest is continued. A leg that left keeps being stale then; the bitmap says by how little.

use crate::blocks::Graph;
use crate::conn::{Conn, Pace, SHORT_PAUSE};
use crate::nodes;
use crate::paths::remove_file;
use crate::swap::Bitmaps;
use crate::system::QemuSystem;
use flipside_model::{DiskName, ForkFigures, Leg, MachineId};
use flipside_platform::{DiskSource, ForkView, PortError, PortResult};
use flipside_qmp::{EventStream, RunState as Status};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

/// The pause QEMU plans for at first, in milliseconds: about what the rest of a switch takes.
const DOWNTIME_MS: u64 = 50;
/// The longest pause it may plan for. Production may stall for less than two seconds in all.
const LONGEST_DOWNTIME_MS: u64 = 800;
/// How long a guest may write faster than memory is copied before the planned pause is doubled. Pre-copy of
/// 512 MiB took 0.3 to 4 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes per second that memory may be copied with: more than any host has, so no limit.
const NO_LIMIT: u64 = 1 << 40;
/// How long one `fork_poll` waits for the pause to begin, so that the switch follows it at once.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long two processes on one host may take to find each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last memory and the devices may take. Measured: a tenth of a second.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// What is remembered of a fork; only figures depend on it.
#[derive(Debug)]
pub(crate) struct ForkMemory {
    begun: Instant,
    downtime_ms: u64,
    raised: Instant,
    pause: watch::Receiver<Pause>,
    listener: AbortHandle,
}

impl Drop for ForkMemory {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What the events said about the pause.
#[derive(Debug, Clone, Copy, Default)]
struct Pause {
    stopped: Option<Instant>,
    settled: bool,
}

async fn watch_pause(mut events: EventStream, pause: watch::Sender<Pause>) {
    while let Ok(event) = events.recv().await {
        let status = event.data.get("status").and_then(Value::as_str);
        match (event.name.as_str(), status) {
            ("STOP", _) => pause.send_modify(|p| p.stopped = Some(Instant::now())),
            ("MIGRATION", Some("pre-switchover" | "completed" | "failed" | "cancelled")) => {
                pause.send_modify(|p| p.settled = true);
            }
            _ => {}
        }
    }
}

pub(crate) fn word(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

impl QemuSystem {
    pub(crate) async fn begin_fork(&self, from: MachineId, to: MachineId) -> PortResult<()> {
        let source = self.conn(from).await?;
        let target = self.conn(to).await?;
        let migration = source.query("query-migrate").await?;
        match word(&migration, "status").as_str() {
            "setup" | "active" | "pre-switchover" | "device" => return Ok(()),
            _ => {}
        }
        if source.status().await? != Status::Running {
            return Err(PortError::failed(format!(
                "machine {from} does not run and cannot be forked"
            )));
        }
        if target.status().await? != Status::InMigrate {
            return Err(PortError::failed(format!(
                "machine {to} does not wait for a fork"
            )));
        }
        let graph = source.graph().await?;
        for disk in graph.disks.keys() {
            self.prepare_swap(&source, &graph, self.disk_spec(disk)?)
                .await?;
        }
        allow(&source, &["pause-before-switchover", "events"]).await?;
        allow(&target, &["events"]).await?;
        plan_pause(&source, DOWNTIME_MS).await?;

        let socket = self.files(to).fork();
        remove_file(&socket)?;
        let begun = self.connect_fork(&source, &target, &socket).await;
        // Whoever was to connect has, or never will.
        remove_file(&socket)?;
        if begun.is_err() {
            let _ = source.run("migrate_cancel", json!({})).await;
            self.drop_holes(&source).await?;
        }
        begun
    }

    async fn connect_fork(
        &self,
        source: &Conn,
        target: &Conn,
        socket: &std::path::Path,
    ) -> PortResult<()> {
        let uri = format!("unix:{}", socket.display());
        target
            .run("migrate-incoming", json!({ "uri": uri }))
            .await?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
            .map_err(|e| crate::error::file(&e, "close", socket))?;
        let (tell, pause) = watch::channel(Pause::default());
        let listener = tokio::spawn(watch_pause(source.listen(), tell)).abort_handle();
        let now = Instant::now();
        let memory = ForkMemory {
            begun: now,
            downtime_ms: DOWNTIME_MS,
            raised: now,
            pause,
            listener,
        };
        self.forks().insert(source.launch.machine, memory);
        source.run("migrate", json!({ "uri": uri })).await?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let migration = source.query("query-migrate").await?;
            match word(&migration, "status").as_str() {
                "none" | "setup" if Instant::now() < deadline => sleep(SHORT_PAUSE).await,
                "none" | "setup" => {
                    return Err(PortError::timed_out(
                        "the two processes of the fork did not find each other in time",
                    ));
                }
                "failed" | "cancelled" => return Err(failed(&migration)),
                _ => return Ok(()),
            }
        }
    }

    pub(crate) async fn poll_fork(&self, from: MachineId) -> PortResult<ForkView> {
        let source = self.conn(from).await?;
        let pause = self.forks().get(&from).map(|memory| memory.pause.clone());
        if let Some(mut pause) = pause {
            let _ = timeout(POLL_WAIT, pause.wait_for(|p| p.settled)).await;
        }
        let migration = source.query("query-migrate").await?;
        let ready = match word(&migration, "status").as_str() {
            "setup" | "active" => false,
            "pre-switchover" | "device" | "completed" => true,
            "failed" | "cancelled" | "cancelling" => return Err(failed(&migration)),
            _ => {
                return Err(PortError::absent(format!(
                    "machine {from} is not being forked"
                )));
            }
        };
        if !ready {
            self.be_patient(&source).await?;
        }
        let ram = migration.get("ram").cloned().unwrap_or_default();
        let bytes = |key: &str| ram.get(key).and_then(Value::as_u64).unwrap_or(0);
        let megabits = ram.get("mbps").and_then(Value::as_f64).unwrap_or(0.0);
        Ok(ForkView {
            ready,
            done_bytes: bytes("total").saturating_sub(bytes("remaining")),
            total_bytes: bytes("total"),
            rate: (megabits.max(0.0) * 125_000.0) as u64,
        })
    }

    /// Doubles the planned pause of a guest that writes faster than its memory is copied.
    async fn be_patient(&self, source: &Conn) -> PortResult<()> {
        let next = {
            let mut forks = self.forks();
            let Some(memory) = forks.get_mut(&source.launch.machine) else {
                return Ok(());
            };
            if memory.raised.elapsed() < PATIENCE || memory.downtime_ms >= LONGEST_DOWNTIME_MS {
                return Ok(());
            }
            memory.raised = Instant::now();
            memory.downtime_ms *= 2;
            memory.downtime_ms
        };
        plan_pause(source, next).await
    }

    pub(crate) async fn switch_fork(
        &self,
        from: MachineId,
        to: MachineId,
        keep: &BTreeMap<DiskName, Leg>,
    ) -> PortResult<ForkFigures> {
        let entered = Instant::now();
        let source = self.conn(from).await?;
        let target = self.conn(to).await?;
        let (migration, state, graph) = tokio::join!(
            source.query("query-migrate"),
            source.status(),
            source.graph(),
        );
        let status = word(&migration?, "status");
        match (state?, status.as_str()) {
            (Status::FinishMigrate, "pre-switchover") => {
                if let Err(failure) = self.switch_over(&source, &graph?, keep).await {
                    self.rescue(&source, keep).await;
                    return Err(failure);
                }
            }
            // A switch that was interrupted after its last step but one.
            (Status::PostMigrate, _) => self.resume_source(&source).await?,
            (Status::Running, "completed") => {}
            (state, _) => {
                return Err(PortError::failed(format!(
                    "machine {from} is `{state:?}` (`{status}`) and not ready for the switch"
                )));
            }
        }
        let resumed = Instant::now();
        self.settle_target(&target).await?;
        self.drop_holes(&source).await?;
        let memory = self.forks().remove(&from);
        let stopped = memory.as_ref().and_then(|m| m.pause.borrow().stopped);
        let begun = memory.as_ref().map_or(entered, |m| m.begun);
        let paused = stopped.unwrap_or(entered);
        let copied = source.query("query-migrate").await?;
        let copied = copied
            .get("ram")
            .and_then(|ram| ram.get("transferred")?.as_u64());
        Ok(ForkFigures {
            pause_us: micros(resumed.saturating_duration_since(paused)),
            precopy_ms: micros(paused.saturating_duration_since(begun)) / 1000,
            memory_bytes: copied.unwrap_or(0),
        })
    }

    /// What happens while production is paused.
    async fn switch_over(
        &self,
        source: &Conn,
        graph: &Graph,
        keep: &BTreeMap<DiskName, Leg>,
    ) -> PortResult<()> {
        let swaps = keep.iter().map(|(disk, leg)| async move {
            let spec = self.disk_spec(disk)?;
            crate::disk::plugged(graph, source.launch.machine, disk)?;
            self.swap_in(source, graph, spec, &[*leg], Bitmaps::Follow)
                .await
        });
        for swapped in join_all(swaps).await {
            swapped?;
        }
        let state = json!({ "state": "pre-switchover" });
        source.run("migrate-continue", state).await?;
        let deadline = Instant::now() + SWITCH_TIMEOUT;
        let mut pace = Pace::default();
        loop {
            let migration = source.query("query-migrate").await?;
            match word(&migration, "status").as_str() {
                "completed" => break,
                "pre-switchover" | "device" | "active" if Instant::now() < deadline => {
                    pace.wait().await;
                }
                "failed" | "cancelled" | "cancelling" => return Err(failed(&migration)),
                other => {
                    return Err(PortError::timed_out(format!(
                        "the fork is `{other}` and did not complete in time"
                    )));
                }
            }
        }
        self.resume_source(source).await
    }

    async fn resume_source(&self, source: &Conn) -> PortResult<()> {
        // `completed` may be told a moment before the state changes.
        source
            .wait_status(&[Status::PostMigrate, Status::Running], SWITCH_TIMEOUT)
            .await?;
        source.run("cont", json!({})).await?;
        match source.status().await? {
            Status::Running => Ok(()),
            other => Err(PortError::failed(format!(
                "machine {} was continued after the fork and is `{other:?}`",
                source.launch.machine
            ))),
        }
    }

    /// Lowers the link of the forked machine and gives its own legs change bitmaps.
    async fn settle_target(&self, target: &Conn) -> PortResult<()> {
        let machine = target.launch.machine;
        let mut arrived = [Status::Paused, Status::Prelaunch, Status::Running].to_vec();
        arrived.push(Status::IoError);
        target.wait_status(&arrived, SWITCH_TIMEOUT).await?;
        self.switch_link(target, false).await?;
        let graph = target.graph().await?;
        for disk in graph.disks.keys() {
            let source = graph.source(disk, &self.disk_spec(disk)?.legs);
            let Ok(DiskSource::Legs(legs)) = source else {
                continue;
            };
            for leg in legs {
                if graph.bitmap(disk, leg, nodes::CHANGES).is_none() {
                    target
                        .add_bitmap(&nodes::leg(disk, leg), nodes::CHANGES)
                        .await?;
                }
            }
        }
        tracing::debug!(%machine, "the forked machine is settled");
        Ok(())
    }
}

/// Turns on the capabilities named and everything else off, as far as this QEMU has them.
async fn allow(conn: &Conn, wanted: &[&str]) -> PortResult<()> {
    let known = conn.query("query-migrate-capabilities").await?;
    let names: Vec<&str> = known
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("capability")?.as_str())
        .collect();
    for needed in wanted {
        if !names.contains(needed) {
            return Err(PortError::new(
                flipside_platform::PortErrorKind::Unsupported,
                format!("this QEMU cannot fork a machine: it lacks `{needed}`"),
            )
            .advise("Use QEMU 7.2 or later"));
        }
    }
    let off = [
        "multifd",
        "postcopy-ram",
        "auto-converge",
        "xbzrle",
        "compress",
    ];
    let mut set: Vec<Value> = Vec::new();
    for name in names {
        if wanted.contains(&name) || off.contains(&name) {
            set.push(json!({ "capability": name, "state": wanted.contains(&name) }));
        }
    }
    conn.run("migrate-set-capabilities", json!({ "capabilities": set }))
        .await
        .map(drop)
}

async fn plan_pause(conn: &Conn, milliseconds: u64) -> PortResult<()> {
    let parameters = json!({ "downtime-limit": milliseconds, "max-bandwidth": NO_LIMIT });
    conn.run("migrate-set-parameters", parameters)
        .await
        .map(drop)
}

fn failed(migration: &Value) -> PortError {
    let mut failure = PortError::failed(format!(
        "copying the machine's memory ended: `{}`",
        word(migration, "status")
    ));
    let why = word(migration, "error-desc");
    if !why.is_empty() {
        failure.causes.push(why);
    }
    failure
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

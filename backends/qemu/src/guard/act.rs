//! Carries out what was decided about one machine. The caller holds the lease.
//!
//! The order is the point: what a leg is worth is on storage before the guest may write without it, and a guest
//! that the guard itself paused has a pause intent, so that the next guard continues it if this one dies.

use super::events::now_ms;
use super::limits::{CANCEL_PAUSE, CANCEL_TIMEOUT, SETTLE};
use super::watch::{Seen, Watcher, backups};
use crate::conn::Conn;
use crate::nodes;
use crate::system::QemuSystem;
use flipside_model::{DiskName, Leg, Severity};
use flipside_platform::guard::{Action, DropLeg, record_drops, record_swaps};
use flipside_platform::{DiskPort, LegPort, MachinePort, PortError, PortErrorKind, PortResult};
use flipside_qmp::{EventStream, RunState as Status};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

impl Watcher {
    /// Takes one step.
    pub(super) async fn act(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        events: &mut EventStream,
        seen: &Seen,
        action: Action,
    ) -> PortResult<()> {
        match action {
            Action::Nothing | Action::Stay(_) => Ok(()),
            Action::CancelJobs(jobs) => self.cancel_jobs(conn, events, &jobs).await,
            Action::DropLegs(drops) => self.drop_legs(system, conn, seen, &drops).await,
            Action::FinishSwaps(swaps) => self.finish_swaps(system, conn, seen, &swaps).await,
            Action::Probe => self.probe(system, conn, events).await,
            Action::CancelFork => {
                system.fork_cancel(self.id).await?;
                let why = "its pause lasted longer than was intended";
                self.did(Severity::Warning, "Gave up the fork of the machine", why);
                self.clear_ended_intent(system, conn).await
            }
            Action::Continue => {
                system.resume(self.id).await?;
                let why = "it owns network and data, and its pause lasted longer than was intended";
                self.did(Severity::Warning, "Continued the machine", why);
                self.clear_ended_intent(system, conn).await
            }
            Action::ClearIntent => self.clear_passed_intent(system, conn).await,
        }
    }

    async fn cancel_jobs(
        &mut self,
        conn: &Conn,
        events: &mut EventStream,
        jobs: &[String],
    ) -> PortResult<()> {
        for job in jobs {
            // Refused when it has just ended by itself: what counts is the look below.
            let asked = conn.run("job-cancel", json!({ "id": job })).await;
            let deadline = Instant::now() + CANCEL_TIMEOUT;
            while backups(&conn.query("query-jobs").await?).contains(job) {
                if Instant::now() >= deadline {
                    let late = PortError::timed_out(format!("the copy `{job}` does not end"));
                    return Err(asked.err().unwrap_or(late).about(job.clone()));
                }
                sleep(CANCEL_PAUSE).await;
            }
            let what = format!("Cancelled the copy `{job}`; the leg it wrote stays stale");
            self.did(Severity::Warning, what, "a disk failed while it ran");
        }
        // Whatever failed may have been the copy's target: a leg that fails is reported again.
        self.collect(events);
        self.suspects.clear();
        self.probed = false;
        Ok(())
    }

    /// Records the failed legs as stale, then goes on without them.
    async fn drop_legs(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        seen: &Seen,
        drops: &[DropLeg],
    ) -> PortResult<()> {
        let runs = conn.status().await? == Status::Running;
        let mut book = seen.book.clone();
        let own_pause = record_drops(&mut book, self.id, drops, runs, now_ms());
        system.store(&book).await?;
        if runs {
            system.pause(self.id).await?;
        }
        let mut swapped = Ok(());
        for drop in drops {
            swapped = system.set_legs(self.id, &drop.disk, &[drop.survivor]).await;
            if swapped.is_err() {
                break;
            }
            let what = format!(
                "Dropped leg {} of {}; the machine goes on with leg {}",
                drop.bad, drop.disk, drop.survivor
            );
            self.did(Severity::Warning, what, drop.why.clone());
        }
        // Also when a swap failed: the guest ran before, and it cannot be continued in the middle of a swap.
        let resumed = match (&swapped, runs) {
            (Ok(()), _) | (Err(_), true) => system.resume(self.id).await,
            (Err(_), false) => Ok(()),
        };
        self.clear_intent(system, own_pause).await?;
        swapped?;
        // A guest that stops again at once is seen by the next look; the leg is dropped all the same.
        if let Err(error) = resumed {
            tracing::info!(machine = %self.id, %error, "not continued");
        }
        self.suspects
            .retain(|s| !drops.iter().any(|d| (&d.disk, d.bad) == (&s.disk, s.leg)));
        self.probed = false;
        Ok(())
    }

    /// Finishes swaps that somebody began: the authority alone becomes the root.
    async fn finish_swaps(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        seen: &Seen,
        swaps: &[(DiskName, Leg)],
    ) -> PortResult<()> {
        let graph = conn.graph().await?;
        let mut book = seen.book.clone();
        record_swaps(&mut book, swaps, |disk, leg| {
            let bitmap = graph.bitmap(disk, leg, nodes::CHANGES);
            bitmap.is_some_and(|b| b.recording && !b.inconsistent)
        });
        if book != seen.book {
            system.store(&book).await?;
        }
        for (disk, leg) in swaps {
            system.set_legs(self.id, disk, &[*leg]).await?;
            let what = format!("Gave {disk} its leg {leg} as its root");
            let why = "the change of the disk's legs was interrupted";
            self.did(Severity::Warning, what, why);
        }
        Ok(())
    }

    /// Continues a guest whose disk failed, to see whether the failure comes again and which leg it names.
    async fn probe(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        events: &mut EventStream,
    ) -> PortResult<()> {
        self.probed = true;
        // That it stopped again at once is what is to be found out.
        if let Err(error) = system.resume(self.id).await
            && error.kind == PortErrorKind::TimedOut
        {
            return Err(error);
        }
        let deadline = Instant::now() + SETTLE;
        while self.suspects.is_empty() && conn.status().await? == Status::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, events.recv()).await {
                Ok(Ok(event)) => {
                    self.note(&event);
                }
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let why = "a disk had failed, and it was not known which leg";
        self.did(
            Severity::Information,
            "Continued the machine to repeat its request",
            why,
        );
        Ok(())
    }

    /// Clears the intent of a pause that we have ended, also where the wall clock says that it lasts.
    async fn clear_ended_intent(&self, system: &QemuSystem, conn: &Conn) -> PortResult<()> {
        if conn.status().await? != Status::Running {
            return Ok(());
        }
        let set = system.load().await?.pause_until_ms;
        self.clear_intent(system, set).await
    }

    async fn clear_passed_intent(&self, system: &QemuSystem, conn: &Conn) -> PortResult<()> {
        if conn.status().await? != Status::Running {
            return Ok(());
        }
        let set = system.load().await?.pause_until_ms;
        if set.is_some_and(|until| until <= now_ms()) {
            self.clear_intent(system, set).await?;
        }
        Ok(())
    }

    /// Clears a pause intent, unless somebody has set another one.
    async fn clear_intent(&self, system: &QemuSystem, set: Option<i64>) -> PortResult<()> {
        if set.is_none() {
            return Ok(());
        }
        let mut book = system.load().await?;
        if book.owner == Some(self.id) && book.pause_until_ms == set {
            book.pause_until_ms = None;
            system.store(&book).await?;
        }
        Ok(())
    }
}

//! Watches one machine: events first, and a look every [`POLL`] in case one was lost.
//!
//! A look at a machine that is well costs one question. Only what may need an act is observed whole, decided
//! without the lease, and if there is something to do, observed and decided again under it: step by step, until
//! nothing is left to do.

use super::Shared;
use super::events::now_ms;
use super::files::GuardConfig;
use super::limits::{BOOK_LOOK, CALM, POLL, RECONNECT, RETRY_MAX, STATUS_TIMEOUT};
use super::signals::{self, Signal};
use crate::conn::{Conn, Voice};
use crate::system::{Options, QemuSystem};
use flipside_model::{DiskName, Leg, LegBook, MachineId, Severity};
use flipside_platform::guard::{
    Action, FENCE_AFTER, Facts, STALE_INTENT_MS, STEPS_MAX, STILL_MAX, Suspect, decide,
    pause_is_overdue,
};
use flipside_platform::{
    Lease, LegPort, MachinePort, MachineView, PortError, PortResult, RunState,
};
use flipside_qmp::{Event, EventStream, RunState as Status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Watches a machine until its directory is gone or the guard ends.
pub(super) async fn machine(shared: Arc<Shared>, id: MachineId) {
    let mut watcher = Watcher::new(Arc::clone(&shared), id);
    let mut stop = shared.stop.subscribe();
    while shared.paths.machine(id).dir().exists() && !*stop.borrow() {
        if let Err(error) = watcher.watch().await {
            tracing::debug!(machine = %id, %error, "not connected");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = sleep(RECONNECT) => {}
        }
    }
}

/// What one look at a machine led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Done,
    /// The system's definition has changed: connect anew.
    Reopen,
}

/// What is known of a machine, read under the lease.
pub(super) struct Seen {
    pub(super) book: LegBook,
    view: MachineView,
    open_legs: BTreeMap<DiskName, Vec<Leg>>,
    jobs: Vec<String>,
    forking: bool,
}

/// A machine, and what is remembered of it between two looks: hints only, the truth is asked for.
pub(super) struct Watcher {
    pub(super) shared: Arc<Shared>,
    pub(super) id: MachineId,
    pub(super) suspects: Vec<Suspect>,
    pub(super) probed: bool,
    /// The last thing said that could not be helped, so that it is said once.
    told: Option<String>,
    not_before: Instant,
    pause: Duration,
    running_since: Option<Instant>,
    /// The recorded pause in which the owner was first seen standing still, and when that was.
    still: Option<(i64, Instant)>,
    book_due: Instant,
}

impl Watcher {
    fn new(shared: Arc<Shared>, id: MachineId) -> Self {
        Self {
            shared,
            id,
            suspects: Vec::new(),
            probed: false,
            told: None,
            not_before: Instant::now(),
            pause: POLL,
            running_since: None,
            still: None,
            book_due: Instant::now() + BOOK_LOOK,
        }
    }

    /// Connects and watches until the connection ends.
    async fn watch(&mut self) -> PortResult<()> {
        let config = GuardConfig::load(&self.shared.files)?;
        let options = Options {
            voice: Voice::Guard,
            ..Options::default()
        };
        let system = QemuSystem::open(config.spec, self.shared.paths.state(), options)?;
        let conn = system.conn(self.id).await?;
        let mut events = conn.listen();
        let mut stop = self.shared.stop.subscribe();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                event = events.recv() => match event {
                    Ok(event) if self.note(&event) => {}
                    Ok(_) => continue,
                    Err(_) => return Ok(()),
                },
                () = sleep_until(due) => {}
            }
            due = Instant::now() + POLL;
            match self.look(&system, &conn, &mut events).await {
                Ok(Look::Done) => {}
                Ok(Look::Reopen) => return Ok(()),
                Err(_) if conn.is_closed() => return Ok(()),
                Err(error) => {
                    self.hold_back();
                    let causes = error.causes.iter().map(|cause| format!(": {cause}"));
                    let why = error.message + &causes.collect::<String>();
                    self.tell(
                        Severity::Warning,
                        "The guard could not act; it tries again",
                        why,
                    );
                }
            }
        }
    }

    /// Remembers what an event says; returns whether the machine should be looked at.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        match signals::read(event) {
            None => false,
            Some(Signal::Look) => true,
            Some(Signal::Suspect(new)) => {
                let known = |s: &Suspect| (&s.disk, s.leg) == (&new.disk, new.leg);
                if !self.suspects.iter().any(known) {
                    self.suspects.push(new);
                    self.not_before = Instant::now();
                }
                true
            }
        }
    }

    /// Remembers all events that have come.
    pub(super) fn collect(&mut self, events: &mut EventStream) {
        while let Ok(Some(event)) = events.try_recv() {
            self.note(&event);
        }
    }

    async fn look(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        events: &mut EventStream,
    ) -> PortResult<Look> {
        let late = || PortError::timed_out(format!("machine {} does not answer", self.id));
        let status = timeout(STATUS_TIMEOUT, conn.status())
            .await
            .map_err(|_| late())??;
        if !self.may_need_an_act(system, status).await? || Instant::now() < self.not_before {
            return Ok(Look::Done);
        }
        if GuardConfig::load(&self.shared.files)?.spec != *system.spec() {
            return Ok(Look::Reopen);
        }
        // Most of the time somebody else is at work, and nothing is to be done: then the lease is not asked for.
        let seen = self.observe(system, conn).await?;
        if self.decide(&seen) == Action::Nothing {
            self.nothing_to_do(&seen);
            return Ok(Look::Done);
        }
        let overdue = pause_is_overdue(&self.facts(&seen), now_ms());
        let _lease = match overdue {
            true => self.lease_of_a_pause(system, conn).await?,
            false => system.lease().await?,
        };
        self.round(system, conn, events).await?;
        Ok(Look::Done)
    }

    /// Takes the lease of a machine whose pause is overdue. Whoever holds it has had its time: a server that hangs is
    /// ended, so that the kernel takes the lease back (fault 4, invariant 23). Its journal and the machines bear that at
    /// any moment; a guest that stands still does not.
    async fn lease_of_a_pause(&mut self, system: &QemuSystem, conn: &Conn) -> PortResult<Lease> {
        if let Ok(lease) = timeout(FENCE_AFTER, system.lease()).await {
            return lease;
        }
        let seen = self.observe(system, conn).await?;
        if pause_is_overdue(&self.facts(&seen), now_ms())
            && let Some(pid) = system.end_lease_holder().await?
        {
            let what = format!("Ended process {pid}, which held the lease");
            let why = "it kept the machine paused for longer than was intended";
            self.did(Severity::Error, what, why);
        }
        system.lease().await
    }

    /// Says, from the machine's state and the book alone, whether it is worth a closer look.
    async fn may_need_an_act(&mut self, system: &QemuSystem, status: Status) -> PortResult<bool> {
        if status != Status::Running {
            self.running_since = None;
        }
        match status {
            Status::IoError => Ok(true),
            other if !is_plain(&other) => Ok(false),
            Status::Running => {
                self.still = None;
                let now = Instant::now();
                let since = *self.running_since.get_or_insert(now);
                if now.duration_since(since) >= CALM && self.suspects.is_empty() {
                    (self.probed, self.told) = (false, None);
                }
                let book_due = now >= self.book_due;
                if !self.shared.desk.is_waiting() && !book_due {
                    return Ok(!self.suspects.is_empty());
                }
                self.book_due = now + BOOK_LOOK;
                let book = system.load().await?;
                if book.owner == Some(self.id) && self.shared.desk.is_waiting() {
                    self.shared.desk.owner_runs(self.id);
                }
                let stale = |until: i64| now_ms().saturating_sub(until) >= STALE_INTENT_MS;
                Ok(!self.suspects.is_empty() || book.pause_until_ms.is_some_and(stale))
            }
            _ => {
                let book = system.load().await?;
                let Some(until) = book.pause_until_ms.filter(|_| book.owner == Some(self.id))
                else {
                    self.still = None;
                    return Ok(false);
                };
                Ok(now_ms() >= until || self.stands_still(until) >= STILL_MAX)
            }
        }
    }

    /// Says for how long the owner has been seen standing still in one recorded pause.
    fn stands_still(&mut self, until: i64) -> Duration {
        let seen = self.still.filter(|(pause, _)| *pause == until);
        let (_, since) = *self.still.insert(seen.unwrap_or((until, Instant::now())));
        since.elapsed()
    }

    /// Observes, decides and acts until nothing is left to do. The caller holds the lease.
    async fn round(
        &mut self,
        system: &QemuSystem,
        conn: &Conn,
        events: &mut EventStream,
    ) -> PortResult<()> {
        for _ in 0..STEPS_MAX {
            self.collect(events);
            let seen = self.observe(system, conn).await?;
            match self.decide(&seen) {
                Action::Nothing => {
                    self.pause = POLL;
                    self.nothing_to_do(&seen);
                    return Ok(());
                }
                Action::Stay(why) => {
                    self.hold_back();
                    self.tell(
                        Severity::Error,
                        "The guard leaves the machine as it is",
                        why,
                    );
                    return Ok(());
                }
                action => self.act(system, conn, events, &seen, action).await?,
            }
        }
        Err(PortError::failed(format!(
            "machine {} needed more than {STEPS_MAX} steps and is still not well",
            self.id
        )))
    }

    async fn observe(&self, system: &QemuSystem, conn: &Conn) -> PortResult<Seen> {
        let mut view = system.observe(self.id).await?;
        if !is_plain(&conn.status().await?) {
            // A machine that was never started, or is kept by something the guard knows nothing of.
            view.run = RunState::Unresponsive;
        }
        let graph = conn.graph().await?;
        let jobs = backups(&conn.query("query-jobs").await?);
        let migration = conn.query("query-migrate").await?;
        let book = system.load().await?;
        let open = |disk: &DiskName| (disk.clone(), graph.open_legs(disk));
        Ok(Seen {
            open_legs: view.disks.keys().map(open).collect(),
            book,
            view,
            jobs,
            forking: copies_memory(&migration),
        })
    }

    fn decide(&self, seen: &Seen) -> Action {
        decide(&self.facts(seen), now_ms())
    }

    fn facts<'a>(&'a self, seen: &'a Seen) -> Facts<'a> {
        let still = self
            .still
            .filter(|(pause, _)| seen.book.pause_until_ms == Some(*pause));
        Facts {
            machine: self.id,
            book: &seen.book,
            view: &seen.view,
            open_legs: &seen.open_legs,
            jobs: &seen.jobs,
            suspects: &self.suspects,
            probed: self.probed,
            forking: seen.forking,
            still: still.map_or(Duration::ZERO, |(_, since)| since.elapsed()),
        }
    }

    /// Forgets reports that led to nothing: a leg that still fails is reported again. A failed machine that is not
    /// the guard's business is looked at less often.
    fn nothing_to_do(&mut self, seen: &Seen) {
        match seen.view.run {
            RunState::Running => self.suspects.clear(),
            RunState::IoError if seen.book.owner != Some(self.id) => self.hold_back(),
            _ => {}
        }
    }

    /// Waits longer before the next attempt.
    fn hold_back(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }

    /// Says something that could not be helped, once.
    fn tell(&mut self, severity: Severity, what: &str, why: String) {
        if self.told.as_ref() != Some(&why) {
            self.shared
                .events
                .add(severity, Some(self.id), what, why.clone());
            self.told = Some(why);
        }
    }

    /// Records an act.
    pub(super) fn did(
        &mut self,
        severity: Severity,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.shared.events.add(severity, Some(self.id), what, why);
        self.told = None;
    }
}

/// Says whether a state is one of those in which the guard may have something to do.
fn is_plain(status: &Status) -> bool {
    matches!(
        status,
        Status::Running
            | Status::Paused
            | Status::FinishMigrate
            | Status::PostMigrate
            | Status::IoError
    )
}

/// Says whether a machine's memory is being copied, or was and it waits for the switch.
fn copies_memory(migration: &Value) -> bool {
    let status = migration.get("status").and_then(Value::as_str);
    matches!(
        status,
        Some("setup" | "active" | "pre-switchover" | "device")
    )
}

/// Lists the copying jobs that have not ended. One that has stays listed until the server has read its outcome.
pub(super) fn backups(jobs: &Value) -> Vec<String> {
    let listed = jobs.as_array().into_iter().flatten();
    let active = listed.filter(|job| {
        let text = |key: &str| job.get(key).and_then(Value::as_str).unwrap_or_default();
        text("type") == "backup" && !matches!(text("status"), "concluded" | "null" | "undefined")
    });
    active
        .filter_map(|job| Some(job.get("id")?.as_str()?.to_owned()))
        .collect()
}

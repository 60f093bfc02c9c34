//! What every step works with.

use crate::ledger::Ledger;
use crate::mirrors::Mirrors;
use flipside_model::{
    DiskName, DiskRole, LegBook, MachineId, Problem, ProblemCode, Progress, Side, SystemSpec,
    UpgradeConfig, planted,
};
use flipside_platform::{HoldSet, Lease, MachineView, PortError, Ports};
use flipside_session::{Facts, SessionState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncGuard, watch};
use tokio::time::Instant;

/// Why a step ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It failed.
    Failed(Problem),
    /// An abort was requested, and this was a safe point.
    Cancelled,
}

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Self {
        Halt::Failed(problem)
    }
}

impl From<PortError> for Halt {
    fn from(error: PortError) -> Self {
        Halt::Failed(error.into())
    }
}

pub(crate) type Step<T = ()> = Result<T, Halt>;

/// The right to change machines and the leg book: against our own tasks, and against the guard.
pub(crate) struct Exclusive<'a> {
    _ours: AsyncGuard<'a, ()>,
    _lease: Lease,
}

/// The deadline of the running stage and the clocks of an outage; new for every operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// When the stage must be over.
    pub deadline: Instant,
}

/// Everything a step may use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cx {
    pub spec: Arc<SystemSpec>,
    pub ports: Ports,
    pub ledger: Ledger,
    pub mirrors: Mirrors,
    graph: Arc<AsyncMutex<()>>,
    telling: Arc<AsyncMutex<()>>,
    timing: Arc<Mutex<Timing>>,
    inside: Arc<Mutex<Option<Instant>>>,
    progress: Arc<Mutex<Option<Progress>>>,
    abort: watch::Sender<bool>,
    crash: CrashHook,
}

/// Called at every named point between two effects, such as `merge.mount:acted`; a test lets the server die there.
pub type CrashHook = Option<Arc<dyn Fn(&str) + Send + Sync>>;

/// How long to wait between two looks at something that takes a while: short against every figure we report, long
/// against the cost of asking.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// The shortest deadline a late step still gets, so that a stage that is nearly out of time can end cleanly.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// The operation deadline before any operation has begun.
const NO_OPERATION: Duration = Duration::from_secs(300);

impl Cx {
    pub(crate) fn new(
        spec: Arc<SystemSpec>,
        ports: Ports,
        ledger: Ledger,
        crash: CrashHook,
    ) -> Self {
        Self {
            spec,
            ports,
            ledger,
            mirrors: Mirrors::default(),
            graph: Arc::new(AsyncMutex::new(())),
            telling: Arc::default(),
            timing: Arc::new(Mutex::new(Timing {
                deadline: Instant::now() + NO_OPERATION,
            })),
            inside: Arc::new(Mutex::new(None)),
            progress: Arc::new(Mutex::new(None)),
            abort: watch::channel(false).0,
            crash,
        }
    }

    /// Passes a crash point: `intent` (before it is written), `act`, `acted`, `outcome` (after it is written).
    pub(crate) fn point(&self, step: flipside_session::Step, place: &str) {
        if let Some(hook) = &self.crash {
            hook(&format!("{}:{place}", step.id()));
        }
    }

    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.ledger.state()
    }

    pub(crate) fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.ledger.state().facts)
    }

    pub(crate) fn settings(&self) -> Arc<UpgradeConfig> {
        self.ledger.state().settings()
    }

    /// Returns the machine of a side, or says that there is none.
    pub(crate) fn machine(&self, side: Side) -> Result<MachineId, Problem> {
        self.facts().machine(side).ok_or_else(|| {
            Problem::new(ProblemCode::NotFound, format!("the {side} has no machine"))
                .about(side.to_string())
        })
    }

    pub(crate) async fn view(&self, machine: MachineId) -> Result<MachineView, Problem> {
        Ok(self.ports.machine.observe(machine).await?)
    }

    /// Returns the view of a side's machine; an absent one when the side has none.
    pub(crate) async fn view_of(&self, side: Side) -> Result<MachineView, Problem> {
        match self.facts().machine(side) {
            Some(machine) => self.view(machine).await,
            None => Ok(MachineView::absent()),
        }
    }

    /// Takes the right to change machines and the book.
    pub(crate) async fn exclusive(&self) -> Result<Exclusive<'_>, Problem> {
        let ours = self.graph.lock().await;
        let mut lease = self.ports.legs.lease().await?;
        if planted::is("lease-given-back-early") {
            lease = Lease::new(());
        }
        Ok(Exclusive {
            _ours: ours,
            _lease: lease,
        })
    }

    /// Only one shows something on the Upgrade Side, or removes it.
    pub(crate) async fn telling(&self) -> AsyncGuard<'_, ()> {
        self.telling.lock().await
    }

    pub(crate) async fn book(&self) -> Result<LegBook, Problem> {
        Ok(self.ports.legs.load().await?)
    }

    /// Changes the book durably, if `change` changes anything.
    pub(crate) async fn edit_book(
        &self,
        _held: &Exclusive<'_>,
        change: impl FnOnce(&mut LegBook) + Send,
    ) -> Result<LegBook, Problem> {
        let before = self.ports.legs.load().await?;
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            Ok(before)
        } else {
            Ok(self.ports.legs.store(&after).await?)
        }
    }

    /// Says whether a side has given data and network up (or never had them), by the durable owner record. Then the
    /// steps that lead there are behind it, whatever its guest would answer.
    pub(crate) async fn gave_up(&self, side: Side) -> Result<bool, Problem> {
        let owner = self.book().await?.owner;
        if planted::is("old-side-asked-again") {
            return Ok(false);
        }
        Ok(owner.is_none() || owner != self.facts().machine(side))
    }

    /// Returns what a disk is: in a session what was established at its beginning, else what the definition says.
    pub(crate) fn role(&self, disk: &DiskName) -> DiskRole {
        let state = self.state();
        let defined = self.spec.disk(disk).map_or(DiskRole::Data, |d| d.role);
        match &state.facts.roles {
            Some(roles) if state.session.is_some() => *roles.get(disk).unwrap_or(&defined),
            _ => defined,
        }
    }

    /// Lists the disks that are System, or Data, in the order of the definition.
    pub(crate) fn disks(&self, role: DiskRole) -> Vec<DiskName> {
        let names = self.spec.disks.iter().map(|d| &d.name);
        names
            .filter(|name| self.role(name) == role)
            .cloned()
            .collect()
    }

    /// Returns what is held on the Upgrade Side.
    pub(crate) fn hold_set(&self) -> HoldSet {
        let state = self.state();
        let settings = state.settings();
        HoldSet {
            units: settings
                .services
                .iter()
                .map(flipside_model::ServiceName::unit)
                .collect(),
            mounts: state.facts.mounts.clone(),
            quiesce: settings.quiesce.clone(),
        }
    }

    /// Returns the controlled units and what would start them again: sockets, timers and paths, as saved before the
    /// split. Stopped in reverse, so those first.
    pub(crate) fn units_and_triggers(&self) -> Vec<String> {
        let mut all = self.units();
        let saved = self.facts().startup.clone().unwrap_or_default();
        let triggers = saved.into_iter().map(|s| s.unit);
        let triggers: Vec<String> = triggers.filter(|unit| !all.contains(unit)).collect();
        if !planted::is("triggers-left-armed") {
            all.extend(triggers);
        }
        all
    }

    pub(crate) fn units(&self) -> Vec<String> {
        self.settings()
            .services
            .iter()
            .map(flipside_model::ServiceName::unit)
            .collect()
    }

    // --- time -------------------------------------------------------------------------------------------------

    pub(crate) fn begin_stage(&self, seconds: u32) {
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
        *self.timing.lock().unwrap_or_else(PoisonError::into_inner) = Timing { deadline };
    }

    /// Returns the time the stage has left, never less than a last chance, at most `limit`.
    pub(crate) fn remaining(&self, limit: Duration) -> Duration {
        let deadline = self
            .timing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .deadline;
        deadline
            .saturating_duration_since(Instant::now())
            .max(LAST_CHANCE)
            .min(limit)
    }

    /// Fails when the stage is out of time (SM-20).
    pub(crate) fn check_time(&self, what: &str) -> Result<(), Problem> {
        let deadline = self
            .timing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .deadline;
        if Instant::now() < deadline {
            return Ok(());
        }
        let stage = self.state().upgrade;
        Err(Problem::new(
            ProblemCode::TimedOut,
            format!("{stage} timed out during: {what}"),
        )
        .advise(flipside_session::law::recovery(stage)))
    }

    /// A safe point inside a long wait: ends the step when an abort was requested or time is over.
    pub(crate) fn safe_point(&self, what: &str) -> Step {
        if *self.abort.borrow() {
            return Err(Halt::Cancelled);
        }
        self.check_time(what)?;
        Ok(())
    }

    pub(crate) fn request_abort(&self) {
        self.abort.send_replace(true);
    }

    pub(crate) fn clear_abort(&self) {
        self.abort.send_replace(false);
    }

    pub(crate) fn abort_requested(&self) -> bool {
        *self.abort.borrow()
    }

    /// Starts the inside clock of an outage.
    pub(crate) fn start_inside_clock(&self) {
        self.inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(Instant::now);
    }

    /// Reads the inside clock; after a restart of the server the journal's times serve instead.
    pub(crate) fn inside_ms(&self) -> u64 {
        let began = self
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (began, self.facts().outage_since_ms) {
            (Some(began), _) => u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            (None, Some(since)) => u64::try_from(self.ports.clock.now_ms() - since).unwrap_or(0),
            (None, None) => 0,
        }
    }

    // --- progress ---------------------------------------------------------------------------------------------

    pub(crate) fn show(&self, progress: Option<Progress>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        self.ledger.touch();
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

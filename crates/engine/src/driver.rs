//! The driver of one system: accepts requests by the law, runs them, and picks up after a crash.

use crate::context::{CrashHook, Cx};
use crate::ledger::Ledger;
use crate::monitor::{self, Monitor};
use crate::operate::{self, enter};
use crate::steps::decide;
use crate::{actions, devices, observe, power, rollback, status};
use flipside_model::api::{Accepted, PowerAction, RehearsalStatus};
use flipside_model::{
    Command, Entry, Fact, MachineId, OperationalState as O, PinnedFile, Problem, ProblemCode,
    Record, SessionId, Severity, Side, Status, SystemSpec, UpgradeConfig, UpgradeState as S,
    planted,
};
use flipside_platform::{Ports, RunState};
use flipside_session::{SessionState, law};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use tokio::task::JoinHandle;
use tracing::error;

/// After this many ends of the server in the middle of one step, the operation is not continued by itself any more
/// (fault 3: a crash loop must stop).
const MAX_RESTARTS: u32 = 3;

/// How long a guest may take to begin its restart before the reset button is pressed.
const RESTART_WAIT: Duration = Duration::from_secs(90);

/// How a system is driven.
pub struct SystemOptions {
    /// Product version, for log and status.
    pub version: String,
    /// For tests: called at every crash point.
    pub crash: CrashHook,
}

/// A request with what it needs.
pub struct Request {
    /// The command.
    pub command: Command,
    /// The configuration to use: `None` keeps the last checked one, `Some(None)` uses none.
    pub config: Option<Option<(String, UpgradeConfig)>>,
}

struct Shared {
    cx: Cx,
    monitor: Monitor,
    version: String,
    gate: AsyncMutex<()>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// A cheap handle on a driven system. Its tasks end with [`System::close`].
#[derive(Clone)]
pub struct System {
    shared: Arc<Shared>,
}

impl System {
    /// Takes a system over: replays nothing (the ledger did), observes what runs, names the state, and goes on where
    /// users are waiting.
    pub async fn open(
        spec: SystemSpec,
        ports: Ports,
        ledger: Ledger,
        options: SystemOptions,
    ) -> Result<System, Problem> {
        rollback::refuse_older_copies(&ports, &ledger).await?;
        ledger.write(Record::Opened {
            version: options.version.clone(),
        })?;
        let cx = Cx::new(Arc::new(spec), ports, ledger, options.crash);
        let system = System {
            shared: Arc::new(Shared {
                cx,
                monitor: Monitor::default(),
                version: options.version,
                gate: AsyncMutex::new(()),
                tasks: std::sync::Mutex::new(Vec::new()),
            }),
        };
        system.recover().await?;
        let this = system.clone();
        system.keep(tokio::spawn(async move {
            this.shared.monitor.run(&this.shared.cx).await
        }));
        Ok(system)
    }

    pub(crate) fn cx(&self) -> &Cx {
        &self.shared.cx
    }

    fn keep(&self, task: JoinHandle<()>) {
        let mut tasks = self
            .shared
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tasks.retain(|t| !t.is_finished());
        tasks.push(task);
    }

    /// Ends the driver's tasks; machines and the guard go on.
    pub fn close(&self) {
        for task in self
            .shared
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
    }

    // --- reading ----------------------------------------------------------------------------------------------

    /// Returns the definition.
    pub fn spec(&self) -> &SystemSpec {
        &self.cx().spec
    }

    /// Returns the ports, for what a client does on a side (`run`, `copy`, `shell`).
    pub fn ports(&self) -> &Ports {
        &self.cx().ports
    }

    /// Returns the status as seen last.
    pub fn status(&self) -> Status {
        status::compose(self.cx(), &self.shared.monitor.seen(), &self.shared.version)
    }

    /// Returns the session's state, as its journal tells it: a part of the status that costs nothing.
    pub fn state(&self) -> Arc<SessionState> {
        self.cx().state()
    }

    /// Looks again, then returns the status.
    pub async fn fresh_status(&self) -> Status {
        if let Err(problem) = self.shared.monitor.look(self.cx()).await {
            tracing::warn!(%problem, "the machines could not be observed");
        }
        self.status()
    }

    /// Watches for changes of status or log.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.cx().ledger.changes()
    }

    /// Returns the records after a sequence number.
    pub fn entries_after(&self, after: u64) -> Vec<Entry> {
        self.cx().ledger.entries_after(after)
    }

    /// Follows new records.
    pub fn follow(&self) -> broadcast::Receiver<Entry> {
        self.cx().ledger.follow()
    }

    /// Returns the machine that `run`, `copy` and `shell` go to.
    pub fn machine_for(&self, side: Option<Side>) -> Result<MachineId, Problem> {
        monitor::machine_for(self.cx(), side)
    }

    // --- requests ---------------------------------------------------------------------------------------------

    /// Accepts a request if the law allows it, and runs it in the background.
    pub async fn request(&self, request: Request) -> Result<Accepted, Problem> {
        self.request_seen(request, None).await
    }

    /// The same, if nobody has moved the session since the record that the requester has seen: of two administrators, a
    /// double click or a request that comes again, one is done (fault 64).
    pub async fn request_seen(
        &self,
        request: Request,
        seen: Option<u64>,
    ) -> Result<Accepted, Problem> {
        self.ask(request, seen, false).await
    }

    /// The same; an abort may ask for the data to be taken back to the checkpoint of the merge (DK-28).
    pub async fn ask(
        &self,
        request: Request,
        seen: Option<u64>,
        discard_data: bool,
    ) -> Result<Accepted, Problem> {
        let _one_at_a_time = self.shared.gate.lock().await;
        let cx = self.cx();
        let state = cx.state();
        if let Some(seen) = seen {
            refuse_if_moved(&cx.ledger.entries_after(seen), request.command)?;
        }
        let enters = law::decide(&state, request.command)?;
        if request.command == Command::Commit {
            decide::refuse_without_upgrade_side(cx).await?;
        }
        if discard_data {
            law::discard_is_asked(request.command)?;
            law::discard(&state)?;
        }
        if request.command == Command::Abort && state.facts.owner == Side::Upgrade {
            // Nobody is taken from the side that serves when the other one could not open the data (fault 22).
            devices::refuse_without_data(cx, discard_data).await?;
        }
        if request.command == Command::Abort && state.facts.discard_data != discard_data {
            // Before the abort is accepted, so that none is ever carried out without knowing what is meant.
            cx.ledger
                .write_reserved(Record::Fact(Fact::DiscardData(discard_data)))?;
        }
        let after = state.last_seq;
        if state.upgrade == S::Idle {
            if let Some(choice) = request.config {
                let (name, config) = match choice {
                    Some((name, config)) => (Some(name), config),
                    None => (None, UpgradeConfig::none()),
                };
                cx.ledger.write(Record::Config {
                    name,
                    config: Box::new(config),
                })?;
            }
            cx.ledger.write(Record::Accepted {
                command: request.command,
            })?;
            enter(cx, S::Idle, O::Busy, None)?;
            self.spawn(move |this| async move { this.check_then(request.command).await });
        } else if state.operational == O::Busy {
            // Only an abort is accepted while Busy: it takes effect at the next safe point (gap G.1.7).
            cx.ledger.write_reserved(Record::Accepted {
                command: request.command,
            })?;
            cx.request_abort();
        } else {
            if request.command == Command::Abort {
                cx.ledger.write_reserved(Record::Accepted {
                    command: request.command,
                })?;
            } else {
                cx.ledger.write(Record::Accepted {
                    command: request.command,
                })?;
            }
            cx.clear_abort();
            enter(cx, enters, O::Busy, None)?;
            self.spawn(|this| async move { operate::run(this.cx()).await });
        }
        Ok(Accepted {
            after,
            config: cx.state().config_name.clone(),
        })
    }

    /// Runs the readiness check, and for `split` goes on into the session if it passes (RC-01).
    async fn check_then(&self, command: Command) -> Result<(), Problem> {
        let cx = self.cx();
        let settings = cx.settings();
        cx.begin_stage(settings.timeouts.prepare);
        let problem = match self.checked(&settings).await {
            Ok(0) => None,
            Ok(errors) => Some(
                Problem::new(
                    ProblemCode::NotReady,
                    format!("the readiness check found {errors} error(s)"),
                )
                .advise("correct what the activity log lists, then `flipside retry`"),
            ),
            Err(problem) => Some(problem),
        };
        let operational = if problem.is_some() {
            O::Broken
        } else {
            O::Ready
        };
        enter(cx, S::Idle, operational, problem)?;
        if operational == O::Broken || command != Command::Split {
            return Ok(());
        }
        let state = cx.state();
        cx.clear_abort();
        cx.ledger.write(Record::Session {
            id: SessionId(uuid::Uuid::now_v7()),
            config_name: state.config_name.clone(),
            config: Box::new(UpgradeConfig::clone(&state.settings())),
        })?;
        enter(cx, S::PrepareSplit, O::Busy, None)?;
        operate::run(cx).await
    }

    /// Judges readiness and runs the actions of the check, whatever was found before; returns how many errors there are.
    async fn checked(&self, settings: &UpgradeConfig) -> Result<usize, Problem> {
        let (_, errors) = observe::check(self.cx(), settings).await?;
        Ok(errors + actions::check(self.cx()).await?)
    }

    fn spawn<F>(&self, operation: impl FnOnce(System) -> F)
    where
        F: Future<Output = Result<(), Problem>> + Send + 'static,
    {
        let running = operation(self.clone());
        let this = self.clone();
        self.keep(tokio::spawn(async move {
            if let Err(problem) = running.await {
                this.operation_failed(&problem);
            }
            if let Err(problem) = this.shared.monitor.look(this.cx()).await {
                tracing::warn!(%problem, "the machines could not be observed");
            }
        }));
    }

    /// The engine itself could not go on (the journal is full, a record was refused): Broken, with the cause.
    fn operation_failed(&self, problem: &Problem) {
        error!(%problem, "the operation could not go on");
        let state = self.cx().state();
        if state.operational != O::Busy {
            return;
        }
        let record = Record::Entered {
            state: state.upgrade,
            operational: O::Broken,
            problem: Some(problem.clone()),
        };
        if let Err(again) = self.cx().ledger.write_reserved(record) {
            error!(%again, "and that could not be recorded");
        }
    }

    // --- recovery ---------------------------------------------------------------------------------------------

    /// Names a state at once, and goes on by itself only where users are waiting.
    async fn recover(&self) -> Result<(), Problem> {
        let cx = self.cx();
        let state = cx.state();
        if cx.book().await?.owner.is_some() {
            cx.ports.network.ensure().await?;
        }
        if state.operational != O::Busy {
            return Ok(());
        }
        let waiting = state.facts.users_moved() && matches!(state.upgrade, S::Merge | S::Abort);
        if planted::is("production-woken-in-merge")
            && let Some(production) = state.facts.production
        {
            let _held = cx.exclusive().await?;
            let _ = cx.ports.machine.resume(production).await;
        }
        let patient = state.restarts <= MAX_RESTARTS || planted::is("crash-loop-never-ends");
        if waiting && patient {
            cx.ledger.log(
                Severity::Warning,
                "the server ended in the middle; the operation goes on",
            )?;
            if state.upgrade == S::Merge && state.abort_requested {
                cx.request_abort();
            }
            self.spawn(|this| async move { operate::run(this.cx()).await });
            return Ok(());
        }
        let problem = Problem::new(
            ProblemCode::Failed,
            format!("the server ended in the middle of {}", state.upgrade),
        )
        .advise(law::recovery(state.upgrade));
        if waiting && state.upgrade == S::Merge {
            operate::take_back_interrupted(cx).await?;
        }
        enter(cx, state.upgrade, O::Broken, Some(problem))
    }

    /// Takes changed files of custom actions for the ones that are meant, because the administrator says so (fault 60).
    pub async fn accept_actions(&self) -> Result<Vec<PinnedFile>, Problem> {
        let _one_at_a_time = self.shared.gate.lock().await;
        let state = self.cx().state();
        let why = match (state.session, state.operational) {
            (None, _) => "no session is open: files are recorded when it begins",
            (_, O::Busy) => "an operation is in progress",
            _ => return actions::accept(self.cx()).await,
        };
        Err(Problem::new(ProblemCode::Refused, why)
            .advise("`flipside status` tells the state of the session"))
    }

    /// Starts or stops the applications of a rehearsal on the Upgrade Side.
    ///
    /// # Errors
    /// `Refused` when the session is no rehearsal, outside Split or while an operation runs; what the guest says when an
    /// application does not start or stop.
    pub async fn rehearse(&self, start: bool) -> Result<RehearsalStatus, Problem> {
        let _one_at_a_time = self.shared.gate.lock().await;
        self.rehearse_alone(start).await
    }

    // --- power ------------------------------------------------------------------------------------------------

    /// Starts or stops the system; refused while an operation runs, which may be starting or ending machines itself.
    pub async fn power(&self, action: PowerAction) -> Result<(), Problem> {
        let _one_at_a_time = self.shared.gate.lock().await;
        law::power(&self.cx().state())?;
        match action {
            PowerAction::Start => power::on(self.cx()).await,
            PowerAction::Stop => power::off(self.cx(), false).await,
            PowerAction::Kill => power::off(self.cx(), true).await,
        }?;
        self.shared.monitor.look(self.cx()).await
    }

    /// Restarts the Upgrade Side (US-17); Production is refused (US-21). Allowed while Broken as well (gap G.1.20).
    pub async fn restart(&self, side: Side) -> Result<(), Problem> {
        let _one_at_a_time = self.shared.gate.lock().await;
        let cx = self.cx();
        let state = cx.state();
        let refuse = |why: String| Err(Problem::new(ProblemCode::Refused, why));
        if side == Side::Production {
            return refuse("the Production Side is never restarted during an upgrade".to_owned());
        }
        let fits =
            matches!(state.upgrade, S::Split | S::PrepareMerge) && state.operational != O::Busy;
        if !fits || !state.facts.divided {
            let text = format!(
                "the Upgrade Side can be restarted in Split, and this is {} | {}",
                state.upgrade, state.operational
            );
            return refuse(text);
        }
        let machine = cx.machine(Side::Upgrade)?;
        // AB-20: what was shut down does not come back; only Abort is left.
        let ended = match cx.view(machine).await?.run {
            RunState::Absent => Some("the Upgrade Side's machine has ended"),
            RunState::Shutdown => Some("the Upgrade Side was shut down"),
            _ => None,
        };
        if let Some(why) = ended {
            return Err(Problem::new(ProblemCode::NotFound, why)
                .advise("`flipside abort` takes everything back"));
        }
        let before = cx
            .ports
            .guest
            .ping(machine)
            .await
            .ok()
            .map(|info| info.boot_id);
        cx.ledger
            .log(Severity::Information, "the Upgrade Side is being restarted")?;
        if before.is_none() || cx.ports.guest.restart(machine).await.is_err() {
            let _held = cx.exclusive().await?;
            self.shared.monitor.expect_reboot();
            return Ok(cx.ports.machine.reset(machine).await?);
        }
        let limit = tokio::time::Instant::now() + RESTART_WAIT;
        while tokio::time::Instant::now() < limit {
            match cx.ports.guest.ping(machine).await {
                Ok(info) if Some(&info.boot_id) == before.as_ref() => {
                    tokio::time::sleep(crate::context::POLL * 10).await;
                }
                _ => {
                    self.shared.monitor.expect_reboot();
                    return Ok(());
                }
            }
        }
        cx.ledger.log(
            Severity::Warning,
            "the Upgrade Side did not restart by itself and was reset",
        )?;
        let _held = cx.exclusive().await?;
        self.shared.monitor.expect_reboot();
        Ok(cx.ports.machine.reset(machine).await?)
    }
}

/// Refuses a request that was made for a state which has passed. An abort is meant for the session it was asked in,
/// however far that has come.
fn refuse_if_moved(since: &[Entry], command: Command) -> Result<(), Problem> {
    let moves = |record: &Record| match record {
        Record::Session { .. } => true,
        Record::Accepted { .. } | Record::Entered { .. } => command != Command::Abort,
        _ => false,
    };
    if !since.iter().any(|entry| moves(&entry.record)) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::Refused,
        format!("`{command}` is refused: the session was moved since it was looked at"),
    )
    .advise("look at `flipside status`, then ask again"))
}

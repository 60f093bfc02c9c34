//! A server on a simulated world: start it, command it, let it die, start it again.

use crate::storage::SimStorage;
use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_engine::{Ledger, Request, Stamped, System, SystemOptions};
use flipside_journal::{Journal, MemoryDisk};
use flipside_model::api::PowerAction;
use flipside_model::{
    Command, HealthCheck, OperationalState, Problem, ProblemCode, ServiceName, Status, SystemSpec,
    UpgradeConfig, UpgradeState,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The longest simulated time an operation may take before it counts as hung (invariant 21): above every deadline of
/// a stage, with the retries of every port call in it.
const HUNG: Duration = Duration::from_secs(3_600);

/// How often the guard looks.
const GUARD: Duration = Duration::from_millis(200);

/// How often the client writes; no multiple of anything else, so that it meets every place in the course of time.
const CLIENT: Duration = Duration::from_millis(37);

/// How long an administrator reads before the next command.
const THINKS: Duration = Duration::from_secs(5);

/// How often an administrator starts a server that does not come up, because its journal cannot be read just then.
const STARTS: u32 = 5;

/// A server on a simulated world, with a guard and a client.
pub struct Bench {
    /// The system.
    pub spec: SystemSpec,
    /// Its world.
    pub world: SimWorld,
    /// The disk under the journal.
    pub disk: MemoryDisk,
    /// The server, while it lives.
    pub system: Option<System>,
    /// What a power cut leaves of bytes that were written and not synced.
    pub kept_by_power_cut: usize,
    /// The configuration of its sessions.
    pub config: UpgradeConfig,
    /// How long a server that died stays away.
    pub away: Duration,
    /// How often a server was started.
    pub starts: u32,
    /// Whether somebody else may ask for an abort.
    pub not_alone: bool,
    /// Whether an abort of a merge takes the data back to the checkpoint.
    pub discards: bool,
    guard: JoinHandle<()>,
    client: JoinHandle<()>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Not Busy any more: stage, operational state, problem.
    State(UpgradeState, OperationalState, Option<String>),
    /// The server died.
    Crashed,
}

/// Returns the configuration of sessions: two services and a health check.
pub fn config() -> UpgradeConfig {
    UpgradeConfig {
        services: ["db.service", "web.service"]
            .iter()
            .map(|s| ServiceName::new(s).expect("valid"))
            .collect(),
        health: vec![HealthCheck {
            command: vec!["true".to_owned()],
        }],
        ..UpgradeConfig::none()
    }
}

/// Begins what goes on beside a server: the guard, and a client that never stops writing.
pub fn beside(world: &SimWorld) -> (JoinHandle<()>, JoinHandle<()>) {
    let guard = tokio::spawn(world.clone().run_guards(GUARD));
    let client_world = world.clone();
    let client = tokio::spawn(async move {
        loop {
            client_world.client_write();
            tokio::time::sleep(CLIENT).await;
        }
    });
    (guard, client)
}

/// Waits until nothing is Busy.
pub async fn not_busy(system: &System) -> End {
    let mut changes = system.changes();
    loop {
        let state = system.state();
        if state.operational != OperationalState::Busy {
            return End::State(
                state.upgrade,
                state.operational,
                state.problem.as_ref().map(ToString::to_string),
            );
        }
        changes.changed().await.expect("the ledger lives");
    }
}

impl Bench {
    /// Makes a duplexed system that is off, and starts its server.
    pub async fn new(system_disks: usize, data_disks: usize) -> Bench {
        Self::with(system_disks, data_disks, SimOptions::default()).await
    }

    /// The same, with a world of its own kind.
    pub async fn with(system_disks: usize, data_disks: usize, options: SimOptions) -> Bench {
        let spec = example_spec(system_disks, data_disks);
        let world = SimWorld::new(&spec, options);
        let (guard, client) = beside(&world);
        let mut bench = Bench {
            spec,
            world,
            disk: MemoryDisk::default(),
            system: None,
            kept_by_power_cut: 0,
            config: config(),
            away: Duration::ZERO,
            starts: 0,
            not_alone: false,
            discards: false,
            guard,
            client,
        };
        bench.start_server().await.expect("the first start");
        bench
    }

    /// Begins a new life of the server; it may die in its start, and then there is none.
    pub async fn start_server(&mut self) -> Result<(), Problem> {
        self.bury();
        self.world.restart_server();
        self.world.label("start");
        self.starts += 1;
        let opening = Self::open(self.spec.clone(), self.world.clone(), self.disk.clone());
        tokio::select! {
            biased;
            () = self.world.await_crash() => {}
            system = opening => {
                if !self.world.crashed() {
                    self.system = Some(system?);
                }
            }
        }
        self.lose_unsynced();
        Ok(())
    }

    async fn open(spec: SystemSpec, world: SimWorld, disk: MemoryDisk) -> Result<System, Problem> {
        let unreadable = |error| {
            Problem::new(ProblemCode::Failed, "the journal cannot be opened").because(&error)
        };
        if disk.contents().is_empty() {
            let created: Journal<Stamped> =
                Journal::create(SimStorage::new(&disk, &world)).map_err(unreadable)?;
            drop(created);
        }
        let storage = SimStorage::new(&disk, &world);
        let (journal, opened) = Journal::<Stamped>::open(storage).map_err(unreadable)?;
        let ports = world.ports();
        let life = world.life();
        let end = world.clone();
        // Design 3.11: a failed write or sync ends the server.
        let fatal = Arc::new(move |_: &str| {
            if end.alive(life) {
                end.crash_server();
            }
        });
        let ledger = Ledger::open(journal, opened, ports.clock.clone(), fatal)?;
        let labelled = world.clone();
        let options = SystemOptions {
            version: "test".to_owned(),
            crash: Some(Arc::new(move |point: &str| labelled.label(point))),
        };
        System::open(spec, ports, ledger, options).await
    }

    /// Returns the server, which must live.
    pub fn system(&self) -> &System {
        self.system.as_ref().expect("the server runs")
    }

    /// Returns its status.
    pub fn status(&self) -> Status {
        self.system().status()
    }

    /// The server has died: its tasks are gone, the world goes on.
    pub fn bury(&mut self) {
        if let Some(system) = self.system.take() {
            system.close();
        }
        self.lose_unsynced();
    }

    /// What the journal had not synced is gone when the power was (fault 6).
    fn lose_unsynced(&mut self) {
        if self.world.crashed() && self.world.power_lost() {
            self.disk.power_cut(self.kept_by_power_cut);
        }
    }

    /// Starts the server until it is there, as a service manager would.
    pub async fn revive(&mut self) -> Result<(), String> {
        if self.world.crashed() {
            tokio::time::sleep(self.away).await;
        }
        let mut last = String::new();
        for _ in 0..STARTS {
            match self.start_server().await {
                Ok(()) if self.system.is_some() => return Ok(()),
                Ok(()) => {}
                Err(problem) => last = problem.to_string(),
            }
        }
        Err(format!("the server does not start: {last}"))
    }

    /// Starts the system and waits until clients are served.
    pub async fn power_on(&mut self) {
        let system = self.system().clone();
        system.power(PowerAction::Start).await.expect("starts");
        self.until(Duration::from_secs(60), |b| b.world.client_ok())
            .await;
    }

    /// Waits for a condition, and panics when it does not come.
    pub async fn until(&self, limit: Duration, mut done: impl FnMut(&Bench) -> bool) {
        let end = Instant::now() + limit;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "not within {limit:?}: {:?}; clients: {:?}",
                self.system.as_ref().map(System::status),
                self.world.serving(),
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a command; `Ok(false)` says that the server died.
    pub async fn send(&mut self, command: Command) -> Result<bool, Problem> {
        let system = self.system().clone();
        let config = (command == Command::Split || command == Command::Check)
            .then(|| Some(("test.Config".to_owned(), self.config.clone())));
        let in_merge = system.state().upgrade == UpgradeState::Merge;
        let discard = self.discards && command == Command::Abort && in_merge;
        if discard {
            self.world.may_discard(true);
        }
        tokio::select! {
            biased;
            () = self.world.await_crash() => { self.bury(); Ok(false) }
            result = system.ask(Request { command, config }, None, discard) => {
                if self.world.crashed() {
                    self.bury();
                    return Ok(false);
                }
                result.map(|_| true)
            }
        }
    }

    /// Sends a command and waits for its end, or for the death of the server.
    pub async fn command(&mut self, command: Command) -> Result<End, Problem> {
        if !self.send(command).await? {
            return Ok(End::Crashed);
        }
        Ok(self.settled().await)
    }

    /// Waits until nothing is Busy.
    pub async fn settled(&mut self) -> End {
        let system = self.system().clone();
        let wait = not_busy(&system);
        let end = tokio::select! {
            biased;
            () = self.world.await_crash() => End::Crashed,
            end = tokio::time::timeout(HUNG, wait) => end.unwrap_or_else(|_| panic!("hung: {:#?}", self.status())),
        };
        if end == End::Crashed {
            self.bury();
        }
        end
    }

    /// Does what a careful administrator does until the goal is reached: start the server when it died, start the
    /// system when its machine is gone, retry what broke, and abort when retrying does not help.
    pub async fn reach(
        &mut self,
        command: Command,
        goal: UpgradeState,
    ) -> Result<UpgradeState, String> {
        self.reach_from(Some(command), command, goal).await
    }

    /// Says whether an abort of somebody else's runs.
    fn aborting(&self) -> bool {
        let status = self.system.as_ref().map(System::status);
        self.not_alone
            && status.is_some_and(|status| {
                status.upgrade_state == UpgradeState::Abort
                    && status.operational_state == OperationalState::Busy
            })
    }

    /// The same, when `next` is what is asked first; without it, what is under way is waited for.
    pub async fn reach_from(
        &mut self,
        mut next: Option<Command>,
        command: Command,
        goal: UpgradeState,
    ) -> Result<UpgradeState, String> {
        for attempt in 0..12 {
            let end = match (&self.system, next.take()) {
                (None, again) => {
                    self.revive().await?;
                    next = again;
                    let end = self.settled().await;
                    if self.system.is_some() && self.dark() {
                        next = self.light(next).await;
                        continue;
                    }
                    end
                }
                (Some(_), Some(command)) => match self.command(command).await {
                    Ok(end) => end,
                    // Somebody else was first, and the abort has begun: its end is waited for.
                    Err(problem) if problem.code == ProblemCode::Refused && self.aborting() => {
                        self.settled().await
                    }
                    Err(problem) if problem.code == ProblemCode::Refused => {
                        return Err(format!("{command} was refused: {problem:?}"));
                    }
                    // It was not taken down: the administrator reads why and asks again.
                    Err(_) if attempt < 10 => {
                        next = Some(command);
                        continue;
                    }
                    Err(problem) => return Err(format!("{command} was not taken: {problem:?}")),
                },
                (Some(_), None) => self.settled().await,
            };
            self.check()?;
            if matches!(end, End::State(_, OperationalState::Broken, _)) {
                tokio::time::sleep(THINKS).await;
                if self.world.crashed() {
                    self.bury();
                    continue;
                }
            }
            match end {
                End::Crashed => {}
                End::State(state, OperationalState::Ready, _) if state == goal => return Ok(state),
                End::State(UpgradeState::Abort, OperationalState::Ready, _)
                    if command != Command::Finish =>
                {
                    return Ok(UpgradeState::Abort);
                }
                End::State(UpgradeState::Idle, OperationalState::Broken, _) => next = Some(command),
                End::State(_, OperationalState::Ready, _) => next = Some(command),
                End::State(state, _, problem) => {
                    let may_abort = self.status().allowed.contains(&Command::Abort);
                    next = Some(if attempt >= 6 && may_abort {
                        Command::Abort
                    } else {
                        Command::Retry
                    });
                    if attempt >= 10 {
                        return Err(format!("stuck in {state} Broken: {problem:?}"));
                    }
                }
            }
        }
        Err("no end".to_owned())
    }

    /// Says whether no machine runs at all: the power was cut.
    fn dark(&self) -> bool {
        let machines = self.world.machines();
        machines.is_empty() && self.world.book().last_machine.0 > 0
    }

    /// After a power cut: an open session that may be aborted is aborted, which boots the original software;
    /// otherwise the system is started, and what was asked for is asked for again.
    async fn light(&mut self, next: Option<Command>) -> Option<Command> {
        if self.status().allowed.contains(&Command::Abort) {
            return Some(Command::Abort);
        }
        let system = self.system().clone();
        tokio::select! {
            biased;
            () = self.world.await_crash() => {}
            // A refusal is seen by what comes next.
            _ = system.power(PowerAction::Start) => {}
        }
        for _ in 0..300 {
            if self.world.client_ok() || self.world.crashed() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.world.crashed() {
            self.bury();
        }
        next
    }

    /// Checks every invariant.
    pub fn check(&self) -> Result<(), String> {
        self.world.check_invariants()
    }

    /// Waits until every disk is duplexed again.
    pub async fn duplex(&mut self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(600);
        loop {
            if self.system.is_none() || self.world.crashed() {
                self.revive().await?;
                if self.dark() {
                    self.light(None).await;
                    continue;
                }
            }
            if self.world.book().duplexed() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("never duplexed: {:#?}", self.world.book()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.check()?;
        }
    }

    /// The system disk's software version on the machine that serves.
    pub fn version(&self) -> Option<String> {
        self.world
            .serving()
            .ok()
            .and_then(|m| self.world.version(m))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.bury();
        self.guard.abort();
        self.client.abort();
    }
}

/// Runs on a single-threaded runtime with a paused clock, so that one run is like the other (invariant 28).
pub fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test())
}

//! A server on a simulated world: start it, command it, let it die, start it again.
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "every test uses its own part of it")]

use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_engine::{Ledger, Request, Stamped, System, SystemOptions};
use flipside_journal::{Journal, MemoryDisk, MemoryStorage};
use flipside_model::{
    Command, DiskName, Entry, OperationalState, Problem, ProblemCode, Record, Side, Status,
    StepResult, SystemSpec, Timeouts, UpgradeConfig, UpgradeState,
};
use flipside_platform::RunState;
use flipside_prove::End;
use flipside_prove::bench::{beside, not_busy};
use flipside_session::SessionState;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The longest simulated time an operation may take before the test calls it hung.
const HUNG: Duration = Duration::from_secs(3_600);

pub mod roles;
pub mod sockets;
pub mod stories;
pub mod story;

pub struct Bench {
    pub spec: SystemSpec,
    pub world: SimWorld,
    pub disk: MemoryDisk,
    pub system: Option<System>,
    /// How long a server that died stays away.
    pub away: Duration,
    /// How often the server was started.
    pub lives: u32,
    /// What the lives of the server before this one have shown.
    shown: Vec<Entry>,
    believed: Option<Arc<SessionState>>,
    ledger: Option<Ledger>,
    guard: JoinHandle<()>,
    client: JoinHandle<()>,
}

pub fn config() -> UpgradeConfig {
    UpgradeConfig {
        timeouts: Timeouts {
            health: 3,
            ..Timeouts::default()
        },
        ..flipside_prove::config()
    }
}

impl Bench {
    pub async fn new(system_disks: usize, data_disks: usize) -> Bench {
        let options = SimOptions {
            busy_guests: true,
            check_every_call: true,
            ..SimOptions::default()
        };
        Self::with(system_disks, data_disks, options).await
    }

    pub async fn with(system_disks: usize, data_disks: usize, options: SimOptions) -> Bench {
        let spec = example_spec(system_disks, data_disks);
        let world = SimWorld::new(&spec, options);
        let (guard, client) = beside(&world);
        let mut bench = Bench {
            spec,
            world,
            disk: MemoryDisk::default(),
            system: None,
            away: Duration::ZERO,
            lives: 0,
            shown: Vec::new(),
            believed: None,
            ledger: None,
            guard,
            client,
        };
        bench.start_server().await.expect("the first start");
        bench
    }

    pub async fn start_server(&mut self) -> Result<(), Problem> {
        // Whatever was not synced when the server died is lost: no disk is obliged to keep more.
        self.disk.power_cut(0);
        self.lives += 1;
        self.world.restart_server();
        let ports = self.world.ports();
        let storage = MemoryStorage::new(&self.disk);
        let empty = self.disk.contents().is_empty();
        if empty {
            let _: Journal<Stamped> =
                Journal::create(MemoryStorage::new(&self.disk)).expect("created");
        }
        // Whoever starts the server starts it again when its disk failed once.
        let (journal, opened) = Journal::<Stamped>::open(storage)
            .or_else(|_| Journal::open(MemoryStorage::new(&self.disk)))
            .map_err(|error| amiss(&error.to_string()))?;
        let kept = opened.records.iter().map(|e| (e.seq, &e.record.record));
        let shown = self.shown.iter().map(|e| (e.seq, &e.record));
        if !shown.eq(kept.take(self.shown.len())) {
            return Err(amiss("the journal lost records that had been shown"));
        }
        let world = self.world.clone();
        let fatal = Arc::new(move |_: &str| world.crash_server());
        let ledger = Ledger::open(journal, opened, ports.clock.clone(), fatal)?;
        if self.believed.take().is_some_and(|b| b != ledger.state()) {
            return Err(amiss("the server believed what the journal does not say"));
        }
        self.watch_intents(&ledger);
        self.ledger = Some(ledger.clone());
        let options = SystemOptions {
            version: "test".to_owned(),
            crash: None,
        };
        let opening = System::open(self.spec.clone(), ports, ledger, options);
        tokio::select! {
            system = opening => self.system = Some(system?),
            () = self.world.await_crash() => self.system = None,
        }
        Ok(())
    }

    pub fn system(&self) -> &System {
        self.system.as_ref().expect("the server runs")
    }

    pub fn status(&self) -> Status {
        self.system().status()
    }

    /// The server has died: its tasks are gone, the world goes on.
    pub fn bury(&mut self) {
        if let Some(system) = self.system.take() {
            self.shown = system.entries_after(0);
            self.believed = self.ledger.as_ref().map(Ledger::state);
            system.close();
        }
    }

    /// Invariant 16: while a stage runs, nothing is changed without a durable intent, or a failure that is taken back.
    /// The keeper and the monitor, which work beside a stage, are known by what they call.
    fn watch_intents(&self, ledger: &Ledger) {
        let ledger = ledger.clone();
        self.world.watch_effects(move |call| {
            let state = ledger.state();
            let beside = ["legs.", "disk.resync_", "network.ensure", "machine.resume."];
            let stage =
                state.upgrade != UpgradeState::Idle && state.operational == OperationalState::Busy;
            if !stage || state.running.is_some() || beside.iter().any(|b| call.starts_with(b)) {
                return None;
            }
            let entries = ledger.entries_after(0);
            let last = entries.iter().rev().find_map(|e| match &e.record {
                Record::Outcome { result, .. } => Some(result.clone()),
                _ => None,
            });
            let back = matches!(last, Some(StepResult::Failed(_) | StepResult::Undone));
            (!back).then(|| format!("{call} was done without an intent"))
        });
    }

    pub async fn power_on(&mut self) {
        let system = self.system().clone();
        system
            .power(flipside_model::api::PowerAction::Start)
            .await
            .expect("starts");
        self.until(Duration::from_secs(60), |b| b.world.client_ok())
            .await;
    }

    pub async fn until(&self, limit: Duration, mut done: impl FnMut(&Bench) -> bool) {
        let end = tokio::time::Instant::now() + limit;
        while !done(self) {
            assert!(
                tokio::time::Instant::now() < end,
                "not within {limit:?}: {:?}",
                self.system.as_ref().map(System::status)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a command and waits for its end, or for the death of the server.
    pub async fn command(&mut self, command: Command) -> Result<End, Problem> {
        let system = self.system().clone();
        let config = (command == Command::Split || command == Command::Check)
            .then(|| Some(("test.Config".to_owned(), config())));
        tokio::select! {
            result = system.request(Request { command, config }) => match result {
                Err(_) if self.world.crashed() => { self.bury(); return Ok(End::Crashed); }
                result => { result?; }
            },
            () = self.world.await_crash() => { self.bury(); return Ok(End::Crashed); }
        }
        Ok(self.settled().await)
    }

    /// Waits until nothing is Busy.
    pub async fn settled(&mut self) -> End {
        let system = self.system().clone();
        let wait = not_busy(&system);
        let end = tokio::select! {
            end = tokio::time::timeout(HUNG, wait) => end.unwrap_or_else(|_| panic!("hung: {:#?}", self.status())),
            () = self.world.await_crash() => End::Crashed,
        };
        if end == End::Crashed {
            self.bury();
        }
        end
    }

    /// Does what a careful administrator does until the goal is reached: start the server when it died, retry what
    /// broke, and abort when retrying does not help.
    pub async fn reach(
        &mut self,
        command: Command,
        goal: UpgradeState,
    ) -> Result<UpgradeState, String> {
        let mut next = Some(command);
        for attempt in 0..12 {
            let end = match (&self.system, next.take()) {
                (None, again) => {
                    self.stay_away().await?;
                    self.start_server().await.map_err(|p| p.to_string())?;
                    next = again;
                    if self.system.is_none() {
                        continue;
                    }
                    self.settled().await
                }
                (Some(_), Some(command)) => match self.command(command).await {
                    Ok(end) => end,
                    Err(problem) => return Err(format!("{command} was refused: {problem:?}")),
                },
                (Some(_), None) => self.settled().await,
            };
            self.check()?;
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
                    self.users_are_served().await?;
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

    /// Invariant 23: while the server is away, the guard continues a machine that was to be paused for a moment. (One that
    /// takes over or gives up stands still until the server goes on: its users need more than that it runs.)
    async fn stay_away(&self) -> Result<(), String> {
        tokio::time::sleep(self.away).await;
        let paused = |run| {
            matches!(
                run,
                RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
            )
        };
        let moving = self.believed.as_ref().is_some_and(|b| b.facts.outage_open);
        let brief = !self.away.is_zero() && !moving;
        match self.world.book().owner {
            Some(owner) if brief && paused(self.world.view(owner).run) => {
                Err(format!("{owner} is paused for ever without the server"))
            }
            _ => Ok(()),
        }
    }

    /// Faults 42 and 43: whatever has failed, as long as Production owns data and network, its users are served.
    async fn users_are_served(&self) -> Result<(), String> {
        let state = self.status().upgrade_state;
        let ours = matches!(
            state,
            UpgradeState::PrepareSplit
                | UpgradeState::Split
                | UpgradeState::PrepareMerge
                | UpgradeState::Merge
        );
        let production = self.system().machine_for(Some(Side::Production)).ok();
        if !ours || production.is_none() || self.world.book().owner != production {
            return Ok(());
        }
        self.served_within(Duration::from_secs(10))
            .await
            .map_err(|why| format!("in {state} Broken: {why}"))
    }

    pub async fn served_within(&self, limit: Duration) -> Result<(), String> {
        let end = tokio::time::Instant::now() + limit;
        while let Err(why) = self.world.serving() {
            if tokio::time::Instant::now() > end {
                return Err(format!("nobody is served: {why}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Installs software on the Upgrade Side.
    pub fn install(&self, version: &str) -> Result<(), String> {
        let upgrade = self.system().machine_for(None);
        let upgrade = upgrade.map_err(|p| p.to_string())?;
        self.world
            .install(upgrade, version)
            .map_err(|e| e.to_string())
    }

    /// Checks every invariant.
    pub fn check(&self) -> Result<(), String> {
        self.world.check_invariants()
    }

    pub async fn duplex(&mut self) -> Result<(), String> {
        if self.system.is_none() {
            self.start_server().await.map_err(|p| p.to_string())?;
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(300);
        while !self.world.book().duplexed() {
            if self.system.is_none() || self.world.crashed() {
                self.bury();
                self.start_server().await.map_err(|p| p.to_string())?;
            }
            if tokio::time::Instant::now() > end {
                return Err(format!("never duplexed: {:#?}", self.world.book()));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.check()?;
        }
        Ok(())
    }

    /// Waits until a disk has both legs.
    pub async fn duplex_data(&self, disk: &DiskName) -> Result<(), String> {
        for _ in 0..6_000 {
            if self.world.book().disks[disk].duplexed() {
                return self.check();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{disk} was never duplexed"))
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

fn amiss(what: &str) -> Problem {
    Problem::new(ProblemCode::Internal, what)
}

/// Runs a story; a panic (a hang, most often) is a failure like others.
pub fn unpanicked<T>(story: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(story)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

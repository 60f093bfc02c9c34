//! A server on a simulated world: start it, command it, let it die, start it again.
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "every test uses its own part of it")]

use flipside_backend_sim::{SimOptions, SimWorld, example_spec};
use flipside_engine::{Ledger, Request, Stamped, System, SystemOptions};
use flipside_journal::{Journal, MemoryDisk, MemoryStorage};
use flipside_model::{
    Command, OperationalState, Problem, ServiceName, Status, SystemSpec, UpgradeConfig,
    UpgradeState,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The longest simulated time an operation may take before the test calls it hung.
const HUNG: Duration = Duration::from_secs(3_600);

pub struct Bench {
    pub spec: SystemSpec,
    pub world: SimWorld,
    pub disk: MemoryDisk,
    pub system: Option<System>,
    guard: JoinHandle<()>,
    client: JoinHandle<()>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    State(UpgradeState, OperationalState, Option<String>),
    Crashed,
}

pub fn config() -> UpgradeConfig {
    UpgradeConfig {
        services: ["db.service", "web.service"]
            .iter()
            .map(|s| ServiceName::new(s).expect("valid"))
            .collect(),
        ..UpgradeConfig::none()
    }
}

impl Bench {
    pub async fn new(system_disks: usize, data_disks: usize) -> Bench {
        Self::with(system_disks, data_disks, SimOptions::default()).await
    }

    pub async fn with(system_disks: usize, data_disks: usize, options: SimOptions) -> Bench {
        let spec = example_spec(system_disks, data_disks);
        let world = SimWorld::new(&spec, options);
        let guard_world = world.clone();
        let guard = tokio::spawn(async move {
            loop {
                guard_world.guard_tick();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let client_world = world.clone();
        let client = tokio::spawn(async move {
            loop {
                client_world.client_write();
                tokio::time::sleep(Duration::from_millis(37)).await;
            }
        });
        let mut bench = Bench {
            spec,
            world,
            disk: MemoryDisk::default(),
            system: None,
            guard,
            client,
        };
        bench.start_server().await.expect("the first start");
        bench
    }

    pub async fn start_server(&mut self) -> Result<(), Problem> {
        self.world.restart_server();
        let ports = self.world.ports();
        let storage = MemoryStorage::new(&self.disk);
        let empty = self.disk.contents().is_empty();
        if empty {
            let _: Journal<Stamped> =
                Journal::create(MemoryStorage::new(&self.disk)).expect("created");
        }
        let (journal, opened) = Journal::<Stamped>::open(storage).expect("the journal opens");
        let ledger = Ledger::open(journal, opened, ports.clock.clone(), Arc::new(|_| {}))?;
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
            system.close();
        }
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
            result = system.request(Request { command, config }) => { result?; }
            () = self.world.await_crash() => { self.bury(); return Ok(End::Crashed); }
        }
        Ok(self.settled().await)
    }

    /// Waits until nothing is Busy.
    pub async fn settled(&mut self) -> End {
        let system = self.system().clone();
        let mut changes = system.changes();
        let wait = async {
            loop {
                let status = system.status();
                if status.operational_state != OperationalState::Busy {
                    return End::State(
                        status.upgrade_state,
                        status.operational_state,
                        status.problem.map(|p| p.to_string()),
                    );
                }
                changes.changed().await.expect("the ledger lives");
            }
        };
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
                End::State(UpgradeState::Abort, OperationalState::Ready, _) => {
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

    /// Checks every invariant.
    pub fn check(&self) -> Result<(), String> {
        self.world.check_invariants()
    }

    pub async fn duplex(&mut self) -> Result<(), String> {
        if self.system.is_none() {
            self.start_server().await.map_err(|p| p.to_string())?;
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(600);
        while !self.world.book().duplexed() {
            if self.system.is_none() || self.world.crashed() {
                self.bury();
                self.start_server().await.map_err(|p| p.to_string())?;
            }
            if tokio::time::Instant::now() > end {
                return Err(format!("never duplexed: {:#?}", self.world.book()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.check()?;
        }
        Ok(())
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

/// Runs a test on a single-threaded runtime with a paused clock, so that one run is like the other.
pub fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test())
}

//! Seeded swarms: many faults at random moments, commands of two administrators, then healing (invariants 8, 13, 21, 22, 28).
//!
//! A seed is a list of events, made before anything runs; so one seed is one run, and events can be left out one by one
//! to find those that matter. Phase one is safety: whatever happens, no invariant may break. Phase two is liveness:
//! all faults are healed, and a careful administrator must come to Idle with every mirror whole and every
//! acknowledged write there.

use crate::bench::{Bench, run};
use crate::run::{Outcome, caught, outcome};
use crate::swarm::{Event, events, options};
use crate::ways;
use flipside_backend_sim::Fault;
use flipside_engine::Request;
use flipside_model::api::PowerAction;
use flipside_model::{
    Command, Fact, OperationalState as O, Record, SessionId, Side, UpgradeState as S,
};
use flipside_platform::RunState;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the careful administrator does something after healing before it counts as never ending (invariant 21).
const PATIENCE: u32 = 30;

/// A seed, and which of its events happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The number.
    pub number: u64,
    /// The events that happen, from 0; all of them if none are named.
    pub keep: Option<Vec<usize>>,
}

impl Seed {
    /// A seed with all of its events.
    pub fn new(number: u64) -> Self {
        Self { number, keep: None }
    }

    /// Reads `17` or `17:3,5,8`.
    ///
    /// # Errors
    /// What it cannot read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |_| format!("`{text}` is not SEED or SEED:EVENT,EVENT");
        let (number, keep) = match text.split_once(':') {
            Some((number, keep)) => (number, Some(keep)),
            None => (text, None),
        };
        let keep = keep.map(|keep| {
            let events = keep.split(',').filter(|e| !e.is_empty());
            events.map(|e| e.parse().map_err(bad)).collect()
        });
        Ok(Self {
            number: number.parse().map_err(bad)?,
            keep: keep.transpose()?,
        })
    }

    /// Lists the events that happen, with their numbers.
    pub fn events(&self) -> Vec<(usize, Event)> {
        let all = events(self.number).into_iter().enumerate();
        all.filter(|(at, _)| self.keep.as_ref().is_none_or(|keep| keep.contains(at)))
            .collect()
    }

    /// Leaves events out as long as it still fails; returns the smallest that was found.
    pub fn minimise(&self) -> Seed {
        let Some(kind) = perform(self).failure.as_deref().map(kind) else {
            return self.clone();
        };
        let mut kept: Vec<usize> = self.events().into_iter().map(|(at, _)| at).collect();
        let mut chunk = kept.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < kept.len() {
                let mut fewer = kept.clone();
                fewer.drain(at..(at + chunk).min(kept.len()));
                let tried = Seed {
                    number: self.number,
                    keep: Some(fewer.clone()),
                };
                if perform(&tried).failure.as_deref().map(self::kind) == Some(kind.clone()) {
                    kept = fewer;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
        Seed {
            number: self.number,
            keep: Some(kept),
        }
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number)?;
        match &self.keep {
            None => Ok(()),
            Some(keep) => {
                let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
                write!(f, ":{}", keep.join(","))
            }
        }
    }
}

/// What kind of failure a text tells: its words without numbers and names, as far as the first clause.
fn kind(why: &str) -> String {
    let clause = why.split("; ").next().unwrap_or(why);
    let clause = clause.rsplit_once(": ").map_or(clause, |(_, last)| last);
    clause.chars().filter(|c| c.is_alphabetic()).collect()
}

/// Runs a seed.
pub fn perform(seed: &Seed) -> Outcome {
    let (system, data, options) = options(seed.number);
    let events = seed.events();
    caught(|| {
        run(|| async {
            let mut bench = Bench::with(system, data, options).await;
            bench.config.timeouts.health = 5;
            bench.power_on().await;
            bench.world.clear_trace();
            let mut life = Life::default();
            let result = live(&mut bench, &mut life, events).await;
            outcome(&bench, result)
        })
    })
}

/// What was installed in which session: the truth about the software.
#[derive(Default)]
struct Life {
    installed: BTreeMap<SessionId, Option<String>>,
    versions: u32,
}

async fn live(
    bench: &mut Bench,
    life: &mut Life,
    events: Vec<(usize, Event)>,
) -> Result<(), String> {
    for (at, (delay, event)) in events.iter().map(|(at, e)| (*at, (e.delay, &e.what))) {
        tokio::time::sleep(delay).await;
        if bench.world.crashed() {
            bench.bury();
        }
        happen(bench, life, event).await;
        bench.check().map_err(|why| format!("event {at}: {why}"))?;
    }
    heal(bench);
    let expected = finish(bench, life).await?;
    match expected {
        Some(version) => ways::all_is_well(bench, &version).await,
        None => {
            let version = bench.version().unwrap_or_default();
            ways::all_is_well(bench, &version).await
        }
    }
}

async fn happen(bench: &mut Bench, life: &mut Life, event: &crate::swarm::What) {
    use crate::swarm::What;
    let machines = bench.world.machines();
    let pick = |n: usize| machines.get(n % machines.len().max(1)).copied();
    match event {
        What::Likely(n) => {
            if let Some(system) = &bench.system {
                let allowed = system.status().allowed;
                if let Some(command) = allowed.get(n % allowed.len().max(1)) {
                    ask(bench, *command);
                }
            }
        }
        What::Ask(command) => ask(bench, *command),
        What::Install => install(bench, life),
        What::StartServer => {
            if bench.system.is_none() {
                // It may die again in its start, or find its journal unreadable: the next one tries again.
                let _ = bench.start_server().await;
            }
        }
        What::StartSystem => {
            if let Some(system) = bench.system.clone() {
                tokio::spawn(async move { system.power(PowerAction::Start).await });
            }
        }
        What::RestartUpgrade => {
            if let Some(system) = bench.system.clone() {
                tokio::spawn(async move { system.restart(Side::Upgrade).await });
            }
        }
        What::CrashServer => {
            bench.world.crash_server();
            bench.bury();
        }
        What::PowerCut => {
            bench.world.power_cut();
            bench.bury();
        }
        What::Fault(pattern, after, kind) => bench.world.plan(Fault {
            call: flipside_backend_sim::At::Name((*pattern).to_owned(), *after),
            kind: kind.clone(),
        }),
        What::Kill(n) => {
            if let Some(id) = pick(*n) {
                bench.world.kill_machine(id);
            }
        }
        What::Hang(n, hangs) => {
            if let Some(id) = pick(*n) {
                bench.world.hang_machine(id, *hangs);
            }
        }
        What::Guest(fault) => bench.world.guest_fault(None, fault.clone()),
        What::GuestsWell => bench.world.clear_guest_faults(),
        What::Panic(n) => {
            if let Some(id) = pick(*n) {
                bench.world.guest_panic(id);
            }
        }
        What::Reboot(n) => {
            if let Some(id) = pick(*n) {
                bench.world.guest_reboot(id);
            }
        }
        What::ShutDown(n) => {
            if let Some(id) = pick(*n) {
                bench.world.guest_shut_down(id);
            }
        }
        What::FailLeg(disk, leg, fault) => {
            let name = &bench.spec.disks[disk % bench.spec.disks.len()].name;
            // Only one leg may fail as long as both are needed: two failures at once are beyond a mirror.
            if bench.world.book().duplexed() {
                bench.world.fail_leg(name, *leg, *fault);
            }
        }
        What::HealLegs => heal_legs(bench),
        What::Clock(ms) => bench.world.jump_clock(*ms),
        What::Write(n) => {
            if let Some(id) = pick(*n) {
                bench.world.system_write(id);
            }
        }
    }
    if bench.world.crashed() {
        bench.bury();
    }
}

fn ask(bench: &Bench, command: Command) {
    let Some(system) = bench.system.clone() else {
        return;
    };
    let config = (command == Command::Split || command == Command::Check)
        .then(|| Some(("seed.Config".to_owned(), bench.config.clone())));
    // Refused or not: the law decides, and two administrators need not know of each other.
    tokio::spawn(async move { system.request(Request { command, config }).await });
}

fn install(bench: &Bench, life: &mut Life) {
    let Some(system) = &bench.system else { return };
    let status = system.status();
    let (Ok(upgrade), Some(session)) = (system.machine_for(None), status.session) else {
        return;
    };
    life.versions += 1;
    let version = format!("2.{}", life.versions);
    let done = bench.world.install(upgrade, &version).is_ok();
    life.installed.insert(session, done.then_some(version));
}

fn heal_legs(bench: &Bench) {
    for disk in &bench.spec.disks {
        for leg in flipside_model::Leg::BOTH {
            bench.world.heal_leg(&disk.name, leg);
        }
    }
}

fn heal(bench: &Bench) {
    bench.world.clear_plan();
    bench.world.clear_guest_faults();
    heal_legs(bench);
    for id in bench.world.machines() {
        bench.world.hang_machine(id, false);
    }
}

/// Takes whatever there is to Idle; returns the version that must serve, if it is known.
async fn finish(bench: &mut Bench, life: &Life) -> Result<Option<String>, String> {
    let mut last = String::new();
    for round in 0..PATIENCE {
        if bench.world.crashed() || bench.system.is_none() {
            bench.revive().await?;
        }
        bench.settled().await;
        if bench.system.is_none() {
            continue;
        }
        bench.check()?;
        let status = bench.status();
        last = format!("{}: {:?}", status.line(), status.problem);
        if status.upgrade_state == S::Idle {
            let serving = idle_and_serving(bench).await?;
            if serving && status.operational_state == O::Ready {
                return Ok(expected(bench, life));
            }
            if !serving {
                continue;
            }
            bench.duplex().await?;
        }
        let allowed = status.allowed;
        let wish = [
            Command::Abort,
            Command::Finish,
            Command::Retry,
            Command::Check,
        ];
        // Where retrying does not help after a few times, the system's machine is gone and has to be started.
        if round % 4 == 3 {
            start(bench).await;
        }
        if let Some(command) = wish.into_iter().find(|c| allowed.contains(c))
            && let Err(problem) = bench.command(command).await
        {
            last = format!("{last}; {command}: {problem:?}");
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    Err(format!("never came to Idle | Ready: {last}"))
}

async fn start(bench: &mut Bench) {
    if bench
        .world
        .machines()
        .iter()
        .any(|id| bench.world.view(*id).run == RunState::Running)
    {
        return;
    }
    let system = bench.system().clone();
    let _ = system.power(PowerAction::Start).await;
}

/// In Idle: starts the system if it is off, ends it if its guest is beyond help, and says whether it serves.
async fn idle_and_serving(bench: &mut Bench) -> Result<bool, String> {
    for _ in 0..100 {
        if bench.world.client_ok() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let owner = bench.world.book().owner;
    let run = owner.map(|id| bench.world.view(id).run);
    let system = bench.system().clone();
    let action = match run {
        None | Some(RunState::Absent) => PowerAction::Start,
        Some(_) if bench.world.serving().is_err_and(|why| why.contains("held")) => {
            PowerAction::Start
        }
        Some(_) => PowerAction::Kill,
    };
    let _ = system.power(action).await;
    Ok(false)
}

/// The journal says which sessions were committed, and the last of them says what must serve (invariants 13, 14).
fn expected(bench: &Bench, life: &Life) -> Option<String> {
    let mut version = Some("1.0".to_owned());
    let mut session = None;
    for entry in bench.system().entries_after(0) {
        match entry.record {
            Record::Session { id, .. } => session = Some(id),
            Record::Fact(Fact::Committed) => {
                if let Some(installed) = session.and_then(|id| life.installed.get(&id)) {
                    version.clone_from(installed);
                }
            }
            _ => {}
        }
    }
    version
}

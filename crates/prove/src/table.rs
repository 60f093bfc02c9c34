//! The table of state, operational state and command through the engine: every combination that can be reached, with
//! every command (SM-08, SM-09, invariants 12 and 13).
//!
//! The law is tested as data in `flipside-session`; here the engine is brought into each state on a simulated world and
//! asked. What the law allows is accepted and leads where it says. Everything else is refused with the reason, on the
//! spot: the refusal is polled once, so nothing else can run between the question and the answer, and no record and no
//! call may have been added.

use crate::bench::{Bench, End, run};
use crate::run::{Outcome, caught, outcome};
use flipside_backend_sim::{At, Fault, FaultKind, SimOptions};
use flipside_engine::Request;
use flipside_model::{
    Command, OperationalState as O, Problem, ProblemCode, Record, UpgradeState as S,
};
use flipside_session::law::{self, EDGES, LATE_EDGES};
use flipside_session::{SessionState, replay};
use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Steps between two looks at a running operation, shorter than any call of it.
const LOOK: Duration = Duration::from_micros(200);

/// Looks until a state counts as not reached.
const LOOKS: u32 = 200_000;

/// Ports whose calls fail to make an operation Broken; the journal and the clock go on.
const PORTS: [&str; 6] = [
    "machine.*",
    "disk.*",
    "guest.*",
    "network.*",
    "legs.*",
    "host.*",
];

/// One cell: where the session is, and what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Stage.
    pub state: S,
    /// Ready, Busy or Broken.
    pub operational: O,
    /// An abort was asked for already and waits for its safe point.
    pub aborting: bool,
    /// What is asked.
    pub command: Command,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = if self.aborting { "+abort" } else { "" };
        let state = self.state.name();
        write!(f, "{state}/{}{waits}/{}", self.operational, self.command)
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        cells()
            .into_iter()
            .find(|cell| cell.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not a cell such as Split/Ready/merge"))
    }
}

/// Every state that the law's edges lead to from Idle Ready.
pub fn reachable() -> Vec<(S, O)> {
    let mut reached = vec![(S::Idle, O::Ready)];
    let mut next = 0;
    while let Some(here) = reached.get(next).copied() {
        next += 1;
        for (from, to) in EDGES.iter().chain(&LATE_EDGES) {
            if *from == here && !reached.contains(to) {
                reached.push(*to);
            }
        }
    }
    reached
}

/// Every cell, in the order of a session.
pub fn cells() -> Vec<Cell> {
    let mut all = Vec::new();
    for (state, operational) in reachable() {
        let abortable = law::decide(&told(state, operational, false), Command::Abort).is_ok();
        for aborting in [false, true] {
            if aborting && !(operational == O::Busy && abortable) {
                continue;
            }
            all.extend(Command::ALL.map(|command| Cell {
                state,
                operational,
                aborting,
                command,
            }));
        }
    }
    all
}

/// A state as the law sees it.
fn told(upgrade: S, operational: O, abort_requested: bool) -> SessionState {
    SessionState {
        upgrade,
        operational,
        abort_requested,
        ..SessionState::default()
    }
}

impl Cell {
    /// Returns the stage that the law says is entered; none for a refusal.
    pub fn enters(self) -> Option<S> {
        let state = told(self.state, self.operational, self.aborting);
        law::decide(&state, self.command).ok()
    }
}

/// Runs a cell on a world of its own.
pub fn perform(cell: &Cell) -> Outcome {
    // Calls take time, so that Busy can be seen.
    let options = SimOptions {
        check_every_call: true,
        latency: Duration::from_millis(1),
        precopy_polls: 8,
        ..SimOptions::default()
    };
    caught(|| {
        run(|| async {
            let mut bench = Bench::with(1, 1, options).await;
            bench.config.timeouts.health = 2;
            bench.power_on().await;
            let result = ask(&mut bench, *cell).await;
            outcome(&bench, result)
        })
    })
}

/// Returns the command that runs a stage, and the stage that must be Ready before it.
fn origin(state: S) -> (Option<S>, Command) {
    match state {
        S::Idle => (None, Command::Check),
        S::PrepareSplit | S::Split => (None, Command::Split),
        S::PrepareMerge | S::Merge => (Some(S::Split), Command::Merge),
        S::Commit => (Some(S::Merge), Command::Commit),
        S::Abort => (Some(S::Split), Command::Abort),
        S::Finish => (Some(S::Abort), Command::Finish),
    }
}

/// Brings a stage to Ready.
async fn ready(bench: &mut Bench, state: S) -> Result<(), String> {
    let (before, command) = origin(state);
    if let Some(before) = before {
        Box::pin(ready(bench, before)).await?;
    }
    match bench.command(command).await {
        Ok(End::State(s, O::Ready, None)) if s == state => Ok(()),
        other => Err(format!("{state} Ready is not reached: {other:?}")),
    }
}

/// Brings a stage to Busy, and stops looking at its first moment.
async fn busy(bench: &mut Bench, state: S) -> Result<(), String> {
    let (before, command) = origin(state);
    if let Some(before) = before {
        ready(bench, before).await?;
    }
    let sent = bench.send(command).await;
    if sent != Ok(true) {
        return Err(format!("{command} was not taken: {sent:?}"));
    }
    for _ in 0..LOOKS {
        let status = bench.status();
        if (status.upgrade_state, status.operational_state) == (state, O::Busy) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("{state} Busy is not reached"))
}

/// Brings a stage to Broken: from its first moment on every call fails, until it gives up.
async fn broken(bench: &mut Bench, state: S) -> Result<(), String> {
    busy(bench, state).await?;
    for pattern in PORTS {
        bench.world.plan(Fault {
            call: At::Every(pattern.to_owned()),
            kind: FaultKind::FailBefore,
        });
    }
    let end = bench.settled().await;
    bench.world.clear_plan();
    match end {
        End::State(s, O::Broken, Some(_)) if s == state => Ok(()),
        other => Err(format!("{state} Broken is not reached: {other:?}")),
    }
}

async fn ask(bench: &mut Bench, cell: Cell) -> Result<(), String> {
    match cell.operational {
        O::Ready => ready(bench, cell.state).await,
        O::Busy => busy(bench, cell.state).await,
        O::Broken => broken(bench, cell.state).await,
    }?;
    if cell.aborting && bench.send(Command::Abort).await != Ok(true) {
        return Err("the first abort was not taken".to_owned());
    }
    let here = (
        bench.status().upgrade_state,
        bench.status().operational_state,
    );
    if here != (cell.state, cell.operational) {
        return Err(format!("{here:?} when the question is asked"));
    }
    let shown = bench.status().allowed.contains(&cell.command);
    if shown != cell.enters().is_some() {
        return Err(format!("the status shows {:?}", bench.status().allowed));
    }
    match cell.enters() {
        Some(enters) => accepted(bench, cell, enters).await,
        None => refused(bench, cell).await,
    }?;
    bench.check()
}

/// Returns every change of state since a record.
fn entered(bench: &Bench, after: u64) -> Vec<(S, O)> {
    let entries = bench.system().entries_after(after);
    let states = entries.iter().filter_map(|e| match &e.record {
        Record::Entered {
            state, operational, ..
        } => Some((*state, *operational)),
        _ => None,
    });
    states.collect()
}

/// Returns every command that was taken since a record.
fn taken(bench: &Bench, after: u64) -> Vec<Command> {
    let entries = bench.system().entries_after(after);
    let commands = entries.iter().filter_map(|e| match e.record {
        Record::Accepted { command } => Some(command),
        _ => None,
    });
    commands.collect()
}

fn last_record(bench: &Bench) -> u64 {
    bench
        .system()
        .entries_after(0)
        .last()
        .map_or(0, |entry| entry.seq)
}

async fn accepted(bench: &mut Bench, cell: Cell, enters: S) -> Result<(), String> {
    let after = last_record(bench);
    match bench.send(cell.command).await {
        Ok(true) => {}
        other => return Err(format!("it was not taken: {other:?}")),
    }
    let end = bench.settled().await;
    let went = entered(bench, after);
    if taken(bench, after) != [cell.command] {
        return Err(format!("{:?} was recorded", taken(bench, after)));
    }
    // `split` checks in Idle first; an abort while Busy waits for the next safe point. Everything else enters at once.
    let first = match (cell.command, cell.operational) {
        (Command::Split, _) => went.iter().find(|e| e.0 != S::Idle),
        (Command::Abort, O::Busy) => went.iter().find(|e| e.0 == S::Abort),
        _ => went.first(),
    };
    if first != Some(&(enters, O::Busy)) {
        return Err(format!("{enters} was to be entered: {went:?}"));
    }
    let mut from = (cell.state, cell.operational);
    for to in &went {
        if from != *to && !law::is_edge(from, *to) {
            return Err(format!("no edge leads from {from:?} to {to:?}"));
        }
        from = *to;
    }
    let goal = match enters {
        S::PrepareSplit => S::Split,
        S::PrepareMerge => S::Merge,
        S::Finish => S::Idle,
        same => same,
    };
    if end != End::State(goal, O::Ready, None) {
        return Err(format!("{goal} Ready was to be reached: {end:?}, {went:?}"));
    }
    let entries = bench.system().entries_after(0);
    replay(&entries).map(|_| ()).map_err(|e| e.to_string())
}

async fn refused(bench: &mut Bench, cell: Cell) -> Result<(), String> {
    let (after, calls) = (last_record(bench), bench.world.calls().len());
    let problem = at_once(bench, cell.command)?;
    let Err(problem) = problem else {
        return Err("it was taken".to_owned());
    };
    let where_and_why = format!(
        "`{}` is refused in {} | {}: ",
        cell.command, cell.state, cell.operational
    );
    let why = problem.message.strip_prefix(&where_and_why);
    if problem.code != ProblemCode::Refused
        || why.is_none_or(str::is_empty)
        || problem.advice.as_deref().is_none_or(str::is_empty)
    {
        return Err(format!(
            "it does not say where, why and what else: {problem:?}"
        ));
    }
    let code = serde_json::to_value(problem.code).map_err(|e| e.to_string())?;
    if code != "refused" {
        return Err(format!("its status is {code}"));
    }
    if last_record(bench) != after {
        return Err("a refusal was written down".to_owned());
    }
    if let Some(call) = bench.world.calls().get(calls) {
        return Err(format!("a refusal called {}", call.name));
    }
    // Whatever was running goes on to its own end, and nobody takes the command up later.
    let end = bench.settled().await;
    if !taken(bench, after).is_empty() {
        return Err(format!("{:?} was taken later", taken(bench, after)));
    }
    let still = match (&end, cell.operational, cell.aborting) {
        (End::State(S::Abort, O::Ready, None), O::Busy, true) => true,
        (End::State(_, O::Ready, None), O::Busy, false) => true,
        (End::State(s, o, _), O::Ready | O::Broken, _) => {
            (*s, *o) == (cell.state, cell.operational)
        }
        _ => false,
    };
    if still {
        Ok(())
    } else {
        Err(format!("after the refusal: {end:?}"))
    }
}

/// Asks, and gets the answer before anything else can run.
fn at_once(bench: &Bench, command: Command) -> Result<Result<(), Problem>, String> {
    let config = (command == Command::Split || command == Command::Check)
        .then(|| Some(("test.Config".to_owned(), bench.config.clone())));
    let asked = bench.system().request(Request { command, config });
    let mut asked = pin!(tokio::task::unconstrained(asked));
    match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer.map(|_| ())),
        Poll::Pending => Err("it was not refused at once".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Three combinations do not exist: a stage that only leads on is never Ready.
    #[test]
    fn every_combination_is_a_row_but_for_the_three_that_no_edge_leads_to() {
        let reached = reachable();
        let all = S::ALL.iter().flat_map(|s| O::ALL.map(|o| (*s, o)));
        let missing: Vec<(S, O)> = all.filter(|at| !reached.contains(at)).collect();
        assert_eq!(
            missing,
            [
                (S::PrepareSplit, O::Ready),
                (S::PrepareMerge, O::Ready),
                (S::Finish, O::Ready)
            ]
        );
        let cells = cells();
        assert_eq!(cells.len(), (21 + 4) * Command::ALL.len());
        for cell in cells {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
    }
}

//! One run: a way through a session with planned faults, on a runtime of its own, and what came of it.

use crate::bench::{Bench, run};
use crate::ways::{Way, story};
use flipside_backend_sim::{BookCut, Call, Fault, GuardCall, GuardFault, SimOptions};
use flipside_engine::Request;
use flipside_model::Command;
use std::cell::RefCell;
use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::Duration;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The way through a session.
    pub way: Way,
    /// Faults of calls; numbers count from the moment when the system serves.
    pub faults: Vec<Fault>,
    /// A crash of the server is a power cut of the host.
    pub power: bool,
    /// Bytes of the journal that were written and not synced, and survive a power cut.
    pub kept: usize,
    /// What a power cut leaves of a leg book that was not synced.
    pub book: BookCut,
    /// A second administrator asks for an abort when this changing call is made.
    pub abort_at: Option<u64>,
    /// Faults of the guard.
    pub guard: Vec<GuardFault>,
    /// How long a server that died stays away.
    pub away: Duration,
}

impl Plan {
    /// A way without faults.
    pub fn clean(way: Way) -> Self {
        Self {
            way,
            faults: Vec::new(),
            power: false,
            kept: 0,
            book: BookCut::Lost,
            abort_at: None,
            guard: Vec::new(),
            away: Duration::ZERO,
        }
    }

    /// The same with one more fault.
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every call, in order.
    pub calls: Vec<Call>,
    /// Every changing call of a guard, in order.
    pub guard_calls: Vec<GuardCall>,
    /// What went wrong.
    pub failure: Option<String>,
    /// The journal as it was at the end.
    pub journal: Vec<u8>,
    /// A hash of all calls, their faults and ends: one for each history.
    pub hash: u64,
    /// Faults that were planned and met nothing.
    pub unspent: usize,
}

impl Outcome {
    /// Returns the calls that were hit by a fault.
    pub fn hits(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|c| c.fault.is_some())
    }

    /// Returns the number of calls that can change something.
    pub fn effects(&self) -> u64 {
        self.calls
            .iter()
            .filter_map(|c| c.effect)
            .max()
            .unwrap_or(0)
    }
}

/// Runs a plan; a panic anywhere is a failure of the run, not of the program.
pub fn perform(plan: &Plan) -> Outcome {
    let options = SimOptions {
        check_every_call: true,
        crash_cuts_power: plan.power,
        book_cut: plan.book,
        ..plan.way.options()
    };
    let abort_at = plan.abort_at;
    let (system, data) = plan.way.disks();
    caught(|| {
        run(|| async {
            let mut bench = Bench::with(system, data, options).await;
            bench.kept_by_power_cut = plan.kept;
            bench.away = plan.away;
            bench.config.timeouts.health = 2;
            bench.power_on().await;
            bench.world.clear_trace();
            plan.faults.iter().for_each(|f| bench.world.plan(f.clone()));
            plan.guard.iter().for_each(|f| bench.world.plan_guard(*f));
            bench.not_alone = abort_at.is_some();
            let second = abort_at.map(|at| second_administrator(&bench, at));
            let result = story(&mut bench, plan.way).await;
            if let Some(second) = second {
                second.abort();
            }
            outcome(&bench, result)
        })
    })
}

/// Asks for an abort in the middle of whatever the first administrator does (invariant 13, fault 62).
fn second_administrator(bench: &Bench, at: u64) -> tokio::task::JoinHandle<()> {
    let bell = bench.world.ring_at(at);
    let system = bench.system().clone();
    tokio::spawn(async move {
        bell.notified().await;
        // It may come too late, or too early: then it is refused, and nothing has changed.
        let _ = system
            .request(Request {
                command: Command::Abort,
                config: None,
            })
            .await;
    })
}

/// Looks at a bench after its story.
pub(crate) fn outcome(bench: &Bench, result: Result<(), String>) -> Outcome {
    let unspent = bench.world.clear_plan() + bench.world.guard_faults_left();
    let calls = bench.world.take_calls();
    Outcome {
        hash: hash(&calls),
        calls,
        guard_calls: bench.world.guard_calls(),
        failure: result.err(),
        journal: bench.disk.contents(),
        unspent,
    }
}

/// Runs something; a panic in it, or in a task of its, becomes the failure.
pub(crate) fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    note_panics();
    PANICS.with_borrow_mut(Vec::clear);
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    let panics = PANICS.with_borrow_mut(std::mem::take);
    let mut outcome = result.unwrap_or_else(|_| Outcome {
        calls: Vec::new(),
        guard_calls: Vec::new(),
        failure: None,
        journal: Vec::new(),
        hash: 0,
        unspent: 0,
    });
    if !panics.is_empty() {
        outcome.failure = Some(format!("panicked: {}", panics.join(" | ")));
    }
    outcome
}

/// Panics are remembered for their run instead of being printed; tasks of a runtime swallow theirs otherwise.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANICS.with_borrow_mut(|all| all.push(info.to_string()));
        }));
    });
}

/// FNV-1a over what was called, what hit it and how it ended.
pub(crate) fn hash(calls: &[Call]) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325_u64);
    for call in calls {
        let Call { name, label, .. } = call;
        write!(hash, "{name}{label}{:?}{:?}", call.fault, call.end).expect("hashing cannot fail");
    }
    hash.0
}

/// Hashes what is written to it.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

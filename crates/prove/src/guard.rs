//! The guard, proved: killed, hung and doubled at every point of every operation beside the server, and at every call of
//! its own (invariants 1, 2, 3 and 23, faults 4 and 39).
//!
//! Every changing call of every way is a place, as for crashes. At each the guard is killed before and after the call,
//! hangs until somebody ends it, hangs for a while and goes on with what it had in mind, and gets a second one beside it;
//! then the same while the server dies at that place and stays away. And where the guard itself acts, because the
//! server is away or a leg failed, it is killed and hangs at each call of its own. What must come is what must come of
//! every case: no invariant is broken, production is never paused for longer than
//! [`PAUSE_MAX`](flipside_platform::guard::PAUSE_MAX), and the way ends in Idle with every mirror whole.

use crate::cases::{self, Case, Clean, clean_runs, name_of};
use crate::pool::Pool;
use crate::report::{Failure, Part, Trace};
use crate::run::{Outcome, Plan};
use crate::ways::Way;
use flipside_backend_sim::{At, Fault, FaultKind, GuardAt, GuardFault, GuardFaultKind as Kind};
use std::time::Duration;

/// How long a server that died stays away: longer than anybody may be paused without it.
const AWAY: Duration = Duration::from_secs(30);

/// How long it stays away to be back while a guard hangs: longer than every recorded pause, so that the guard has acted.
const SOON: Duration = Duration::from_secs(5);

/// How long a guard hangs that goes on by itself: longer than every recorded pause, shorter than the server takes to end
/// it, so that it comes back to a world that has moved on.
const HANGS: Duration = Duration::from_secs(6);

/// What happens to the guard at a place of the server's.
const AT_PLACES: [Kind; 4] = [
    Kind::Kill,
    Kind::Hang(None),
    Kind::Hang(Some(HANGS)),
    Kind::Double,
];

/// A case of the guard.
#[derive(Debug, Clone)]
pub struct Item {
    /// What is run.
    pub case: Case,
    /// The call at which the guard or the server is hit, with its step.
    pub place: String,
    /// Whether the guard's own calls in it are places too.
    follow: bool,
}

/// The guard's faults at each place, with the server well.
fn alone(run: &Clean, items: &mut Vec<Item>) {
    for call in &run.outcome.calls {
        let Some(effect) = call.effect else { continue };
        let before = AT_PLACES.map(|kind| (GuardAt::Before(effect), kind));
        let after = [(GuardAt::After(effect), Kind::Kill)];
        for (at, kind) in before.into_iter().chain(after) {
            let mut plan = Plan::clean(run.way);
            plan.guard.push(GuardFault { at, kind });
            items.push(Item {
                case: Case { plan, name: None },
                place: name_of(call),
                follow: false,
            });
        }
    }
}

/// Crashes of the server that stays away then: with a guard that is well, whose own calls are places of their own; and
/// with each fault of the guard at the same place. Unless `thorough`, the latter only after a call, not inside it.
fn with_crash(run: &Clean, thorough: bool, items: &mut Vec<Item>) {
    for mut case in cases::crash(std::slice::from_ref(run)) {
        case.plan.away = AWAY;
        let place = case.name.clone().unwrap_or_default();
        let item = |case: &Case, follow| Item {
            case: case.clone(),
            place: place.clone(),
            follow,
        };
        items.push(item(&case, true));
        let Some(Fault {
            call: At::NthEffect(effect),
            kind,
        }) = case.plan.faults.first().cloned()
        else {
            continue;
        };
        if !thorough && kind != FaultKind::CrashAfter {
            continue;
        }
        for kind in AT_PLACES {
            let mut both = case.clone();
            let at = GuardAt::Before(effect);
            both.plan.guard.push(GuardFault { at, kind });
            items.push(item(&both, thorough));
        }
    }
}

/// What happens to the guard at each changing call of its own.
pub fn own(first: &Case, outcome: &Outcome) -> Vec<Case> {
    let mut cases = Vec::new();
    for call in &outcome.guard_calls {
        let mut kinds = AT_PLACES.to_vec();
        kinds.extend((1..call.parts).map(Kind::KillTorn));
        kinds.push(Kind::KillAfter);
        for kind in kinds {
            let mut case = first.clone();
            let at = GuardAt::Own(call.n);
            case.plan.guard.push(GuardFault { at, kind });
            if kind == Kind::Hang(Some(HANGS)) && !case.plan.away.is_zero() {
                let mut soon = case.clone();
                soon.plan.away = SOON;
                cases.push(soon);
            }
            cases.push(case);
        }
    }
    cases
}

/// Lists the cases of these ways, as far as they are known before any has run.
pub fn items(runs: &[Clean], thorough: bool) -> Vec<Item> {
    let mut items = Vec::new();
    for run in runs {
        items.push(Item {
            case: Case {
                plan: Plan::clean(run.way),
                name: None,
            },
            place: "nothing".to_owned(),
            follow: true,
        });
        // Where a leg fails, it is the guard's own calls that matter.
        if thorough || run.way != Way::LegFails {
            alone(run, &mut items);
            with_crash(run, thorough, &mut items);
        }
    }
    items
}

/// Runs a case. A fault that met nothing is a failure: then the list would not be the truth. Only a server that is back
/// soon may have done itself what its guard was to do.
pub fn hit(case: &Case) -> Outcome {
    let mut outcome = cases::hit(case);
    if outcome.failure.is_none() && outcome.unspent > 0 && case.plan.away != SOON {
        outcome.failure = Some("a fault was to happen and did not".to_owned());
    }
    outcome
}

fn failure(case: &Case, place: &str, outcome: &Outcome) -> Option<Failure> {
    let why = outcome.failure.clone()?;
    Some(Failure {
        again: format!("--run '{}'", case.plan),
        why: format!("at {place}: {why}"),
    })
}

/// What a case came to.
type Ran = (Trace, Option<Failure>);

/// Runs an item and what follows from it.
fn perform(item: &Item) -> Vec<Ran> {
    let outcome = hit(&item.case);
    let mut all = vec![ran(&item.case, &item.place, &outcome)];
    if item.follow && outcome.failure.is_none() {
        for case in own(&item.case, &outcome) {
            all.push(ran(&case, &item.place, &hit(&case)));
        }
    }
    all
}

fn ran(case: &Case, place: &str, outcome: &Outcome) -> Ran {
    (Trace::of(outcome), failure(case, place, outcome))
}

/// Runs the part: the core ways and the one in which a leg fails; with `thorough` all ways and every place inside a call.
///
/// # Errors
/// A way that fails without any fault.
pub fn run(pool: &Pool, thorough: bool) -> Result<Part, String> {
    let ways: Vec<Way> = if thorough {
        Way::ALL.to_vec()
    } else {
        Way::CORE.into_iter().chain([Way::LegFails]).collect()
    };
    let items = items(&clean_runs(&ways)?, thorough);
    let results = pool.run("guard", &items, perform);
    let mut part = Part::new("guard", "guards killed, hung and doubled");
    for result in results {
        // One that was not begun in time is at least one case.
        part.all += result.as_ref().map_or(1, |all| all.len() as u64);
        for (trace, failure) in result.into_iter().flatten() {
            part.ran(trace, failure);
        }
    }
    Ok(part)
}

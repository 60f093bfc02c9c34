//! The parts that are drawn by a seed, or that take a night: pairs and triples of crashes, and swarms.

use crate::parts::{Form, Share, Wanted, clean, failure};
use anyhow::Result;
use flipside_prove::cases::{self, Case};
use flipside_prove::pool::Pool;
use flipside_prove::report::{Failure, Part, Trace};
use flipside_prove::seeds::{self, Seed};
use flipside_prove::swarm::Random;
use flipside_prove::ways::Way;
use std::time::Instant;

/// How many pairs the quick form draws: so many first crashes, and so many second ones for each.
const QUICK_PAIRS: (usize, usize) = (2_500, 2);

/// Second crashes drawn for each first one of the triples, and third ones for each second one: the first runs serve
/// several triples, and still no two triples have more than two crashes in common.
const BRANCHES: (usize, usize) = (2, 4);

/// How many first crashes are drawn for triples.
fn stems(form: Form) -> u64 {
    let triples: u64 = match form {
        Form::Quick => 200,
        Form::Nightly => 5_000,
        Form::Release => 100_000,
    };
    triples.div_ceil((BRANCHES.0 * BRANCHES.1) as u64)
}

/// How many seeds a form runs.
fn seeds_of(form: Form) -> u64 {
    match form {
        Form::Quick => 10_000,
        Form::Nightly => 1_000_000,
        Form::Release => 10_000_000,
    }
}

/// What came of one first crash and everything that followed it.
#[derive(Default)]
struct Ran {
    /// Cases that there are; nothing where they are not counted.
    all: u64,
    runs: Vec<(Trace, Option<Failure>)>,
}

impl Ran {
    /// Runs a case; gives what may follow it, unless it failed.
    fn further(&mut self, case: &Case, kinds: Kinds) -> Option<Vec<Case>> {
        let outcome = cases::hit(case);
        if let Some(failure) = failure(case, &outcome) {
            self.runs.push((Trace::of(&outcome), Some(failure)));
            return None;
        }
        Some(cases::further(case, &outcome, kinds))
    }

    fn last(&mut self, case: &Case) {
        let outcome = cases::hit(case);
        let failure = failure(case, &outcome);
        self.runs.push((Trace::of(&outcome), failure));
    }
}

type Kinds = fn(&flipside_backend_sim::Call) -> Vec<flipside_backend_sim::FaultKind>;

/// Pairs of crashes: a sample of all of them; all of the core points, which are the moments between two changing calls; or
/// all of them, with every tear of a call on its own.
pub(crate) fn pairs(pool: &Pool, wanted: &Wanted) -> Result<Part> {
    let sampled = wanted.form == Form::Quick;
    let mut firsts = cases::crash(&clean(&Way::CORE)?);
    let kinds: Kinds = match wanted.form {
        Form::Quick => {
            firsts = pick(firsts, QUICK_PAIRS.0, &mut Random::new(wanted.seed, 3));
            cases::all_crashes
        }
        Form::Nightly => {
            firsts.retain(|c| c.plan.to_string().ends_with("crash-after"));
            cases::core_crashes
        }
        Form::Release => cases::all_crashes,
    };
    let points = firsts.len();
    let firsts: Vec<(usize, Case)> = wanted.share.of(firsts.into_iter().enumerate().collect());
    let results = pool.run("pairs", &firsts, |(at, first)| {
        let mut ran = Ran::default();
        let Some(mut seconds) = ran.further(first, kinds) else {
            return ran;
        };
        ran.all = seconds.len() as u64;
        if sampled {
            let mut random = Random::new(wanted.seed ^ *at as u64, 4);
            seconds = pick(seconds, QUICK_PAIRS.1, &mut random);
        }
        seconds.iter().for_each(|pair| ran.last(pair));
        ran
    });
    let what = format!(
        "pairs of crashes, the second in what follows the first, one of {points} points{}",
        of_share(wanted.share)
    );
    Ok(total("pairs", &what, results, !sampled))
}

/// Triples of crashes, drawn by a seed: a third crash in what follows the second (fault 2).
pub(crate) fn triples(pool: &Pool, wanted: &Wanted) -> Result<Part> {
    let firsts = cases::crash(&clean(&Way::CORE)?);
    let stems: Vec<u64> = wanted.share.of((0..stems(wanted.form)).collect());
    let results = pool.run("triples", &stems, |stem| {
        let mut ran = Ran::default();
        let mut random = Random::new(wanted.seed.wrapping_mul(1_000_003) ^ *stem, 5);
        let first = &firsts[random.below(firsts.len())];
        let seconds = ran.further(first, cases::all_crashes).unwrap_or_default();
        for second in pick(seconds, BRANCHES.0, &mut random) {
            let thirds = ran.further(&second, cases::all_crashes);
            for third in pick(thirds.unwrap_or_default(), BRANCHES.1, &mut random) {
                ran.last(&third);
            }
        }
        ran.all = ran.runs.len() as u64;
        ran
    });
    let what = format!(
        "triples of crashes, each in what follows the one before{}",
        of_share(wanted.share)
    );
    Ok(total("triples", &what, results, false))
}

fn of_share(share: Share) -> String {
    match share {
        Share::WHOLE => String::new(),
        share => format!(", share {share}"),
    }
}

fn total(name: &str, what: &str, results: Vec<Option<Ran>>, enumerated: bool) -> Part {
    let mut part = Part::new(name, what);
    part.enumerated = enumerated;
    let whole = results.iter().all(Option::is_some);
    for ran in results.into_iter().flatten() {
        part.all += ran.all;
        for (trace, failure) in ran.runs {
            part.ran(trace, failure);
        }
    }
    // What was not begun was not counted either; it must not pass for whole.
    part.all += u64::from(!whole);
    part
}

/// Every so many seeds one is run twice, and must be the same run (invariant 28).
const TWICE: u64 = 50;

/// So many failing seeds are minimised; more would only say the same.
const MINIMISED: usize = 8;

/// So many seeds are run before their results are added up: memory stays small however many there are.
const BATCH: u64 = 10_000;

/// Seeds of random faults and commands; says which ones, so that the next run can begin where this one ended.
pub(crate) fn swarms(pool: &Pool, wanted: &Wanted) -> Part {
    let count = wanted.seeds.unwrap_or(seeds_of(wanted.form));
    let mut part = Part::new("seeds", "");
    part.enumerated = false;
    part.all = count;
    let (first, mut calls) = (wanted.seed, Vec::new());
    let mut minimised = 0;
    let mut next = first;
    while next < first + count && pool.until.is_none_or(|until| Instant::now() < until) {
        let batch: Vec<u64> = (next..(next + BATCH).min(first + count)).collect();
        let results = pool.run("seeds", &batch, |number| swarm(*number));
        // Those that were begun are the first ones; a gap would only end the range early.
        for (number, result) in batch.iter().zip(results) {
            let Some((trace, why)) = result else { break };
            let failure = why.map(|why| {
                minimised += 1;
                let seed = Seed::new(*number);
                let seed = if minimised <= MINIMISED {
                    seed.minimise()
                } else {
                    seed
                };
                Failure {
                    again: format!("--run seed:{seed}"),
                    why,
                }
            });
            part.ran(trace, failure);
            calls.push(u32::try_from(trace.calls).unwrap_or(u32::MAX));
            next = number + 1;
        }
        if batch.last().is_some_and(|last| *last >= next) {
            break;
        }
    }
    calls.sort_unstable();
    let least = calls.first().copied().unwrap_or(0);
    let median = calls.get(calls.len() / 2).copied().unwrap_or(0);
    part.what = format!(
        "seeds of random faults and commands, {first} to {}, {least} calls in the shortest, {median} in the median",
        next.saturating_sub(1)
    );
    part
}

/// Runs one seed, some of them twice.
fn swarm(number: u64) -> (Trace, Option<String>) {
    let seed = Seed::new(number);
    let outcome = seeds::perform(&seed);
    let again = number
        .is_multiple_of(TWICE)
        .then(|| seeds::perform(&seed).hash);
    let trace = Trace::of(&outcome);
    if again.is_some_and(|hash| hash != outcome.hash) {
        return (trace, Some("the same seed was not the same run".to_owned()));
    }
    (trace, outcome.failure)
}

/// Draws `n` of a list.
fn pick<T>(mut all: Vec<T>, n: usize, random: &mut Random) -> Vec<T> {
    let mut picked = Vec::new();
    while picked.len() < n && !all.is_empty() {
        picked.push(all.swap_remove(random.below(all.len())));
    }
    picked
}

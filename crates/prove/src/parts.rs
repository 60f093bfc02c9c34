//! The parts of the proof, in the forms quick, nightly and release.

use anyhow::{Result, anyhow};
use flipside_prove::cases::{self, Case, Clean};
use flipside_prove::journal::Original;
use flipside_prove::pool::Pool;
use flipside_prove::report::{Failure, Part};
use flipside_prove::run::Outcome;
use flipside_prove::seeds::{self, Seed};
use flipside_prove::table::cells;
use flipside_prove::ways::Way;
use std::time::Instant;

/// Names of the parts, in the order in which they run.
pub(crate) const NAMES: [&str; 8] = [
    "table", "crash", "power", "abort", "fail-nth", "journal", "pairs", "seeds",
];

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Quick,
    Nightly,
    Release,
}

impl Form {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Quick => "quick",
            Form::Nightly => "nightly",
            Form::Release => "release",
        }
    }
}

/// Runs one part.
pub(crate) fn run(
    name: &str,
    form: Form,
    (seed, seeds): (u64, Option<u64>),
    pool: &Pool,
) -> Result<Part> {
    let began = Instant::now();
    let mut part = match name {
        "table" => table(pool),
        "crash" => plans(
            pool,
            name,
            cases::crash(&clean(&Way::ALL)?),
            "crash points of whole sessions",
        ),
        "power" => plans(
            pool,
            name,
            cases::power(&clean(&Way::CORE)?),
            "power cuts, with the unsynced journal lost or kept",
        ),
        "abort" => plans(
            pool,
            name,
            cases::abort(&clean(&Way::CORE)?),
            "aborts by a second administrator",
        ),
        "fail-nth" => {
            let ways: &[Way] = if form == Form::Quick {
                &Way::CORE
            } else {
                &Way::ALL
            };
            plans(
                pool,
                name,
                cases::fail_nth(&clean(ways)?),
                "failed Nth calls",
            )
        }
        "journal" => journal(pool)?,
        "pairs" => pairs(pool, form, seed)?,
        "seeds" => swarms(pool, seeds.unwrap_or(seeds_of(form)), seed),
        _ => return Err(anyhow!("there is no part `{name}`")),
    };
    part.seconds = began.elapsed().as_secs_f64();
    Ok(part)
}

fn clean(ways: &[Way]) -> Result<Vec<Clean>> {
    cases::clean_runs(ways).map_err(|why| anyhow!(why))
}

/// Lists every crash point by name.
pub(crate) fn list() -> Result<()> {
    let all = cases::crash(&clean(&Way::ALL)?);
    for case in &all {
        println!(
            "{}  {}",
            case.plan,
            case.name.as_deref().unwrap_or_default()
        );
    }
    println!("{} crash points; parts: {}", all.len(), NAMES.join(", "));
    Ok(())
}

fn failure(case: &Case, outcome: &Outcome) -> Option<Failure> {
    let why = outcome.failure.clone()?;
    let at: Vec<String> = outcome.hits().map(cases::name_of).collect();
    Some(Failure {
        again: format!("--run '{}'", case.plan),
        why: format!("at {}: {why}", at.join(", then ")),
    })
}

fn plans(pool: &Pool, name: &str, all: Vec<Case>, what: &str) -> Part {
    let results = pool.run(name, &all, |case| failure(case, &cases::hit(case)));
    Part {
        name: name.to_owned(),
        what: what.to_owned(),
        all: all.len() as u64,
        run: results.iter().flatten().count() as u64,
        enumerated: true,
        seconds: 0.0,
        failures: results.into_iter().flatten().flatten().collect(),
    }
}

fn table(pool: &Pool) -> Part {
    let all = cells();
    let results = pool.run("table", &all, |cell| {
        flipside_prove::table::perform(cell)
            .failure
            .map(|why| Failure {
                again: format!("--run table:{cell}"),
                why,
            })
    });
    let accepted = all.iter().filter(|c| c.enters().is_some()).count();
    Part {
        name: "table".to_owned(),
        what: format!(
            "cells of state, operational state and command: {accepted} accepted, {} refused",
            all.len() - accepted
        ),
        all: all.len() as u64,
        run: results.iter().flatten().count() as u64,
        enumerated: true,
        seconds: 0.0,
        failures: results.into_iter().flatten().flatten().collect(),
    }
}

fn journal(pool: &Pool) -> Result<Part> {
    let runs = clean(&[Way::Commit])?;
    let bytes = &runs[0].outcome.journal;
    let original = Original::new(bytes).map_err(|why| anyhow!(why))?;
    let all = original.damages();
    let results = pool.run("journal", &all, |damage| {
        original.judge(*damage).err().map(|why| Failure {
            again: format!("--only journal  # {damage}"),
            why,
        })
    });
    Ok(Part {
        name: "journal".to_owned(),
        what: format!(
            "truncations and flipped bits of a session's journal of {} bytes",
            bytes.len()
        ),
        all: all.len() as u64,
        run: results.iter().flatten().count() as u64,
        enumerated: true,
        seconds: 0.0,
        failures: results.into_iter().flatten().flatten().collect(),
    })
}

/// How many pairs the quick form draws: what fits beside everything that is enumerated.
const QUICK_PAIRS: usize = 1_000;

/// Pairs of crashes: a sample of all of them, or all of the core points.
fn pairs(pool: &Pool, form: Form, seed: u64) -> Result<Part> {
    let mut firsts: Vec<Case> = match form {
        Form::Quick => cases::crash(&clean(&Way::CORE)?),
        _ => cases::crash(&clean(&Way::CORE)?)
            .into_iter()
            .filter(|c| c.plan.to_string().ends_with("crash-after"))
            .collect(),
    };
    let sample = match form {
        Form::Quick => Some(QUICK_PAIRS),
        _ => None,
    };
    if let Some(n) = sample.filter(|n| *n < firsts.len()) {
        firsts = pick(firsts, n, seed);
    }
    let per_first = sample.map(|n: usize| n.div_ceil(firsts.len()));
    let results = pool.run("pairs", &firsts, |first| {
        let outcome = cases::hit(first);
        if let Some(failure) = failure(first, &outcome) {
            return (1, 1, vec![failure]);
        }
        let kinds = if sample.is_some() {
            cases::all_crashes
        } else {
            cases::core_crashes
        };
        let mut all = cases::seconds(first, &outcome, kinds);
        let count = all.len();
        if let Some(n) = per_first {
            all = pick(all, n, seed ^ outcome.hash);
        }
        let run = all.len();
        let bad = all
            .iter()
            .filter_map(|c| failure(c, &cases::hit(c)))
            .collect();
        (count, run, bad)
    });
    let whole = results.iter().all(Option::is_some);
    let (mut all, mut run, mut failures) = (0, 0, Vec::new());
    for (count, ran, bad) in results.into_iter().flatten() {
        all += count as u64;
        run += ran as u64;
        failures.extend(bad);
    }
    Ok(Part {
        name: "pairs".to_owned(),
        what: "pairs of crashes, the second in what follows the first".to_owned(),
        all: all + u64::from(!whole),
        run,
        enumerated: sample.is_none(),
        seconds: 0.0,
        failures,
    })
}

/// How many seeds a form runs.
fn seeds_of(form: Form) -> u64 {
    match form {
        // What fits into six minutes beside everything that is enumerated.
        Form::Quick => 500,
        Form::Nightly => 1_000_000,
        Form::Release => 10_000_000,
    }
}

/// Every so many seeds one is run twice, and must be the same run (invariant 28).
const TWICE: u64 = 50;

/// So many failing seeds are minimised; more would only say the same.
const MINIMISED: usize = 8;

fn swarms(pool: &Pool, count: u64, first: u64) -> Part {
    let numbers: Vec<u64> = (first..first + count).collect();
    let results = pool.run("seeds", &numbers, |number| {
        let seed = Seed::new(*number);
        let outcome = seeds::perform(&seed);
        let again = (number % TWICE == 0).then(|| seeds::perform(&seed).hash);
        if again.is_some_and(|hash| hash != outcome.hash) {
            return Some("the same seed was not the same run".to_owned());
        }
        outcome.failure
    });
    let run = results.iter().flatten().count() as u64;
    let failed: Vec<(u64, String)> = numbers
        .iter()
        .zip(results)
        .filter_map(|(number, result)| Some((*number, result??)))
        .collect();
    let mut failures = Vec::new();
    for (index, (number, why)) in failed.into_iter().enumerate() {
        let mut seed = Seed::new(number);
        if index < MINIMISED {
            seed = seed.minimise();
        }
        failures.push(Failure {
            again: format!("--run seed:{seed}"),
            why,
        });
    }
    Part {
        name: "seeds".to_owned(),
        what: "seeds of random faults and commands".to_owned(),
        all: count,
        run,
        enumerated: false,
        seconds: 0.0,
        failures,
    }
}

/// Draws `n` of a list by a seed.
fn pick<T>(mut all: Vec<T>, n: usize, seed: u64) -> Vec<T> {
    let mut state = seed | 1;
    let mut picked = Vec::new();
    while picked.len() < n && !all.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = usize::try_from(state % all.len() as u64).unwrap_or(0);
        picked.push(all.swap_remove(at));
    }
    picked
}

//! The parts of the proof, in the forms quick, nightly and release.

use crate::samples;
use anyhow::{Result, anyhow};
use flipside_prove::cases::{self, Case, Clean};
use flipside_prove::guard;
use flipside_prove::journal::Original;
use flipside_prove::pool::Pool;
use flipside_prove::report::{Failure, Part, Trace};
use flipside_prove::run::Outcome;
use flipside_prove::table::cells;
use flipside_prove::ways::Way;
use std::str::FromStr;
use std::time::Instant;

/// Names of the parts, in the order in which they run.
pub(crate) const NAMES: [&str; 10] = [
    "table", "crash", "power", "abort", "guard", "fail-nth", "journal", "pairs", "triples", "seeds",
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

/// One of several equal shares of the pairs or triples, so that a night can be put together from several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which one, from 1.
    pub(crate) number: usize,
    /// Of how many.
    pub(crate) of: usize,
}

impl Share {
    /// Everything in one share.
    pub(crate) const WHOLE: Share = Share { number: 1, of: 1 };

    /// Returns the items of this share: every `of`th one, so that all shares take about as long.
    pub(crate) fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let mine = |at: usize| at % self.of == self.number - 1;
        let all = all.into_iter().enumerate();
        all.filter(|(at, _)| mine(*at)).map(|(_, t)| t).collect()
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let read = numbers.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match read {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("`{text}` is not K/N with K from 1 to N")),
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// What is asked for.
pub(crate) struct Wanted {
    /// How much.
    pub(crate) form: Form,
    /// The seed of what is sampled; the first of the seeds.
    pub(crate) seed: u64,
    /// So many seeds instead of the form's number.
    pub(crate) seeds: Option<u64>,
    /// Which share of the pairs and triples.
    pub(crate) share: Share,
}

/// Runs one part.
pub(crate) fn run(name: &str, wanted: &Wanted, pool: &Pool) -> Result<Part> {
    let form = wanted.form;
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
        "guard" => guard::run(pool, form != Form::Quick).map_err(|why| anyhow!(why))?,
        "fail-nth" => {
            let all = match form {
                Form::Quick => cases::fail_nth_once(&clean(&Way::ALL)?, &Way::CORE),
                _ => cases::fail_nth(&clean(&Way::ALL)?),
            };
            plans(pool, name, all, "failed Nth calls")
        }
        "journal" => journal(pool)?,
        "pairs" => samples::pairs(pool, wanted)?,
        "triples" => samples::triples(pool, wanted)?,
        "seeds" => samples::swarms(pool, wanted),
        _ => return Err(anyhow!("there is no part `{name}`")),
    };
    part.seconds = began.elapsed().as_secs_f64();
    Ok(part)
}

pub(crate) fn clean(ways: &[Way]) -> Result<Vec<Clean>> {
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

pub(crate) fn failure(case: &Case, outcome: &Outcome) -> Option<Failure> {
    let why = outcome.failure.clone()?;
    let at: Vec<String> = outcome.hits().map(cases::name_of).collect();
    Some(Failure {
        again: format!("--run '{}'", case.plan),
        why: format!("at {}: {why}", at.join(", then ")),
    })
}

fn plans(pool: &Pool, name: &str, all: Vec<Case>, what: &str) -> Part {
    let mut part = Part::new(name, what);
    part.all = all.len() as u64;
    let results = pool.run(name, &all, |case| {
        let outcome = cases::hit(case);
        (failure(case, &outcome), Trace::of(&outcome))
    });
    for (failure, trace) in results.into_iter().flatten() {
        part.ran(trace, failure);
    }
    part
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
    let what = format!(
        "cells of state, operational state and command: {accepted} accepted, {} refused",
        all.len() - accepted
    );
    let mut part = Part::new("table", &what);
    part.all = all.len() as u64;
    for failure in results.into_iter().flatten() {
        part.ran(Trace::default(), failure);
    }
    part
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
    let what = format!(
        "truncations and flipped bits of a session's journal of {} bytes",
        bytes.len()
    );
    let mut part = Part::new("journal", &what);
    part.all = all.len() as u64;
    for failure in results.into_iter().flatten() {
        part.ran(Trace::default(), failure);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_everything_and_have_nothing_in_common() {
        let mut all: Vec<u32> = Vec::new();
        for share in ["1/3", "2/3", "3/3"] {
            let share: Share = share.parse().expect("reads");
            all.extend(share.of((0..100).collect()));
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u32>>());
        for text in ["0/3", "4/3", "3", "a/b", "0/0"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}

//! What was run and what came of it: the counts that the claim rests on.

use crate::run::Outcome;
use serde::Serialize;
use std::fmt::Write as _;

/// How many failures of a part are told in full.
const TOLD: usize = 8;

/// What stands over the lines of the parts.
pub const HEAD: &str = "part            cases        run  failed  seconds  what";

/// One part of the proof.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its name, for `--only`.
    pub name: String,
    /// What its cases are.
    pub what: String,
    /// Cases that exist.
    pub all: u64,
    /// Cases that were run.
    pub run: u64,
    /// Whether the cases are all there are, or a sample drawn by a seed.
    pub enumerated: bool,
    /// Seconds it took.
    pub seconds: f64,
    /// What the runs were, all together.
    pub trace: Trace,
    /// Failures: the case as it is repeated, and what was wrong.
    pub failures: Vec<Failure>,
}

/// What one run was, or many together: with the same cases it is the same (invariant 28).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Calls of ports and of the journal's disk.
    pub calls: u64,
    /// The hash of a run; the sum of the hashes of many, so that their order does not matter.
    pub hash: u64,
}

impl Trace {
    /// Returns the trace of one run.
    pub fn of(outcome: &Outcome) -> Self {
        Self {
            calls: outcome.calls.len() as u64,
            hash: outcome.hash,
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: Trace) {
        self.calls += other.calls;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

/// A case that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Arguments of `./dev prove` that repeat it.
    pub again: String,
    /// What was wrong.
    pub why: String,
}

impl Part {
    /// Begins a part of which nothing has run.
    pub fn new(name: &str, what: &str) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            all: 0,
            run: 0,
            enumerated: true,
            seconds: 0.0,
            trace: Trace::default(),
            failures: Vec::new(),
        }
    }

    /// Notes a case that was run.
    pub fn ran(&mut self, trace: Trace, failure: Option<Failure>) {
        self.run += 1;
        self.trace.add(trace);
        self.failures.extend(failure);
    }

    /// Tells the part in one line, as the table has it.
    pub fn line(&self) -> String {
        let (calls, hash) = (self.trace.calls, self.trace.hash);
        let mut line = format!(
            "{:<10} {:>10} {:>10} {:>7} {:>8.1}  {}",
            self.name,
            self.all,
            self.run,
            self.failures.len(),
            self.seconds,
            self.what,
        );
        if !self.enumerated {
            line.push_str(" (sampled)");
        }
        if calls > 0 {
            let _ = write!(line, "; {calls} calls, trace {hash:016x}");
        }
        line
    }

    /// Says whether everything that was promised was run and passed.
    pub fn good(&self) -> bool {
        self.failures.is_empty() && (!self.enumerated || self.run == self.all)
    }
}

/// Everything that was run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Quick, nightly or release.
    pub form: String,
    /// The seed of samples.
    pub seed: u64,
    /// The parts.
    pub parts: Vec<Part>,
}

impl Report {
    /// Says whether all parts are good.
    pub fn good(&self) -> bool {
        self.parts.iter().all(Part::good)
    }

    /// Writes the table, the failures, and the claim as far as it is true.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{HEAD}");
        for part in &self.parts {
            let _ = writeln!(out, "{}", part.line());
        }
        for part in self.parts.iter().filter(|p| !p.failures.is_empty()) {
            let _ = writeln!(out, "\n{}: {} failed", part.name, part.failures.len());
            for failure in part.failures.iter().take(TOLD) {
                let _ = writeln!(
                    out,
                    "  ./dev prove {}\n      {}",
                    failure.again, failure.why
                );
            }
        }
        let _ = writeln!(out, "\n{}", self.claim());
        out
    }

    /// The claim, in the words that are true of this run.
    pub fn claim(&self) -> String {
        let failed: usize = self.parts.iter().map(|p| p.failures.len()).sum();
        if failed > 0 {
            return format!("not proved: {failed} failed, see above");
        }
        let missing: Vec<String> = self
            .parts
            .iter()
            .filter(|p| !p.good())
            .map(|p| format!("{} of {} of `{}`", p.all - p.run, p.all, p.name))
            .collect();
        if !missing.is_empty() {
            return format!(
                "not proved: nothing failed, but not everything was run: {} left out",
                missing.join(", ")
            );
        }
        let of = |name: &str| self.parts.iter().find(|p| p.name == name);
        let mut said = Vec::new();
        if let Some(p) = of("crash") {
            said.push(format!(
                "every crash point enumerated, none sampled: {} of {} (100 %)",
                p.run, p.all
            ));
        }
        if let Some(p) = of("power") {
            said.push(format!("a power cut at each of {} of them", p.run));
        }
        if let Some(p) = of("abort") {
            said.push(format!("abort asked for at each of {} calls", p.run));
        }
        for part in &self.parts {
            if !["crash", "power", "abort"].contains(&part.name.as_str()) {
                let word = if part.enumerated {
                    "all"
                } else {
                    "a sample of"
                };
                said.push(format!("{word} {} {}", part.run, part.what));
            }
        }
        said.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(run: u64, failures: Vec<Failure>) -> Report {
        Report {
            parts: vec![Part {
                all: 10,
                run,
                failures,
                ..Part::new("crash", "crash points of whole sessions")
            }],
            ..Report::default()
        }
    }

    #[test]
    fn the_claim_says_what_is_true_of_the_run() {
        let failure = Failure {
            again: "--run commit@1=fail".to_owned(),
            why: "stuck".to_owned(),
        };
        assert!(part(10, vec![]).claim().contains("10 of 10 (100 %)"));
        let short = part(4, vec![]);
        assert!(!short.good());
        assert_eq!(
            short.claim(),
            "not proved: nothing failed, but not everything was run: 6 of 10 of `crash` left out"
        );
        assert_eq!(
            part(4, vec![failure]).claim(),
            "not proved: 1 failed, see above"
        );
    }
}

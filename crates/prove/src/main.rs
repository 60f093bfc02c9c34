//! `./dev prove`: runs the proof, prints the counts, and fails when anything fails or was not covered.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![forbid(unsafe_code)]

mod parts;
mod samples;

use anyhow::{Result, bail};
use clap::Parser;
use flipside_prove::pool::Pool;
use flipside_prove::report::Report;
use flipside_prove::run::{Plan, perform};
use flipside_prove::seeds::{self, Seed};
use flipside_prove::table::{self, Cell};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A run is little but small allocations. Only this tool has it: the product keeps the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the real engine on the simulated backend under every fault that can be enumerated, and counts.
#[derive(Debug, Parser)]
#[command(name = "./dev prove")]
struct Args {
    /// What is run for every change (the default): minutes.
    #[arg(long, conflicts_with_all = ["nightly", "release"])]
    quick: bool,
    /// What is run in a night: all pairs of core points, 5,000 triples, 1,000,000 seeds.
    #[arg(long, conflicts_with = "release")]
    nightly: bool,
    /// What is run before a release: all pairs, 100,000 triples, 10,000,000 seeds.
    #[arg(long)]
    release: bool,
    /// Lists the parts and every crash point by name, and runs nothing else.
    #[arg(long)]
    list: bool,
    /// Runs only this part.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Seed of whatever is sampled; the first of the seeds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs so many seeds instead of the form's number.
    #[arg(long, value_name = "COUNT")]
    seeds: Option<u64>,
    /// Runs only the Kth of N equal shares of the pairs and triples.
    #[arg(long, value_name = "K/N", default_value_t = parts::Share::WHOLE)]
    share: parts::Share,
    /// Repeats one case, as a failure names it, and tells every call of it.
    #[arg(long, value_name = "CASE")]
    run: Option<String>,
    /// With `--run seed:N`: leaves out every event without which it still fails.
    #[arg(long, requires = "run")]
    minimise: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Shows no progress.
    #[arg(long)]
    no_progress: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Begins nothing new after so many minutes; what is enumerated and was not run is then a failure.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(word) = &args.run {
        return repeat(word, args.minimise);
    }
    let form = match (args.nightly, args.release) {
        (true, _) => parts::Form::Nightly,
        (_, true) => parts::Form::Release,
        _ => parts::Form::Quick,
    };
    let pool = Pool {
        threads: args.threads,
        quiet: args.no_progress || args.json,
        until: args
            .minutes
            .map(|m| Instant::now() + Duration::from_secs(60 * m)),
    };
    if args.list {
        return parts::list().map(|()| ExitCode::SUCCESS);
    }
    if let Some(unknown) = args
        .only
        .iter()
        .find(|p| !parts::NAMES.contains(&p.as_str()))
    {
        bail!(
            "there is no part `{unknown}`; the parts are: {}",
            parts::NAMES.join(", ")
        );
    }
    let wanted = parts::Wanted {
        form,
        seed: args.seed,
        seeds: args.seeds,
        share: args.share,
    };
    let mut report = Report {
        form: form.name().to_owned(),
        seed: args.seed,
        parts: Vec::new(),
    };
    for name in parts::NAMES {
        if args.only.is_empty() || args.only.iter().any(|o| o == name) {
            let part = parts::run(name, &wanted, &pool)?;
            if !args.json {
                eprintln!("{}", part.line());
            }
            report.parts.push(part);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn repeat(word: &str, minimise: bool) -> Result<ExitCode> {
    let outcome = if let Some(seed) = word.strip_prefix("seed:") {
        let mut seed = Seed::parse(seed).map_err(|e| anyhow::anyhow!(e))?;
        if minimise {
            seed = seed.minimise();
            println!("./dev prove --run seed:{seed}");
        }
        for (at, event) in seed.events() {
            println!(
                "event {at:>3} after {:>8.3?}: {:?}",
                event.delay, event.what
            );
        }
        seeds::perform(&seed)
    } else if let Some(cell) = word.strip_prefix("table:") {
        let cell: Cell = cell.parse().map_err(|e: String| anyhow::anyhow!(e))?;
        table::perform(&cell)
    } else {
        let plan: Plan = word.parse().map_err(|e: String| anyhow::anyhow!(e))?;
        perform(&plan)
    };
    for call in &outcome.calls {
        let fault = call
            .fault
            .as_ref()
            .map_or(String::new(), |f| format!("  <== {f:?}"));
        println!(
            "{:>5} {:>5} {:<28} {:<44} {:?}{fault}",
            call.n,
            call.effect.map_or(String::new(), |e| e.to_string()),
            call.label,
            call.name,
            call.end
        );
    }
    for call in &outcome.guard_calls {
        let fault = call.fault.map_or(String::new(), |f| format!("  <== {f:?}"));
        println!("guard {:>5} {}{fault}", call.n, call.name);
    }
    println!("{word}: {}", outcome.failure.as_deref().unwrap_or("passed"));
    Ok(if outcome.failure.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

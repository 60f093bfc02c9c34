//! The developers' chores behind `./dev`.
#![allow(
    clippy::print_stdout,
    reason = "the chores talk to a developer's terminal"
)]

mod budget;
mod faults;
mod files;
mod hosts;
mod layers;
mod repo;
mod requirements;
mod results;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
usage: cargo run -q -p xtask -- CHORE

  layers        the packages depend on each other only along the arrows of the design
  budget REPORT how long the tests of each area took, against its share of every push
  files         no Rust file is longer than 700 lines; from 600 on it is listed
  hosts         no committed file names a package registry's host or a path of one machine
  faults [REPORT]
                which tests cite which rows of the fault matrix: writes docs/fault-matrix.md, with the results of
                the tests in a JUnit report
  requirements  which numbered requirements a test cites, and which none does; a number that does not exist fails
";

fn main() -> Result<ExitCode> {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let problems = match chore.as_str() {
        "budget" => budget::run(std::env::args().nth(2).as_deref())?,
        "layers" => layers::run()?,
        "faults" => faults::run(std::env::args().nth(2).as_deref())?,
        "files" => files::run()?,
        "hosts" => hosts::run()?,
        "requirements" => requirements::run()?,
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    for problem in &problems {
        eprintln!("{chore}: {problem}");
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

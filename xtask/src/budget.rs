//! How long the tests of each area took, against the time that area may take of every push.
//!
//! `.ci/run` stays under 40 minutes on two cores because each area keeps to its share. What does not fit any more is made
//! faster, shares a boot with another test, or is `#[ignore]`d for `./dev test --full`.

use anyhow::{Context, Result};

use crate::results::{self, Case};

/// An area, the test binaries that belong to it, and its seconds. The first that matches counts. Tests on real QEMU run one at
/// a time; the others two at a time, so that their seconds weigh half.
const AREAS: [Area; 4] = [
    Area {
        name: "whole upgrades of a real guest",
        is: |binary| binary.starts_with("flipside-cli::real_"),
        seconds: 1_000.0,
        at_once: 1.0,
    },
    Area {
        name: "machines, disks and networks of real QEMU",
        is: |binary| binary.contains("::real_"),
        seconds: 850.0,
        at_once: 1.0,
    },
    Area {
        name: "the simulation",
        is: |binary| binary.starts_with("flipside-prove"),
        seconds: 100.0,
        at_once: 2.0,
    },
    Area {
        name: "everything else",
        is: |_| true,
        seconds: 150.0,
        at_once: 2.0,
    },
];

/// A machine that is shared may be slower by this much before an area counts as grown.
const TOLERATED: f64 = 1.5;

/// The slowest tests are listed, so that nobody has to look for them.
const LISTED: usize = 12;

struct Area {
    name: &'static str,
    is: fn(&str) -> bool,
    seconds: f64,
    at_once: f64,
}

/// Prints the table of a report; an area that took much more than its share is a problem.
pub(crate) fn run(report: Option<&str>) -> Result<Vec<String>> {
    let path = report.context("which report? `target/nextest/ci/junit.xml`")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    let cases = results::cases(&text)?;
    let (table, problems) = judge(&cases);
    print!("{table}");
    Ok(problems)
}

fn judge(cases: &[Case]) -> (String, Vec<String>) {
    let mut table = String::from("seconds  of its  tests  area\n");
    let mut problems = Vec::new();
    for (n, area) in AREAS.iter().enumerate() {
        let here = |case: &&Case| AREAS.iter().position(|a| (a.is)(&case.0)) == Some(n);
        let of_area: Vec<&Case> = cases.iter().filter(here).collect();
        let took: f64 = of_area.iter().map(|c| c.2.seconds).sum::<f64>() / area.at_once;
        let (count, share) = (of_area.len(), area.seconds);
        table.push_str(&format!(
            "{took:7.0}  {share:6.0}  {count:5}  {}\n",
            area.name
        ));
        if took > area.seconds * TOLERATED {
            problems.push(format!(
                "{} took {took:.0} s, far more than its {share:.0} s: make it faster or move a test to --full",
                area.name
            ));
        }
    }
    let mut slow: Vec<&Case> = cases.iter().collect();
    slow.sort_by(|a, b| b.2.seconds.total_cmp(&a.2.seconds));
    table.push_str("the slowest:\n");
    for (binary, name, outcome) in slow.iter().take(LISTED) {
        table.push_str(&format!("{:7.0}  {binary} {name}\n", outcome.seconds));
    }
    (table, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Outcome;

    fn case(binary: &str, seconds: f64) -> Case {
        let outcome = Outcome {
            word: "passed".to_owned(),
            seconds,
        };
        (binary.to_owned(), "a_test".to_owned(), outcome)
    }

    #[test]
    fn every_test_belongs_to_one_area_and_only_a_grown_area_is_a_problem() {
        let mut cases = vec![
            case("flipside-cli::real_upgrade", 600.0),
            case("flipside-cli::real_upgrade", 700.0),
            case("flipside-backend-qemu::real_disks", 10.0),
            case("flipside-prove::planted", 150.0),
            case("flipside-cli::commands", 1.0),
        ];
        let (table, problems) = judge(&cases);
        assert_eq!(problems, Vec::<String>::new(), "within what is tolerated");
        assert!(table.contains("   1300    1000      2  whole upgrades"));
        assert!(
            table.contains("     75     100      1  the simulation"),
            "two at a time"
        );
        cases.push(case("flipside-cli::real_everything", 300.0));
        let (_, problems) = judge(&cases);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("whole upgrades"), "{problems:?}");
    }
}

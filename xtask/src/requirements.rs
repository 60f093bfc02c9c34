//! `requirements`: which rows of the list of requirements a test cites, and which none does.
//!
//! The requirements themselves are not a part of the repository; `xtask/data/requirements.txt` holds the number and the
//! kind of every row, and the name of every area. A citation of a row that does not exist is a slip of the pen, and fails.

mod cited;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::repo;
pub(crate) use cited::split_tests;

/// Number and kind of every row.
const LIST: &str = include_str!("../data/requirements.txt");

/// Areas that a later issue brings; they are counted apart, so that what is left to do now can be seen.
const LATER: [(&str, &str); 3] = [("CO", "issue 5"), ("AP", "issue 8"), ("AG", "issue 9")];

/// Where the manual is: what is *documentation-only* is fulfilled by a page of it that cites the row.
const MANUAL: &str = "docs/manual";

/// What is run by tests, although it lies in no folder of tests: the harness of `./dev prove` and the suite of the ports.
pub(crate) const HARNESS: [&str; 2] = ["crates/prove/src", "crates/platform/src/conformance"];

/// The rows of one area.
pub(crate) struct Area {
    name: String,
    title: String,
    rows: Vec<Row>,
}

/// One row: its number and its kind.
pub(crate) struct Row {
    number: String,
    kind: String,
}

/// Where a row is cited.
#[derive(Default)]
pub(crate) struct Citations {
    code: BTreeSet<String>,
    tests: BTreeSet<String>,
    manual: BTreeSet<String>,
}

impl Citations {
    /// Says whether a row counts as covered: by a test, or, where only documentation is asked for, by the manual.
    fn covers(&self, row: &Row) -> bool {
        let told = row.kind == "documentation-only" && self.manual.contains(&row.number);
        told || self.tests.contains(&row.number)
    }
}

pub(crate) fn run() -> Result<Vec<String>> {
    let areas = areas(LIST)?;
    let known: BTreeSet<&str> = areas
        .iter()
        .flat_map(|area| area.rows.iter().map(|row| row.number.as_str()))
        .collect();
    let names: BTreeSet<&str> = areas.iter().map(|area| area.name.as_str()).collect();
    let mut citations = Citations::default();
    let mut problems = Vec::new();
    for file in &repo::tracked_files()? {
        let manual = file.starts_with(MANUAL);
        let console = cited::is_console(file);
        if !repo::is_rust(file) && !console && !file.starts_with("docs") {
            continue;
        }
        let text = repo::read(file)?;
        problems.extend(slips(file, &text, &names, &known));
        if manual {
            citations.manual.extend(cited::cited(&text));
        }
        if repo::is_rust(file) || console {
            let (code, tests) = parts(file, &text);
            citations.code.extend(cited::cited(&code));
            citations.tests.extend(cited::cited(&tests));
        }
    }
    print!("{}", report::report(&areas, &citations, &LATER));
    Ok(problems)
}

/// Divides a file, with the harness as a test.
fn parts(file: &Path, text: &str) -> (String, String) {
    if cited::is_console(file) {
        return cited::split_console(file, text);
    }
    if HARNESS.iter().any(|folder| file.starts_with(folder)) {
        return (String::new(), text.to_owned());
    }
    split_tests(file, text)
}

/// Returns what is cited of an area that exists, and does not exist itself.
fn slips(file: &Path, text: &str, areas: &BTreeSet<&str>, known: &BTreeSet<&str>) -> Vec<String> {
    let mut by_line = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        for number in cited::cited(line) {
            if areas.contains(&number[..2]) && !known.contains(number.as_str()) {
                by_line.entry(number).or_insert(at + 1);
            }
        }
    }
    by_line
        .into_iter()
        .map(|(number, line)| {
            let shown = file.display();
            format!("`{shown}:{line}` cites {number}, and there is no such row")
        })
        .collect()
}

/// Reads the list: a line `# AREA TITLE` heads the rows of an area, a row is `NUMBER KIND`.
fn areas(list: &str) -> Result<Vec<Area>> {
    let mut areas: Vec<Area> = Vec::new();
    for (at, line) in list.lines().enumerate() {
        let wrong = || format!("line {} of the list of requirements", at + 1);
        if let Some(head) = line.strip_prefix("# ") {
            let (name, title) = head.split_once(' ').with_context(wrong)?;
            areas.push(Area {
                name: name.to_owned(),
                title: title.to_owned(),
                rows: Vec::new(),
            });
            continue;
        }
        let (number, kind) = line.split_once(' ').with_context(wrong)?;
        let area = areas.last_mut().with_context(wrong)?;
        if !number.starts_with(&area.name) || cited::cited(number).len() != 1 {
            bail!("{}: `{number}` is no row of {}", wrong(), area.name);
        }
        area.rows.push(Row {
            number: number.to_owned(),
            kind: kind.to_owned(),
        });
    }
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_every_row_once() {
        let areas = areas(LIST).unwrap();
        let rows: Vec<&Row> = areas.iter().flat_map(|area| &area.rows).collect();
        assert_eq!((areas.len(), rows.len()), (25, 568));
        let numbers: BTreeSet<&str> = rows.iter().map(|row| row.number.as_str()).collect();
        assert_eq!(numbers.len(), rows.len());
        let of = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
        let kinds = [
            of("must"),
            of("recommendation"),
            of("documentation-only"),
            of("hardware-specific"),
        ];
        assert_eq!(kinds, [458, 40, 22, 48]);
        assert!(areas.iter().all(|area| {
            area.rows
                .iter()
                .enumerate()
                .all(|(at, row)| row.number == format!("{}-{:02}", area.name, at + 1))
        }));
    }

    #[test]
    fn a_list_that_is_wrong_is_refused_by_its_line() {
        for wrong in ["ZZ-01 must", "# ZZ Zeds\nZY-01 must", "# ZZ Zeds\nZZ-01"] {
            let error = areas(wrong).err().unwrap().to_string();
            assert!(error.contains("of the list of requirements"), "{error}");
        }
    }

    #[test]
    fn a_row_that_does_not_exist_is_named_with_its_line() {
        let (areas, known) = (BTreeSet::from(["ZZ"]), BTreeSet::from(["ZZ-01", "ZZ-02"]));
        let text = "// ZZ-01, ZY-99\n// ZZ-01..ZZ-03 and ZY-09\n";
        let found = slips(Path::new("src/a.rs"), text, &areas, &known);
        assert_eq!(
            found,
            ["`src/a.rs:2` cites ZZ-03, and there is no such row"]
        );
    }

    #[test]
    fn the_harness_counts_as_a_test() {
        let (code, tests) = parts(Path::new("crates/prove/src/x.rs"), "// ZZ-01\n");
        assert_eq!((code.as_str(), tests.as_str()), ("", "// ZZ-01\n"));
    }
}

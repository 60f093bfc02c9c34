//! `requirements`: how many numbered requirements the code and the tests cite.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use crate::repo;

/// Where the requirements lie, seen from the repository's top folder; they are not a part of it.
const SPEC: &str = "../shared/spec/requirements.md";

pub(crate) fn run() -> Result<Vec<String>> {
    let spec = repo::root().join(SPEC);
    if !spec.is_file() {
        println!("requirements: `{SPEC}` is not here, so nothing is counted");
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&spec).with_context(|| format!("cannot read `{SPEC}`"))?;
    let required = defined(&text);
    let (mut in_code, mut in_tests) = (BTreeSet::new(), BTreeSet::new());
    for file in repo::tracked_files()?
        .iter()
        .filter(|file| repo::is_rust(file))
    {
        let text = repo::read(file)?;
        let (code, tests) = split_tests(file, &text);
        in_code.extend(cited(code));
        in_tests.extend(cited(tests));
    }
    print!("{}", report(&required, &in_code, &in_tests));
    Ok(Vec::new())
}

/// Returns the numbers of the rows of the requirements' tables.
fn defined(spec: &str) -> BTreeSet<String> {
    spec.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter(|word| word.len() == 5 && cited(word).len() == 1)
        .map(str::to_owned)
        .collect()
}

/// Returns the numbers that a text cites, such as two capital letters, a hyphen and two digits.
fn cited(text: &str) -> BTreeSet<String> {
    let bytes = text.as_bytes();
    let in_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    (0..bytes.len().saturating_sub(4))
        .filter(|at| {
            let word = &bytes[*at..at + 5];
            word[..2].iter().all(u8::is_ascii_uppercase)
                && word[2] == b'-'
                && word[3..].iter().all(u8::is_ascii_digit)
                && !(*at > 0 && in_word(at - 1))
                && !in_word(at + 5)
        })
        .map(|at| text[at..at + 5].to_owned())
        .collect()
}

/// Divides a file into its code and its tests: a test folder is all tests, and a test module ends a file.
pub(crate) fn split_tests<'a>(file: &Path, text: &'a str) -> (&'a str, &'a str) {
    if file
        .iter()
        .any(|part| part == "tests" || part == "tests.rs")
    {
        return ("", text);
    }
    text.split_at(text.find("#[cfg(test)]").unwrap_or(text.len()))
}

fn report(
    required: &BTreeSet<String>,
    in_code: &BTreeSet<String>,
    in_tests: &BTreeSet<String>,
) -> String {
    use std::fmt::Write;

    let mut areas: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for number in required {
        let area = areas.entry(&number[..2]).or_default();
        let (code, tests) = (in_code.contains(number), in_tests.contains(number));
        for (count, yes) in area.iter_mut().zip([true, code || tests, code, tests]) {
            *count += usize::from(yes);
        }
    }
    let mut text = String::from("requirements  covered/total   in code   in tests\n");
    let mut sum = [0; 4];
    for (name, counts) in &areas {
        sum.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
        row(&mut text, name, counts);
    }
    row(&mut text, "all", &sum);
    let unknown: Vec<_> = in_code
        .union(in_tests)
        .filter(|number| areas.contains_key(&number[..2]) && !required.contains(*number))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        let _ = writeln!(
            text,
            "cited, but not in the requirements: {}",
            unknown.join(", ")
        );
    }
    return text;

    fn row(text: &mut String, name: &str, [total, covered, code, tests]: &[usize; 4]) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:>12}  {covered:>7}/{total:<5}  {code:>7}  {tests:>9}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn citations_are_whole_words() {
        assert_eq!(
            cited("(ZZ-08, ZY-18): éZX-01."),
            set(&["ZZ-08", "ZY-18", "ZX-01"])
        );
        assert_eq!(cited("AZZ-08 ZZ-081 zz-08 ZZ-0 ZZ_08"), set(&[]));
    }

    #[test]
    fn only_rows_of_tables_define_a_requirement() {
        let spec = "| ID | Area |\n| ZZ-01 | x, see ZY-02 | must |\nZZ-03 text\n| ZZ-04 | y |\n";
        assert_eq!(defined(spec), set(&["ZZ-01", "ZZ-04"]));
    }

    #[test]
    fn tests_are_told_from_code() {
        let text = "// code\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(split_tests(Path::new("src/a.rs"), text).0, "// code\n");
        assert_eq!(split_tests(Path::new("x/tests/a.rs"), text), ("", text));
        assert_eq!(split_tests(Path::new("src/a.rs"), "no tests").1, "");
    }

    #[test]
    fn the_report_counts_each_requirement_once() {
        let required = set(&["ZZ-01", "ZZ-02", "ZZ-03", "ZY-01"]);
        let report = report(
            &required,
            &set(&["ZZ-01", "ZZ-09"]),
            &set(&["ZZ-01", "ZZ-02"]),
        );
        let words = |name: &str| {
            let line = report
                .lines()
                .find(|line| line.trim_start().starts_with(name))
                .unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words("ZZ"), ["ZZ", "2/3", "1", "2"]);
        assert_eq!(words("ZY"), ["ZY", "0/1", "0", "0"]);
        assert_eq!(words("all"), ["all", "2/4", "1", "2"]);
        assert!(report.contains("not in the requirements: ZZ-09"));
    }
}

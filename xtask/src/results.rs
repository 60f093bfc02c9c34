//! The results of the last whole run of the tests: read from the runner's report, kept in `docs/fault-results.txt`.
//!
//! One test a line: `passed`, `failed` or `skipped`, its seconds, and its id, which is the file and the function.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::repo;

/// Where the results are kept.
const KEPT: &str = "docs/fault-results.txt";

/// How one test ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) word: String,
    pub(crate) seconds: f64,
}

/// Results by test id, and what is said of the run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) run: String,
    tests: BTreeMap<String, Outcome>,
}

/// One `testcase` of the report: the package and binary, and the function with its modules.
pub(crate) type Case = (String, String, Outcome);

impl Results {
    /// What was kept last; empty when nothing was.
    pub(crate) fn kept() -> Result<Self> {
        let path = repo::root().join(KEPT);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{KEPT}`"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let run = lines.next().unwrap_or_default().to_owned();
        let test = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let word = words.next()?.to_owned();
            let seconds = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), Outcome { word, seconds }))
        };
        Self {
            run,
            tests: lines.filter_map(test).collect(),
        }
    }

    /// How a test ended.
    pub(crate) fn of(&self, id: &str) -> Option<&Outcome> {
        self.tests.get(id)
    }

    /// Takes over what a report says of these tests; tests that the report does not have keep what was known, unless
    /// they are gone.
    pub(crate) fn update(&mut self, report: &str, ids: &[String]) -> Result<()> {
        let cases = cases(report)?;
        let passed = cases.iter().filter(|(_, _, o)| o.word == "passed").count();
        let failed = cases.iter().filter(|(_, _, o)| o.word == "failed").count();
        self.run = format!(
            "{}: {passed} tests passed, {failed} failed",
            today_and_commit()?
        );
        self.tests.retain(|id, _| ids.contains(id));
        for id in ids {
            if let Some((_, _, outcome)) = cases.iter().find(|case| is(case, id)) {
                self.tests.insert(id.clone(), outcome.clone());
            }
        }
        let mut text = format!("{}\n", self.run);
        for (id, outcome) in &self.tests {
            text.push_str(&format!("{} {:.1} {id}\n", outcome.word, outcome.seconds));
        }
        std::fs::write(repo::root().join(KEPT), text)
            .with_context(|| format!("cannot write `{KEPT}`"))
    }
}

/// The date of today and the commit, as the run is told.
fn today_and_commit() -> Result<String> {
    let said = |program: &str, args: &[&str]| -> Result<String> {
        let output = Command::new(program)
            .args(args)
            .current_dir(repo::root())
            .output();
        let output = output.with_context(|| format!("cannot run `{program}`"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = said("date", &["-u", "+%F %H:%M"])?;
    Ok(format!(
        "{date} UTC, commit {}",
        said("git", &["rev-parse", "--short", "HEAD"])?
    ))
}

/// Says whether a case of the report is the test with this id: the same function in a file of the same package, and the
/// file's name is that of the binary or of a module.
fn is((binary, name, _): &Case, id: &str) -> bool {
    let Some((file, function)) = id.split_once("::") else {
        return false;
    };
    let mut modules: Vec<&str> = name.split("::").collect();
    if modules.pop() != Some(function) {
        return false;
    }
    let (package, target) = binary.split_once("::").unwrap_or((binary, ""));
    let path = Path::new(file);
    let stem = path
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    let parts: Vec<&str> = file.split('/').collect();
    // `crates/cli` is `flipside-cli`, `backends/qemu` is `flipside-backend-qemu`.
    let folder = match parts.as_slice() {
        ["crates", name, ..] => format!("flipside-{name}"),
        ["backends", name, ..] => format!("flipside-backend-{name}"),
        _ => return false,
    };
    let in_tests = parts.get(2) == Some(&"tests");
    // Tests of a library may be kept in a file of another name than their module.
    folder == package && (!in_tests || stem == target || modules.contains(&stem) || stem == "mod")
}

/// Reads the runner's report, which is in JUnit's format.
pub(crate) fn cases(report: &str) -> Result<Vec<Case>> {
    let document = roxmltree::Document::parse(report).context("the report is not XML")?;
    let nodes = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    nodes
        .map(|node| {
            let attribute = |name: &str| {
                node.attribute(name)
                    .ok_or_else(|| anyhow!("a testcase has no `{name}`"))
            };
            let has = |name: &str| node.children().any(|child| child.has_tag_name(name));
            let word = match (has("failure") || has("error"), has("skipped")) {
                (true, _) => "failed",
                (false, true) => "skipped",
                (false, false) => "passed",
            };
            let seconds = attribute("time")?.parse().context("a testcase's `time`")?;
            let outcome = Outcome {
                word: word.to_owned(),
                seconds,
            };
            Ok((
                attribute("classname")?.to_owned(),
                attribute("name")?.to_owned(),
                outcome,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<testsuites><testsuite name="flipside-cli::real_upgrade">
        <testcase name="kill_tests::everywhere" classname="flipside-cli::real_upgrade" time="12.5"/>
        <testcase name="commit_cycle" classname="flipside-cli::real_upgrade" time="3"><failure type="x"/></testcase>
        <testcase name="law::tests::table" classname="flipside-session" time="0.1"/>
    </testsuite></testsuites>"#;

    #[test]
    fn a_case_is_found_by_its_file() {
        let cases = cases(REPORT).expect("a report");
        let found = |id: &str| {
            let case = cases.iter().find(|case| is(case, id))?;
            Some((case.2.word.as_str(), case.2.seconds))
        };
        let there = found("crates/cli/tests/real/kill_tests.rs::everywhere");
        assert_eq!(there, Some(("passed", 12.5)));
        let failed = found("crates/cli/tests/real_upgrade.rs::commit_cycle");
        assert_eq!(failed, Some(("failed", 3.0)));
        let unit = found("crates/session/src/law_tests.rs::table");
        assert_eq!(unit, Some(("passed", 0.1)));
        assert_eq!(
            found("crates/cli/tests/real/power_cut.rs::everywhere"),
            None
        );
        assert_eq!(found("crates/engine/src/law.rs::table"), None);
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let kept = Results::parse("run\npassed 1.5 crates/a/tests/b.rs::c\nnonsense\n");
        assert_eq!(kept.run, "run");
        let outcome = kept.of("crates/a/tests/b.rs::c").expect("kept");
        assert_eq!((outcome.word.as_str(), outcome.seconds), ("passed", 1.5));
        assert_eq!(kept.tests.len(), 1);
    }
}

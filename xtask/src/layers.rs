//! `layers`: the arrows of the design, checked in every `Cargo.toml`.
//!
//! A crate exists only where an arrow must be forbidden, so the table below is the reason for each crate. To add an arrow is a
//! decision: change the table together with `ARCHITECTURE.md`, not just to silence this check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::repo;

/// Every package of ours, with those it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("flipside-model", &[]),
    ("flipside-qmp", &[]),
    ("flipside-testkit", &[]),
    ("xtask", &[]),
    ("flipside-config", &["flipside-model"]),
    ("flipside-session", &["flipside-model"]),
    ("flipside-journal", &["flipside-model"]),
    ("flipside-activity", &["flipside-model"]),
    ("flipside-platform", &["flipside-model"]),
    (
        "flipside-engine",
        &[
            "flipside-model",
            "flipside-session",
            "flipside-journal",
            "flipside-activity",
            "flipside-platform",
        ],
    ),
    (
        "flipside-backend-qemu",
        &["flipside-platform", "flipside-model", "flipside-qmp"],
    ),
    (
        "flipside-backend-sim",
        &["flipside-platform", "flipside-model"],
    ),
    // A tool of the developers, not a part of the product: nothing of the product may use it.
    (
        "flipside-prove",
        &[
            "flipside-model",
            "flipside-session",
            "flipside-journal",
            "flipside-platform",
            "flipside-engine",
            "flipside-backend-sim",
        ],
    ),
    (
        "flipside-fuzzing",
        &[
            "flipside-model",
            "flipside-config",
            "flipside-session",
            "flipside-journal",
            "flipside-activity",
            "flipside-qmp",
            "flipside-backend-qemu",
        ],
    ),
    (
        "flipside-server",
        &[
            "flipside-engine",
            "flipside-config",
            "flipside-backend-qemu",
            "flipside-backend-sim",
            "flipside-model",
            "flipside-activity",
            "flipside-platform",
            "flipside-journal",
            "flipside-session",
        ],
    ),
    (
        "flipside-cli",
        &[
            "flipside-model",
            "flipside-config",
            "flipside-activity",
            "flipside-server",
        ],
    ),
];

/// What the tests of every package may use besides.
const TESTS_MAY_USE: &str = "flipside-testkit";

/// The tests of the command line read the journal that a power cut left, without asking the server.
const READ_BY_TESTS: (&str, &str) = ("flipside-cli", "flipside-journal");

/// What the tests of these packages may use besides.
const SIMULATION: &str = "flipside-backend-sim";
const TESTED_WITH_SIMULATION: &[&str] = &[
    "flipside-engine",
    "flipside-server",
    "flipside-cli",
    "flipside-backend-qemu",
    "flipside-backend-sim",
];

pub(crate) fn run() -> Result<Vec<String>> {
    let workspace = parse(Path::new("Cargo.toml"))?;
    let mut manifests = Vec::new();
    for file in manifest_paths()? {
        manifests.push((file.clone(), parse(Path::new(&file))?));
    }
    let problems = check(&workspace, &manifests);
    println!(
        "layers: {} packages, {} wrong arrows",
        manifests.len(),
        problems.len()
    );
    Ok(problems)
}

/// Lists the manifests by looking, not by asking git: a new package is checked before it is committed.
fn manifest_paths() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["crates", "backends"] {
        let path = repo::root().join(folder);
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("cannot list `{folder}`"))?;
        for entry in entries {
            let name = entry
                .with_context(|| format!("cannot list `{folder}`"))?
                .file_name();
            let file = format!("{folder}/{}/Cargo.toml", name.to_string_lossy());
            if repo::root().join(&file).is_file() {
                found.push(file);
            }
        }
    }
    found.push("xtask/Cargo.toml".to_owned());
    found.sort();
    Ok(found)
}

fn parse(file: &Path) -> Result<Table> {
    repo::read(file)?
        .parse()
        .with_context(|| format!("cannot parse `{}`", file.display()))
}

/// Returns every arrow of the manifests that the design does not have.
fn check(workspace: &Table, manifests: &[(String, Table)]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let names: BTreeSet<&str> = manifests
        .iter()
        .filter_map(|(_, manifest)| package_name(manifest))
        .collect();
    let mut problems = Vec::new();
    for (file, manifest) in manifests {
        let Some(name) = package_name(manifest) else {
            problems.push(format!("`{file}` has no package name"));
            continue;
        };
        let Some(may_use) = allowed.get(name) else {
            problems.push(format!(
                "`{name}` (`{file}`) is not in the design's table: decide what it may use and add it to `xtask/src/layers.rs`"
            ));
            continue;
        };
        for (used, kind) in dependencies(workspace, manifest) {
            let ours = names.contains(used.as_str())
                || allowed.contains_key(used.as_str())
                || used.starts_with("flipside-");
            let for_tests = kind == Kind::Tests
                && (used == TESTS_MAY_USE
                    || (name, used.as_str()) == READ_BY_TESTS
                    || (used == SIMULATION && TESTED_WITH_SIMULATION.contains(&name)));
            if ours && !may_use.contains(&used.as_str()) && !for_tests {
                problems.push(format!(
                    "`{name}` must not use `{used}`{} (`{file}`); it may use {}",
                    if kind == Kind::Tests {
                        " in its tests"
                    } else {
                        ""
                    },
                    if may_use.is_empty() {
                        "nothing of ours".to_owned()
                    } else {
                        may_use.join(", ")
                    }
                ));
            }
        }
    }
    problems
}

fn package_name(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Product,
    Tests,
}

/// Returns the packages that a manifest depends on, under their real names, also those for some targets only.
fn dependencies(workspace: &Table, manifest: &Table) -> BTreeSet<(String, Kind)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let target_tables = targets
        .into_iter()
        .flat_map(|targets| targets.values().filter_map(Value::as_table));
    let shared = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Value::as_table);
    let mut found = BTreeSet::new();
    for table in std::iter::once(manifest).chain(target_tables) {
        let sections = [
            ("dependencies", Kind::Product),
            ("build-dependencies", Kind::Product),
            ("dev-dependencies", Kind::Tests),
        ];
        for (section, kind) in sections {
            let entries = table.get(section).and_then(Value::as_table);
            for (key, value) in entries.into_iter().flatten() {
                let inherited = value.get("workspace").and_then(|_| shared?.get(key));
                let renamed = [Some(value), inherited]
                    .into_iter()
                    .flatten()
                    .find_map(|value| value.get("package")?.as_str());
                found.insert((renamed.unwrap_or(key).to_owned(), kind));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks one package with the given sections, beside an empty `flipside-model`.
    fn check_one(name: &str, sections: &str) -> Vec<String> {
        let workspace = "[workspace.dependencies]\n\
             flipside-model = { path = \"crates/model\" }\n\
             hidden = { path = \"crates/engine\", package = \"flipside-engine\" }\n";
        let manifest = |text: &str| text.parse::<Table>().unwrap();
        let manifests = [
            (
                "model".to_owned(),
                manifest("[package]\nname = \"flipside-model\"\n"),
            ),
            (
                "one".to_owned(),
                manifest(&format!("[package]\nname = \"{name}\"\n{sections}")),
            ),
        ];
        check(&manifest(workspace), &manifests)
    }

    fn is_refused(name: &str, sections: &str, used: &str) {
        let problems = check_one(name, sections);
        let expected = format!("`{name}` must not use `{used}`");
        assert!(
            problems.len() == 1 && problems[0].starts_with(&expected),
            "{problems:?}"
        );
    }

    #[test]
    fn the_workspace_as_it_is_has_no_wrong_arrow() {
        assert_eq!(run().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_arrow_outside_the_table_is_refused_and_every_one_inside_is_not() {
        for (from, may_use) in ALLOWED {
            for (to, _) in ALLOWED.iter().filter(|(to, _)| to != from) {
                let section = format!("[dependencies]\n{to}.workspace = true\n");
                if may_use.contains(to) {
                    assert_eq!(
                        check_one(from, &section),
                        Vec::<String>::new(),
                        "{from} -> {to}"
                    );
                } else {
                    is_refused(from, &section, to);
                }
            }
        }
    }

    #[test]
    fn a_planted_arrow_is_found_however_it_is_hidden() {
        let used = "flipside-engine";
        is_refused(
            "flipside-session",
            "[dependencies]\nflipside-engine = { path = \"../engine\" }\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[dependencies.flipside-engine]\npath = \"../engine\"\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[dev-dependencies]\nflipside-engine.workspace = true\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[build-dependencies]\nflipside-engine.workspace = true\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[target.'cfg(unix)'.dependencies]\nflipside-engine.workspace = true\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[dependencies]\nhidden.workspace = true\n",
            used,
        );
        is_refused(
            "flipside-session",
            "[dependencies]\nx = { path = \"y\", package = \"flipside-engine\" }\n",
            used,
        );
    }

    #[test]
    fn tests_may_use_the_test_kit_and_some_of_them_the_simulation() {
        let kit = "[dev-dependencies]\nflipside-testkit.workspace = true\n";
        let sim = "[dev-dependencies]\nflipside-backend-sim.workspace = true\n";
        assert_eq!(check_one("flipside-session", kit), Vec::<String>::new());
        assert_eq!(check_one("flipside-engine", sim), Vec::<String>::new());
        is_refused("flipside-session", sim, "flipside-backend-sim");
        is_refused(
            "flipside-session",
            &kit.replace("dev-", ""),
            "flipside-testkit",
        );
        is_refused(
            "flipside-engine",
            &sim.replace("dev-", ""),
            "flipside-backend-sim",
        );
    }

    #[test]
    fn a_package_that_the_table_does_not_know_is_refused() {
        let problems = check_one("flipside-new", "");
        assert!(
            problems.len() == 1 && problems[0].contains("not in the design's table"),
            "{problems:?}"
        );
    }

    #[test]
    fn the_table_has_no_circle() {
        // Every package may use only packages that stand before it, in some order.
        let mut placed: Vec<&str> = Vec::new();
        while placed.len() < ALLOWED.len() {
            let next = ALLOWED.iter().find(|(name, uses)| {
                !placed.contains(name) && uses.iter().all(|used| placed.contains(used))
            });
            placed.push(next.expect("a circle").0);
        }
    }
}

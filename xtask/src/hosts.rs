//! `hosts`: keeps registries' hosts and one machine's paths out of committed files.
//!
//! Who builds the project may reach the registries through a mirror, and the clients know where; a host that is written down
//! here goes around it. A path of one developer's machine works nowhere else.

use anyhow::Result;

use crate::repo;

/// Registries' hosts, in two parts so that this file does not name them.
const HOSTS: &[(&str, &str)] = &[
    ("deb.debian", "org"),
    ("security.debian", "org"),
    ("ftp.debian", "org"),
    ("snapshot.debian", "org"),
    ("archive.ubuntu", "com"),
    ("crates", "io"),
    ("registry.npmjs", "org"),
    ("registry.yarnpkg", "com"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("proxy.golang", "org"),
    ("rubygems", "org"),
    ("repo.maven.apache", "org"),
];

/// Folders of one machine, in two parts for the same reason.
const FOLDERS: &[(&str, &str)] = &[("/wo", "rk/"), ("/ro", "ot/")];

pub(crate) fn run() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let files = repo::tracked_files()?;
    for file in &files {
        let text = repo::read(file)?;
        let is_lock = file.ends_with("Cargo.lock");
        for (line, what) in find(&text, is_lock) {
            problems.push(format!(
                "`{}` names `{what}` in line {line}",
                file.display()
            ));
        }
    }
    println!("hosts: {} files, {} problems", files.len(), problems.len());
    Ok(problems)
}

/// Returns what a text must not name, each with its line.
fn find(text: &str, is_lock: bool) -> Vec<(usize, String)> {
    // Cargo itself writes the index's name into its lock file, on every machine alike.
    let index = format!(
        "registry+https://github.com/rust-lang/{}.{}-index",
        "crates", "io"
    );
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if is_lock && line.contains(&index) {
            continue;
        }
        let hosts = HOSTS
            .iter()
            .map(|(name, top)| format!("{name}.{top}"))
            .filter(|host| names_host(line, host));
        let folders = FOLDERS
            .iter()
            .map(|(start, end)| format!("{start}{end}"))
            .filter(|folder| names_folder(line, folder));
        found.extend(hosts.chain(folders).map(|what| (number + 1, what)));
    }
    found
}

/// A host counts with its subdomains, but not as a part of a longer word.
fn names_host(line: &str, host: &str) -> bool {
    line.match_indices(host).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + host.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-');
        !inside(before) && !inside(after)
    })
}

/// A folder counts at the start of a path only: `crates/work/` is ours.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "_-.})*/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> bool {
        !find(text, false).is_empty()
    }

    #[test]
    fn hosts_are_found_wherever_they_stand() {
        for (name, top) in HOSTS {
            assert!(names(&format!("a\nURIs: http://{name}.{top}/debian\n")));
            assert!(names(&format!("static.{name}.{top}")));
            assert!(
                !names(&format!("my{name}.{top}")),
                "{name} inside a longer word"
            );
        }
    }

    #[test]
    fn machine_paths_are_found_but_not_folders_of_the_same_name() {
        for (start, end) in FOLDERS {
            let folder = format!("{start}{end}");
            assert!(names(&format!("cd {folder}main")));
            assert!(names(&format!("path = \"{folder}x\"")));
            assert!(!names(&format!("crates{folder}x")));
            assert!(!names(&format!(
                "$rootfs{folder}x and ${{rootfs}}{folder}x"
            )));
        }
    }

    #[test]
    fn cargos_own_index_is_allowed_in_its_lock_file_only() {
        let source = format!(
            "source = \"registry+https://github.com/rust-lang/{}.io-index\"",
            "crates"
        );
        assert!(find(&source, true).is_empty());
        // `-index` belongs to the word, so the name alone is no host either.
        assert!(!find(&format!("https://index.{}.io/", "crates"), true).is_empty());
    }

    #[test]
    fn this_file_does_not_name_what_it_looks_for() {
        assert!(!names(include_str!("hosts.rs")));
    }
}

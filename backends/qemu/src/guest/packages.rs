//! Installed packages (VC-06, VC-11).

use super::escape::words;
use super::link::Script;
use super::{LinuxGuest, limits, records, script};
use flipside_model::{MachineId, Package};
use flipside_platform::PortResult;

static PACKAGES: Script = script!("list the installed packages", "packages");

impl LinuxGuest {
    pub(super) async fn list_packages(&self, id: MachineId) -> PortResult<Vec<Package>> {
        let out = self
            .link
            .script(id, &PACKAGES, &[], limits::PACKAGES)
            .await?;
        Ok(packages(&String::from_utf8_lossy(&out)))
    }
}

/// Reads the list; what is not a name and a version is left out.
fn packages(text: &str) -> Vec<Package> {
    let package = |record: Vec<&str>| match record.as_slice() {
        [name, version] if !name.is_empty() && !version.is_empty() => Some(Package {
            name: words(name.as_bytes()),
            version: words(version.as_bytes()),
        }),
        _ => None,
    };
    let mut found: Vec<Package> = records(text).filter_map(package).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_and_nonsense_is_left_out() {
        let found = packages(
            "zlib1g:amd64\t1:1.2.13\n\nbash\t5.2\nno version\na\tb\tc\n\t1\nx\u{1b}[31m\t2\n",
        );
        let names: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(found.len(), 3, "{names:?}");
        assert_eq!((names[0], found[0].version.as_str()), ("bash", "5.2"));
        assert!(
            !found.iter().any(|p| p.name.contains('\u{1b}')),
            "{names:?}"
        );
    }
}

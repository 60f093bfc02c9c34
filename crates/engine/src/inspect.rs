//! What an administrator may look at on a side at any time: services and packages (SV-18, SV-20, VC-03, VC-06, VC-11).

use crate::context::Cx;
use crate::driver::System;
use flipside_model::api::{PackageChange, ServiceListing, ServiceStatus};
use flipside_model::{
    ChangeList, DiskMap, DiskRole, LogSource, MachineId, Package, Problem, ProblemCode, Side,
    UpgradeState,
};
use flipside_session::disk_map::{self, Sources};
use std::collections::BTreeMap;

impl System {
    /// The controlled services on a side, in start order.
    pub async fn services(&self, side: Side) -> Result<Vec<ServiceStatus>, Problem> {
        let cx = self.cx();
        let machine = cx.machine(side)?;
        let units = cx.units();
        let views = cx.ports.guest.services(machine, &units).await?;
        let told = views.into_iter().map(|view| ServiceStatus {
            unit: view.unit,
            exists: view.exists,
            active: view.active,
            startup: view.startup.0,
            held: view.gated,
        });
        Ok(told.collect())
    }

    /// All services of a side, by name (SV-01).
    pub async fn all_services(&self, side: Side) -> Result<Vec<ServiceListing>, Problem> {
        let machine = self.cx().machine(side)?;
        let listed = self.cx().ports.guest.all_services(machine).await?;
        let told = listed.into_iter().map(|service| ServiceListing {
            unit: service.unit,
            description: service.description,
            active: service.active,
            startup: service.startup.0,
        });
        Ok(told.collect())
    }

    /// The disks with their volumes, from a fresh look at the guest of the owner (DK-01).
    pub async fn disk_map(&self) -> DiskMap {
        let status = self.fresh_status().await;
        let cx = self.cx();
        let state = cx.state();
        let machine = state.facts.machine(state.facts.owner);
        let inventory = match machine.filter(|_| status.running) {
            Some(machine) => {
                let found = cx.ports.guest.inventory(machine).await;
                found.map_err(|error| error.to_string())
            }
            None => Err("the system does not run".to_owned()),
        };
        disk_map::draw(&Sources {
            spec: &cx.spec,
            config: &cx.settings(),
            inventory,
            status: &status.disks,
            frozen: state.session.and(state.facts.roles.as_ref()),
        })
    }

    /// The installed packages of a side.
    pub async fn packages(&self, side: Side) -> Result<Vec<Package>, Problem> {
        let machine = self.cx().machine(side)?;
        Ok(self.cx().ports.guest.packages(machine).await?)
    }

    /// The logs that a side has (LB-01).
    pub async fn logs(&self, side: Side) -> Result<Vec<LogSource>, Problem> {
        let machine = self.cx().machine(side)?;
        Ok(self.cx().ports.guest.log_sources(machine).await?)
    }

    /// What the Upgrade Side has installed, removed or changed since the split.
    pub async fn package_changes(&self) -> Result<Vec<PackageChange>, Problem> {
        let Some(before) = self.cx().facts().packages.clone() else {
            return Err(Problem::new(
                ProblemCode::Refused,
                "nothing is known of the packages before a split",
            )
            .advise(
                "`flipside split` records them; `flipside packages` lists what is installed now",
            ));
        };
        let after = self.packages(Side::Upgrade).await?;
        Ok(changes(&before, &after))
    }
}

/// The most files that are asked of a guest: more than anybody reads, far below what its agent can tell at once.
const MOST_CHANGES: usize = 20_000;

/// The most files in one answer.
const PAGE: usize = 1_000;

impl System {
    /// What the Production Side changed on its system disks since the split, after a path: at Commit it is lost, but for
    /// what is carried over (CM-11).
    pub async fn production_changes(
        &self,
        after: &str,
        most: usize,
    ) -> Result<ChangeList, Problem> {
        let cx = self.cx();
        let facts = cx.facts();
        let asked = match cx.state().upgrade {
            UpgradeState::Split | UpgradeState::PrepareMerge if facts.divided => {
                list_changes(cx, cx.machine(Side::Production)?, MOST_CHANGES).await
            }
            UpgradeState::Merge | UpgradeState::Commit | UpgradeState::Finish => {
                return kept_changes(cx, after, most);
            }
            _ => return Err(not_divided()),
        };
        Ok(page(asked?, after, most))
    }
}

fn kept_changes(cx: &Cx, after: &str, most: usize) -> Result<ChangeList, Problem> {
    let list = cx.facts().changes.clone().ok_or_else(not_divided)?;
    Ok(page(ChangeList::clone(&list), after, most))
}

fn not_divided() -> Problem {
    Problem::new(
        ProblemCode::Refused,
        "nothing is known of changes on the Production Side: the system is not divided",
    )
    .advise("`flipside split` sets the mark from which changes count")
}

fn page(mut list: ChangeList, after: &str, most: usize) -> ChangeList {
    list.files.retain(|file| file.path.as_str() > after);
    list.files.truncate(most.min(PAGE));
    list
}

/// Asks a side, and says of each file whether a rule of the configuration carries it over.
pub(crate) async fn list_changes(
    cx: &Cx,
    machine: MachineId,
    most: usize,
) -> Result<ChangeList, Problem> {
    let mut list = cx
        .ports
        .guest
        .changes(machine, &cx.disks(DiskRole::Data), most)
        .await?;
    let settings = cx.settings();
    for file in &mut list.files {
        let rule = settings.carry.iter().find(|rule| takes(rule, &file.path));
        file.rule = rule.cloned();
    }
    list.at_ms = cx.ports.clock.now_ms();
    Ok(list)
}

/// Says whether a rule takes a path: it names it, a directory above it, or a pattern of either.
fn takes(rule: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let mut wanted = rule.split('/');
    loop {
        match (wanted.next(), parts.next()) {
            (None, _) => return true,
            (Some(_), None) => return false,
            (Some(pattern), Some(part)) if !matches(pattern.as_bytes(), part.as_bytes()) => {
                return false;
            }
            _ => {}
        }
    }
}

/// Says whether a pattern of one name fits, as a shell has it: `*` and `?`; anything else is itself.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(c), _) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What differs between two lists of packages.
pub(crate) fn changes(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    let mut all: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
    for (side, packages) in [before, after].into_iter().enumerate() {
        for package in packages {
            all.entry(&package.name).or_default()[side].push(&package.version);
        }
    }
    // Several versions of one package may be installed beside each other, such as kernels of rpm.
    let told = |versions: Vec<&str>| (!versions.is_empty()).then(|| versions.join(", "));
    all.into_iter()
        .filter(|(_, [before, after])| before != after)
        .map(|(name, [before, after])| PackageChange {
            name: name.to_owned(),
            before: told(before),
            after: told(after),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(list: &[(&str, &str)]) -> Vec<Package> {
        let package = |(name, version): &(&str, &str)| Package {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
        };
        list.iter().map(package).collect()
    }

    // The guest's shell expands the same patterns; what a rule takes must be told as it will be done.
    #[test]
    fn a_rule_takes_what_it_names_and_what_lies_below() {
        for (rule, path, so) in [
            ("/etc/passwd", "/etc/passwd", true),
            ("/etc/passwd", "/etc/passwd-", false),
            ("/var/spool/cron", "/var/spool/cron/crontabs/root", true),
            ("/var/spool/*/new", "/var/spool/mail/new/1", true),
            ("/var/spool/*/new", "/var/spool/mail/x/new", false),
            ("/etc/pass*", "/etc/passwd", true),
            ("/etc/?asswd", "/etc/passwd", true),
            ("/etc/*", "/etc", false),
        ] {
            assert_eq!(takes(rule, path), so, "{rule} {path}");
        }
    }

    // VC-11: new, removed, changed, and several versions of one name; what is the same is not told.
    #[test]
    fn only_what_differs_is_told() {
        let before = packages(&[("bash", "5"), ("kernel", "1"), ("old", "1"), ("ssl", "3.0")]);
        let after = packages(&[
            ("bash", "5"),
            ("kernel", "1"),
            ("kernel", "2"),
            ("new", "7"),
            ("ssl", "3.1"),
        ]);
        let told: Vec<(String, Option<String>, Option<String>)> = changes(&before, &after)
            .into_iter()
            .map(|c| (c.name, c.before, c.after))
            .collect();
        let one = |name: &str, before: Option<&str>, after: Option<&str>| {
            (
                name.to_owned(),
                before.map(str::to_owned),
                after.map(str::to_owned),
            )
        };
        let expected = [
            one("kernel", Some("1"), Some("1, 2")),
            one("new", None, Some("7")),
            one("old", Some("1"), None),
            one("ssl", Some("3.0"), Some("3.1")),
        ];
        assert_eq!(told, expected);
    }
}

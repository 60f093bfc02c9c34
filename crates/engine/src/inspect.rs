//! What an administrator may look at on a side at any time: services and packages (SV-18, SV-20, VC-03, VC-06, VC-11).

use crate::driver::System;
use flipside_model::api::{PackageChange, ServiceListing, ServiceStatus};
use flipside_model::{DiskMap, LogSource, Package, Problem, ProblemCode, Side};
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

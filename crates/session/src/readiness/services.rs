//! Readiness of the services: they run, and what they write is not on a disk that Commit replaces.

use super::{Finding, Observed, Rule, asked, error, finding};
use flipside_model::{AcceptLoss, DATA_PATHS, Severity, UpgradeConfig};

/// A service as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSeen {
    /// Unit name.
    pub unit: String,
    /// Known to the guest.
    pub exists: bool,
    /// Running.
    pub active: bool,
    /// Its startup type.
    pub startup: String,
    /// Its real name, when the configuration uses another one.
    pub alias_of: Option<String>,
    /// It refuses to be stopped by hand.
    pub refuses_stop: bool,
}

/// A file on a system disk that a controlled service writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The service.
    pub unit: String,
    /// The file.
    pub path: String,
}

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The selected services run", services),
    ("No application data on system disks", data_on_system_disks),
];

// RC-32, SV-21, gap G.2.26
fn services(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("services", "the services to be controlled", Severity::Error);
    asked(seen, &seen.services, test, |services| {
        let judge = |service| judge(service, seen.config);
        services.iter().filter_map(judge).collect()
    })
}

// CF-34: what a child brought names the child; it fails the parent's check.
fn judge(service: &ServiceSeen, config: &UpgradeConfig) -> Option<Finding> {
    let unit = &service.unit;
    let child = config.inherited_from("services", unit);
    let from = child.map_or_else(String::new, |child| format!(" (from `{child}`)"));
    let whose = child.map_or_else(
        || "the configuration".to_owned(),
        |child| format!("`{child}`, or take that file out of `children`"),
    );
    if !service.exists {
        let text = format!("service `{unit}`{from} does not exist in the guest");
        let advice = format!("correct its name in {whose}: `systemctl list-units --type=service`");
        return Some(error("services", text).about(unit.clone()).advise(advice));
    }
    if let Some(real) = &service.alias_of {
        // Disabling the real unit may take the other name away, and then nothing would find the service again.
        let text = format!("service `{unit}` is only another name of `{real}`");
        let advice = format!("write `{real}` in the configuration");
        return Some(error("services", text).about(unit.clone()).advise(advice));
    }
    if service.startup == "transient" {
        let text = format!(
            "service `{unit}` is transient: once stopped it is gone and cannot be started again"
        );
        let advice = "give it a unit file, or let custom actions stop and start it";
        return Some(error("services", text).about(unit.clone()).advise(advice));
    }
    if service.refuses_stop {
        let text = format!("service `{unit}` cannot be stopped: it is `RefuseManualStop=yes`");
        return Some(error("services", text).about(unit.clone()).advise(
            "take it out of the configuration, or give it a drop-in with `RefuseManualStop=no`",
        ));
    }
    (!service.active).then(|| {
        let text = format!("service `{unit}`{from} is not running");
        error("services", text).about(unit.clone()).advise(format!(
            "start it, or take it out of {whose} if it is stopped on purpose"
        ))
    })
}

fn under(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path == directory
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
}

// Design 3.10, DK-24, DK-32: an Error on a configured or well-known data path, a Warning elsewhere.
fn data_on_system_disks(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("data", "where services keep their data", Severity::Warning);
    asked(seen, &seen.written, test, |files| {
        let accepted = |path: &str| {
            let mut accepted = seen.config.accept_loss.iter();
            accepted.any(|AcceptLoss(dir)| under(path, dir))
        };
        let left = files.iter().filter(|file| !accepted(&file.path));
        left.map(|file| written(file, &seen.config.data_paths))
            .collect()
    })
}

fn written(file: &WrittenFile, data_paths: &[String]) -> Finding {
    let known = DATA_PATHS.iter().any(|(_, dir)| under(&file.path, dir))
        || data_paths.iter().any(|dir| under(&file.path, dir));
    let severity = if known {
        Severity::Error
    } else {
        Severity::Warning
    };
    let text = format!(
        "`{}` writes to `{}` on a system disk: what is written there after the split is gone at Commit",
        file.unit, file.path
    );
    finding(severity, "data", text)
        .about(file.path.clone())
        .advise(format!(
            "move it to a data disk, or accept the loss: `accept_loss = [\"{}\"]` in the configuration",
            file.path
        ))
}

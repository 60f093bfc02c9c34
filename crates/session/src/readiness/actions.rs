//! Readiness of custom actions and of log backup (RC-33, RC-34, RC-37).

use super::{Asked, Finding, Observed, Rule, asked, error, finding, warning};
use flipside_model::{
    ActionPlace, ControlType, DiskName, FileKind, FileView, LogSelection, Severity, SystemSpec,
};

/// The program of a custom action as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionFile {
    /// Where it lies.
    pub place: ActionPlace,
    /// What was found.
    pub view: FileView,
}

/// What was observed for custom actions and log backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The files of the actions, each once.
    pub files: Asked<Vec<ActionFile>>,
    /// Directory and logs, as far as any are configured.
    pub logs: Asked<LogsSeen>,
    /// The disks that are Data.
    pub data: Vec<DiskName>,
}

/// What was found of the directory for logs and of the logs themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsSeen {
    /// The directory, if one is given.
    pub directory: Option<FileView>,
    /// Selected logs that the guest does not have.
    pub missing: Vec<LogSelection>,
}

impl Default for Prepared {
    fn default() -> Self {
        Self {
            files: Ok(Vec::new()),
            logs: Ok(LogsSeen::default()),
            data: Vec::new(),
        }
    }
}

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The custom actions are ready to run", executables),
    ("The custom actions lie on system disks", locations),
    ("The log backup can be made", logs),
];

/// Kinds of file systems that are reached over a network.
const NETWORK: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "9p",
    "virtiofs",
    "glusterfs",
    "afs",
    "lustre",
    "ocfs2",
    "gfs2",
    "sshfs",
];

/// Kinds of file systems that are gone after a restart.
const MEMORY: [&str; 4] = ["tmpfs", "ramfs", "devtmpfs", "hugetlbfs"];

/// On what a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// A system disk.
    System,
    /// A data disk.
    Data,
    /// Storage of another computer.
    Network,
    /// Nothing that lasts.
    Memory,
    /// A disk that is not one of the system's, or that cannot be told.
    External,
}

/// Says on what a file lies; every disk of the system that is not Data is System.
pub fn location(spec: &SystemSpec, data: &[DiskName], view: &FileView) -> Location {
    let ours = spec.disks.iter().any(|d| d.name.as_str() == view.disk);
    let kind = view
        .filesystem
        .strip_prefix("fuse.")
        .unwrap_or(&view.filesystem);
    if data.iter().any(|d| d.as_str() == view.disk) {
        Location::Data
    } else if ours {
        Location::System
    } else if NETWORK.contains(&kind) {
        Location::Network
    } else if MEMORY.contains(&kind) {
        Location::Memory
    } else {
        Location::External
    }
}

/// Says why a file cannot be run as an action, and what to do about it; none when it can (RC-33: exact text).
pub fn not_ready(view: &FileView) -> Option<(String, &'static str)> {
    let path = &view.path;
    match view.kind {
        FileKind::Missing => Some((
            format!("The executable {path} does not exist."),
            "put it there, or correct `file` in the configuration",
        )),
        FileKind::Directory | FileKind::Other => Some((
            format!("The executable {path} is not a regular file."),
            "correct `file` in the configuration",
        )),
        FileKind::Regular if !view.executable => Some((
            format!("The executable {path} may not be executed."),
            "`chmod +x` it; a script needs a first line such as `#!/bin/sh`",
        )),
        FileKind::Regular => view.flaw.as_ref().map(|flaw| {
            let text = format!("The executable {path} could be changed by others: {flaw}.");
            (
                text,
                "it runs with the rights of the administrator: `chown root` and `chmod go-w` it",
            )
        }),
    }
}

// RC-33
fn executables(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("actions", "the custom actions", Severity::Error);
    asked(seen, &seen.prepared.files, test, |files| {
        let mut found: Vec<Finding> = files.iter().filter_map(executable).collect();
        found.extend(stop_note(seen).filter(|_| found.is_empty()));
        found
    })
}

fn executable(file: &ActionFile) -> Option<Finding> {
    let (text, advice) = not_ready(&file.view)?;
    let found = error("actions", text).about(file.view.path.clone());
    Some(found.advise(advice))
}

// CA-26, gap G.3.48
fn stop_note(seen: &Observed<'_>) -> Option<Finding> {
    let mut actions = seen.config.actions.iter();
    let stops = actions.find(|a| a.control_type == ControlType::StopApplication)?;
    let text = "a program that stops an application must also disable its start-up, and only where ACTIVE_UPGRADE_SIDE is Upgrade: on the Production Side the application must return after an abort";
    Some(finding(Severity::Information, "actions", text).about(stops.file.clone()))
}

// RC-34, CA-25
fn locations(seen: &Observed<'_>) -> Vec<Finding> {
    // What could not be asked is told by the test before.
    let files = seen.prepared.files.as_deref().unwrap_or_default();
    files
        .iter()
        .filter(|f| f.place == ActionPlace::Guest && f.view.kind == FileKind::Regular)
        .filter_map(|file| {
            let on = match location(seen.spec, &seen.prepared.data, &file.view) {
                Location::System => return None,
                Location::Data => format!("data disk `{}`", file.view.disk),
                Location::Network => format!("network file system ({})", file.view.filesystem),
                Location::Memory => format!("file system in memory ({})", file.view.filesystem),
                Location::External => "disk that is no system disk".to_owned(),
            };
            let path = &file.view.path;
            let text = format!(
                "the custom action `{path}` lies on a {on}, which the Upgrade Side loses at the split"
            );
            let found = error("action location", text).about(path.clone());
            Some(found.advise("move it to a system disk, such as /usr/local/sbin"))
        })
        .collect()
}

/// Says why the directory for the logs cannot be used; none when it can (RC-37, LB-04).
pub fn unusable(spec: &SystemSpec, data: &[DiskName], view: &FileView) -> Option<String> {
    let path = &view.path;
    let on = location(spec, data, view);
    match (view.kind, on) {
        (FileKind::Missing, _) => Some(format!("the log directory `{path}` does not exist")),
        (FileKind::Regular | FileKind::Other, _) => {
            Some(format!("the log directory `{path}` is not a directory"))
        }
        (_, Location::System) => Some(format!(
            "the log directory `{path}` lies on a system disk, which is overwritten at Commit"
        )),
        (_, Location::Network) => Some(format!(
            "the log directory `{path}` lies on a network share"
        )),
        (_, Location::Memory) => Some(format!(
            "the log directory `{path}` lies in memory ({}), on no disk",
            view.filesystem
        )),
        _ if !view.writable => Some(format!("the log directory `{path}` cannot be written to")),
        _ => None,
    }
}

// RC-37, LB-03, LB-04; RC-36 for logs
fn logs(seen: &Observed<'_>) -> Vec<Finding> {
    let backup = &seen.config.log_backup;
    if backup.logs.is_empty() {
        return Vec::new();
    }
    if backup.directory.is_none() {
        let text = "logs are selected and no directory is given: they are not saved, and what the Production Side logs after the split is lost at Commit";
        return vec![
            warning("logs", text)
                .about("log_backup.directory")
                .advise("give a directory on a data or external disk in the configuration"),
        ];
    }
    let test = ("logs", "the log backup", Severity::Error);
    asked(seen, &seen.prepared.logs, test, |logs| {
        let unusable = logs.directory.iter().filter_map(|view| {
            let found = error("logs", unusable(seen.spec, &seen.prepared.data, view)?)
                .about(view.path.clone());
            Some(
                found.advise("use a directory that exists on a data or external disk of the guest"),
            )
        });
        let missing = logs.missing.iter().map(|log| {
            error(
                "logs",
                format!("the log `{log}` does not exist in the guest"),
            )
            .about(log.to_string())
            .advise("`flipside logs` lists what the guest has; correct the configuration")
        });
        unusable.chain(missing).collect()
    })
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;

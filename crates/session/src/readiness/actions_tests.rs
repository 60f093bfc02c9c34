use super::super::tests::{book, good, spec};
use super::super::{Finding, Observed, judge};
use super::*;
use flipside_model::{
    CustomAction, DiskName, DiskRole, DiskSpec, LegPaths, LegRole, LogBackup, OnFailure, Timing,
    UpgradeConfig,
};

fn view(path: &str) -> FileView {
    FileView {
        path: path.to_owned(),
        kind: FileKind::Regular,
        executable: true,
        writable: true,
        sha256: "0".repeat(64),
        disk: "system0".to_owned(),
        filesystem: "ext4".to_owned(),
        flaw: None,
    }
}

fn two_disks() -> SystemSpec {
    let mut spec = spec();
    spec.disks.push(DiskSpec {
        name: DiskName::new("data0").expect("valid"),
        role: DiskRole::Data,
        size: 1 << 20,
        legs: LegPaths {
            a: "/a/d".into(),
            b: "/b/d".into(),
        },
    });
    spec
}

fn found(config: &UpgradeConfig, prepared: Prepared) -> Vec<Finding> {
    let (spec, book) = (two_disks(), book(LegRole::Live));
    let seen = Observed {
        prepared: Prepared {
            data: vec![DiskName::new("data0").expect("valid")],
            ..prepared
        },
        ..good(&spec, config, &book)
    };
    let findings = judge(&seen);
    findings
        .into_iter()
        .filter(|f| f.severity != Severity::Success)
        .collect()
}

fn with_file(view: FileView, place: ActionPlace) -> Vec<Finding> {
    found(
        &UpgradeConfig::none(),
        Prepared {
            files: Ok(vec![ActionFile { place, view }]),
            ..Prepared::default()
        },
    )
}

// RC-33: the exact text with the real name, and an Error; also for what is there and cannot run.
#[test]
fn an_action_that_cannot_run_is_an_error() {
    let good = view("/usr/local/sbin/stop-shop");
    assert!(with_file(good.clone(), ActionPlace::Guest).is_empty());
    let cases = [
        (
            FileView::missing(&good.path),
            "The executable /usr/local/sbin/stop-shop does not exist.",
        ),
        (
            FileView {
                kind: FileKind::Directory,
                ..good.clone()
            },
            "The executable /usr/local/sbin/stop-shop is not a regular file.",
        ),
        (
            FileView {
                executable: false,
                ..good.clone()
            },
            "The executable /usr/local/sbin/stop-shop may not be executed.",
        ),
        (
            FileView {
                flaw: Some("it is writable by everybody".to_owned()),
                ..good.clone()
            },
            "The executable /usr/local/sbin/stop-shop could be changed by others: it is writable by everybody.",
        ),
    ];
    for (view, text) in cases {
        for place in [ActionPlace::Guest, ActionPlace::Host] {
            let found = with_file(view.clone(), place);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(
                (found[0].severity, found[0].text.as_str()),
                (Severity::Error, text)
            );
            // RC-51
            assert_eq!(found[0].component.as_deref(), Some(good.path.as_str()));
            assert!(found[0].advice.is_some());
        }
    }
}

// RC-34, CA-25: on data, external and network disks, and in memory.
#[test]
fn an_action_must_lie_on_a_system_disk() {
    let on = |disk: &str, filesystem: &str| FileView {
        disk: disk.to_owned(),
        filesystem: filesystem.to_owned(),
        ..view("/x")
    };
    for (view, word) in [
        (on("data0", "ext4"), "data disk `data0`"),
        (on("", "nfs4"), "network file system (nfs4)"),
        (on("", "fuse.sshfs"), "network file system (fuse.sshfs)"),
        (on("", "tmpfs"), "in memory"),
        (on("usb-1", "ext4"), "no system disk"),
    ] {
        let found = with_file(view.clone(), ActionPlace::Guest);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].severity == Severity::Error && found[0].text.contains(word),
            "{found:?}"
        );
        // An action of the host lies on the host.
        assert!(with_file(view, ActionPlace::Host).is_empty());
    }
}

// RC-08: what could not be asked is no success.
#[test]
fn what_could_not_be_asked_is_an_error() {
    let prepared = Prepared {
        files: Err("no answer".to_owned()),
        ..Prepared::default()
    };
    let found = found(&UpgradeConfig::none(), prepared);
    assert!(
        found.len() == 1 && found[0].severity == Severity::Error,
        "{found:?}"
    );
}

// CA-26, gap G.3.48
#[test]
fn a_stop_action_brings_a_note() {
    let config = UpgradeConfig {
        actions: vec![CustomAction {
            file: "/x".to_owned(),
            arguments: Vec::new(),
            control_type: ControlType::StopApplication,
            timing: Timing::Default,
            limit: None,
            place: ActionPlace::Guest,
            on_failure: OnFailure::Stop,
        }],
        ..UpgradeConfig::none()
    };
    let found = found(&config, Prepared::default());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Information);
    assert!(
        found[0]
            .text
            .contains("only where ACTIVE_UPGRADE_SIDE is Upgrade")
    );
}

fn backup(directory: Option<&str>) -> UpgradeConfig {
    UpgradeConfig {
        log_backup: LogBackup {
            directory: directory.map(str::to_owned),
            logs: vec![LogSelection::SystemJournal],
        },
        ..UpgradeConfig::none()
    }
}

// LB-03, RC-37: no directory is a Warning, and only when logs are selected (gap G.3.45).
#[test]
fn logs_without_a_directory_are_a_warning() {
    let found_without = found(&backup(None), Prepared::default());
    assert_eq!(found_without.len(), 1);
    assert_eq!(found_without[0].severity, Severity::Warning);
    assert!(found_without[0].text.contains("lost at Commit"));
    assert!(found(&UpgradeConfig::none(), Prepared::default()).is_empty());
}

// LB-04, RC-37: on a data or external disk, existing, writable; never a system disk or a network share.
#[test]
fn a_log_directory_that_cannot_be_used_is_an_error() {
    let directory = |disk: &str, filesystem: &str| FileView {
        kind: FileKind::Directory,
        disk: disk.to_owned(),
        filesystem: filesystem.to_owned(),
        ..view("/srv/logs")
    };
    let with = |view: FileView| {
        let logs = LogsSeen {
            directory: Some(view),
            missing: Vec::new(),
        };
        let prepared = Prepared {
            logs: Ok(logs),
            ..Prepared::default()
        };
        found(&backup(Some("/srv/logs")), prepared)
    };
    for fine in [
        directory("data0", "ext4"),
        directory("usb-1", "xfs"),
        directory("", "xfs"),
    ] {
        assert!(with(fine.clone()).is_empty(), "{fine:?}");
    }
    for (view, word) in [
        (directory("system0", "ext4"), "on a system disk"),
        (directory("", "nfs"), "on a network share"),
        (directory("", "cifs"), "on a network share"),
        (directory("", "tmpfs"), "in memory"),
        (FileView::missing("/srv/logs"), "does not exist"),
        (
            FileView {
                kind: FileKind::Regular,
                ..directory("data0", "ext4")
            },
            "is not a directory",
        ),
        (
            FileView {
                writable: false,
                ..directory("data0", "ext4")
            },
            "cannot be written to",
        ),
    ] {
        let found = with(view);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, Severity::Error);
        assert!(found[0].text.contains(word), "{found:?}");
    }
}

// RC-36: a log, also one of a child, must be there.
#[test]
fn a_log_that_is_not_there_is_an_error() {
    let logs = LogsSeen {
        directory: None,
        missing: vec![LogSelection::Path("/var/log/shop".to_owned())],
    };
    let prepared = Prepared {
        logs: Ok(logs),
        ..Prepared::default()
    };
    let found = found(&backup(Some("/srv/logs")), prepared);
    assert!(
        found.len() == 1 && found[0].text.contains("`/var/log/shop` does not exist"),
        "{found:?}"
    );
}

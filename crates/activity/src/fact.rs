//! What a fact says to an administrator, with its figures.

use crate::units::{duration_ms, duration_us, size};
use flipside_model::{
    Carried, ChangeList, ChangedFile, Fact, ForkFigures, LogCopy, LogsSaved, MountPoint, Outage,
    PinnedFile, ResyncFigures, SavedStartup,
};

/// Returns the sentence of a fact and, for lists, the detail.
pub fn fact_text(fact: &Fact) -> (String, Option<String>) {
    match fact {
        Fact::Machine {
            side,
            machine: Some(machine),
        } => (format!("Machine {machine} is the {side}"), None),
        Fact::Machine {
            side,
            machine: None,
        } => (format!("The machine of the {side} was ended"), None),
        Fact::Roles(changed) => {
            let told = |(disk, role): &(_, _)| format!("`{disk}` is {role} in this upgrade");
            let detail = changed.iter().map(told).collect::<Vec<_>>().join("\n");
            (
                "System and data disks established".to_owned(),
                Some(detail).filter(|d| !d.is_empty()),
            )
        }
        Fact::Mounts(mounts) => mounts_text(mounts),
        Fact::Startup(saved) => (
            format!("Startup types saved for {}", count(saved.len(), "service")),
            startup_list(saved),
        ),
        Fact::Quiesced(saved) => (
            format!(
                "{} acting by themselves held on the Upgrade Side",
                count(saved.len(), "unit")
            ),
            startup_list(saved),
        ),
        Fact::Packages(packages) => (
            format!(
                "{} installed on the Production Side before the split",
                count(packages.len(), "package")
            ),
            None,
        ),
        Fact::Forked(figures) => (fork_text(figures), None),
        Fact::Divided(true) => (
            "The system is divided into Production Side and Upgrade Side".to_owned(),
            None,
        ),
        Fact::Divided(false) => ("The system is one again".to_owned(), None),
        Fact::Stopped {
            side,
            stopped: true,
        } => (format!("Applications stopped on the {side}"), None),
        Fact::Stopped {
            side,
            stopped: false,
        } => (format!("Applications run again on the {side}"), None),
        Fact::OutageBegan => ("The outage begins: users wait".to_owned(), None),
        Fact::OutageEnded(outage) => (outage_text(*outage), None),
        Fact::Carried(carried) => (carried_text(carried), None),
        Fact::Resyncing {
            disk,
            from,
            to,
            compare,
        } => {
            let how = if *compare {
                "the whole disk is compared"
            } else {
                "only what changed is copied"
            };
            let text = format!("{disk}: resynchronisation from leg {from} to leg {to}; {how}");
            (text, None)
        }
        Fact::Resynced(figures) => (resync_text(figures), None),
        Fact::Changes(list) => changes_text(list),
        Fact::CarriedFiles(carried) => (
            format!(
                "{} carried over from the Production Side ({}), {} removed, {}",
                count(usize::try_from(carried.files).unwrap_or(usize::MAX), "file"),
                size(carried.bytes),
                carried.removed,
                count(carried.conflicts.len(), "conflict")
            ),
            (!carried.conflicts.is_empty()).then(|| carried.conflicts.join("\n")),
        ),
        Fact::Checkpoint { disk, leg } => (
            format!("{disk}: leg {leg} keeps the data as they are now (checkpoint)"),
            None,
        ),
        Fact::DiscardData(true) => (
            "The abort takes the data back to the checkpoint of the merge".to_owned(),
            None,
        ),
        Fact::DiscardData(false) => (
            "The abort keeps what was written since the merge".to_owned(),
            None,
        ),
        Fact::Discarding { disk, from, to } => (
            format!(
                "{disk}: the data are taken back to the checkpoint on leg {from}; what leg {to} holds is given up"
            ),
            None,
        ),
        Fact::Committed => (
            "From here only forward: the upgrade can no longer be aborted".to_owned(),
            None,
        ),
        Fact::Heard(number) => (format!("The guard's notes up to {number} are here"), None),
        Fact::Pinned(files) => (
            format!("{} of custom actions recorded", count(files.len(), "file")),
            pinned_list(files),
        ),
        // In the tree an action is one entry with both its ends.
        Fact::ActionStarted(run) => (format!("Custom action {} begins", run.shown()), None),
        Fact::ActionEnded(end) => (
            end.failure()
                .unwrap_or_else(|| "Custom action succeeded".to_owned()),
            None,
        ),
        Fact::ActionsStopped(true) => (
            "Stop Application actions begin on the Production Side".to_owned(),
            None,
        ),
        Fact::ActionsStopped(false) => (
            "Start Application actions ran on the Production Side".to_owned(),
            None,
        ),
        Fact::LogsSaved(saved) => logs_text(saved),
        Fact::Owner(side) => (format!("Data disks and network belong to the {side}"), None),
        Fact::Media {
            side,
            image: Some(image),
        } => (
            format!("`{}` is in the CD drive of the {side}", image.display()),
            None,
        ),
        Fact::Media { side, image: None } => (format!("The CD drive of the {side} is empty"), None),
        Fact::ProductionIs { .. } => (
            "The Production Side's boot and package database were noted".to_owned(),
            None,
        ),
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn changes_text(list: &ChangeList) -> (String, Option<String>) {
    let line = |f: &ChangedFile| {
        let rule = f.rule.as_ref().map_or("", |_| ", carried over");
        format!("{} ({}{rule})", f.path, size(f.bytes))
    };
    let lines: Vec<String> = list.files.iter().map(line).collect();
    (
        format!(
            "{} changed on the Production Side's system disks since the split",
            count(usize::try_from(list.total).unwrap_or(usize::MAX), "file")
        ),
        (!lines.is_empty()).then(|| lines.join("\n")),
    )
}

fn mounts_text(mounts: &[MountPoint]) -> (String, Option<String>) {
    let list: Vec<String> = mounts
        .iter()
        .map(|m| format!("{} on {} ({})", m.target, m.disk, m.source))
        .collect();
    (
        format!("{} on data disks", count(mounts.len(), "file system")),
        (!list.is_empty()).then(|| list.join("\n")),
    )
}

fn pinned_list(files: &[PinnedFile]) -> Option<String> {
    let line = |f: &PinnedFile| {
        let place = f.side.map_or("host".to_owned(), |side| side.to_string());
        format!("{} ({place}): sha256 {}", f.path, f.sha256)
    };
    let list: Vec<String> = files.iter().map(line).collect();
    (!list.is_empty()).then(|| list.join("\n"))
}

/// LB-11: what was not saved is told as clearly as what was.
fn logs_text(saved: &LogsSaved) -> (String, Option<String>) {
    let files: u32 = saved.copies.iter().map(|c| c.files).sum();
    let bytes: u64 = saved.copies.iter().map(|c| c.bytes).sum();
    let mut text = format!(
        "Logs of the Production Side: {} ({}) saved in {}",
        count(usize::try_from(files).unwrap_or(usize::MAX), "file"),
        size(bytes),
        saved.directory
    );
    let lost = saved.lost().len();
    if lost > 0 {
        text.push_str(&format!("; {} not saved", count(lost, "log")));
    }
    let line = |c: &LogCopy| match &c.failure {
        None => format!("{}: {}", c.log, size(c.bytes)),
        Some(why) => format!("{}: not saved: {why}", c.log),
    };
    let list: Vec<String> = saved.copies.iter().map(line).collect();
    (text, (!list.is_empty()).then(|| list.join("\n")))
}

fn startup_list(saved: &[SavedStartup]) -> Option<String> {
    let list: Vec<String> = saved
        .iter()
        .map(|s| {
            let active = if s.active { "running" } else { "not running" };
            format!("{}: {}, {active}", s.unit, s.startup.0)
        })
        .collect();
    (!list.is_empty()).then(|| list.join("\n"))
}

fn fork_text(figures: &ForkFigures) -> String {
    format!(
        "Production paused for {}; {} of memory copied in {}",
        duration_us(figures.pause_us),
        size(figures.memory_bytes),
        duration_ms(figures.precopy_ms)
    )
}

fn outage_text(outage: Outage) -> String {
    format!(
        "Outage {} at the front door ({} inside)",
        duration_ms(outage.door_ms),
        duration_ms(outage.inside_ms)
    )
}

fn carried_text(carried: &Carried) -> String {
    format!(
        "{}: bitmap carried over, {} marked as changed",
        carried.disk,
        size(carried.dirty_bytes)
    )
}

fn resync_text(figures: &ResyncFigures) -> String {
    let why = if figures.compared {
        "whole disk compared".to_owned()
    } else {
        format!("union of changes {}", size(figures.union_bytes))
    };
    format!(
        "{}: {} copied of {} ({why}) in {}, last pause {}",
        figures.disk,
        size(figures.copied_bytes),
        size(figures.disk_bytes),
        duration_ms(figures.took_ms),
        duration_us(figures.pause_us)
    )
}

//! What is read from a guest, opened to `crates/fuzzing`. Nothing in it may be believed to be true, and nothing may harm.

use super::blocks::{Survey, depth};
use super::{data, escape, files, fstab, inventory, show, windows};
use flipside_model::{DiskName, Inventory, MAX_DEVICES, MAX_MOUNTS, MachineId};

/// Says whether the guest's port takes a name as that of a unit.
pub fn is_unit(name: &str) -> bool {
    escape::is_unit(name)
}

/// Says whether the guest's port takes a pattern of units.
pub fn is_pattern(name: &str) -> bool {
    escape::is_pattern(name)
}

/// Reads bytes as what each script of the guest prints.
pub fn guest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    survey(bytes, &text);
    volumes(&inventory::read(bytes));
    windows_answers(bytes);
    table(bytes);
    units(&text);
    let words = escape::words(bytes);
    assert!(
        !words.chars().any(|c| c != '\n' && c.is_control()),
        "{words:?}"
    );
    assert!(words.chars().count() <= super::limits::WORDS + 1);
    harmless(&data::busy(MachineId(1), &text).to_string());
}

fn harmless(text: &str) {
    let bad = text.chars().find(|c| *c != '\n' && c.is_control());
    assert!(bad.is_none(), "{bad:?} of the guest in a message: {text:?}");
}

fn survey(bytes: &[u8], text: &str) {
    let survey = Survey::read(bytes);
    let serials = survey.blocks.iter().filter(|b| b.parent.is_empty());
    let disks: Vec<DiskName> = serials
        .filter_map(|b| DiskName::new(&b.serial).ok())
        .collect();
    for disk in &disks {
        let stack = survey.stack(disk.as_str());
        assert!(
            stack.len() <= survey.blocks.len(),
            "a block twice in a stack"
        );
        let disks = [disk.to_string()];
        match data::close_plan(&survey, &disks) {
            Ok(arguments) => assert!(!arguments.iter().any(|a| a.contains('\0'))),
            Err(error) => harmless(&error.to_string()),
        }
    }
    let points = survey.mounts_on(&disks);
    for pair in points.windows(2) {
        assert!(
            depth(&pair[0].target) <= depth(&pair[1].target),
            "deepest last"
        );
    }
    if let Err(error) = data::open_plan(&survey, &points) {
        harmless(&error.to_string());
    }
    for file in files::read(text, &survey) {
        for word in [&file.unit, &file.path, &file.disk] {
            harmless(word);
        }
        assert!(file.path.starts_with('/'), "{file:?}");
    }
}

/// Disks and volumes: bounded, clean, what lies below first, and every name one of the list.
fn volumes(found: &Inventory) {
    assert!(found.devices.len() <= MAX_DEVICES && found.mounts.len() <= MAX_MOUNTS);
    let at = |name: &str| found.devices.iter().position(|d| d.name == name);
    for (index, device) in found.devices.iter().enumerate() {
        assert_eq!(at(&device.name), Some(index), "{} twice", device.name);
        for below in &device.below {
            assert!(
                at(below).is_some_and(|at| at < index),
                "{below} under {device:?}"
            );
        }
        let told = [
            &device.title,
            &device.serial,
            &device.format,
            &device.label,
            &device.uuid,
        ];
        for text in told
            .into_iter()
            .chain([&device.group, &device.part_type])
            .flatten()
        {
            harmless(text);
            assert!(text.chars().count() <= 255);
        }
        let _ = found.disks_under(&device.name);
    }
    for mount in &found.mounts {
        for text in [&mount.target, &mount.format, &mount.source] {
            harmless(text);
        }
        assert!(mount.device.as_deref().is_none_or(|d| at(d).is_some()));
    }
    for swap in &found.swaps {
        harmless(&swap.path);
        assert!(swap.device.as_deref().is_none_or(|d| at(d).is_some()));
    }
}

/// What PowerShell prints in a Windows guest.
fn windows_answers(bytes: &[u8]) {
    volumes(&windows::read_disks(bytes));
    for service in windows::read_services(bytes) {
        harmless(&service.unit);
        harmless(&service.description);
        harmless(&service.startup.0);
    }
    for program in windows::read_programs(bytes) {
        harmless(&program.name);
        harmless(&program.version);
    }
}

/// Holding lines of the mount table and putting them back leaves no trace.
fn table(bytes: &[u8]) {
    const TARGETS: [&str; 2] = ["/srv/data", "/"];
    let held = fstab::hold(bytes, &TARGETS);
    assert_eq!(
        fstab::hold(&held, &TARGETS),
        held,
        "holding twice is holding once"
    );
    assert_eq!(fstab::restore(&held), fstab::restore(bytes), "not put back");
    for line in held.split_inclusive(|b| *b == b'\n') {
        if let Some(entry) = fstab::entry(line)
            && TARGETS.contains(&entry.target.as_str())
        {
            assert!(
                entry.has("noauto") && entry.has("nofail"),
                "{entry:?} is not held"
            );
        }
    }
}

fn units(text: &str) {
    let services = super::services::all(text);
    assert!(services.len() <= super::limits::LISTED);
    assert!(
        services.is_sorted_by(|a, b| a.unit < b.unit),
        "twice, or out of order"
    );
    for service in services {
        assert!(escape::is_unit(&service.unit), "{service:?}");
        harmless(&service.description);
        harmless(&service.startup.0);
    }
    for (unit, _) in show::listed(text) {
        assert!(!unit.contains(char::is_whitespace));
        let _ = show::may_be_quieted(&unit);
    }
    for count in 0..4 {
        let Some(shown) = show::shown(text, count) else {
            continue;
        };
        assert_eq!(shown.len(), count);
        for unit in shown {
            assert!(
                !(unit.active() && unit.down()),
                "{unit:?} runs and does not"
            );
            let _ = (unit.startup(), unit.has_gate(), unit.triggers().count());
        }
    }
    let path = text.replace('\0', "");
    let unit = escape::unit_of_path(&path, ".mount");
    if unit.len() <= 255 {
        assert!(escape::is_unit(&unit), "`{unit}` of {path:?} is no unit");
    }
}

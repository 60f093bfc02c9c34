//! What is read from a guest, opened to `crates/fuzzing`. Nothing in it may be believed to be true, and nothing may harm.

use super::blocks::{Survey, depth};
use super::{data, escape, files, fstab, show};
use flipside_model::MachineId;

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
    for disk in survey.data_disks() {
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
    let points = survey.data_mounts();
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
        assert!(
            !file.disk.starts_with("data") && file.path.starts_with('/'),
            "{file:?}"
        );
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

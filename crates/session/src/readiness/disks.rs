//! Readiness of the disks: every one duplexed, on legs that are known, with room for the fork.

use super::{Finding, Observed, Rule, asked, copies_need, error, unknown_host, warning};
use crate::disks;
use flipside_model::{DiskRole, GuestDevice, Inventory, Severity, planted};

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("Every disk is duplexed", duplexed),
    ("The selection of disks is possible", selection),
    ("The operating system lies on mirrored disks", placement),
    ("Every leg is the recorded one", legs),
    ("The enclosures are independent", enclosures),
    ("Space for the fork", space),
];

// RC-17, RC-18, RS-04: a disk that still resynchronises fails this test.
fn duplexed(seen: &Observed<'_>) -> Vec<Finding> {
    let not = seen
        .book
        .disks
        .iter()
        .filter(|(_, pair)| !pair.duplexed() && !planted::is("simplex-passes-readiness"));
    not.map(|(name, _)| {
        let running = seen.resync.iter().find(|(disk, _)| disk == name.as_str());
        let advice = match running {
            Some((_, percent)) => format!(
                "`{name}` shows `Resync {percent}%`; wait until every mirror shows `None`: `flipside wait --duplex`"
            ),
            None => format!("look at the legs of `{name}`: `flipside system show {}`", seen.spec.name),
        };
        error("duplex", "RDR disk is not duplexed").about(name.as_str()).advise(advice)
    })
    .collect()
}

// DK-08, DK-32, DK-34, RC-17, RC-20: nothing is guessed about disks, so a guest that cannot tell is not split.
fn selection(seen: &Observed<'_>) -> Vec<Finding> {
    let judge = |found: Option<&Inventory>| -> Vec<Finding> {
        let wrong = disks::roles(seen.spec, seen.config, found).wrong;
        let told = wrong.into_iter().map(|wrong| {
            error("disks", wrong.text)
                .about(wrong.disk.as_str())
                .advise(wrong.advice)
        });
        told.collect()
    };
    let what = ("disks", "the disks of the guest", Severity::Error);
    let mut found = asked(seen, &seen.inventory, what, |found| judge(Some(found)));
    if seen.inventory.is_err() {
        found.extend(judge(None));
    }
    found
}

/// Where the parts of an operating system are mounted that a boot needs.
const SYSTEM_MOUNTS: [&str; 7] = ["/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/etc"];

// RC-19, PR-16: what boots, what runs and what is paged to is on disks that have two legs.
fn placement(seen: &Observed<'_>) -> Vec<Finding> {
    // That the disks are not known at all is an Error of the test above.
    let what = (
        "placement",
        "where the operating system lies",
        Severity::Warning,
    );
    asked(seen, &seen.inventory, what, |found| {
        let mut wrong = Vec::new();
        for target in SYSTEM_MOUNTS {
            // What is mounted over is not what is there.
            let Some(mount) = found.mounts.iter().rev().find(|m| m.target == target) else {
                continue;
            };
            let advice =
                "move it to a system disk: what is elsewhere is neither divided nor taken back";
            let place = mirrored(seen, found, mount.device.as_deref());
            wrong.extend(place.told(&format!("`{target}`"), &mount.source, advice));
        }
        let swaps = found.swaps.iter();
        for swap in swaps.filter(|s| !s.path.starts_with("/dev/zram")) {
            let advice = "page to a system disk, or `swapoff` it: the Upgrade Side would page to what it has not";
            let place = mirrored(seen, found, swap.device.as_deref());
            wrong.extend(place.told(&format!("swap `{}`", swap.path), &swap.path, advice));
        }
        wrong
    })
}

/// Where something of the guest lies.
enum Place {
    Mirrored,
    Elsewhere,
    /// File systems over several devices name none; nothing is guessed.
    Unknown,
}

fn mirrored(seen: &Observed<'_>, found: &Inventory, device: Option<&str>) -> Place {
    let Some(device) = device else {
        return Place::Unknown;
    };
    let ours = |serial: &str| seen.spec.disks.iter().any(|d| d.name.as_str() == serial);
    let disks = found.disks_under(device);
    let each = |disk: &&GuestDevice| disk.serial.as_deref().is_some_and(ours);
    if !disks.is_empty() && disks.iter().all(each) {
        Place::Mirrored
    } else {
        Place::Elsewhere
    }
}

impl Place {
    fn told(self, what: &str, source: &str, advice: &str) -> Option<Finding> {
        let told = match self {
            Place::Mirrored => return None,
            Place::Elsewhere => {
                let text =
                    format!("{what} lies on `{source}`, which is no mirrored disk of this system");
                error("placement", text).advise(advice)
            }
            Place::Unknown => {
                let text = format!("it is not known on which disk {what} (`{source}`) lies");
                warning("placement", text).advise("see that it is a mirrored disk of this system")
            }
        };
        Some(told.about(what))
    }
}

// Fault 22, CM-13
fn legs(seen: &Observed<'_>) -> Vec<Finding> {
    let faults = match &seen.leg_faults {
        Ok(faults) => faults,
        Err(why) => return vec![unknown_host("legs", "the legs", why)],
    };
    faults
        .iter()
        .map(|(component, text)| {
            error("legs", text.clone())
                .about(component.clone())
                .advise("put the original file or device back; flipside never uses a leg that it does not know")
        })
        .collect()
}

// Design section 7
fn enclosures(seen: &Observed<'_>) -> Vec<Finding> {
    match &seen.host {
        Err(why) => return vec![unknown_host("enclosures", "the enclosures", why)],
        Ok(host) if !host.one_device => return Vec::new(),
        Ok(_) => {}
    }
    vec![
        warning(
            "enclosures",
            "both enclosures lie on one physical device, so its failure takes both legs",
        )
        .about(format!(
            "{}, {}",
            seen.spec.enclosures[0].display(),
            seen.spec.enclosures[1].display()
        ))
        .advise(
            "put one enclosure on another disk when you can; the upgrade itself does not need it",
        ),
    ]
}

/// The sizes of the disks that a session would treat as Data.
pub(super) fn data_disks<'a>(seen: &'a Observed<'_>) -> impl Iterator<Item = u64> + 'a {
    let judged = disks::roles(seen.spec, seen.config, seen.inventory.as_ref().ok()).disks;
    let data = move |name| {
        let role = judged.get(name).map(|j| j.kind.role());
        role == Some(DiskRole::Data)
    };
    let all = seen.spec.disks.iter();
    all.filter(move |disk| data(&disk.name)).map(|d| d.size)
}

// RC-40, fault 24; a rehearsal writes to its copies (design 3.5).
fn space(seen: &Observed<'_>) -> Vec<Finding> {
    let needed = copies_need(seen);
    let free = match &seen.host {
        Err(why) => return vec![unknown_host("space", "the space for the fork", why)],
        Ok(host) if host.state_free_bytes >= needed => return rehearsal(seen),
        Ok(host) => host.state_free_bytes,
    };
    let what = if seen.config.rehearsal {
        "the copies of a rehearsal and saved state"
    } else {
        "throw-away copies and saved state"
    };
    let text = format!(
        "the fork needs {} MiB for {what}, and {} MiB are free",
        needed >> 20,
        free >> 20
    );
    vec![
        error("space", text)
            .about("state directory")
            .advise("free space on the file system of the state directory"),
    ]
}

/// What a rehearsal costs is said before it: the second legs of the data stay as they were at the split.
fn rehearsal(seen: &Observed<'_>) -> Vec<Finding> {
    if !seen.config.rehearsal {
        return Vec::new();
    }
    let text = "in a rehearsal each data disk has one leg until the merge begins or the session is aborted";
    let advice = "write `rehearsal = false` when the upgrade needs no trial on a copy of the data";
    vec![warning("rehearsal", text).advise(advice)]
}

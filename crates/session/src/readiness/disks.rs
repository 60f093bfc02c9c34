//! Readiness of the disks: every one duplexed, on legs that are known, with room for the fork.

use super::{Finding, Observed, Rule, STATE_MARGIN_BYTES, asked, error, warning};
use crate::disks;
use flipside_model::{Inventory, Severity, planted};

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("Every disk is duplexed", duplexed),
    ("The selection of disks is possible", selection),
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

// Fault 22, CM-13
fn legs(seen: &Observed<'_>) -> Vec<Finding> {
    seen.leg_faults
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
    if !seen.one_device {
        return Vec::new();
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

// RC-40, fault 24
fn space(seen: &Observed<'_>) -> Vec<Finding> {
    if seen.state_free_bytes >= STATE_MARGIN_BYTES {
        return Vec::new();
    }
    let text = format!(
        "the fork needs {} MiB for throw-away copies and saved state, and {} MiB are free",
        STATE_MARGIN_BYTES >> 20,
        seen.state_free_bytes >> 20
    );
    vec![
        error("space", text)
            .about("state directory")
            .advise("free space on the file system of the state directory"),
    ]
}

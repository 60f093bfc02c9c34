//! Refuses a journal or a leg book that is an older copy of itself, as a restored backup leaves it (fault 14).
//!
//! Each of the two is whole in itself, so only the other one, or what runs, tells. Three orders are kept on every way and
//! make the difference plain: a machine's id is in the book before it is in the journal, and in the journal before its
//! process is started; and legs are taken apart only in a session that has come to Split.

use crate::ledger::Ledger;
use flipside_model::{
    Fact, LegBook, LegRole, MachineId, Problem, ProblemCode, Record, UpgradeState, planted,
};
use flipside_platform::Ports;
use std::collections::BTreeSet;

/// Compares journal, leg book and processes before anything is written or touched.
pub(crate) async fn refuse_older_copies(ports: &Ports, ledger: &Ledger) -> Result<(), Problem> {
    if planted::is("older-copy-accepted") {
        return Ok(());
    }
    let book = ports.legs.load().await?;
    let named = named_machines(ledger);
    if let Some(machine) = named.last().filter(|m| **m > book.last_machine) {
        return Err(older(
            "leg book",
            format!(
                "the journal names machine {machine}, the leg book none after {}",
                book.last_machine
            ),
        ));
    }
    let stage = ledger.state().upgrade;
    if matches!(stage, UpgradeState::Idle | UpgradeState::PrepareSplit) && divided(&book) {
        return Err(older(
            "journal",
            format!("the legs are taken apart, and the journal says {stage}"),
        ));
    }
    let running = ports.machine.list().await?;
    match running.iter().find(|m| !named.contains(m)) {
        None => Ok(()),
        Some(machine) => Err(older(
            "journal",
            format!("machine {machine} is there, and the journal never named it"),
        )),
    }
}

fn named_machines(ledger: &Ledger) -> BTreeSet<MachineId> {
    let entries = ledger.entries_after(0).into_iter();
    entries
        .filter_map(|entry| match entry.record {
            Record::Fact(Fact::Machine { machine, .. }) => machine,
            _ => None,
        })
        .collect()
}

fn divided(book: &LegBook) -> bool {
    let roles = book
        .disks
        .values()
        .flat_map(|pair| [&pair.a.role, &pair.b.role]);
    roles.into_iter().any(|role| {
        matches!(
            role,
            LegRole::Original | LegRole::Upgraded | LegRole::Frozen
        )
    })
}

fn older(which: &str, why: String) -> Problem {
    Problem::new(
        ProblemCode::Mismatch,
        format!("the {which} is an older copy: {why}"),
    )
    .about(which)
    .advise("nothing was touched, machines go on; put the newest files of the state directory back")
}

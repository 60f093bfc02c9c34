//! What the guard does about one machine: a pure function of the book, the machine's own answers and the time.
//!
//! The guard acts while nobody else may be there to correct it. So every case that is not clearly allowed is
//! `Nothing` or `Stay`, and each action is one step after which everything is observed and decided again.

use crate::{DiskSource, MachineView, RunState};
use flipside_model::{DiskName, Leg, LegBook, LegPair, LegRole, MachineId, planted};
use std::collections::BTreeMap;

use super::{STALE_INTENT_MS, STILL_MAX};
use std::time::Duration;

/// Which request of a leg failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
}

/// A leg that the machine reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Its disk.
    pub disk: DiskName,
    /// Which leg.
    pub leg: Leg,
    /// Which request failed.
    pub kind: FaultKind,
    /// The system's words, such as `No space left on device`.
    pub error: String,
}

impl Suspect {
    fn text(&self) -> String {
        let kind = match self.kind {
            FaultKind::Read => "read",
            FaultKind::Write => "write",
            FaultKind::Flush => "flush",
        };
        format!("{kind} failed: {}", self.error)
    }
}

/// Everything that a decision about one machine depends on, apart from the time.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The machine.
    pub machine: MachineId,
    /// The leg book as stored.
    pub book: &'a LegBook,
    /// What the machine says of itself.
    pub view: &'a MachineView,
    /// Legs that are open in the machine, whether its roots use them or not.
    pub open_legs: &'a BTreeMap<DiskName, Vec<Leg>>,
    /// Copying jobs that have not ended.
    pub jobs: &'a [String],
    /// Legs that failed since the machine was last well.
    pub suspects: &'a [Suspect],
    /// The guest was continued once to learn which leg fails, and nothing was learnt.
    pub probed: bool,
    /// Its memory is being copied into another machine: that pauses it at the end, whoever is there to see it.
    pub forking: bool,
    /// For how long the guard has seen the machine stand still, by its own clock.
    pub still: Duration,
}

/// A leg to go on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropLeg {
    /// Its disk.
    pub disk: DiskName,
    /// The leg that fails.
    pub bad: Leg,
    /// The leg to go on with.
    pub survivor: Leg,
    /// What failed.
    pub why: String,
}

/// One step of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// All is well, or it is not the guard's business.
    Nothing,
    /// Something is wrong that the guard must not touch: say so once.
    Stay(String),
    /// End these jobs; what they wrote to stays stale.
    CancelJobs(Vec<String>),
    /// Record, then swap these disks' roots to the surviving legs.
    DropLegs(Vec<DropLeg>),
    /// Give these disks, whose swap was interrupted, a root over this leg alone.
    FinishSwaps(Vec<(DiskName, Leg)>),
    /// Continue the guest: if a leg still fails, the repeated request names it.
    Probe,
    /// Give up a fork whose pause has lasted too long.
    CancelFork,
    /// Continue the guest after a pause that has lasted too long.
    Continue,
    /// Forget a pause intent that was never cleared.
    ClearIntent,
}

/// How the recorded pause of the owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    None,
    Running,
    Expired { since_ms: i64 },
}

fn intent(facts: &Facts<'_>, now_ms: i64) -> Intent {
    match facts.book.pause_until_ms {
        None => Intent::None,
        Some(until)
            if now_ms < until
                && (facts.still < STILL_MAX || planted::is("wall-clock-believed")) =>
        {
            Intent::Running
        }
        Some(until) => Intent::Expired {
            since_ms: now_ms.saturating_sub(until),
        },
    }
}

/// Decides the next step. The caller holds the lease whenever it carries one out.
pub fn decide(facts: &Facts<'_>, now_ms: i64) -> Action {
    let intent = intent(facts, now_ms);
    match facts.view.run {
        RunState::Absent
        | RunState::Incoming
        | RunState::Unresponsive
        | RunState::Shutdown
        | RunState::Panicked => Action::Nothing,
        RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate => paused(facts, intent),
        RunState::IoError => io_error(facts, intent),
        RunState::Running => running(facts, intent),
    }
}

fn owns(facts: &Facts<'_>) -> bool {
    facts.book.owner == Some(facts.machine) || planted::is("guard-continues-a-stranger")
}

/// Says whether a machine stands still although the recorded pause of it should be over: then whoever holds its lease
/// has had its time, and [`super::FENCE_AFTER`] counts.
pub fn pause_is_overdue(facts: &Facts<'_>, now_ms: i64) -> bool {
    let paused = matches!(
        facts.view.run,
        RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
    );
    paused && owns(facts) && matches!(intent(facts, now_ms), Intent::Expired { .. })
}

/// Only a recorded pause of the recorded owner, and only when it should be over.
fn paused(facts: &Facts<'_>, intent: Intent) -> Action {
    let overdue = matches!(intent, Intent::Expired { .. });
    if !owns(facts) || !overdue || planted::is("overdue-pause-left") {
        return Action::Nothing;
    }
    match finish_swaps(facts) {
        Err(why) => return Action::Stay(why),
        Ok(swaps) if !swaps.is_empty() => return Action::FinishSwaps(swaps),
        Ok(_) => {}
    }
    if let Err(why) = roots_are_sound(facts) {
        return Action::Stay(why);
    }
    if facts.view.run == RunState::PreSwitchover {
        Action::CancelFork
    } else {
        Action::Continue
    }
}

/// Says whether a machine that ran until a disk failed may go on: the owner, or one on its way to be it.
///
/// A machine with two legs of a disk runs on live data. It may be ahead of the book while a merge hands the data
/// over. A machine older than the owner is the old Production Side, and is never continued.
fn may_go_on(facts: &Facts<'_>) -> bool {
    let two_legs =
        |source: &DiskSource| matches!(source, DiskSource::Legs(legs) if legs.len() == 2);
    match facts.book.owner {
        Some(owner) if owner == facts.machine => true,
        Some(owner) if owner > facts.machine => false,
        _ => facts.view.disks.values().any(|d| two_legs(&d.source)),
    }
}

/// Says whether somebody else's pause of the owner may be under way: then a guest that must not run may look like one that
/// failed. The pause that is recorded while memory is copied comes at the end of that, and has a state of its own.
fn pause_lasts(facts: &Facts<'_>, intent: Intent) -> bool {
    let copying = facts.forking && !planted::is("failed-leg-left-while-copying");
    owns(facts) && intent == Intent::Running && !copying
}

fn io_error(facts: &Facts<'_>, intent: Intent) -> Action {
    if !may_go_on(facts) || pause_lasts(facts, intent) {
        return Action::Nothing;
    }
    if !facts.jobs.is_empty() {
        return Action::CancelJobs(facts.jobs.to_vec());
    }
    match finish_swaps(facts) {
        Err(why) => return Action::Stay(why),
        Ok(swaps) if !swaps.is_empty() => return Action::FinishSwaps(swaps),
        Ok(_) => {}
    }
    if let Err(why) = roots_are_sound(facts) {
        return Action::Stay(why);
    }
    match drops(facts) {
        Err(why) => Action::Stay(why),
        Ok(drops) if !drops.is_empty() => Action::DropLegs(drops),
        Ok(_) if !facts.probed => Action::Probe,
        Ok(_) => Action::Stay("a disk failed, and the machine named no leg".to_owned()),
    }
}

fn running(facts: &Facts<'_>, intent: Intent) -> Action {
    if !facts.suspects.is_empty() && may_go_on(facts) && !pause_lasts(facts, intent) {
        match drops(facts) {
            Err(why) => return Action::Stay(why),
            Ok(drops) if !drops.is_empty() => return Action::DropLegs(drops),
            Ok(_) => {}
        }
    }
    match intent {
        // While memory is copied the pause that it is about has not begun.
        Intent::Expired { since_ms }
            if owns(facts)
                && since_ms >= STALE_INTENT_MS
                && (!facts.forking || planted::is("intent-cleared-while-copying")) =>
        {
            Action::ClearIntent
        }
        _ => Action::Nothing,
    }
}

fn pair<'a>(facts: &Facts<'a>, disk: &DiskName) -> Result<&'a LegPair, String> {
    let found = facts.book.disks.get(disk);
    found.ok_or_else(|| format!("the leg book does not know disk {disk}"))
}

/// Lists the disks whose swap was interrupted, with the leg to go on with: the authority, which must be open in this
/// machine. They are on a placeholder, or a leg that the book gave up is still read first.
fn finish_swaps(facts: &Facts<'_>) -> Result<Vec<(DiskName, Leg)>, String> {
    let mut swaps = Vec::new();
    for (disk, view) in &facts.view.disks {
        let pair = pair(facts, disk)?;
        let leg = pair.authority;
        let given_up = pair.get(leg.other());
        let interrupted = match &view.source {
            DiskSource::Placeholder => true,
            DiskSource::Legs(legs) => {
                *legs == [leg.other(), leg]
                    && pair.get(leg).role == LegRole::Live
                    && matches!(given_up.role, LegRole::Stale(_))
            }
            DiskSource::Overlay(_) => false,
        };
        if !interrupted {
            continue;
        }
        if !carries_the_guest(&pair.get(leg).role) {
            return Err(format!(
                "the change of {disk}'s legs was interrupted, and the book names no leg that holds its data"
            ));
        }
        if !facts
            .open_legs
            .get(disk)
            .is_some_and(|open| open.contains(&leg))
        {
            return Err(format!(
                "the change of {disk}'s legs was interrupted, and leg {leg} is not open in this machine"
            ));
        }
        swaps.push((disk.clone(), leg));
    }
    Ok(swaps)
}

fn carries_the_guest(role: &LegRole) -> bool {
    matches!(role, LegRole::Live | LegRole::Original | LegRole::Upgraded)
}

/// Every root is a quorum over recorded legs, and what is read first is good: the authority, or another leg before it
/// that gets every write. A fork that is recorded and was not carried out leaves both legs in the root, in any order
/// (fault 29). While the system is divided a side has its own leg of a system disk alone.
fn roots_are_sound(facts: &Facts<'_>) -> Result<(), String> {
    if facts.view.disks.is_empty() {
        return Err("the machine has no disk".to_owned());
    }
    for (disk, view) in &facts.view.disks {
        let pair = pair(facts, disk)?;
        let DiskSource::Legs(legs) = &view.source else {
            return Err(format!("{disk} is not backed by a quorum over its legs"));
        };
        let first = legs.first().copied();
        let good = match first {
            Some(leg) if leg == pair.authority => true,
            Some(leg) if legs.len() == 1 => {
                matches!(pair.get(leg).role, LegRole::Original | LegRole::Upgraded)
            }
            Some(leg) => {
                let stale = matches!(pair.get(leg).role, LegRole::Stale(_));
                legs.contains(&pair.authority) && !stale
            }
            None => false,
        };
        if !good {
            return Err(format!(
                "{disk} runs on legs that the book does not vouch for"
            ));
        }
    }
    Ok(())
}

/// Lists the legs to drop; an error says why the guest must not go on.
fn drops(facts: &Facts<'_>) -> Result<Vec<DropLeg>, String> {
    let mut drops: Vec<DropLeg> = Vec::new();
    for suspect in facts.suspects {
        let disk = &suspect.disk;
        let Some(DiskSource::Legs(legs)) = facts.view.disks.get(disk).map(|d| &d.source) else {
            continue;
        };
        if !legs.contains(&suspect.leg)
            || drops
                .iter()
                .any(|d| (&d.disk, d.bad) == (disk, suspect.leg))
        {
            continue;
        }
        let survivor = suspect.leg.other();
        let text = suspect.text();
        if !legs.contains(&survivor) {
            return Err(format!(
                "the only leg of {disk}, {}, fails ({text})",
                suspect.leg
            ));
        }
        let both = |other: &Suspect| other.disk == *disk && other.leg == survivor;
        if let Some(other) = facts.suspects.iter().find(|s| both(s)) {
            return Err(format!(
                "both legs of {disk} fail ({}: {text}; {survivor}: {})",
                suspect.leg,
                other.text()
            ));
        }
        if pair(facts, disk)?.get(survivor).role != LegRole::Live {
            return Err(format!(
                "leg {} of {disk} fails ({text}), and leg {survivor} does not hold all its data",
                suspect.leg
            ));
        }
        drops.push(DropLeg {
            disk: disk.clone(),
            bad: suspect.leg,
            survivor,
            why: text,
        });
    }
    Ok(drops)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

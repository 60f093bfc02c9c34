//! The durable record of what every leg is worth, kept outside the legs (design 3.2, invariants 9 to 11).
//!
//! It is written pessimistically: a leg is recorded stale *before* the machine may write without it, and in
//! sync only *after* it was proved equal and flushed. Whoever holds the machine's lease writes it: the
//! server, or the guard while the server is away.

use crate::{DiskName, Leg, MachineId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a leg may not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleReason {
    /// Left behind by the split session; what differs is in the machine's dirty bitmap if that still exists.
    Session,
    /// Failed a read, write or flush: needs a full compare, because a failed flush may have lost older writes.
    Failed(String),
    /// The machine ended without a clean stop: writes in flight may have reached one leg only.
    Unclean,
    /// New and not yet filled, or replaced.
    New,
}

/// What a leg holds at the moment (DK-29: live, stale, original, upgraded).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegRole {
    /// Every acknowledged write of the disk.
    Live,
    /// Not to be used; the target of the next resynchronisation.
    Stale(StaleReason),
    /// The system disk of the Production Side while the system is divided.
    Original,
    /// The system disk of the Upgrade Side while the system is divided.
    Upgraded,
    /// The data disk as it was at the split, read-only below the Upgrade Side's throw-away overlay.
    Frozen,
    /// The data disk as it was when the merge moved it: the checkpoint. Nobody has it open.
    Checkpoint,
}

/// One leg of one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegEntry {
    /// Its file or block device.
    pub path: PathBuf,
    /// Inode number when it was made, so that another file in its place is noticed (fault 22).
    pub inode: u64,
    /// What it holds.
    pub role: LegRole,
}

/// Both legs of one disk and which of them decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegPair {
    /// Leg A.
    pub a: LegEntry,
    /// Leg B.
    pub b: LegEntry,
    /// The leg to use alone if there is any doubt.
    pub authority: Leg,
}

impl LegPair {
    /// Returns one leg.
    pub fn get(&self, leg: Leg) -> &LegEntry {
        match leg {
            Leg::A => &self.a,
            Leg::B => &self.b,
        }
    }

    /// Returns one leg to change.
    pub fn get_mut(&mut self, leg: Leg) -> &mut LegEntry {
        match leg {
            Leg::A => &mut self.a,
            Leg::B => &mut self.b,
        }
    }

    /// Lists the legs the machine runs on, the authority first.
    pub fn live(&self) -> Vec<Leg> {
        let mut legs = vec![self.authority];
        if self.get(self.authority.other()).role == LegRole::Live {
            legs.push(self.authority.other());
        }
        legs
    }

    /// Says whether both legs are in sync.
    pub fn duplexed(&self) -> bool {
        self.live().len() == 2 && self.get(self.authority).role == LegRole::Live
    }

    /// Returns the leg that keeps the data as they were at the merge.
    pub fn checkpoint(&self) -> Option<Leg> {
        let leg = self.authority.other();
        (self.get(leg).role == LegRole::Checkpoint).then_some(leg)
    }

    /// Returns the leg that waits to be rewritten, with the reason.
    pub fn stale(&self) -> Option<(Leg, &StaleReason)> {
        let leg = self.authority.other();
        match &self.get(leg).role {
            LegRole::Stale(reason) => Some((leg, reason)),
            _ => None,
        }
    }
}

/// The book of one system; version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegBook {
    /// Version of this format.
    pub version: u32,
    /// Grows by one with every change, so that a reader notices one behind its back.
    pub generation: u64,
    /// True only between a clean stop and the next start.
    pub clean: bool,
    /// The machine that owns network and data, and is the one to continue after a pause.
    pub owner: Option<MachineId>,
    /// The highest machine id ever used.
    pub last_machine: MachineId,
    /// A pause of the owner in progress: it must be over at this wall-clock time (milliseconds since 1970).
    pub pause_until_ms: Option<i64>,
    /// The disks.
    pub disks: BTreeMap<DiskName, LegPair>,
}

impl LegBook {
    /// Version of the format this code writes.
    pub const VERSION: u32 = 1;

    /// The first book of a system that was never started.
    pub fn new(disks: BTreeMap<DiskName, LegPair>) -> Self {
        Self {
            version: Self::VERSION,
            generation: 0,
            clean: true,
            owner: None,
            last_machine: MachineId(0),
            pause_until_ms: None,
            disks,
        }
    }

    /// Marks every leg but the authority stale, as after an end without a clean stop (fault 7).
    pub fn mark_unclean(&mut self) -> Vec<(DiskName, Leg)> {
        let mut marked = Vec::new();
        for (name, pair) in &mut self.disks {
            let other = pair.authority.other();
            if pair.get(other).role == LegRole::Live {
                pair.get_mut(other).role = LegRole::Stale(StaleReason::Unclean);
                marked.push((name.clone(), other));
            }
        }
        marked
    }

    /// Says whether every disk has both legs in sync.
    pub fn duplexed(&self) -> bool {
        self.disks.values().all(LegPair::duplexed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: LegRole, b: LegRole, authority: Leg) -> LegPair {
        let leg = |role| LegEntry {
            path: PathBuf::from("/x"),
            inode: 1,
            role,
        };
        LegPair {
            a: leg(a),
            b: leg(b),
            authority,
        }
    }

    // Invariant 10: the authority leg alone is what an unclean end leaves.
    #[test]
    fn an_unclean_end_leaves_the_authority_alone() {
        let disks = BTreeMap::from([
            (
                DiskName::new("system0").expect("valid"),
                pair(LegRole::Live, LegRole::Live, Leg::B),
            ),
            (
                DiskName::new("data0").expect("valid"),
                pair(LegRole::Live, LegRole::Frozen, Leg::A),
            ),
        ]);
        let mut book = LegBook {
            version: 1,
            generation: 0,
            clean: false,
            owner: None,
            last_machine: MachineId(0),
            pause_until_ms: None,
            disks,
        };
        let marked = book.mark_unclean();
        assert_eq!(
            marked,
            vec![(DiskName::new("system0").expect("valid"), Leg::A)]
        );
        let system = &book.disks[&DiskName::new("system0").expect("valid")];
        assert_eq!(system.live(), vec![Leg::B]);
        assert_eq!(system.stale(), Some((Leg::A, &StaleReason::Unclean)));
        assert!(
            book.mark_unclean().is_empty(),
            "marking twice is marking once"
        );
    }

    #[test]
    fn only_two_live_legs_are_duplexed() {
        assert!(pair(LegRole::Live, LegRole::Live, Leg::A).duplexed());
        for other in [
            LegRole::Stale(StaleReason::New),
            LegRole::Upgraded,
            LegRole::Frozen,
        ] {
            assert!(!pair(LegRole::Live, other, Leg::A).duplexed());
        }
        assert!(!pair(LegRole::Original, LegRole::Upgraded, Leg::A).duplexed());
    }

    // RC-17, RS-04: the system is whole when every disk is, not when one of them is.
    #[test]
    fn a_book_is_duplexed_when_every_disk_is() {
        let live = || pair(LegRole::Live, LegRole::Live, Leg::A);
        let stale = pair(LegRole::Live, LegRole::Stale(StaleReason::New), Leg::A);
        let name = |name: &str| DiskName::new(name).expect("valid");
        let mut disks = BTreeMap::from([(name("system0"), live()), (name("data0"), live())]);
        assert!(LegBook::new(disks.clone()).duplexed());
        disks.insert(name("data0"), stale);
        assert!(!LegBook::new(disks).duplexed());
    }
}

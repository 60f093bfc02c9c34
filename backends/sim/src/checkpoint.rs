//! The data checkpoint as a world sees it: what a leg held when the book began to call it so must be there until the book
//! says what becomes of it, and only who asked for it may lose what was written since (design 3.9, DK-28).

use crate::state::{GuestDisk, State};
use crate::world::SimWorld;
use flipside_model::{DiskName, Leg, LegRole};
use std::collections::BTreeMap;

/// A checkpoint of one disk.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    leg: Leg,
    /// What the leg held.
    content: GuestDisk,
    /// What is acknowledged once the data are taken back.
    acked: BTreeMap<usize, u64>,
    /// The data were taken back; what had been acknowledged until then, in case a power cut takes the book back.
    discarded: Option<BTreeMap<usize, u64>>,
}

impl SimWorld {
    /// Allows, or forbids, that writes which were acknowledged since the checkpoint are lost.
    pub fn may_discard(&self, may: bool) {
        self.with(|s| s.truth.may_discard = may);
    }

    /// Says whether the data of a disk were taken back to its checkpoint.
    pub fn discarded(&self, disk: &DiskName) -> bool {
        self.with(|s| {
            let kept = s.truth.kept.get(disk);
            kept.is_some_and(|kept| kept.discarded.is_some())
        })
    }
}

impl State {
    /// Notices what the book says of checkpoints, whenever it has changed.
    pub(crate) fn note_checkpoints(&mut self) {
        let disks: Vec<DiskName> = self.book.disks.keys().cloned().collect();
        for disk in disks {
            let Some(pair) = self.book.disks.get(&disk).cloned() else {
                continue;
            };
            let known = self.truth.kept.get(&disk).cloned();
            match (pair.checkpoint(), known) {
                (Some(leg), Some(kept)) if kept.leg == leg => self.taken_back_by_a_power_cut(&disk),
                (Some(leg), _) => self.keep(&disk, leg),
                (None, Some(kept)) if kept.discarded.is_none() => {
                    if pair.authority == kept.leg {
                        self.discard(&disk, kept);
                    } else {
                        self.truth.kept.remove(&disk);
                        let live = pair.get(kept.leg).role == LegRole::Live;
                        if live && !self.same_legs(&disk) {
                            self.violate(format!(
                                "the checkpoint of {disk} is called live but lacks writes"
                            ));
                        }
                    }
                }
                (None, _) => {}
            }
        }
    }

    fn same_legs(&self, disk: &DiskName) -> bool {
        self.differing_blocks(disk).is_empty()
    }

    fn keep(&mut self, disk: &DiskName, leg: Leg) {
        let open = self.machines.values().filter(|m| m.active());
        let open = open.flat_map(|m| m.opens()).any(|(name, ..)| &name == disk);
        if open {
            self.violate(format!(
                "the checkpoint of {disk} was taken while it was in use"
            ));
        }
        let Some(content) = self.legs.get(&(disk.clone(), leg)).cloned() else {
            return;
        };
        let acked = self.truth.acked.get(disk).cloned().unwrap_or_default();
        let there = |block: usize| content.blocks[block];
        let kept = Kept {
            leg,
            acked: acked.into_keys().map(|b| (b, there(b))).collect(),
            content,
            discarded: None,
        };
        self.truth.kept.insert(disk.clone(), kept);
    }

    fn discard(&mut self, disk: &DiskName, mut kept: Kept) {
        if !self.truth.may_discard {
            self.violate(format!("data of {disk} were discarded and nobody asked"));
        }
        let before = self.truth.acked.insert(disk.clone(), kept.acked.clone());
        kept.discarded = Some(before.unwrap_or_default());
        *self.truth.stamps.entry(disk.clone()).or_default() += 1;
        self.truth.kept.insert(disk.clone(), kept);
    }

    /// The book was taken back behind the decision: what had been acknowledged counts again.
    fn taken_back_by_a_power_cut(&mut self, disk: &DiskName) {
        let kept = self.truth.kept.get_mut(disk);
        if let Some(before) = kept.and_then(|kept| kept.discarded.take()) {
            self.truth.acked.insert(disk.clone(), before);
        }
    }

    /// A checkpoint that is kept holds what it held, and nobody has it open.
    pub(crate) fn checkpoints(&self, wrong: &mut Vec<String>) {
        for (disk, kept) in &self.truth.kept {
            let pair = self.book.disks.get(disk);
            if kept.discarded.is_some() || pair.and_then(|p| p.checkpoint()) != Some(kept.leg) {
                continue;
            }
            let leg = kept.leg;
            if self.legs.get(&(disk.clone(), leg)) != Some(&kept.content) {
                wrong.push(format!("the checkpoint of {disk} on leg {leg} was written"));
            }
            for (id, machine) in &self.machines {
                let mut open = machine.opens().into_iter();
                if open.any(|(name, l, _)| (&name, l) == (disk, leg)) {
                    wrong.push(format!("{id} has the checkpoint of {disk} open"));
                }
            }
        }
    }
}

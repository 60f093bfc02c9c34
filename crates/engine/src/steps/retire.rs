//! Ends the machine that lost: Production after a commit, the Upgrade Side after an abort.
//!
//! What it changed on its system disks since the split is carried out of it first, so that only the union of both
//! sides' changes needs to be copied. If that cannot be had, the whole disk is compared instead: slower, never wrong.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{DiskRole, Fact, LegRole, MachineId, Severity, Side, StaleReason, planted};
use flipside_platform::RunState;
use std::collections::BTreeSet;

pub(super) struct Retire {
    pub side: Side,
}

#[async_trait]
impl Action for Retire {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let gone = !cx.view_of(self.side).await?.run.is_present();
        let book = cx.book().await?;
        let settled = book.disks.values().all(|p| {
            [&p.a.role, &p.b.role]
                .iter()
                .all(|r| !matches!(r, LegRole::Original | LegRole::Upgraded | LegRole::Frozen))
        });
        let recorded = cx.facts().machine(self.side).is_none() && !cx.facts().divided;
        Ok(if gone && settled && recorded {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let machine = cx.facts().machine(self.side);
        let held = cx.exclusive().await?;
        if let Some(machine) = machine {
            carry_changes(cx, machine).await?;
            cx.ports.machine.end(machine).await?;
        }
        let mut carried: BTreeSet<_> = cx.facts().carried.keys().cloned().collect();
        let booted = cx.facts().booted_since;
        if booted {
            // The machine that goes on is not the one that was forked: what that one wrote is in nobody's bitmap.
            carried.clear();
        }
        let after_commit = self.side == Side::Production && cx.facts().divided;
        let system = cx.disks(DiskRole::System);
        cx.edit_book(&held, |book| {
            for (name, pair) in &mut book.disks {
                let left = pair.authority.other();
                let reason = if carried.contains(name) || planted::is("uncarried-bitmap-trusted") {
                    StaleReason::Session
                } else {
                    StaleReason::Unclean
                };
                let role = pair.get(left).role.clone();
                match role {
                    LegRole::Upgraded => {
                        pair.get_mut(pair.authority).role = LegRole::Live;
                        pair.get_mut(left).role = LegRole::Stale(reason);
                    }
                    // The data leg was only read since the split: the authority's own bitmap says it all.
                    LegRole::Frozen if !booted => {
                        pair.get_mut(left).role = LegRole::Stale(StaleReason::Session)
                    }
                    // That bitmap died with the machine that kept it.
                    LegRole::Frozen => {
                        pair.get_mut(left).role = LegRole::Stale(StaleReason::Unclean)
                    }
                    LegRole::Stale(StaleReason::Unclean)
                        if after_commit && system.contains(name) =>
                    {
                        pair.get_mut(left).role = LegRole::Stale(reason);
                    }
                    _ => {}
                }
            }
        })
        .await?;
        cx.ledger.fact(Fact::Machine {
            side: self.side,
            machine: None,
        })?;
        cx.ledger.fact(Fact::Divided(false))?;
        Ok(())
    }
}

async fn carry_changes(cx: &Cx, machine: MachineId) -> Step {
    let view = cx.view(machine).await?;
    match view.run {
        RunState::Running if planted::is("bitmap-carried-while-running") => {}
        RunState::Running => cx.ports.machine.pause(machine).await?,
        RunState::Paused | RunState::Shutdown | RunState::IoError | RunState::Panicked => {}
        _ => return Ok(()),
    }
    for disk in cx.disks(DiskRole::System) {
        if cx.facts().carried.contains_key(&disk)
            || view
                .disks
                .get(&disk)
                .is_none_or(|d| d.dirty_bytes.is_none())
        {
            continue;
        }
        match cx.ports.disk.carry_out(machine, &disk).await {
            Ok(carried) => {
                cx.ledger.fact(Fact::Carried(carried))?;
            }
            Err(error) => {
                cx.ledger.write(flipside_model::Record::problem(
                    Severity::Warning,
                    &error.into(),
                ))?;
                cx.ledger.log(
                    Severity::Warning,
                    format!("`{disk}` will be compared as a whole"),
                )?;
            }
        }
    }
    Ok(())
}

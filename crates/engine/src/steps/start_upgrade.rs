//! Starts the process that will become the Upgrade Side: same devices, link down, waiting for the fork.
//!
//! Its system disks are the other legs alone, its data disks throw-away overlays on them (design 3.5). It can open
//! none of them before the fork completes, so the live legs are safe while it waits.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::{devices, legs};
use async_trait::async_trait;
use flipside_model::{DiskRole, Fact, MachineId, Side, planted};
use flipside_platform::{DiskSource, RunState, StartMode, StartPlan};
use flipside_session::readiness;
use std::collections::BTreeMap;

pub(super) struct StartUpgrade;

#[async_trait]
impl Action for StartUpgrade {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        if cx.facts().divided {
            return Ok(Seen::Done);
        }
        let run = cx.view_of(Side::Upgrade).await?.run;
        Ok(if run == RunState::Incoming {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        let held = cx.exclusive().await?;
        // What runs now and what is about to be opened: both sides' legs are relied on from here.
        devices::refuse_changed(cx, |_, _| true).await?;
        if let Some(left_over) = cx.facts().upgrade
            && !planted::is("machine-left-behind")
        {
            // Of an earlier try that did not come to the fork: it holds nothing.
            cx.ports.machine.end(left_over).await?;
        }
        legs::reconcile(cx, &held, production).await?;
        let mut upgrade = MachineId(0);
        let book = cx
            .edit_book(&held, |book| {
                legs::align_authority(book, &cx.spec);
                if !planted::is("machine-id-used-twice") {
                    book.last_machine = book.last_machine.next();
                }
                upgrade = book.last_machine;
            })
            .await?;
        cx.ledger.fact(Fact::Machine {
            side: Side::Upgrade,
            machine: Some(upgrade),
        })?;
        let rehearsal = cx.facts().rehearsal;
        let mut disks = BTreeMap::new();
        for disk in &cx.spec.disks {
            let Some(pair) = book.disks.get(&disk.name) else {
                continue;
            };
            let other = pair.authority.other();
            let source = match cx.role(&disk.name) {
                DiskRole::System => DiskSource::Legs(vec![other]),
                DiskRole::Data if rehearsal && planted::is("rehearsal-on-the-legs") => {
                    DiskSource::Legs(vec![other])
                }
                DiskRole::Data => DiskSource::Overlay(other),
            };
            disks.insert(disk.name.clone(), source);
        }
        let plan = StartPlan {
            copy_limit: rehearsal.then_some(readiness::REHEARSAL_COPY_BYTES),
            mode: StartMode::Incoming { from: production },
            disks,
        };
        cx.ports.machine.start(upgrade, &plan).await?;
        Ok(())
    }
}

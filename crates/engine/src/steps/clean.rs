//! Clean-up at the end of a session (FN-10): not the log, not the backups, not collected dumps.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Fact, MachineId, Side, planted};

/// Removes the gates from the guest that was upgraded.
pub(super) struct CleanGuest;

#[async_trait]
impl Action for CleanGuest {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let facts = cx.facts();
        // The facts are folded after the guest was cleaned up, and a machine that has ended since is the system's own matter.
        let folded = facts.committed && facts.upgrade.is_none();
        Ok(if !folded && (facts.committed || marked(cx)) {
            Seen::Repeat
        } else {
            Seen::Done
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        if !cx.facts().committed {
            return match cx.facts().production {
                Some(machine) => unmark(cx, machine).await,
                None => Ok(()),
            };
        }
        crate::power::boot_committed(cx).await?;
        // After a commit the machine that runs is the one that was the Upgrade Side; before its facts are folded it
        // is still called so.
        let facts = cx.facts();
        if let Some(machine) = facts.upgrade.or(facts.production)
            && !planted::is("gates-left-behind")
        {
            let _nobody_tells = cx.telling().await;
            cx.ports.guest.cleanup(machine).await?;
            unmark(cx, machine).await?;
        }
        Ok(())
    }
}

/// Says whether the session had come to mark the guest.
fn marked(cx: &Cx) -> bool {
    cx.facts().startup.is_some()
}

/// Takes the mark of the split away. Nothing hangs on it: a guest that does not answer now keeps it until the next session.
async fn unmark(cx: &Cx, machine: MachineId) -> Step {
    if let Err(error) = cx.ports.guest.mark_split(machine, false).await {
        cx.ledger.write(flipside_model::Record::problem(
            flipside_model::Severity::Information,
            &error.into(),
        ))?;
    }
    Ok(())
}

/// Removes carriers, and lets the machine that runs be the system again.
pub(super) struct CleanHost;

#[async_trait]
impl Action for CleanHost {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let facts = cx.facts();
        Ok(if facts.upgrade.is_some() {
            Seen::Todo
        } else {
            Seen::Repeat
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        if cx.facts().carry {
            super::carry::fetch(cx).await?;
        }
        let _held = cx.exclusive().await?;
        if cx.facts().carry {
            cx.ports.disk.drop_scratch().await?;
        }
        for disk in &cx.spec.disks {
            cx.ports.disk.drop_carried(&disk.name).await?;
        }
        let facts = cx.facts();
        if facts.committed && facts.upgrade.is_some() {
            cx.ledger.fact(Fact::Machine {
                side: Side::Production,
                machine: facts.upgrade,
            })?;
            cx.ledger.fact(Fact::Owner(Side::Production))?;
        }
        cx.ledger.fact(Fact::Machine {
            side: Side::Upgrade,
            machine: None,
        })?;
        Ok(())
    }
}

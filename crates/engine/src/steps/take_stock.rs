//! Records what a split will change, before it changes anything.
//!
//! Startup types and data mounts are read on the Production Side: at the fork the Upgrade Side is identical. So they
//! are durable before the first of them is touched, and no retry can mistake our own change for the original (SV-09).
//! What each disk is, System or Data, is established here too, from what the guest says at this moment (DK-13), and
//! stays for the whole session.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{
    DiskRole, Fact, MachineId, Problem, ProblemCode, Record, Severity, Side, planted,
};
use flipside_session::disks;

pub(super) struct TakeStock;

#[async_trait]
impl Action for TakeStock {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let facts = cx.facts();
        let known = facts.roles.is_some() && facts.startup.is_some() && facts.quiesced.is_some();
        Ok(if known { Seen::Done } else { Seen::Todo })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        establish_roles(cx, production).await?;
        let data = cx.disks(DiskRole::Data);
        let mounts = cx.ports.guest.mounts(production, &data).await?;
        cx.ledger.fact(Fact::Mounts(mounts))?;
        note_packages(cx, production).await?;
        mark_logs(cx, production).await?;
        mark(cx, production).await?;
        let held = cx.ports.guest.startup(production, &cx.hold_set()).await?;
        cx.ledger.fact(Fact::Quiesced(held.quiesced))?;
        cx.ledger.fact(Fact::Startup(held.units))?;
        Ok(())
    }
}

/// Establishes System and Data for this session. A guest that cannot tell what it needs is not split: a guess could
/// take its root file system for data.
async fn establish_roles(cx: &Cx, production: MachineId) -> Step {
    if cx.facts().roles.is_some() {
        return Ok(());
    }
    let found = cx.ports.guest.inventory(production).await?;
    let roles = disks::roles(&cx.spec, &cx.settings(), Some(&found));
    if let Some(wrong) = roles.wrong.first() {
        return Err(Problem::new(ProblemCode::NotReady, wrong.text.clone())
            .about(wrong.disk.as_str())
            .advise(format!(
                "{}, then `flipside abort` and split again",
                wrong.advice
            ))
            .into());
    }
    let mut changed = roles.changed(&cx.spec);
    if planted::is("marked-disks-forgotten") {
        changed.clear();
    }
    for (disk, role) in &changed {
        let why = roles
            .disks
            .get(disk)
            .map(|j| j.why.join("; "))
            .unwrap_or_default();
        let text = format!(
            "`{disk}` is a {} disk in this upgrade: {why}",
            role.to_string().to_lowercase()
        );
        cx.ledger.write(Record::Log {
            severity: Severity::Information,
            text,
            detail: None,
            component: Some(disk.to_string()),
            advice: None,
        })?;
    }
    cx.ledger.fact(Fact::Roles(changed.into_iter().collect()))?;
    Ok(())
}

/// Remembers in the guest from when on its logs are to be saved (LB-02). Without the mark they are saved as a whole.
async fn mark_logs(cx: &Cx, production: MachineId) -> Step {
    if cx.settings().log_backup.wanted().is_none() {
        return Ok(());
    }
    if let Err(error) = cx.ports.guest.mark_logs(production).await {
        let problem = Problem::from(error);
        cx.ledger
            .write(Record::problem(Severity::Warning, &problem))?;
    }
    Ok(())
}

/// Marks the moment from which changes count. Without the mark nothing can be carried over; if nothing is to be, a guest
/// that cannot be marked costs a warning.
async fn mark(cx: &Cx, production: MachineId) -> Step {
    match cx.ports.guest.mark_split(production, true).await {
        Ok(()) => {}
        Err(error) if cx.facts().carry => return Err(error.into()),
        Err(error) => {
            let problem = Problem::from(error);
            cx.ledger
                .write(Record::problem(Severity::Warning, &problem))?;
        }
    }
    Ok(())
}

/// Records what is installed, so that it can be told later what the upgrade changed (VC-11): in Merge the Production
/// Side is paused and cannot be asked. No upgrade depends on it, so a guest that cannot tell costs a warning.
async fn note_packages(cx: &Cx, production: MachineId) -> Step {
    match cx.ports.guest.packages(production).await {
        Ok(packages) => {
            cx.ledger.fact(Fact::Packages(packages))?;
        }
        Err(error) => {
            let problem = Problem::from(error);
            cx.ledger
                .write(Record::problem(Severity::Warning, &problem))?;
        }
    }
    Ok(())
}

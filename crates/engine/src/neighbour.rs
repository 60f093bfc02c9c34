//! Notices in Split what must not be done on the Production Side: a restart of its operating system, an installation of
//! software (US-21, US-26, US-27). It is told once; nothing is prevented, for those are the users' applications.

use crate::context::Cx;
use crate::inspect::changes;
use flipside_model::{
    Fact, MachineId, OperationalState, Problem, Record, Severity, Side, UpgradeState,
};
use flipside_platform::RunState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked at: it costs the guest that serves the users two small programs.
const EVERY: Duration = Duration::from_secs(20);

/// So many packages are named in one line.
const NAMED: usize = 8;

#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbour {
    last: Arc<Mutex<Option<Instant>>>,
}

impl Neighbour {
    pub(crate) async fn look(&self, cx: &Cx) -> Result<(), Problem> {
        let state = cx.state();
        let split = state.upgrade == UpgradeState::Split
            && state.operational != OperationalState::Busy
            && state.facts.divided;
        let Some(machine) = state.facts.production.filter(|_| split) else {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(());
        };
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|at| at.elapsed() < EVERY) {
                return Ok(());
            }
            *last = Some(Instant::now());
        }
        if cx.view(machine).await?.run != RunState::Running {
            return Ok(());
        }
        look_at(cx, machine).await
    }
}

async fn look_at(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    let boot_id = cx.ports.guest.ping(machine).await?.boot_id;
    let stamp = cx.ports.guest.software_stamp(machine).await?;
    let now = (boot_id, stamp);
    let before = cx.facts().production_is.clone();
    if before.as_ref() == Some(&now) {
        return Ok(());
    }
    if let Some((boot_id, stamp)) = before {
        if boot_id != now.0 {
            warn_of(
                cx,
                "the operating system of the Production Side was restarted".to_owned(),
                None,
                "the Production Side is not restarted during an upgrade: check which side you are on before you restart anything",
            )?;
        }
        if stamp != now.1 {
            tell_packages(cx, machine).await?;
        }
    }
    let (boot_id, stamp) = now;
    cx.ledger.fact(Fact::ProductionIs { boot_id, stamp })?;
    Ok(())
}

async fn tell_packages(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    let Some(known) = cx.facts().packages.clone() else {
        return Ok(());
    };
    let found = changes(&known, &cx.ports.guest.packages(machine).await?);
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = found.iter().take(NAMED).map(|c| c.name.as_str()).collect();
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    warn_of(
        cx,
        format!(
            "software was installed on the Production Side since the split ({} package(s))",
            found.len()
        ),
        Some(format!("{}{more}", names.join(", "))),
        "install on the Upgrade Side only; what is changed on the Production Side's system disks is lost at the commit",
    )
}

fn warn_of(cx: &Cx, text: String, detail: Option<String>, advice: &str) -> Result<(), Problem> {
    cx.ledger
        .write(Record::Log {
            severity: Severity::Warning,
            text,
            detail,
            component: Some(Side::Production.to_string()),
            advice: Some(advice.to_owned()),
        })
        .map(|_| ())
}

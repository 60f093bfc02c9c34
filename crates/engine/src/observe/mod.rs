//! Observes what readiness asks for, lets the session crate judge it, and records every finding.
//!
//! One file per theme, as in `flipside_session::readiness`. A question that fails is a fact too: it ends up in the
//! finding of its test, and no other test is missing because of it (RC-08).

mod actions;
mod disks;
mod services;

use crate::context::Cx;
use crate::devices;
use flipside_model::{MachineId, Problem, Record, UpgradeConfig};
use flipside_platform::RunState;
use flipside_session::readiness::{self, Observed};

/// Runs the readiness check: observes, judges, records. Changes nothing (RC-53). Returns warnings and errors.
pub(crate) async fn check(cx: &Cx, config: &UpgradeConfig) -> Result<(usize, usize), Problem> {
    let book = cx.book().await?;
    let host = cx.ports.host.facts().await?;
    let machine = cx.facts().production;
    let running = match machine {
        Some(machine) => cx.view(machine).await?.run == RunState::Running,
        None => false,
    };
    let resync = cx
        .mirrors
        .progress()
        .into_iter()
        .map(|(disk, (done, total, _))| {
            (
                disk.as_str().to_owned(),
                crate::status::percent(done, total),
            )
        })
        .collect();
    let guest = match machine.filter(|_| running) {
        None => Err("the machine does not run".to_owned()),
        Some(machine) => match cx.ports.guest.ping(machine).await {
            Ok(_) => Ok(machine),
            Err(error) => Err(error.to_string()),
        },
    };
    let inventory = disks::inventory(cx, &guest).await;
    let data = disks::data(cx, config, &inventory);
    let seen = Observed {
        spec: &cx.spec,
        config,
        book: &book,
        resync,
        running,
        agent_silent: guest.clone().err(),
        memory_available_mib: host.memory_available_mib,
        state_free_bytes: host.state_free_bytes,
        hypervisor: host.hypervisor,
        hypervisor_bad: host.hypervisor_bad,
        not_forkable: host.not_forkable,
        one_device: host.one_device,
        leg_faults: devices::changes(cx)
            .await?
            .into_iter()
            .map(|change| (change.disk.to_string(), change.text))
            .collect(),
        services: services::running(cx, &guest, config).await,
        written: services::written(cx, &guest, config, &data).await,
        inventory,
        prepared: actions::prepared(cx, &guest, config, &data).await,
    };
    let findings = readiness::judge(&seen);
    for finding in &findings {
        cx.ledger.write(Record::Log {
            severity: finding.severity,
            text: finding.text.clone(),
            detail: None,
            component: finding.component.clone(),
            advice: finding.advice.clone(),
        })?;
    }
    Ok(readiness::count(&findings))
}

/// The machine whose guest answers, or why none does.
type Guest = Result<MachineId, String>;

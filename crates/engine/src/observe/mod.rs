//! Observes what readiness asks for, lets the session crate judge it, and records every finding.
//!
//! One file per theme, as in `flipside_session::readiness`. A question that fails is a fact too: it ends up in the
//! finding of its test, and no other test is missing because of it (RC-08).

mod actions;
mod disks;
mod guest;
mod network;
mod services;

use crate::context::Cx;
use crate::devices;
use flipside_model::{MachineId, Problem, Record, UpgradeConfig};
use flipside_platform::RunState;
use flipside_session::readiness::{self, Asked, HostSeen, Observed};

/// Runs the readiness check: observes, judges, records. Changes nothing (RC-53). Returns warnings and errors.
pub(crate) async fn check(cx: &Cx, config: &UpgradeConfig) -> Result<(usize, usize), Problem> {
    let book = cx.book().await?;
    let machine = cx.facts().production;
    let running = match machine {
        Some(machine) => match cx.view(machine).await {
            Ok(view) => Ok(view.run == RunState::Running),
            Err(problem) => Err(problem.to_string()),
        },
        None => Ok(false),
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
    let mut agent_version = None;
    let guest = match machine.filter(|_| running == Ok(true)) {
        None => Err("the machine does not run".to_owned()),
        Some(machine) => match cx.ports.guest.ping(machine).await {
            Ok(info) => {
                agent_version = Some(info.agent);
                Ok(machine)
            }
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
        agent_version,
        host: host(cx).await,
        leg_faults: devices::changes(cx)
            .await
            .map(|changes| {
                let told = changes.into_iter();
                told.map(|c| (c.disk.to_string(), c.text)).collect()
            })
            .map_err(|problem| problem.to_string()),
        network: network::look(cx, machine).await,
        guest: guest::look(cx, &guest).await,
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

async fn host(cx: &Cx) -> Asked<HostSeen> {
    let facts = cx.ports.host.facts().await;
    let facts = facts.map_err(|error| error.to_string())?;
    Ok(HostSeen {
        memory_available_mib: facts.memory_available_mib,
        state_free_bytes: facts.state_free_bytes,
        hypervisor: facts.hypervisor,
        running_hypervisor: facts.running_hypervisor,
        hypervisor_bad: facts.hypervisor_bad,
        not_forkable: facts.not_forkable,
        one_device: facts.one_device,
    })
}

/// The machine whose guest answers, or why none does.
type Guest = Result<MachineId, String>;

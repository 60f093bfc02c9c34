//! Observes what readiness asks for, lets the session crate judge it, and records every finding.

use crate::context::Cx;
use crate::devices;
use flipside_model::{DiskRole, Problem, Record, Severity, UpgradeConfig};
use flipside_platform::RunState;
use flipside_session::readiness::{self, Observed, ServiceSeen, WrittenFile};

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
    let mut seen = Observed {
        spec: &cx.spec,
        config,
        book: &book,
        resync,
        running,
        agent_silent: running
            .then_some(())
            .is_none()
            .then(|| "the machine does not run".to_owned()),
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
        services: Vec::new(),
        written: Vec::new(),
    };
    if let Some(machine) = machine.filter(|_| running) {
        match cx.ports.guest.ping(machine).await {
            Ok(_) => ask_guest(cx, machine, config, &mut seen).await?,
            Err(error) => seen.agent_silent = Some(error.to_string()),
        }
    }
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

async fn ask_guest(
    cx: &Cx,
    machine: flipside_model::MachineId,
    config: &UpgradeConfig,
    seen: &mut Observed<'_>,
) -> Result<(), Problem> {
    let units: Vec<String> = config
        .services
        .iter()
        .map(flipside_model::ServiceName::unit)
        .collect();
    if units.is_empty() {
        return Ok(());
    }
    let services = cx.ports.guest.services(machine, &units).await?;
    seen.services = services
        .into_iter()
        .map(|s| ServiceSeen {
            unit: s.unit,
            exists: s.exists,
            active: s.active,
        })
        .collect();
    let data = cx.disks(DiskRole::Data);
    let on_data = |disk: &str| data.iter().any(|d| d.as_str() == disk);
    match cx.ports.guest.open_files(machine, &units).await {
        Ok(files) => {
            seen.written = files
                .into_iter()
                .filter(|f| !on_data(&f.disk))
                .map(|f| WrittenFile {
                    unit: f.unit,
                    path: f.path,
                })
                .collect();
        }
        Err(error) => {
            // A test that cannot be made must not look like one that passed.
            let problem =
                Problem::from(error).advise("the data of the services could not be located");
            cx.ledger
                .write(Record::problem(Severity::Warning, &problem))?;
        }
    }
    Ok(())
}

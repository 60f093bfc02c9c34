//! Services: what they are, stopping and starting them.

use super::escape::{check_units, is_unit, words};
use super::link::{Script, refused};
use super::show::{self, Shown};
use super::{LinuxGuest, limits, records, script};
use flipside_model::{MachineId, StartupType};
use flipside_platform::{
    ListedService, PortError, PortErrorKind, PortResult, ServiceView, UnitStart,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

static SERVICES: Script = script!("look at the services", "services");
static ALL: Script = script!("list all services", "all");
static STOP: Script = script!("stop services", "stop");
static START: Script = script!("start services", "start");

/// Rounds up to whole seconds, at least one: scripts count in them.
fn seconds(deadline: Duration) -> String {
    (deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0))
        .max(1)
        .to_string()
}

impl LinuxGuest {
    /// What systemd says of units, in the order asked, and whether the gates are lifted.
    pub(super) async fn describe(
        &self,
        id: MachineId,
        units: &[String],
    ) -> PortResult<(bool, Vec<Shown>)> {
        check_units(units)?;
        if units.is_empty() {
            return Ok((false, Vec::new()));
        }
        let out = self.link.script(id, &SERVICES, units, limits::LOOK).await?;
        let text = String::from_utf8_lossy(&out);
        let (flag, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let shown = show::shown(rest, units.len()).ok_or_else(|| nonsense(id, SERVICES.what))?;
        Ok((flag == "open", shown))
    }

    pub(super) async fn list_services(
        &self,
        id: MachineId,
        units: &[String],
    ) -> PortResult<Vec<ServiceView>> {
        let (lifted, shown) = self.describe(id, units).await?;
        let views = units.iter().zip(&shown).map(|(unit, shown)| ServiceView {
            unit: unit.clone(),
            exists: shown.exists(),
            active: shown.active(),
            refuses_stop: shown.get("RefuseManualStop") == "yes",
            startup: StartupType(words(shown.startup().as_bytes())),
            gated: shown.has_gate() && !lifted,
            alias_of: shown.real_name(unit),
        });
        Ok(views.collect())
    }

    /// All services: what systemd has loaded, and what only lies on the disk.
    pub(super) async fn list_all_services(&self, id: MachineId) -> PortResult<Vec<ListedService>> {
        let out = self.link.script(id, &ALL, &[], limits::PACKAGES).await?;
        Ok(all(&String::from_utf8_lossy(&out)))
    }

    pub(super) async fn stop_units(
        &self,
        id: MachineId,
        units: &[String],
        deadline: Duration,
    ) -> PortResult<()> {
        check_units(units)?;
        if units.is_empty() {
            return Ok(());
        }
        let mut arguments = vec![seconds(deadline)];
        arguments.extend(units.iter().rev().cloned());
        let status = self
            .link
            .attempt(id, &STOP, &arguments, deadline + limits::MARGIN)
            .await?;
        if !status.success() {
            return Err(refused(id, STOP.what, &status));
        }
        let text = String::from_utf8_lossy(&status.out);
        let expired = records(&text).any(|r| r[0] == "expired");
        let shown = text.split_once("show\n").map_or("", |(_, rest)| rest);
        let shown = show::shown(shown, units.len()).ok_or_else(|| nonsense(id, STOP.what))?;
        let up = units.iter().rev().zip(&shown).find(|(_, s)| !s.down());
        let Some((unit, state)) = up else {
            return Ok(());
        };
        let state = words(state.get("ActiveState").as_bytes());
        let mut error = if expired || state == "deactivating" {
            PortError::timed_out(format!(
                "{unit} had not stopped after {} s ({state})",
                deadline.as_secs()
            ))
            .advise(format!(
                "look at `systemctl status {unit}` in the guest; stop it there or allow more time (`timeouts.service`), then retry"
            ))
        } else {
            PortError::failed(format!("{unit} is {state} after it was stopped")).advise(format!(
                "something starts it again: look at `systemctl list-dependencies --reverse {unit}` in the guest"
            ))
        }
        .about(unit.clone());
        let said = words(&status.err);
        if !said.is_empty() {
            error.causes.push(said);
        }
        Err(error)
    }

    pub(super) async fn start_units(
        &self,
        id: MachineId,
        units: &[UnitStart],
        deadline: Duration,
    ) -> PortResult<()> {
        check_units(units.iter().map(|u| &u.unit))?;
        if units.is_empty() {
            return Ok(());
        }
        let mut arguments = vec![seconds(deadline)];
        for unit in units {
            arguments.push(if unit.required { "need" } else { "want" }.to_owned());
            arguments.push(unit.unit.clone());
        }
        let status = self
            .link
            .attempt(id, &START, &arguments, deadline + limits::MARGIN)
            .await?;
        if !status.success() {
            return Err(refused(id, START.what, &status));
        }
        let text = String::from_utf8_lossy(&status.out);
        let mut failures: Vec<(&str, &str)> = Vec::new();
        let mut log: Vec<(&str, &str)> = Vec::new();
        for record in records(&text) {
            match record.as_slice() {
                ["failed", unit, code] => failures.push((unit, code)),
                ["log", unit, rest @ ..] => log.push((unit, rest.first().copied().unwrap_or(""))),
                _ => {}
            }
        }
        let said = |unit: &str| -> Vec<String> {
            let lines = log.iter().filter(|(of, _)| *of == unit);
            lines
                .map(|(_, line)| words(line.as_bytes()))
                .filter(|line| !line.is_empty())
                .take(40)
                .collect()
        };
        for (unit, code) in failures {
            let required = units.iter().any(|u| u.unit == unit && u.required);
            if !required {
                tracing::warn!(%id, unit, code, log = ?said(unit), "a unit that need not run did not start");
                continue;
            }
            let made = if code == "124" {
                PortError::timed_out(format!(
                    "{unit} had not started after {} s",
                    deadline.as_secs()
                ))
                .advise(format!(
                    "look at `systemctl status {unit}` in the guest, or allow more time (`timeouts.service`)"
                ))
            } else {
                PortError::failed(format!("{unit} did not start")).advise(format!(
                    "see its last messages below, or `journalctl -u {unit}` in the guest"
                ))
            };
            let mut error = made.about(unit);
            error.causes = said(unit);
            return Err(error);
        }
        let shown = text.split_once("show\n").map_or("", |(_, rest)| rest);
        let shown = show::shown(shown, units.len()).ok_or_else(|| nonsense(id, START.what))?;
        for (unit, state) in units.iter().zip(&shown) {
            if is_up(state) {
                continue;
            }
            if !unit.required {
                tracing::warn!(%id, unit = unit.unit, "a unit that need not run is not up");
                continue;
            }
            let (unit, is) = (&unit.unit, words(state.get("ActiveState").as_bytes()));
            let mut error = PortError::failed(format!("{unit} is {is} after it was started"))
                .about(unit.clone())
                .advise(format!("see `journalctl -u {unit}` in the guest"));
            if state.get("ConditionResult") == "no" {
                error
                    .causes
                    .push("a condition of the unit was not met, so it was skipped".to_owned());
            }
            error.causes.push(format!(
                "state {}, result {}",
                words(state.get("SubState").as_bytes()),
                words(state.get("Result").as_bytes())
            ));
            return Err(error);
        }
        Ok(())
    }
}

/// Reads the list: `file UNIT STATE` of unit files, `unit UNIT LOAD ACTIVE SUB DESCRIPTION` of loaded units. A template
/// is no service, and an alias is one that stands there by its real name.
pub(super) fn all(text: &str) -> Vec<ListedService> {
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    let mut units: BTreeMap<&str, (bool, String)> = BTreeMap::new();
    for line in text.lines() {
        let mut columns = line.split_whitespace();
        let (kind, Some(unit)) = (columns.next(), columns.next()) else {
            continue;
        };
        if !is_unit(unit) || unit.contains("@.") {
            continue;
        }
        match kind {
            Some("file") => {
                files.insert(unit, columns.next().unwrap_or_default());
            }
            Some("unit") if columns.next() != Some("not-found") => {
                let active = matches!(columns.next(), Some("active" | "reloading"));
                let described: Vec<&str> = columns.skip(1).collect();
                units.insert(unit, (active, described.join(" ")));
            }
            _ => {}
        }
    }
    let names = files.iter().filter(|(_, state)| **state != "alias");
    let names: BTreeSet<&str> = names
        .map(|(unit, _)| *unit)
        .chain(units.keys().copied())
        .collect();
    let listed = names.into_iter().take(limits::LISTED).map(|unit| {
        let (active, described) = units.get(unit).cloned().unwrap_or_default();
        // An instance has no file of its own; what is transient has none that is listed.
        let startup = files.get(unit).copied().unwrap_or_default();
        ListedService {
            unit: words(unit.as_bytes()),
            description: words(described.as_bytes()),
            active,
            startup: StartupType(words(startup.as_bytes())),
        }
    });
    listed.collect()
}

/// Whether a unit is up after a start: a service of one shot is, once it ended well.
fn is_up(state: &Shown) -> bool {
    state.active()
        || state.get("Type") == "oneshot"
            && state.down()
            && state.get("Result") == "success"
            && state.get("ConditionResult") != "no"
}

/// The error for an answer that makes no sense.
pub(super) fn nonsense(id: MachineId, what: &str) -> PortError {
    PortError::new(
        PortErrorKind::Failed,
        format!("cannot {what} in the guest of {id}: its answer makes no sense"),
    )
    .about(id.to_string())
    .advise("check systemd and the guest agent in the guest")
}

#[cfg(test)]
mod tests {
    use super::*;

    // SV-01: every service once, by its real name, with what is known of it; templates and nonsense are left out.
    #[test]
    fn the_list_has_every_service_once() {
        let found = all(
            "file ssh.service enabled enabled\nfile sshd.service alias -\nfile db@.service enabled enabled\n\
            file off.service disabled enabled\nfile odd\u{1b}.service x\nfile\n\
            unit ssh.service loaded active running OpenBSD  Secure Shell\nunit db@15.service loaded inactive dead DB 15\n\
            unit gone.service not-found inactive dead gone.service\nunit run-1.service loaded active running /bin/x\n",
        );
        let shown: Vec<(&str, bool, &str, &str)> = found
            .iter()
            .map(|s| {
                (
                    s.unit.as_str(),
                    s.active,
                    s.startup.0.as_str(),
                    s.description.as_str(),
                )
            })
            .collect();
        let expected = [
            ("db@15.service", false, "", "DB 15"),
            ("off.service", false, "disabled", ""),
            ("run-1.service", true, "", "/bin/x"),
            ("ssh.service", true, "enabled", "OpenBSD Secure Shell"),
        ];
        assert_eq!(shown, expected);
    }
}

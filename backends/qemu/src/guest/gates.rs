//! Holding and releasing: startup types, gates, mount table.

use super::escape::{check_units, is_pattern, unit_of_path, words};
use super::link::{Script, refused};
use super::services::nonsense;
use super::show::{self, Shown};
use super::{LinuxGuest, fstab, limits, pairs, script};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flipside_model::{MachineId, SavedStartup, StartupType};
use flipside_platform::{Held, HoldSet, PortError, PortErrorKind, PortResult};
use flipside_qmp::{AgentError, Exec};
use std::collections::{BTreeSet, HashMap};

static DISCOVER: Script = script!("find what acts by itself", "discover");
static HOLD: Script = script!("hold the services", "gate", "hold");
static RELEASE: Script = script!("restore the startup types", "gate", "release");
static FLAG: Script = script!("move the gate", "flag");
static CLEANUP: Script = script!("remove the gates", "gate", "cleanup");

const FSTAB: &str = "/etc/fstab";
/// Exit status of a script that found the mount table changed.
const CHANGED: i64 = 4;

/// Startup types that `systemctl` can put back by a verb.
const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";
const MASKED: &str = "masked";

impl LinuxGuest {
    pub(super) async fn read_startup(&self, id: MachineId, set: &HoldSet) -> PortResult<Held> {
        check(set)?;
        let (_, shown) = self.describe(id, &set.units).await?;
        let mut units: Vec<SavedStartup> = set.units.iter().zip(&shown).map(saved).collect();
        let triggers = triggers(set, &shown);
        let (_, shown) = self.describe(id, &triggers).await?;
        let there = triggers.iter().zip(&shown).filter(|(_, s)| s.exists());
        units.extend(there.map(saved));
        let mut running = self.discover(id, set).await?;
        // A timer that starts a controlled service goes with the service.
        running.retain(|(unit, _)| !triggers.contains(unit));
        let names: Vec<String> = running.iter().map(|(unit, _)| unit.clone()).collect();
        let (_, shown) = self.describe(id, &names).await?;
        let quiesced = running.iter().zip(&shown).map(|((unit, active), shown)| {
            SavedStartup {
                // One that is only about to end was started by something else, and is not to be started again.
                active: *active,
                ..saved((unit, shown))
            }
        });
        Ok(Held {
            units,
            quiesced: quiesced.collect(),
        })
    }

    /// Finds the units that act by themselves and run.
    async fn discover(&self, id: MachineId, set: &HoldSet) -> PortResult<Vec<(String, bool)>> {
        if let Some(bad) = set.quiesce.iter().find(|p| !is_pattern(p)) {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!("`{}` is not a pattern for units", words(bad.as_bytes())),
            )
            .advise("write it as `systemctl list-units` takes it, such as `*.timer`"));
        }
        if set.quiesce.is_empty() {
            return Ok(Vec::new());
        }
        let out = self
            .link
            .script(id, &DISCOVER, &set.quiesce, limits::LOOK)
            .await?;
        let mut listed = show::listed(&String::from_utf8_lossy(&out));
        listed.retain(|(unit, _)| {
            show::may_be_quieted(unit) && !set.units.contains(unit) && super::escape::is_unit(unit)
        });
        listed.sort();
        listed.dedup();
        Ok(listed)
    }

    pub(super) async fn put_up_gates(
        &self,
        id: MachineId,
        set: &HoldSet,
        held: &Held,
    ) -> PortResult<()> {
        check(set)?;
        let mounts: Vec<String> = set
            .mounts
            .iter()
            .map(|m| unit_of_path(&m.target, ".mount"))
            .collect();
        let asserted: Vec<String> = unique(set.units.iter().chain(&mounts));
        let quiesced: Vec<String> = unique(held.quiesced.iter().map(|q| &q.unit));
        let all = unique(asserted.iter().chain(&quiesced));
        let (_, shown) = self.describe(id, &all).await?;
        let states: HashMap<&String, &Shown> = all.iter().zip(&shown).collect();

        // Their sockets, timers and paths would start them in vain; skipped, they come back with the release.
        let mut skipped = quiesced.clone();
        for unit in &set.units {
            let triggers = states.get(unit).into_iter().flat_map(|s| s.triggers());
            skipped.extend(triggers.map(str::to_owned));
        }
        // Those that were there before the split: an upgrade may have taken the connection away meanwhile.
        skipped.extend(held.units.iter().map(|saved| saved.unit.clone()));
        let skipped: Vec<String> = unique(&skipped)
            .into_iter()
            .filter(|unit| !asserted.contains(unit) && super::escape::is_unit(unit))
            .collect();
        let disable: Vec<&String> = all
            .iter()
            .filter(|unit| {
                states
                    .get(unit)
                    .is_some_and(|s| s.exists() && s.get("UnitFileState") == ENABLED)
            })
            .collect();
        let fresh = !disable.is_empty()
            || asserted.iter().chain(&skipped).any(|unit| {
                // One that was not looked at counts as new.
                states.get(unit).is_none_or(|s| s.exists() && !s.has_gate())
            });

        let mut arguments = Vec::new();
        let running = quiesced
            .iter()
            .filter(|unit| states.get(unit).is_none_or(|s| !s.down()));
        arguments.extend(pairs(running.map(|u| ("stop", u.as_str()))));
        if fresh {
            arguments.extend(pairs([("reload", "yes")]));
        }
        arguments.extend(pairs(asserted.iter().map(|u| ("assert", u.as_str()))));
        arguments.extend(pairs(skipped.iter().map(|u| ("skip", u.as_str()))));
        arguments.extend(pairs(disable.iter().map(|u| ("disable", u.as_str()))));
        let targets: Vec<&str> = set.mounts.iter().map(|m| m.target.as_str()).collect();
        let out = self
            .with_fstab(id, &HOLD, &arguments, |table| fstab::hold(table, &targets))
            .await?;

        let gated = asserted.len() + skipped.len();
        let shown = show::shown(&String::from_utf8_lossy(&out), gated)
            .ok_or_else(|| nonsense(id, HOLD.what))?;
        for (unit, state) in asserted.iter().chain(&skipped).zip(&shown) {
            prove_held(id, unit, state, quiesced.contains(unit))?;
        }
        Ok(())
    }

    pub(super) async fn restore_startup(
        &self,
        id: MachineId,
        set: &HoldSet,
        held: &Held,
    ) -> PortResult<()> {
        let saved: Vec<&SavedStartup> = held.units.iter().chain(&held.quiesced).collect();
        let names: Vec<String> = unique(saved.iter().map(|s| &s.unit));
        let (_, shown) = self.describe(id, &names).await?;
        let there: Vec<String> = names
            .iter()
            .zip(&shown)
            .filter(|(_, s)| s.exists())
            .map(|(unit, _)| unit.clone())
            .collect();
        let states = self.enabled(id, &there).await?;

        let mut arguments = Vec::new();
        for saved in &saved {
            let Some(state) = states.get(&saved.unit) else {
                if set.units.contains(&saved.unit) {
                    return Err(PortError::absent(format!(
                        "{} does not exist on the Upgrade Side any more",
                        saved.unit
                    ))
                    .about(saved.unit.clone())
                    .advise("the upgrade removed or renamed it: install it again, or change the list of services"));
                }
                tracing::warn!(%id, unit = saved.unit, "a unit that was quiesced is gone");
                continue;
            };
            let before = saved.startup.0.as_str();
            let expected = if before == ENABLED { DISABLED } else { before };
            if state != expected && state != before {
                tracing::warn!(%id, unit = saved.unit, before, now = state,
                    "the startup type was changed on the Upgrade Side; the saved one is restored");
            }
            arguments.extend(pairs(verbs(before, state, &saved.unit)));
        }
        self.with_fstab(id, &RELEASE, &arguments, fstab::restore)
            .await?;

        let states = self.enabled(id, &there).await?;
        for saved in &saved {
            let before = saved.startup.0.as_str();
            let proven = matches!(before, ENABLED | DISABLED | MASKED);
            let now = states.get(&saved.unit);
            if proven && now.is_some_and(|now| now != before) {
                let now = words(now.map_or("", String::as_str).as_bytes());
                return Err(PortError::failed(format!(
                    "{} is `{now}` after its startup type `{before}` was restored",
                    saved.unit
                ))
                .about(saved.unit.clone())
                .advise(format!(
                    "look at `systemctl cat {}` on the Upgrade Side; set it there and retry",
                    saved.unit
                )));
            }
        }
        Ok(())
    }

    /// Asks for startup types as they are on the disk now: what systemd has loaded may be older.
    async fn enabled(
        &self,
        id: MachineId,
        units: &[String],
    ) -> PortResult<HashMap<String, String>> {
        const WHAT: &str = "read the startup types";
        let ask = async |units: &[String]| -> PortResult<Vec<String>> {
            let fixed = ["is-enabled", "--"].map(str::to_owned);
            let exec = Exec::new("systemctl", fixed.iter().chain(units).cloned());
            let status = self.link.run(id, WHAT, &exec, limits::LOOK).await?;
            let text = String::from_utf8_lossy(&status.out);
            Ok(text.lines().map(|l| l.trim().to_owned()).collect())
        };
        if units.is_empty() {
            return Ok(HashMap::new());
        }
        let answers = ask(units).await?;
        if answers.len() == units.len() {
            return Ok(units.iter().cloned().zip(answers).collect());
        }
        // One of them has no answer of one line; ask for each.
        let mut states = HashMap::new();
        for unit in units {
            let answers = ask(std::slice::from_ref(unit)).await?;
            let first = answers.into_iter().next().unwrap_or_default();
            states.insert(unit.clone(), first);
        }
        Ok(states)
    }

    /// Runs a script that also edits the mount table. The edit is made on what was read, and made again when
    /// somebody changed the file before the script wrote it.
    async fn with_fstab(
        &self,
        id: MachineId,
        script: &Script,
        arguments: &[String],
        edit: impl Fn(&[u8]) -> Vec<u8>,
    ) -> PortResult<Vec<u8>> {
        let mut left = limits::EDITS;
        loop {
            left -= 1;
            let mut arguments = arguments.to_vec();
            if let Some(before) = self.mount_table(id).await? {
                let after = edit(&before);
                if after != before {
                    let (before, after) = (STANDARD.encode(before), STANDARD.encode(after));
                    arguments.extend(pairs([("fstab", before.as_str()), ("to", &after)]));
                }
            }
            let status = self
                .link
                .attempt(id, script, &arguments, limits::CHANGE)
                .await?;
            if status.success() {
                return Ok(status.out);
            }
            if status.exitcode != Some(CHANGED) || left == 0 {
                return Err(refused(id, script.what, &status));
            }
        }
    }

    /// Reads the mount table; `None` when there is none.
    async fn mount_table(&self, id: MachineId) -> PortResult<Option<Vec<u8>>> {
        let client = self.link.reach(id, limits::REACH).await?;
        match client.read_file(FSTAB, limits::FSTAB).await {
            Ok(table) => Ok(Some(table)),
            Err(AgentError::Command { desc, .. }) if desc.contains("No such file") => Ok(None),
            Err(error) => Err(self.link.error(id, "read /etc/fstab", &error).about(FSTAB)),
        }
    }

    /// Lifts or lowers the gate, and looks.
    pub(super) async fn flag(&self, id: MachineId, verb: &str, lifted: bool) -> PortResult<()> {
        if self.is_lifted(id, verb).await? == lifted {
            return Ok(());
        }
        Err(
            PortError::failed(format!("the gates of {id} did not {verb}"))
                .about(id.to_string())
                .advise("look at /var/lib/flipside/gate in the guest"),
        )
    }

    pub(super) async fn is_lifted(&self, id: MachineId, verb: &str) -> PortResult<bool> {
        let verb = [verb.to_owned()];
        let out = self.link.script(id, &FLAG, &verb, limits::FLAG).await?;
        Ok(out.trim_ascii() == b"open")
    }

    pub(super) async fn remove_gates(&self, id: MachineId) -> PortResult<()> {
        self.with_fstab(id, &CLEANUP, &[], fstab::restore)
            .await
            .map(drop)
    }
}

/// The sockets, timers and paths that would start a unit of the set again and are not in it themselves.
fn triggers(set: &HoldSet, shown: &[Shown]) -> Vec<String> {
    let names = shown.iter().flat_map(Shown::triggers).map(str::to_owned);
    let names: Vec<String> = names
        .filter(|unit| super::escape::is_unit(unit) && !set.units.contains(unit))
        .collect();
    unique(&names)
}

fn saved((unit, shown): (&String, &Shown)) -> SavedStartup {
    SavedStartup {
        unit: unit.clone(),
        startup: StartupType(words(shown.startup().as_bytes())),
        active: shown.active(),
    }
}

/// What brings a unit from one startup type to another.
fn verbs<'a>(before: &str, now: &str, unit: &'a str) -> Vec<(&'static str, &'a str)> {
    if before == now {
        return Vec::new();
    }
    let mut verbs = Vec::new();
    if now == MASKED {
        verbs.push(("unmask", unit));
    }
    match before {
        ENABLED => verbs.push(("enable", unit)),
        DISABLED => verbs.push(("disable", unit)),
        MASKED => verbs.push(("mask", unit)),
        _ => {}
    }
    verbs
}

fn unique<'a>(units: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    units
        .into_iter()
        .filter(|unit| seen.insert((*unit).clone()))
        .cloned()
        .collect()
}

/// A unit is held when its gate is loaded, it does not start with the guest, and, if it acts by itself, it is down.
fn prove_held(id: MachineId, unit: &str, state: &Shown, quiesced: bool) -> PortResult<()> {
    let advice = format!("look at `systemctl cat {unit}` on the Upgrade Side, then retry");
    if state.exists() && state.get("LoadState") != MASKED && !state.has_gate() {
        return Err(
            PortError::failed(format!("the gate before {unit} is not in force"))
                .about(unit)
                .advise(advice),
        );
    }
    if state.get("UnitFileState") == ENABLED {
        // Its links are made by something else; the gate holds it all the same.
        tracing::warn!(%id, unit, "still enabled after it was disabled");
    }
    if quiesced && state.active() {
        return Err(
            PortError::failed(format!("{unit} acts by itself and did not stop"))
                .about(unit)
                .advise(advice),
        );
    }
    Ok(())
}

/// Tells whether what a caller asks to hold has valid names.
fn check(set: &HoldSet) -> PortResult<()> {
    check_units(&set.units)?;
    for mount in &set.mounts {
        let fine = mount.target.starts_with('/') && mount.target != "/";
        if !fine || mount.target.contains(['\n', '\0']) {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!(
                    "`{}` is not where a data file system can be mounted",
                    words(mount.target.as_bytes())
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_bring_back_what_was_saved() {
        assert_eq!(verbs("enabled", "disabled", "u"), [("enable", "u")]);
        assert_eq!(
            verbs("enabled", "masked", "u"),
            [("unmask", "u"), ("enable", "u")]
        );
        assert_eq!(verbs("disabled", "enabled", "u"), [("disable", "u")]);
        assert_eq!(verbs("masked", "enabled", "u"), [("mask", "u")]);
        for same in ["enabled", "static", "generated"] {
            assert_eq!(verbs(same, same, "u"), []);
        }
        assert_eq!(verbs("static", "disabled", "u"), []);
    }
}

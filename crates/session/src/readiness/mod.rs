//! Readiness: what must hold before a split or a merge, judged over observed facts.
//!
//! Every rule is judged, whatever the others say (RC-08); an Error blocks, a Warning never does (RC-09).
//! Observation is the engine's; this module only judges, so each rule can fail in a test. A test that could not be
//! made says so and is no success.
//!
//! One file per theme, each with its own `RULES`; a new theme is a file, a line in [`THEMES`] and a field of
//! [`Observed`] with a type of that file.

mod actions;
mod disks;
mod guest;
mod machine;
mod network;
mod services;

pub use actions::{ActionFile, Location, LogsSeen, Prepared, location, not_ready, unusable};
use flipside_model::{DiskRole, Inventory, LegBook, Severity, SystemSpec, UpgradeConfig};
pub use guest::GuestSeen;
pub use machine::HostSeen;
pub use network::NetworkSeen;
pub use services::{ServiceSeen, WrittenFile};

/// One result of a readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Success, Information, Warning or Error.
    pub severity: Severity,
    /// Name of the test.
    pub check: &'static str,
    /// One sentence, or the guide's exact text where it quotes one (RC-50).
    pub text: String,
    /// The component it speaks of (RC-51).
    pub component: Option<String>,
    /// What to do (RC-51).
    pub advice: Option<String>,
}

/// What was asked, or the reason why it could not be learnt.
pub type Asked<T> = Result<T, String>;

/// Everything the judgement needs.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The system's definition.
    pub spec: &'a SystemSpec,
    /// The settings of the upgrade.
    pub config: &'a UpgradeConfig,
    /// The leg book.
    pub book: &'a LegBook,
    /// Percentage of a running resynchronisation, by disk name.
    pub resync: Vec<(String, u8)>,
    /// Whether the machine runs.
    pub running: Asked<bool>,
    /// Why the guest agent does not answer, or nothing when it does.
    pub agent_silent: Option<String>,
    /// What the host says.
    pub host: Asked<HostSeen>,
    /// Version of the guest agent.
    pub agent_version: Option<String>,
    /// Legs that are not what the book means: component and sentence.
    pub leg_faults: Asked<Vec<(String, String)>>,
    /// What the guest has of disks and volumes.
    pub inventory: Asked<Inventory>,
    /// The way to the users.
    pub network: Asked<NetworkSeen>,
    /// What the guest says of its surroundings.
    pub guest: Asked<GuestSeen>,
    /// The controlled services.
    pub services: Asked<Vec<ServiceSeen>>,
    /// Files that controlled services have open for writing on system disks.
    pub written: Asked<Vec<WrittenFile>>,
    /// Custom actions and log backup.
    pub prepared: Prepared,
}

/// Memory kept free beside the second machine, in MiB (design: the 300 MB margin).
pub const MEMORY_MARGIN_MIB: u64 = 300;

/// Space kept free for the throw-away overlays, carriers and saved state, in bytes: 1 GiB. While the overlays exist
/// applications on the Upgrade Side only shut down, which writes little.
pub const STATE_MARGIN_BYTES: u64 = 1 << 30;

/// The most that the throw-away copy of one data disk may grow to in a rehearsal, in bytes: 8 GiB. Enough to convert a
/// database of some size, and a bound that a host can plan for.
pub const REHEARSAL_COPY_BYTES: u64 = 8 << 30;

/// Returns what the copy of a disk of this size may need, in bytes: its blocks and the tables that describe them, which are
/// less than a two-hundredth of that and 16 MiB.
fn copy_needs(disk: u64) -> u64 {
    let whole = disk.saturating_add(disk >> 8).saturating_add(16 << 20);
    whole.min(REHEARSAL_COPY_BYTES)
}

/// Returns what has to be free for the copies of a session, in bytes.
fn copies_need(seen: &Observed<'_>) -> u64 {
    if !seen.config.rehearsal {
        return STATE_MARGIN_BYTES;
    }
    let data = disks::data_disks(seen);
    let copies = data.map(copy_needs);
    copies.fold(STATE_MARGIN_BYTES, u64::saturating_add)
}

fn finding(severity: Severity, check: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        severity,
        check,
        text: text.into(),
        component: None,
        advice: None,
    }
}

impl Finding {
    fn about(mut self, component: impl Into<String>) -> Self {
        self.component = Some(component.into());
        self
    }
    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

fn error(check: &'static str, text: impl Into<String>) -> Finding {
    finding(Severity::Error, check, text)
}

fn warning(check: &'static str, text: impl Into<String>) -> Finding {
    finding(Severity::Warning, check, text)
}

type Rule = fn(&Observed<'_>) -> Vec<Finding>;

/// Judges one fact of the guest. One that could not be learnt is as bad as the worst that it could have been, so that it
/// never looks like one that is good; while no guest answers at all that is an Error of its own, and this a Warning.
fn asked<T>(
    seen: &Observed<'_>,
    fact: &Asked<T>,
    (check, what, worst): (&'static str, &str, Severity),
    judge: impl FnOnce(&T) -> Vec<Finding>,
) -> Vec<Finding> {
    let severity = match seen.agent_silent {
        Some(_) => Severity::Warning,
        None => worst,
    };
    match fact {
        Ok(fact) => judge(fact),
        Err(why) => {
            let text = format!("{what} could not be checked: {why}");
            let advice = "correct the cause, then check again";
            vec![finding(severity, check, text).about(what).advise(advice)]
        }
    }
}

/// What the host did not tell is as bad as it could have been.
fn unknown_host(check: &'static str, what: &str, why: &str) -> Finding {
    error(check, format!("{what} could not be checked: {why}"))
        .about(what)
        .advise("correct the cause on the host, then check again")
}

/// The tests by theme, each with the name under which it reports its result.
const THEMES: [&[(&str, Rule)]; 6] = [
    machine::RULES,
    disks::RULES,
    network::RULES,
    guest::RULES,
    services::RULES,
    actions::RULES,
];

fn rules() -> impl Iterator<Item = &'static (&'static str, Rule)> {
    THEMES.iter().flat_map(|theme| theme.iter())
}

/// Judges everything. Each test yields at least one finding: Success when it has nothing to say (RC-08).
pub fn judge(seen: &Observed<'_>) -> Vec<Finding> {
    rules()
        .flat_map(|(name, rule)| {
            let found = rule(seen);
            if found.is_empty() {
                vec![finding(Severity::Success, name, *name)]
            } else {
                found
            }
        })
        .collect()
}

/// Counts warnings and errors.
pub fn count(findings: &[Finding]) -> (usize, usize) {
    let of = |severity| findings.iter().filter(|f| f.severity == severity).count();
    (of(Severity::Warning), of(Severity::Error))
}

/// Says whether the definition has a data disk at all; without one nothing an application writes survives Commit.
pub fn has_data_disk(spec: &SystemSpec) -> bool {
    spec.disks_of(DiskRole::Data).next().is_some()
}

#[cfg(test)]
mod tests;

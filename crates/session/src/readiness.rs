//! Readiness: what must hold before a split or a merge, judged over observed facts.
//!
//! Every rule is judged, whatever the others say (RC-08); an Error blocks, a Warning never does (RC-09).
//! Observation is the engine's; this module only judges, so each rule can fail in a test.

use flipside_model::{
    AcceptLoss, DATA_PATHS, DiskRole, LegBook, Severity, SystemSpec, UpgradeConfig, planted,
};

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

/// A service as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSeen {
    /// Unit name.
    pub unit: String,
    /// Known to the guest.
    pub exists: bool,
    /// Running.
    pub active: bool,
}

/// A file on a system disk that a controlled service writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The service.
    pub unit: String,
    /// The file.
    pub path: String,
}

/// Everything the judgement needs; `None` where the question could not be asked.
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
    pub running: bool,
    /// Why the guest agent does not answer, or nothing when it does.
    pub agent_silent: Option<String>,
    /// Free memory in MiB.
    pub memory_available_mib: u64,
    /// Free space for overlays and state in bytes.
    pub state_free_bytes: u64,
    /// Version of the hypervisor.
    pub hypervisor: String,
    /// Why it must not be used.
    pub hypervisor_bad: Option<String>,
    /// Why the machine cannot be forked.
    pub not_forkable: Option<String>,
    /// Both enclosures on one physical device.
    pub one_device: bool,
    /// Legs that are not what the book means: component and sentence.
    pub leg_faults: Vec<(String, String)>,
    /// The controlled services.
    pub services: Vec<ServiceSeen>,
    /// Files that controlled services have open for writing on system disks.
    pub written: Vec<WrittenFile>,
}

/// Memory kept free beside the second machine, in MiB (design: the 300 MB margin).
pub const MEMORY_MARGIN_MIB: u64 = 300;

/// Space kept free for the throw-away overlays, carriers and saved state, in bytes: 1 GiB. While the overlays exist
/// applications on the Upgrade Side only shut down, which writes little.
pub const STATE_MARGIN_BYTES: u64 = 1 << 30;

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

/// The tests, with the name under which each one reports its result.
const RULES: [(&str, Rule); 10] = [
    ("The machine runs", machine_runs),
    ("Every disk is duplexed", duplexed),
    ("Every leg is the recorded one", legs),
    ("The enclosures are independent", enclosures),
    ("The guest agent answers", agent),
    ("Memory for two machines", memory),
    ("Space for the fork", space),
    ("The hypervisor is known to be good", hypervisor),
    ("The selected services run", services),
    ("No application data on system disks", data_on_system_disks),
];

/// Judges everything. Each test yields at least one finding: Success when it has nothing to say (RC-08).
pub fn judge(seen: &Observed<'_>) -> Vec<Finding> {
    RULES
        .iter()
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

// RC-14
fn machine_runs(seen: &Observed<'_>) -> Vec<Finding> {
    if seen.running {
        return Vec::new();
    }
    let text = format!("system `{}` is not running", seen.spec.name);
    vec![error("machine", text).advise(format!(
        "start it: `flipside system start {}`",
        seen.spec.name
    ))]
}

// RC-17, RC-18, RS-04: a disk that still resynchronises fails this test.
fn duplexed(seen: &Observed<'_>) -> Vec<Finding> {
    let not = seen
        .book
        .disks
        .iter()
        .filter(|(_, pair)| !pair.duplexed() && !planted::is("simplex-passes-readiness"));
    not.map(|(name, _)| {
        let running = seen.resync.iter().find(|(disk, _)| disk == name.as_str());
        let advice = match running {
            Some((_, percent)) => format!(
                "`{name}` shows `Resync {percent}%`; wait until every mirror shows `None`: `flipside wait --duplex`"
            ),
            None => format!("look at the legs of `{name}`: `flipside system show {}`", seen.spec.name),
        };
        error("duplex", "RDR disk is not duplexed").about(name.as_str()).advise(advice)
    })
    .collect()
}

// Fault 22, CM-13
fn legs(seen: &Observed<'_>) -> Vec<Finding> {
    seen.leg_faults
        .iter()
        .map(|(component, text)| {
            error("legs", text.clone())
                .about(component.clone())
                .advise("put the original file or device back; flipside never uses a leg that it does not know")
        })
        .collect()
}

// Design section 7
fn enclosures(seen: &Observed<'_>) -> Vec<Finding> {
    if !seen.one_device {
        return Vec::new();
    }
    vec![
        warning(
            "enclosures",
            "both enclosures lie on one physical device, so its failure takes both legs",
        )
        .about(format!(
            "{}, {}",
            seen.spec.enclosures[0].display(),
            seen.spec.enclosures[1].display()
        ))
        .advise(
            "put one enclosure on another disk when you can; the upgrade itself does not need it",
        ),
    ]
}

// RC-21: two management channels, both answering
fn agent(seen: &Observed<'_>) -> Vec<Finding> {
    let Some(why) = &seen.agent_silent else {
        return Vec::new();
    };
    vec![
        error("agent", format!("the guest agent does not answer: {why}"))
            .about("qemu-guest-agent")
            .advise("in the guest: `apt install qemu-guest-agent` and `systemctl start qemu-guest-agent`"),
    ]
}

// RC-40
fn memory(seen: &Observed<'_>) -> Vec<Finding> {
    let needed = u64::from(seen.spec.memory_mib) + MEMORY_MARGIN_MIB;
    if seen.memory_available_mib >= needed {
        return Vec::new();
    }
    let text = format!(
        "the Upgrade Side needs {needed} MiB ({} MiB and a margin of {MEMORY_MARGIN_MIB} MiB), and {} MiB are available",
        seen.spec.memory_mib, seen.memory_available_mib
    );
    vec![
        error("memory", text)
            .about("host memory")
            .advise("free memory on the host, or give the system less"),
    ]
}

// RC-40, fault 24
fn space(seen: &Observed<'_>) -> Vec<Finding> {
    if seen.state_free_bytes >= STATE_MARGIN_BYTES {
        return Vec::new();
    }
    let text = format!(
        "the fork needs {} MiB for throw-away copies and saved state, and {} MiB are free",
        STATE_MARGIN_BYTES >> 20,
        seen.state_free_bytes >> 20
    );
    vec![
        error("space", text)
            .about("state directory")
            .advise("free space on the file system of the state directory"),
    ]
}

// RC-38, RC-39
fn hypervisor(seen: &Observed<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(why) = &seen.hypervisor_bad {
        found.push(
            error(
                "hypervisor",
                format!("{} must not be used: {why}", seen.hypervisor),
            )
            .about(seen.hypervisor.clone())
            .advise("install another version of QEMU, 7.2 or later, with the quorum driver"),
        );
    }
    if let Some(why) = &seen.not_forkable {
        found.push(
            error("forkable", format!("the machine cannot be forked: {why}"))
                .advise("remove the device, or give the machine a named CPU model"),
        );
    }
    found
}

// RC-32, SV-21, gap G.2.26
fn services(seen: &Observed<'_>) -> Vec<Finding> {
    if seen.agent_silent.is_some() {
        return Vec::new();
    }
    seen.services
        .iter()
        .filter_map(|service| {
            let unit = &service.unit;
            if !service.exists {
                let text = format!("service `{unit}` does not exist in the guest");
                return Some(error("services", text).about(unit.clone()).advise(
                    "correct its name in the configuration: `systemctl list-units --type=service`",
                ));
            }
            (!service.active).then(|| {
                error("services", format!("service `{unit}` is not running"))
                    .about(unit.clone())
                    .advise(
                        "start it, or take it out of the configuration if it is stopped on purpose",
                    )
            })
        })
        .collect()
}

fn under(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path == directory
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
}

// Design 3.10, DK-24, DK-32: an Error on a configured or well-known data path, a Warning elsewhere.
fn data_on_system_disks(seen: &Observed<'_>) -> Vec<Finding> {
    let accepted = |path: &str| {
        seen.config
            .accept_loss
            .iter()
            .any(|AcceptLoss(dir)| under(path, dir))
    };
    seen.written
        .iter()
        .filter(|file| !accepted(&file.path))
        .map(|file| {
            let known = DATA_PATHS.iter().any(|(_, dir)| under(&file.path, dir))
                || seen.config.data_paths.iter().any(|dir| under(&file.path, dir));
            let severity = if known { Severity::Error } else { Severity::Warning };
            let text = format!(
                "`{}` writes to `{}` on a system disk: what is written there after the split is gone at Commit",
                file.unit, file.path
            );
            finding(severity, "data", text).about(file.path.clone()).advise(format!(
                "move it to a data disk, or accept the loss: `accept_loss = [\"{}\"]` in the configuration",
                file.path
            ))
        })
        .collect()
}

/// Says whether the definition has a data disk at all; without one nothing an application writes survives Commit.
pub fn has_data_disk(spec: &SystemSpec) -> bool {
    spec.disks_of(DiskRole::Data).next().is_some()
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;

//! Readiness of the machine: it runs, answers, can be forked, and there is memory for two of it.

use super::{Finding, MEMORY_MARGIN_MIB, Observed, Rule, error, unknown_host, warning};

/// What was seen of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSeen {
    /// Free memory in MiB.
    pub memory_available_mib: u64,
    /// Free space for overlays and state in bytes.
    pub state_free_bytes: u64,
    /// Version of the hypervisor that is installed.
    pub hypervisor: String,
    /// Version of the hypervisor that the machine was started with, if one runs.
    pub running_hypervisor: Option<String>,
    /// Why the installed one must not be used.
    pub hypervisor_bad: Option<String>,
    /// Why the machine cannot be forked.
    pub not_forkable: Option<String>,
    /// Both enclosures on one physical device.
    pub one_device: bool,
}

/// The oldest guest agent that runs programs and returns what they print.
const OLDEST_AGENT: (u32, u32) = (2, 5);

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The machine runs", machine_runs),
    ("The guest agent answers", agent),
    ("The guest agent is new enough", agent_version),
    ("Memory for two machines", memory),
    ("The hypervisor is known to be good", hypervisor),
    ("Both sides have the same hypervisor", same_hypervisor),
];

// RC-14
fn machine_runs(seen: &Observed<'_>) -> Vec<Finding> {
    match &seen.running {
        Ok(true) => return Vec::new(),
        Ok(false) => {}
        // RC-21: the management channel of the side.
        Err(why) => {
            return vec![
                error("machine", format!("the machine does not answer: {why}"))
                    .about(seen.spec.name.as_str())
                    .advise("its management channel (QMP) is silent: look at the host's load, then check again"),
            ];
        }
    }
    let text = format!("system `{}` is not running", seen.spec.name);
    vec![error("machine", text).advise(format!(
        "start it: `flipside system start {}`",
        seen.spec.name
    ))]
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
    let available = match &seen.host {
        Err(why) => return vec![unknown_host("memory", "the host's memory", why)],
        Ok(host) if host.memory_available_mib >= needed => return Vec::new(),
        Ok(host) => host.memory_available_mib,
    };
    let text = format!(
        "the Upgrade Side needs {needed} MiB ({} MiB and a margin of {MEMORY_MARGIN_MIB} MiB), and {} MiB are available",
        seen.spec.memory_mib, available
    );
    vec![
        error("memory", text)
            .about("host memory")
            .advise("free memory on the host, or give the system less"),
    ]
}

// RC-38, RC-39
fn hypervisor(seen: &Observed<'_>) -> Vec<Finding> {
    let host = match &seen.host {
        Err(why) => return vec![unknown_host("hypervisor", "the hypervisor", why)],
        Ok(host) => host,
    };
    let mut found = Vec::new();
    if let Some(why) = &host.hypervisor_bad {
        found.push(
            error(
                "hypervisor",
                format!("{} must not be used: {why}", host.hypervisor),
            )
            .about(host.hypervisor.clone())
            .advise("install another version of QEMU, 7.2 or later, with the quorum driver"),
        );
    }
    if let Some(why) = &host.not_forkable {
        found.push(
            error("forkable", format!("the machine cannot be forked: {why}"))
                .advise("remove the device, or give the machine a named CPU model"),
        );
    }
    found
}

/// The numbers at the beginning of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = digits.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

// RC-38
fn agent_version(seen: &Observed<'_>) -> Vec<Finding> {
    let Some(version) = &seen.agent_version else {
        // It is silent, which is told by the test above.
        let text = "the version of the guest agent could not be checked: it does not answer";
        return vec![
            warning("agent-version", text)
                .about("qemu-guest-agent")
                .advise("see that it answers, then check again"),
        ];
    };
    let Some(said) = numbers(version) else {
        let text = format!("`{version}` of the guest agent is no version that is known");
        return vec![
            warning("agent-version", text)
                .about("qemu-guest-agent")
                .advise("see that it is QEMU's agent, of version 2.5 or later"),
        ];
    };
    if said >= OLDEST_AGENT {
        return Vec::new();
    }
    let (major, minor) = OLDEST_AGENT;
    let text = format!("the guest agent `{version}` is too old: {major}.{minor} is needed");
    vec![
        error("agent-version", text)
            .about("qemu-guest-agent")
            .advise("install a newer one in the guest: `apt install qemu-guest-agent`"),
    ]
}

// RC-39: the Upgrade Side is started with what is installed now, the machine may have been started before an update.
fn same_hypervisor(seen: &Observed<'_>) -> Vec<Finding> {
    let host = match &seen.host {
        Err(why) => {
            return vec![unknown_host(
                "versions",
                "the version of the hypervisor",
                why,
            )];
        }
        Ok(host) => host,
    };
    let Some(running) = &host.running_hypervisor else {
        return Vec::new();
    };
    if *running == host.hypervisor {
        return Vec::new();
    }
    let text = format!(
        "the machine was started with {running}, the Upgrade Side would be with {}",
        host.hypervisor
    );
    let advice = format!(
        "restart the system, so that both are one: `flipside system stop {0}`, `flipside system start {0}`",
        seen.spec.name
    );
    // A newer one reads what an older one writes, not the other way round.
    let older = numbers(&host.hypervisor) < numbers(running);
    let told = if older { error } else { warning };
    vec![
        told("versions", text)
            .about(host.hypervisor.clone())
            .advise(advice),
    ]
}

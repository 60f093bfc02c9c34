//! Readiness of the machine: it runs, answers, can be forked, and there is memory for two of it.

use super::{Finding, MEMORY_MARGIN_MIB, Observed, Rule, error};

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The machine runs", machine_runs),
    ("The guest agent answers", agent),
    ("Memory for two machines", memory),
    ("The hypervisor is known to be good", hypervisor),
];

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

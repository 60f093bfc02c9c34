//! The typed replies. Every text in them is the guest's own: escape it.

use serde::Deserialize;

/// Describes the agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AgentInfo {
    /// The agent's version, as QEMU counts.
    pub version: String,
    /// Every command the agent knows.
    #[serde(rename = "supported_commands")]
    pub commands: Vec<AgentCommand>,
}

impl AgentInfo {
    /// Tells whether the agent knows a command and may execute it.
    #[must_use]
    pub fn has_command(&self, name: &str) -> bool {
        self.commands.iter().any(|c| c.enabled && c.name == name)
    }
}

/// Describes a command of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AgentCommand {
    /// The name, such as `guest-exec`.
    pub name: String,
    /// Whether the guest's administrator allows it.
    pub enabled: bool,
}

/// Describes the guest's operating system; the agent may leave out anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OsInfo {
    /// A short name, such as `debian`.
    pub id: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// A name for people, with the version.
    pub pretty_name: Option<String>,
    /// The version, such as `12`.
    pub version_id: Option<String>,
    /// The kernel's release.
    pub kernel_release: Option<String>,
    /// The processor architecture.
    pub machine: Option<String>,
}

/// Describes a network interface of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkInterface {
    /// The guest's name for it.
    pub name: String,
    /// The MAC address, if it has one.
    pub hardware_address: Option<String>,
    /// Its addresses.
    #[serde(default)]
    pub ip_addresses: Vec<IpAddress>,
}

/// Is an address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpAddress {
    /// The address as the guest writes it; nothing says that it is one.
    pub ip_address: String,
    /// `ipv4` or `ipv6`.
    pub ip_address_type: String,
    /// The length of the network's prefix, in bits.
    pub prefix: u32,
}

/// Says how the guest is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Shut down and switch off.
    PowerDown,
    /// Shut down and stop there.
    Halt,
    /// Shut down and start again.
    Reboot,
}

impl ShutdownMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PowerDown => "powerdown",
            Self::Halt => "halt",
            Self::Reboot => "reboot",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct HostName {
    pub(super) host_name: String,
}

//! What is known of the way to the users, beside the machines themselves.

/// A card of the host, or another port, through which a bridge leads out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name on the host.
    pub name: String,
    /// Whether it has a link.
    pub carrier: bool,
}

/// The bridge of a system's production network, as the host shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeFacts {
    /// Its name.
    pub name: String,
    /// Whether it exists, and is a bridge.
    pub exists: bool,
    /// Whether it is up.
    pub up: bool,
    /// The machines of this system that have a tap.
    pub taps: Vec<crate::MachineId>,
    /// The machines of this system whose taps are connected to it.
    pub connected: Vec<crate::MachineId>,
    /// Cards of the host in it; a bond counts as each of its members.
    pub uplinks: Vec<Uplink>,
    /// Seconds for which a port that joins it passes nothing (the spanning tree protocol); 0 without that protocol.
    pub delay_s: u32,
    /// Ports behind which somebody else uses the address of the system's card.
    pub same_mac: Vec<String>,
    /// Why connections cannot be kept waiting or taps cannot be made, if so.
    pub unable: Option<String>,
}

impl BridgeFacts {
    /// The facts of a bridge that does not exist.
    pub fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            exists: false,
            up: false,
            taps: Vec::new(),
            connected: Vec::new(),
            uplinks: Vec::new(),
            delay_s: 0,
            same_mac: Vec::new(),
            unable: None,
        }
    }
}

//! Readiness of the network: the way to the users is there, on both sides, and can be moved.
//!
//! The guide's *team* is the bridge here, and its embedded adapters are the cards of the host in it. Both enclosures of a
//! system on one host share that host's cards, so what the guide asks of each enclosure is a Warning when there is only one
//! way out (as for two enclosures on one device), and an Error when a way that should be there is cut.

use super::{Finding, Observed, Rule, asked, error, warning};
use flipside_model::{BridgeFacts, Severity};

/// What was seen of the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSeen {
    /// The bridge, none for a user-mode network, which needs nothing of the host.
    pub bridge: Option<BridgeFacts>,
    /// Whether the system's machine is connected to it.
    pub connected: bool,
}

/// A port of a bridge may pass nothing for so long after it has joined, in seconds: less than a client's second try.
const MAX_JOIN_DELAY_S: u32 = 1;

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The production card is on its network", teamed),
    ("The network has a way out for each enclosure", spread),
    ("The network has a link on both sides", link),
    ("The network can be moved at once", movable),
    (
        "The address of the production card is nobody else's",
        address,
    ),
];

fn bridge(
    seen: &Observed<'_>,
    check: &'static str,
    judge: impl FnOnce(&NetworkSeen, &BridgeFacts) -> Vec<Finding>,
) -> Vec<Finding> {
    let test = (check, "the network of the host", Severity::Error);
    asked(seen, &seen.network, test, |network| {
        let bridge = network.bridge.as_ref();
        bridge.map_or_else(Vec::new, |bridge| judge(network, bridge))
    })
}

// RC-23, PR-06, fault 49
fn teamed(seen: &Observed<'_>) -> Vec<Finding> {
    bridge(seen, "team", |network, bridge| {
        let name = &bridge.name;
        let not = |advice: String| {
            let text = "Embedded NIC not teamed";
            vec![
                error("team", text)
                    .about(format!("{} on `{name}`", seen.spec.mac))
                    .advise(advice),
            ]
        };
        if !bridge.exists {
            not(format!(
                "there is no bridge `{name}` on this host: `ip link add {name} type bridge && ip link set {name} up`"
            ))
        } else if !bridge.up {
            not(format!("the bridge is down: `ip link set {name} up`"))
        } else if seen.running == Ok(true) && !network.connected {
            not(format!(
                "the machine is not connected to `{name}`: somebody took its tap away; restart the system"
            ))
        } else {
            Vec::new()
        }
    })
}

// RC-24, PR-06; a Warning: see above
fn spread(seen: &Observed<'_>) -> Vec<Finding> {
    bridge(seen, "spread", |_, bridge| {
        let name = &bridge.name;
        let text = match bridge.uplinks.as_slice() {
            _ if !bridge.exists => return Vec::new(),
            [] => format!("no card of the host is in `{name}`: only this host reaches the guest"),
            [one] => format!(
                "`{}` is the only card in `{name}`, so its failure cuts both enclosures off",
                one.name
            ),
            _ => return Vec::new(),
        };
        vec![warning("spread", text).about(name.clone()).advise(
            "put a bond of two cards into the bridge when you can; the upgrade itself does not need it",
        )]
    })
}

// RC-25
fn link(seen: &Observed<'_>) -> Vec<Finding> {
    bridge(seen, "link", |_, bridge| {
        let cut = bridge.uplinks.iter().filter(|uplink| !uplink.carrier);
        cut.map(|uplink| {
            error("link", "Team does not have link on both sides")
                .about(format!("`{}` of `{}`", uplink.name, bridge.name))
                .advise("check the cable, the switch and `ip link show`, or take the card out of the bridge")
        })
        .collect()
    })
}

// Design 4: the users wait for as long as the network cannot be moved.
fn movable(seen: &Observed<'_>) -> Vec<Finding> {
    bridge(seen, "movable", |_, bridge| {
        let mut found = Vec::new();
        if let Some(why) = &bridge.unable {
            found.push(
                error(
                    "movable",
                    format!("the network cannot be moved to the other side: {why}"),
                )
                .about(bridge.name.clone())
                .advise("run `flipside serve` as root or with CAP_NET_ADMIN, and install nftables"),
            );
        }
        if bridge.delay_s > MAX_JOIN_DELAY_S {
            let text = format!(
                "`{}` passes nothing for {} s when a machine joins it, which the users wait at Merge and Abort",
                bridge.name, bridge.delay_s
            );
            found.push(warning("movable", text).about(bridge.name.clone()).advise(format!(
                "without the spanning tree protocol it is no time: `ip link set {} type bridge stp_state 0`",
                bridge.name
            )));
        }
        found
    })
}

// Fault 49
fn address(seen: &Observed<'_>) -> Vec<Finding> {
    bridge(seen, "address", |_, bridge| {
        let ports = bridge.same_mac.iter();
        ports
            .map(|port| {
                let text = format!(
                    "the address {} of the production card is also behind `{port}` of `{}`",
                    seen.spec.mac, bridge.name
                );
                error("address", text).about(port.clone()).advise(
                    "end the other machine with this address, or look for a loop in the network; two cannot be on a wire",
                )
            })
            .collect()
    })
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;

//! What the host shows of the bridge.

use super::link::Link;
use super::tap::{self, machine_of, missing_bridge};
use super::tool::run;
use flipside_model::{BridgeFacts, MachineId, Problem, ProblemCode, SystemSpec, Uplink};
use flipside_platform::{PortError, PortResult};
use serde::Deserialize;
use std::time::Duration;

/// How often, and how far apart, a bridge is asked who uses our address: readiness may take half a second for it.
const SAMPLES: u32 = 5;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// An entry of a bridge's table of addresses, as `bridge -j fdb` prints it.
#[derive(Debug, Deserialize)]
struct Learnt {
    mac: String,
    ifname: String,
    #[serde(default)]
    state: String,
}

/// The ports behind which a bridge has seen this address.
async fn seen_behind(bridge: &str, mac: &str) -> PortResult<Vec<String>> {
    let text = run("bridge", &["-j", "fdb", "show", "br", bridge], "").await?;
    let entries: Vec<Learnt> = serde_json::from_str(&text)
        .map_err(|e| PortError::failed("`bridge` prints no table of addresses").because(&e))?;
    let ours = |e: &Learnt| e.mac.eq_ignore_ascii_case(mac) && e.state != "permanent";
    Ok(entries.into_iter().filter(ours).map(|e| e.ifname).collect())
}

/// Says whether the bridge knows that the system's address is behind this machine's tap. A bridge that remembers no
/// addresses sends everything everywhere, and needs to know nothing.
pub(super) async fn is_seen(spec: &SystemSpec, id: MachineId) -> PortResult<bool> {
    let Some(bridge) = spec.network.bridge() else {
        return Ok(true);
    };
    let name = tap::name(spec, id);
    if !Link::new(&name).exists() {
        return Err(tap::missing_tap(&name, id));
    }
    if !Link::new(&name).learns(&Link::new(bridge)) {
        return Ok(true);
    }
    Ok(seen_behind(bridge, &spec.mac).await?.contains(&name))
}

/// Looks at a system's bridge; read-only.
pub(super) async fn look(spec: &SystemSpec) -> PortResult<BridgeFacts> {
    let bridge = spec.network.bridge().unwrap_or_default();
    let mut facts = BridgeFacts::missing(bridge);
    facts.unable = unable().await;
    facts.taps = tap::taps(spec).into_iter().map(|(id, _)| id).collect();
    let link = Link::new(bridge);
    if !link.is_bridge() {
        return Ok(facts);
    }
    facts.exists = true;
    facts.up = link.is_up();
    facts.delay_s = link.join_delay_s();
    for port in link.ports() {
        if let Some(machine) = machine_of(spec, &port) {
            facts.connected.push(machine);
            continue;
        }
        let card = Link::new(&port);
        let members = card.slaves();
        let names = if members.is_empty() {
            vec![port]
        } else {
            members
        };
        // Whatever else is in the bridge (containers, other machines) is no way out of the host.
        if card.is_card() {
            facts.uplinks.extend(names.into_iter().map(|name| Uplink {
                carrier: Link::new(&name).carrier(),
                name,
            }));
        }
    }
    facts.same_mac = strangers(spec, bridge).await?;
    Ok(facts)
}

/// Ports behind which somebody else uses our address. A bridge knows one place for each address, the last one it was seen
/// at, so it is asked several times.
async fn strangers(spec: &SystemSpec, bridge: &str) -> PortResult<Vec<String>> {
    for _ in 0..SAMPLES {
        let mut ports = seen_behind(bridge, &spec.mac).await?;
        ports.retain(|port| machine_of(spec, port).is_none());
        if !ports.is_empty() {
            return Ok(ports);
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    Ok(Vec::new())
}

/// Why taps or filters cannot be made, if so.
async fn unable() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let rights = rights.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // CAP_NET_ADMIN
    if rights.is_some_and(|rights| rights & (1 << 12) == 0) {
        return Some("flipside may not change the host's network".to_owned());
    }
    match run("nft", &["list", "tables", "bridge"], "").await {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Refuses a bridge that a new system could not use.
pub async fn usable(bridge: &str) -> Result<(), Problem> {
    if !Link::new(bridge).is_bridge() {
        let mut problem = Problem::from(missing_bridge(bridge));
        problem.code = ProblemCode::Usage;
        return Err(problem);
    }
    match unable().await {
        None => Ok(()),
        Some(why) => Err(Problem::new(
            ProblemCode::Usage,
            format!("the network `bridge={bridge}` cannot be used: {why}"),
        )
        .about(bridge)
        .advise(
            "run `flipside serve` as root, or give its service `AmbientCapabilities=CAP_NET_ADMIN`, and install \
             nftables; `--network user` needs neither",
        )),
    }
}

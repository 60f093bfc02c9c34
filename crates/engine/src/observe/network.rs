//! What readiness asks about the way to the users.

use crate::context::Cx;
use flipside_model::MachineId;
use flipside_session::readiness::{Asked, NetworkSeen};

pub(super) async fn look(cx: &Cx, machine: Option<MachineId>) -> Asked<NetworkSeen> {
    let bridge = cx.ports.network.bridge().await;
    let bridge = bridge.map_err(|error| error.to_string())?;
    let connected = |b: &flipside_model::BridgeFacts| {
        machine.is_some_and(|machine| b.connected.contains(&machine))
    };
    Ok(NetworkSeen {
        connected: bridge.as_ref().is_some_and(connected),
        bridge,
    })
}

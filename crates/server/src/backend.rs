//! The one list of backends: where a definition becomes ports. A further platform is one more arm here.

use flipside_backend_qemu::bridge::BridgeNetwork;
use flipside_backend_qemu::guest::LinuxGuest;
use flipside_backend_qemu::network::UserNetwork;
use flipside_backend_qemu::open_system;
use flipside_model::{NetworkSpec, Problem, SystemSpec};
use flipside_platform::{Clock, NetworkPort, Ports};
use std::path::Path;
use std::sync::Arc;

struct WallClock;

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }
}

/// Opens the ports of a system; starts nothing.
pub(crate) fn open(spec: &SystemSpec, state_dir: &Path) -> Result<Ports, Problem> {
    let qemu = open_system(spec.clone(), state_dir)?;
    let guard = UserNetwork::new(spec.clone(), state_dir)?;
    let network: Arc<dyn NetworkPort> = match spec.network {
        NetworkSpec::User => Arc::new(guard),
        NetworkSpec::Bridge(_) => Arc::new(BridgeNetwork::new(guard, qemu.clone())),
    };
    let (agents, shells) = (qemu.clone(), qemu.clone());
    let guest = LinuxGuest::new(move |id| agents.reach(id).ok().flatten().map(|r| r.agent))
        .with_shells(move |id| shells.reach(id).ok().flatten().map(|r| r.shell));
    Ok(Ports {
        machine: qemu.machine(),
        disk: qemu.disk(),
        guest: Arc::new(guest),
        network,
        legs: qemu.legs(),
        host: qemu.host(),
        side: qemu.side(),
        clock: Arc::new(WallClock),
    })
}

//! Production networks on a bridge of the host: taps, and the network port.
//!
//! # At a switch-over
//! Hold (new connections are dropped) → the applications stop → the old side's tap leaves the bridge, then its link goes
//! down → the new side's tap joins, its link comes up, and it announces itself → start, check health → open: it is
//! announced until the bridge has seen it, then connections are let through.
//!
//! The guard is there as in user mode, for the legs; its door has no ports here, and keeps the time that users waited.

mod facts;
mod filter;
mod link;
pub(crate) mod tap;
mod tool;

use crate::network::UserNetwork;
use crate::system::QemuSystem;
use async_trait::async_trait;
use flipside_model::{BridgeFacts, MachineId};
use flipside_platform::{DrainReport, NetworkPort, NetworkView, Note, PortError, PortResult};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub use facts::usable;

/// How long a machine may stay unseen on its bridge while it is announced. A frame takes microseconds; a host that is
/// busy, and a bridge that has to be told twice, some tenths of a second.
const SEEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two announcements: QEMU repeats each one by itself within that time.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(500);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// The network of one system on a bridge.
pub struct BridgeNetwork {
    guard: UserNetwork,
    system: QemuSystem,
}

impl BridgeNetwork {
    /// Names the network of a system. Starts nothing.
    pub fn new(guard: UserNetwork, system: QemuSystem) -> Self {
        Self { guard, system }
    }

    /// Announces a machine until its bridge has seen it (fault 50): evidence from outside the guest that it is reached.
    async fn make_known(&self, id: MachineId) -> PortResult<()> {
        let deadline = Instant::now() + SEEN_TIMEOUT;
        loop {
            self.system.announce(id).await?;
            let again = Instant::now() + ANNOUNCE_EVERY;
            while Instant::now() < again {
                if facts::is_seen(self.system.spec(), id).await? {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
            if Instant::now() >= deadline {
                let bridge = self.system.spec().network.bridge().unwrap_or_default();
                return Err(PortError::timed_out(format!(
                    "`{bridge}` has not seen machine {id} after {} s of announcing it",
                    SEEN_TIMEOUT.as_secs()
                ))
                .about(tap::name(self.system.spec(), id))
                .advise("look for a filter on the host that drops its frames (`nft list ruleset`), then retry"));
            }
        }
    }
}

#[async_trait]
impl NetworkPort for BridgeNetwork {
    async fn ensure(&self) -> PortResult<()> {
        self.guard.ensure().await
    }

    async fn shut(&self) -> PortResult<()> {
        self.guard.shut().await?;
        filter::release(self.system.spec()).await?;
        self.system.sweep_taps().await
    }

    async fn view(&self) -> PortResult<NetworkView> {
        let mut view = self.guard.view().await?;
        if filter::is_held(self.system.spec()).await? {
            view.open_to = None;
        }
        Ok(view)
    }

    async fn hold(&self) -> PortResult<()> {
        self.guard.hold().await?;
        filter::hold(self.system.spec()).await
    }

    /// Nobody here sees the requests in flight: those that are being answered are finished by the application while it stops.
    async fn drain(&self, bound_ms: u64) -> PortResult<DrainReport> {
        self.guard.drain(bound_ms).await
    }

    async fn cut(&self) -> PortResult<u64> {
        self.guard.cut().await
    }

    async fn open(&self, to: MachineId) -> PortResult<u64> {
        self.make_known(to).await?;
        filter::release(self.system.spec()).await?;
        self.guard.open(to).await
    }

    async fn answers(&self, id: MachineId) -> PortResult<bool> {
        self.guard.answers(id).await
    }

    async fn bridge(&self) -> PortResult<Option<BridgeFacts>> {
        facts::look(self.system.spec()).await.map(Some)
    }

    async fn notes(&self, after: u64) -> Vec<Note> {
        self.guard.notes(after).await
    }
}

impl QemuSystem {
    /// Lets a machine say on its network where it is now. Does nothing in user mode.
    pub(crate) async fn announce(&self, id: MachineId) -> PortResult<()> {
        if self.spec().network.bridge().is_none() {
            return Ok(());
        }
        let conn = self.conn(id).await?;
        // Five times, 50 to 150 ms apart: some of them may be lost.
        let how = json!({
            "initial": 50, "max": 150, "rounds": 5, "step": 25, "interfaces": ["nic-prod"],
        });
        conn.run("announce-self", how).await.map(drop)
    }
}

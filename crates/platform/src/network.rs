//! The network port: who owns the production network, and the front door that clients come through.

use crate::PortResult;
use async_trait::async_trait;
use flipside_model::{BridgeFacts, MachineId, Severity};

/// Who gets the clients' connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// The machine that new connections go to, none while they are held.
    pub open_to: Option<MachineId>,
    /// Connections waiting for an owner.
    pub held: u64,
    /// Connections being served.
    pub active: u64,
    /// Milliseconds for which connections have been, or were last, held.
    pub held_ms: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections whose last request was answered.
    pub quiet: u64,
    /// Connections still busy when the bound passed.
    pub busy: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Something that the platform did or saw by itself, such as a guard that dropped a failing leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Grows with every note of a system.
    pub number: u64,
    /// How serious it is.
    pub severity: Severity,
    /// One sentence.
    pub text: String,
}

/// Moves clients between machines.
#[async_trait]
pub trait NetworkPort: Send + Sync {
    /// Starts what serves the published ports if it does not run yet; adopts it if it does.
    async fn ensure(&self) -> PortResult<()>;
    /// Ends it; the published ports are free afterwards.
    async fn shut(&self) -> PortResult<()>;
    /// Observes it.
    async fn view(&self) -> PortResult<NetworkView>;
    /// Holds new connections from now on; those being served go on.
    async fn hold(&self) -> PortResult<()>;
    /// Waits until no request is in flight, at most `bound_ms` milliseconds.
    async fn drain(&self, bound_ms: u64) -> PortResult<DrainReport>;
    /// Cuts the connections that are still open to the old owner.
    async fn cut(&self) -> PortResult<u64>;
    /// Sends held and new connections to this machine. Returns for how long connections were held, in milliseconds.
    async fn open(&self, to: MachineId) -> PortResult<u64>;
    /// Says whether somebody answers for remote access (SSH) on the private path to a machine; read-only.
    async fn answers(&self, id: MachineId) -> PortResult<bool>;
    /// Looks at the bridge of the host that the network is on, none where it is on no bridge; read-only.
    async fn bridge(&self) -> PortResult<Option<BridgeFacts>>;
    /// Returns what the platform did by itself after the note of this number, the oldest first, a bounded number.
    async fn notes(&self, after: u64) -> Vec<Note> {
        let _ = after;
        Vec::new()
    }
}

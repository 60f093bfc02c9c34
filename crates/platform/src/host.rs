//! The host port: what readiness asks of the host, and time for people.

use crate::PortResult;
use async_trait::async_trait;

/// What the host offers, as probed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Memory available without swapping, in MiB.
    pub memory_available_mib: u64,
    /// Free space where overlays and saved state go, in bytes.
    pub state_free_bytes: u64,
    /// Version of the hypervisor, such as `QEMU 7.2.22`.
    pub hypervisor: String,
    /// Why this hypervisor must not be used, if so.
    pub hypervisor_bad: Option<String>,
    /// Whether both enclosures lie on one physical device.
    pub one_device: bool,
    /// CPU model of the machine.
    pub cpu_model: String,
    /// Why CPU or devices cannot be forked, if so.
    pub not_forkable: Option<String>,
}

/// Answers questions about the host.
#[async_trait]
pub trait HostPort: Send + Sync {
    /// Probes the host; read-only.
    async fn facts(&self) -> PortResult<HostFacts>;
    /// Checks that every leg is the file the book means (fault 22); returns what is wrong, a sentence each.
    async fn check_legs(&self) -> PortResult<Vec<(String, String)>>;
}

/// Wall-clock time for people; no decision depends on it.
pub trait Clock: Send + Sync {
    /// Returns milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

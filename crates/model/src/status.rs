//! What `flipside status --json` prints (design section 6).

use crate::{
    Command, DiskName, DiskRole, HardwareState, Leg, MirrorStatus, OperationalState, PartnerState,
    Problem, SessionId, SystemName, UpgradeState,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How far something long has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, as known now.
    pub total_bytes: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Seconds left at this rate, when it can be told.
    pub left_seconds: Option<u64>,
}

impl Progress {
    /// How far something is that has taken so many seconds until now.
    pub fn after(seconds: f64, what: String, done_bytes: u64, total_bytes: u64) -> Self {
        let rate = (done_bytes as f64 / seconds.max(0.001)) as u64;
        Self {
            what,
            done_bytes,
            total_bytes,
            rate,
            left_seconds: total_bytes.saturating_sub(done_bytes).checked_div(rate),
        }
    }
}

/// One leg as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStatus {
    /// Leg A or B.
    pub leg: Leg,
    /// Its file or device.
    pub path: PathBuf,
    /// live, stale, original, upgraded or frozen.
    pub role: String,
    /// Why it is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The leg that decides.
    pub authority: bool,
}

/// One disk as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Name and serial number.
    pub name: DiskName,
    /// System or Data.
    pub role: DiskRole,
    /// Size in bytes.
    pub size: u64,
    /// `None`, `Resync nn%` or `Simplex` (RS-06).
    pub mirror: MirrorStatus,
    /// Bytes copied by the running or the last resynchronisation.
    pub resync_copied: u64,
    /// Bytes that differed when it began.
    pub resync_union: u64,
    /// Its legs.
    pub legs: Vec<LegStatus>,
}

/// Everything about one system at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the system.
    pub system: SystemName,
    /// Whether its machine runs.
    pub running: bool,
    /// Fault Tolerant, Production Side or Simplex.
    pub hardware_state: HardwareState,
    /// Stage of the session, unspaced.
    pub upgrade_state: UpgradeState,
    /// Ready, Busy or Broken.
    pub operational_state: OperationalState,
    /// State of the Upgrade Side, none when there is no partner.
    pub partner_state: Option<PartnerState>,
    /// Id of the open session.
    pub session: Option<SessionId>,
    /// File name of the session's or the last checked configuration.
    pub config: Option<String>,
    /// The commands that are legal now.
    pub allowed: Vec<Command>,
    /// Why it is Broken.
    pub problem: Option<Problem>,
    /// The step in progress.
    pub step: Option<String>,
    /// Progress of a long step.
    pub progress: Option<Progress>,
    /// Warnings of the last readiness check.
    pub warnings: u32,
    /// Errors of the last readiness check.
    pub errors: u32,
    /// The custom action that runs, by name (CA-22).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What is lost when the session is committed now, and was to be saved (LB-11).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_saved: Vec<String>,
    /// Disks.
    pub disks: Vec<DiskStatus>,
    /// Pause of production at the last split, in milliseconds.
    pub pause_ms: Option<f64>,
    /// Outage of the last move of the users, from the front door, in milliseconds.
    pub outage_ms: Option<u64>,
    /// The same from inside: first application stop to health.
    pub outage_inside_ms: Option<u64>,
    /// Since when the data are kept as they were at the merge (checkpoint), in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_ms: Option<i64>,
    /// `kvm` or `tcg`.
    pub accelerator: Option<String>,
    /// The published ports, as `address:host->guest`.
    pub published: Vec<String>,
    /// Sequence number of the last record.
    pub last_seq: u64,
    /// Version of the server.
    pub version: String,
}

impl Status {
    /// Returns the combined form of the guide: `Fault Tolerant | Idle | Ready` (SB-03).
    pub fn line(&self) -> String {
        format!(
            "{} | {} | {}",
            self.hardware_state, self.upgrade_state, self.operational_state
        )
    }
}

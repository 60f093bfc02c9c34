//! The states of a session and of its sides, spelled as the guide spells them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two sides of a divided system (SM-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Keeps serving the users.
    Production,
    /// Is isolated; software is installed here.
    Upgrade,
}

impl Side {
    /// Returns the other side.
    pub fn partner(self) -> Side {
        match self {
            Side::Production => Side::Upgrade,
            Side::Upgrade => Side::Production,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Production => "Production Side",
            Side::Upgrade => "Upgrade Side",
        })
    }
}

/// The stage a session is in or is entering (SM-03: a closed set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UpgradeState {
    /// No session.
    Idle,
    /// Final readiness check and background preparation.
    PrepareSplit,
    /// Being split, or split (not split-brain: one side is isolated).
    Split,
    /// Readiness tests and preparation for the merge.
    PrepareMerge,
    /// Users being moved, or moved, to the Upgrade Side.
    Merge,
    /// The upgrade is permanent.
    Commit,
    /// The upgrade was taken back.
    Abort,
    /// Clean-up on the way to Idle.
    Finish,
}

impl UpgradeState {
    /// Every state, in the order of a session.
    pub const ALL: [UpgradeState; 8] = [
        UpgradeState::Idle,
        UpgradeState::PrepareSplit,
        UpgradeState::Split,
        UpgradeState::PrepareMerge,
        UpgradeState::Merge,
        UpgradeState::Commit,
        UpgradeState::Abort,
        UpgradeState::Finish,
    ];

    /// Returns the unspaced public name, as in files and variables (SM-32).
    pub fn name(self) -> &'static str {
        match self {
            UpgradeState::Idle => "Idle",
            UpgradeState::PrepareSplit => "PrepareSplit",
            UpgradeState::Split => "Split",
            UpgradeState::PrepareMerge => "PrepareMerge",
            UpgradeState::Merge => "Merge",
            UpgradeState::Commit => "Commit",
            UpgradeState::Abort => "Abort",
            UpgradeState::Finish => "Finish",
        }
    }
}

/// Shows the spaced label of the status bar (SM-32, SB-09, SB-11).
impl fmt::Display for UpgradeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UpgradeState::PrepareSplit => "Prepare Split",
            UpgradeState::PrepareMerge => "Prepare Merge",
            other => other.name(),
        })
    }
}

/// Whether the current stage is done, running or failed (SM-18, SB-16 to SB-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OperationalState {
    /// The previous operation completed.
    Ready,
    /// An operation is in progress.
    Busy,
    /// The operation could not be completed; see the log.
    Broken,
}

impl OperationalState {
    /// Every value.
    pub const ALL: [OperationalState; 3] = [
        OperationalState::Ready,
        OperationalState::Busy,
        OperationalState::Broken,
    ];
}

impl fmt::Display for OperationalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OperationalState::Ready => "Ready",
            OperationalState::Busy => "Busy",
            OperationalState::Broken => "Broken",
        })
    }
}

/// Whether there is one system or two sides (SB-04 to SB-07; `Simplex` is the extension of gap G.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HardwareState {
    /// One merged system; says nothing about the mirrors.
    #[serde(rename = "Fault Tolerant")]
    FaultTolerant,
    /// Divided: the Production Side serves, the Upgrade Side is available for installation.
    #[serde(rename = "Production Side")]
    ProductionSide,
    /// Idle with a failed or absent leg, or not running.
    Simplex,
}

impl fmt::Display for HardwareState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HardwareState::FaultTolerant => "Fault Tolerant",
            HardwareState::ProductionSide => "Production Side",
            HardwareState::Simplex => "Simplex",
        })
    }
}

/// What the partner of the Production Side is doing (PS-01: a closed set of fourteen).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the label of each value says it, in the guide's words"
)]
pub enum PartnerState {
    #[serde(rename = "DC On")]
    DcOn,
    #[serde(rename = "DC Off")]
    DcOff,
    #[serde(rename = "BIOS POST")]
    BiosPost,
    #[serde(rename = "Hung: BIOS POST")]
    HungBiosPost,
    #[serde(rename = "OS Booting")]
    OsBooting,
    #[serde(rename = "Hung: OS Booting")]
    HungOsBooting,
    #[serde(rename = "OS Up")]
    OsUp,
    #[serde(rename = "Hung: OS Up")]
    HungOsUp,
    #[serde(rename = "OS Rebooting")]
    OsRebooting,
    #[serde(rename = "Hung: OS Rebooting")]
    HungOsRebooting,
    #[serde(rename = "OS Shutting Down")]
    OsShuttingDown,
    #[serde(rename = "Hung: OS Shutting Down")]
    HungOsShuttingDown,
    #[serde(rename = "State Sensitive Recovery: NMI issued")]
    RecoveryNmi,
    #[serde(rename = "State Sensitive Recovery: Reset")]
    RecoveryReset,
}

impl PartnerState {
    /// Every value (PS-01).
    pub const ALL: [PartnerState; 14] = [
        PartnerState::DcOn,
        PartnerState::DcOff,
        PartnerState::BiosPost,
        PartnerState::HungBiosPost,
        PartnerState::OsBooting,
        PartnerState::HungOsBooting,
        PartnerState::OsUp,
        PartnerState::HungOsUp,
        PartnerState::OsRebooting,
        PartnerState::HungOsRebooting,
        PartnerState::OsShuttingDown,
        PartnerState::HungOsShuttingDown,
        PartnerState::RecoveryNmi,
        PartnerState::RecoveryReset,
    ];

    /// Says whether it needs an administrator's look.
    pub fn is_trouble(self) -> bool {
        use PartnerState::{
            HungBiosPost, HungOsBooting, HungOsRebooting, HungOsShuttingDown, HungOsUp,
            RecoveryNmi, RecoveryReset,
        };
        matches!(
            self,
            HungBiosPost
                | HungOsBooting
                | HungOsUp
                | HungOsRebooting
                | HungOsShuttingDown
                | RecoveryNmi
                | RecoveryReset
        )
    }
}

impl fmt::Display for PartnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartnerState::DcOn => "DC On",
            PartnerState::DcOff => "DC Off",
            PartnerState::BiosPost => "BIOS POST",
            PartnerState::HungBiosPost => "Hung: BIOS POST",
            PartnerState::OsBooting => "OS Booting",
            PartnerState::HungOsBooting => "Hung: OS Booting",
            PartnerState::OsUp => "OS Up",
            PartnerState::HungOsUp => "Hung: OS Up",
            PartnerState::OsRebooting => "OS Rebooting",
            PartnerState::HungOsRebooting => "Hung: OS Rebooting",
            PartnerState::OsShuttingDown => "OS Shutting Down",
            PartnerState::HungOsShuttingDown => "Hung: OS Shutting Down",
            PartnerState::RecoveryNmi => "State Sensitive Recovery: NMI issued",
            PartnerState::RecoveryReset => "State Sensitive Recovery: Reset",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SM-02, SM-03, SM-32, SB-05, SB-06, SB-09, SB-11: the guide's own words, spaced for people, unspaced in files.
    #[test]
    fn the_names_are_the_guides_own() {
        let unspaced = UpgradeState::ALL.map(UpgradeState::name);
        let expected = [
            "Idle",
            "PrepareSplit",
            "Split",
            "PrepareMerge",
            "Merge",
            "Commit",
            "Abort",
            "Finish",
        ];
        assert_eq!(unspaced, expected);
        for state in UpgradeState::ALL {
            let spaced = state.to_string();
            assert_eq!(spaced.replace(' ', ""), state.name());
            let json = serde_json::to_string(&state).expect("JSON");
            assert_eq!(json, format!("\"{}\"", state.name()));
        }
        assert_eq!(UpgradeState::PrepareSplit.to_string(), "Prepare Split");
        assert_eq!(UpgradeState::PrepareMerge.to_string(), "Prepare Merge");
        let operational = OperationalState::ALL.map(|o| o.to_string());
        assert_eq!(operational, ["Ready", "Busy", "Broken"]);
        assert_eq!(Side::Production.to_string(), "Production Side");
        assert_eq!(Side::Upgrade.to_string(), "Upgrade Side");
        assert_eq!(HardwareState::FaultTolerant.to_string(), "Fault Tolerant");
        assert_eq!(HardwareState::ProductionSide.to_string(), "Production Side");
    }
}

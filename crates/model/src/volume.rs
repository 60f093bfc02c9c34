//! Disks and volumes as an administrator sees them: the data of the guide's Disk Selection (DK-01 to DK-34).

use crate::{DeviceKind, DiskName, DiskRole, LegStatus, MirrorStatus};
use serde::{Deserialize, Serialize};

/// Fixed storage that the guest manages as one device, on one or many disks (DK-16, DK-35).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The kernel's name, such as `dm-0`.
    pub device: String,
    /// The name people know it by.
    pub title: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its file system, `swap`, or none that is known.
    pub format: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// Its unique id.
    pub uuid: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Where it is mounted.
    pub mounts: Vec<String>,
    /// Whether memory is paged to it, or to a file on it.
    pub paging: bool,
    /// The disks of the system that hold a part of it.
    pub disks: Vec<DiskName>,
    /// A part of it lies on something that is no mirrored disk of the system.
    pub outside: bool,
    /// Why the running operating system needs it, a sentence each; empty for other volumes (DK-09 to DK-13).
    pub system: Vec<String>,
}

/// What a disk is in an upgrade, in the guide's three words (DK-03, DK-08).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskKind {
    /// Always System: the running operating system needs it.
    #[serde(rename = "Mandatory System")]
    MandatorySystem,
    /// Marked System.
    System,
    /// Data: not available on the Upgrade Side while split.
    Data,
}

impl DiskKind {
    /// The two words that decide what happens to the disk.
    pub fn role(self) -> DiskRole {
        match self {
            DiskKind::MandatorySystem | DiskKind::System => DiskRole::System,
            DiskKind::Data => DiskRole::Data,
        }
    }
}

impl std::fmt::Display for DiskKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DiskKind::MandatorySystem => "Mandatory System",
            DiskKind::System => "System",
            DiskKind::Data => "Data",
        })
    }
}

/// The guide's colours (DK-17 to DK-21); text says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeColour {
    /// Unassigned space.
    Black,
    /// Data disk.
    Blue,
    /// System disk.
    #[serde(rename = "Light Green")]
    LightGreen,
    /// Mandatory system disk.
    #[serde(rename = "Dark Green")]
    DarkGreen,
    /// Being resynchronised, whatever the role (gap G.3.42).
    Red,
}

/// A piece of a disk, from its beginning to its end without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The partition, or the disk itself; none for unassigned space.
    pub device: Option<String>,
    /// The volumes on it, by their place in [`DiskMap::volumes`].
    pub volumes: Vec<usize>,
    /// Its colour.
    pub colour: VolumeColour,
    /// The colour in words.
    pub meaning: String,
    /// What a pointer resting on it is told (DK-22).
    pub tip: String,
}

/// One disk of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDisk {
    /// Name and serial number.
    pub name: DiskName,
    /// What it is in the upgrade.
    pub kind: DiskKind,
    /// Why it is that, a sentence each.
    pub why: Vec<String>,
    /// Whether Data may be chosen for it (DK-08).
    pub may_be_data: bool,
    /// Size in bytes.
    pub size: u64,
    /// `None`, `Resync nn%` or `Simplex`.
    pub mirror: MirrorStatus,
    /// Its legs; the authority decides.
    pub legs: Vec<LegStatus>,
    /// Whether the guest has it now; none when the guest was not asked.
    pub plugged: Option<bool>,
    /// Its pieces; empty when the guest was not asked.
    pub segments: Vec<Segment>,
}

/// All disks of a system after a fresh look (DK-01).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMap {
    /// The disks, in the order of the definition.
    pub disks: Vec<MapDisk>,
    /// The volumes of the guest that lie on them.
    pub volumes: Vec<Volume>,
    /// Why the guest could not be asked; then only what the host knows is here.
    pub not_scanned: Option<String>,
    /// What is wrong with the selection, a sentence each; the readiness check makes Errors of them.
    pub problems: Vec<String>,
    /// The guide's CAUTION texts for a selection (DK-07, DK-24).
    pub cautions: Vec<String>,
}

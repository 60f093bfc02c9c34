//! The definition of a system: what `flipside system create` writes and every start reads.

use crate::{DiskName, DiskRole, Leg, SystemName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// How the guest boots; always from the boot loader on its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF with a variable store of its own for each side.
    Uefi,
}

/// The production network of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkSpec {
    /// A user-mode network for each side behind the front door; needs no privilege.
    User,
    /// A bridge of the host, which each side's card joins through a tap while it owns the network.
    Bridge(String),
}

impl NetworkSpec {
    /// The bridge, if that is what it is.
    pub fn bridge(&self) -> Option<&str> {
        match self {
            Self::User => None,
            Self::Bridge(name) => Some(name),
        }
    }
}

/// A port of the guest that the front door publishes on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Host address to listen on.
    pub address: IpAddr,
    /// Host port.
    pub host_port: u16,
    /// Guest port.
    pub guest_port: u16,
}

/// Where the two legs of a disk are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegPaths {
    /// Leg A, in the first enclosure.
    pub a: PathBuf,
    /// Leg B, in the second enclosure.
    pub b: PathBuf,
}

impl LegPaths {
    /// Returns the path of one leg.
    pub fn get(&self, leg: Leg) -> &PathBuf {
        match leg {
            Leg::A => &self.a,
            Leg::B => &self.b,
        }
    }
}

/// One mirrored disk of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Name, and serial number in the guest.
    pub name: DiskName,
    /// System or Data.
    pub role: DiskRole,
    /// Size in bytes; a multiple of 64 KiB.
    pub size: u64,
    /// Its two legs.
    pub legs: LegPaths,
}

/// A system as defined; version 1 of the format. It changes only by an explicit command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemSpec {
    /// Version of this format.
    pub version: u32,
    /// Version of the machine layout; both sides of a fork must have identical devices.
    pub layout: u32,
    /// Name of the system.
    pub name: SystemName,
    /// Identity of the machine, checked on every adoption.
    pub uuid: uuid::Uuid,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// Firmware.
    pub firmware: Firmware,
    /// Production network.
    pub network: NetworkSpec,
    /// MAC address of the production card.
    pub mac: String,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// The two enclosures: A, then B.
    pub enclosures: [PathBuf; 2],
    /// Disks in order.
    pub disks: Vec<DiskSpec>,
}

impl SystemSpec {
    /// Version of the format this code writes.
    pub const VERSION: u32 = 1;
    /// Version of the machine layout that a new system gets; every earlier one is still built.
    ///
    /// 2: the serial console is a socket with a log of bounded length.
    pub const LAYOUT: u32 = 2;

    /// Finds a disk by name.
    pub fn disk(&self, name: &DiskName) -> Option<&DiskSpec> {
        self.disks.iter().find(|d| &d.name == name)
    }

    /// Lists the disks of one role.
    pub fn disks_of(&self, role: DiskRole) -> impl Iterator<Item = &DiskSpec> {
        self.disks.iter().filter(move |d| d.role == role)
    }
}

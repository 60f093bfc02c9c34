//! What the operating system of a guest has of disks, volumes, mounts and swap: its own words, bounded, not believed
//! where anything but the guest itself depends on them.

use serde::{Deserialize, Serialize};

/// The most devices that are read of one guest; what is beyond is counted in [`Inventory::left_out`].
pub const MAX_DEVICES: usize = 512;
/// The most mounts that are read of one guest: containers make hundreds, thousands are made up.
pub const MAX_MOUNTS: usize = 2048;

/// What kind a block device of the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A whole disk.
    Disk,
    /// A partition of a disk.
    Partition,
    /// A logical volume of LVM.
    Logical,
    /// An array of md.
    Raid,
    /// An opened LUKS volume.
    Crypt,
    /// Anything else: a loop device, multipath, bcache.
    Other,
}

/// A block device of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDevice {
    /// The kernel's name, such as `sda1`; changes from boot to boot.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The name people know it by, such as `vg/root`, when it is another.
    pub title: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Where a partition begins on its disk, in bytes.
    pub start: Option<u64>,
    /// The devices it lies on, directly; none for a disk.
    pub below: Vec<String>,
    /// The serial number of a disk; those of ours are their names.
    pub serial: Option<String>,
    /// The file system, `swap`, `LVM2_member` and so on, as blkid says it.
    pub format: Option<String>,
    /// Label of what it holds.
    pub label: Option<String>,
    /// Unique id of what it holds.
    pub uuid: Option<String>,
    /// The volume group it belongs to: of a logical volume, or of a device that LVM uses.
    pub group: Option<String>,
    /// The type of a partition in the partition table.
    pub part_type: Option<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMount {
    /// Where.
    pub target: String,
    /// Type of the file system, such as `ext4` or `nfs4`.
    pub format: String,
    /// What is mounted, in the guest's words.
    pub source: String,
    /// The device it lies on, if it is one of the list.
    pub device: Option<String>,
}

/// A partition or file that memory is paged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSwap {
    /// Its device or file.
    pub path: String,
    /// A file, not a whole device.
    pub file: bool,
    /// Size in bytes.
    pub size: u64,
    /// The device it is, or on which it lies.
    pub device: Option<String>,
    /// The mount point of the file system that a swap file lies in.
    pub mount: Option<String>,
}

/// Everything a guest says of its disks at one moment. The default one knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Devices; what lies below comes first.
    pub devices: Vec<GuestDevice>,
    /// Mounts of the first process, in the order in which they were made.
    pub mounts: Vec<GuestMount>,
    /// Active swap.
    pub swaps: Vec<GuestSwap>,
    /// Whether the guest was started by UEFI firmware.
    pub efi: bool,
    /// Devices and mounts that were too many to be read.
    pub left_out: u32,
}

impl Inventory {
    /// Finds a device by the kernel's name.
    pub fn device(&self, name: &str) -> Option<&GuestDevice> {
        self.devices.iter().find(|d| d.name == name)
    }

    /// Lists the disks at the bottom of a device, by the kernel's names, each once.
    pub fn disks_under(&self, name: &str) -> Vec<&GuestDevice> {
        let mut found: Vec<&GuestDevice> = Vec::new();
        let mut todo = vec![name];
        let mut seen: Vec<&str> = Vec::new();
        while let Some(name) = todo.pop() {
            if seen.contains(&name) {
                // A cycle cannot be real, but a guest may tell one.
                continue;
            }
            seen.push(name);
            let Some(device) = self.device(name) else {
                continue;
            };
            if device.below.is_empty() {
                found.push(device);
            }
            todo.extend(device.below.iter().map(String::as_str));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Says whether something lies on a device, so that it is no volume of its own.
    pub fn has_above(&self, name: &str) -> bool {
        self.devices
            .iter()
            .any(|d| d.below.iter().any(|below| below == name))
    }
}

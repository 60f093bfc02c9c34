//! Which disks are System and which are Data in an upgrade, judged over what the guest says now (DK-03 to DK-16).
//!
//! **Mandatory** is computed live, never read from a file (DK-13): the disk the firmware boots from, and every disk
//! with a part of a volume that the running system boots from, runs from or pages to, or that holds the mount point
//! of such a volume. Everything else is what the definition says, changed by the configuration. **System spreads**:
//! if one disk of a volume is System, all of them are, until nothing more changes. A volume group counts as a volume
//! here, because LVM cannot let go of one disk of a group that is in use.

use flipside_model::{
    DeviceKind, DiskKind, DiskName, DiskRole, GuestDevice, Inventory, SystemSpec, UpgradeConfig,
    Volume, planted,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where the running system's own software is mounted from (DK-12; `/var` and its package database are our addition:
/// software and the record of it must not part).
const SYSTEM_TARGETS: [(&str, &str); 9] = [
    ("/", "it holds the root file system"),
    ("/boot", "it holds the boot loader's files"),
    ("/boot/efi", "it is the EFI system partition"),
    ("/efi", "it is the EFI system partition"),
    ("/usr", "it holds the operating system's programs"),
    ("/etc", "it holds the operating system's configuration"),
    ("/var", "it holds the package database"),
    ("/var/lib", "it holds the package database"),
    ("/var/lib/dpkg", "it holds the package database"),
];

/// Types of partitions that only hold others.
pub(crate) const EXTENDED: [&str; 3] = ["0x5", "0xf", "0x85"];

/// What a disk is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Mandatory System, System or Data.
    pub kind: DiskKind,
    /// Why, a sentence each.
    pub why: Vec<String>,
}

/// What is wrong with a selection of disks; the readiness check makes an Error of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The disk.
    pub disk: DiskName,
    /// One sentence.
    pub text: String,
    /// What to do.
    pub advice: String,
}

/// The roles of all disks of the definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// By disk.
    pub disks: BTreeMap<DiskName, Judged>,
    /// What is wrong.
    pub wrong: Vec<Wrong>,
}

impl Roles {
    /// Lists the disks that are System although they are defined as Data, or Data although they are defined as System.
    pub fn changed(&self, spec: &SystemSpec) -> BTreeMap<DiskName, DiskRole> {
        let judged = |name: &DiskName| self.disks.get(name).map(|j| j.kind.role());
        spec.disks
            .iter()
            .filter_map(|d| Some((d.name.clone(), judged(&d.name)?)).filter(|(_, r)| *r != d.role))
            .collect()
    }
}

/// The disk that the firmware boots from: the first one that is defined as System.
pub fn boot_disk(spec: &SystemSpec) -> Option<&DiskName> {
    spec.disks_of(DiskRole::System).next().map(|d| &d.name)
}

/// Lists the volumes of a guest with what the running system needs of them.
pub fn volumes(inventory: &Inventory, spec: &SystemSpec) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = inventory
        .devices
        .iter()
        .filter(|device| is_volume(inventory, device))
        .map(|device| volume(inventory, spec, device))
        .collect();
    needed(inventory, &mut volumes);
    volumes
}

fn is_volume(inventory: &Inventory, device: &GuestDevice) -> bool {
    let extended = device
        .part_type
        .as_deref()
        .is_some_and(|t| EXTENDED.contains(&t));
    let held = device.format.is_some()
        || inventory
            .mounts
            .iter()
            .any(|m| m.device.as_deref() == Some(&device.name));
    !inventory.has_above(&device.name) && !extended && (device.kind != DeviceKind::Disk || held)
}

fn volume(inventory: &Inventory, spec: &SystemSpec, device: &GuestDevice) -> Volume {
    let mut disks = BTreeSet::new();
    let mut outside = false;
    for member in members(inventory, device) {
        for disk in inventory.disks_under(&member.name) {
            match ours(spec, disk) {
                Some(name) => {
                    disks.insert(name);
                }
                None => outside = true,
            }
        }
    }
    let on = |mount: &&flipside_model::GuestMount| mount.device.as_deref() == Some(&device.name);
    let mut mounts: Vec<String> = Vec::new();
    for mount in inventory.mounts.iter().filter(on) {
        if !mounts.contains(&mount.target) {
            mounts.push(mount.target.clone());
        }
    }
    Volume {
        device: device.name.clone(),
        title: device.title.clone().unwrap_or_else(|| device.name.clone()),
        kind: device.kind,
        format: device.format.clone(),
        label: device.label.clone(),
        uuid: device.uuid.clone(),
        size: device.size,
        mounts,
        paging: inventory
            .swaps
            .iter()
            .any(|s| s.device.as_deref() == Some(&device.name)),
        disks: disks.into_iter().collect(),
        outside,
        system: Vec::new(),
    }
}

/// The devices that make one volume: for btrfs and ZFS all members of the file system or pool.
fn members<'a>(inventory: &'a Inventory, device: &'a GuestDevice) -> Vec<&'a GuestDevice> {
    let mark = |d: &GuestDevice| match d.format.as_deref() {
        Some("btrfs") => d.uuid.clone(),
        Some("zfs_member") => d.label.clone(),
        _ => None,
    };
    match mark(device) {
        Some(mine) => inventory
            .devices
            .iter()
            .filter(|d| d.format == device.format && mark(d).as_ref() == Some(&mine))
            .collect(),
        None => vec![device],
    }
}

fn ours(spec: &SystemSpec, disk: &GuestDevice) -> Option<DiskName> {
    let name = DiskName::new(disk.serial.as_deref()?).ok()?;
    spec.disk(&name).map(|d| d.name.clone())
}

/// Rules (a), (b) and (c): what the system boots from, runs from and pages to, and where that is mounted.
fn needed(inventory: &Inventory, volumes: &mut [Volume]) {
    for volume in volumes.iter_mut() {
        for (target, why) in SYSTEM_TARGETS {
            let told = volume.system.iter().any(|w| w == why);
            if volume.mounts.iter().any(|m| m == target) && !told {
                volume.system.push(why.to_owned());
            }
        }
        let under_usr = volume.mounts.iter().find(|m| {
            m.starts_with("/usr/") && !m.starts_with("/usr/local") && !m.starts_with("/usr/share/")
        });
        if let Some(target) = under_usr {
            volume.system.push(format!(
                "it holds programs of the operating system in {target}"
            ));
        }
        let file = inventory
            .swaps
            .iter()
            .find(|s| s.file && s.device.as_deref() == Some(&volume.device));
        match file {
            Some(swap) => volume
                .system
                .push(format!("it holds the swap file {}", swap.path)),
            None if volume.paging => volume.system.push("it is active swap".to_owned()),
            None => {}
        }
    }
    if planted::is("mount-point-hosts-forgotten") {
        return;
    }
    // Rule (c), until nothing more changes: the host of a host must be there as well.
    loop {
        let mut hosts: Vec<(usize, String)> = Vec::new();
        for volume in volumes.iter().filter(|v| !v.system.is_empty()) {
            for target in &volume.mounts {
                let host = volumes.iter().enumerate().filter_map(|(at, v)| {
                    let above = v.mounts.iter().filter(|m| is_above(m, target));
                    above.map(String::len).max().map(|length| (length, at))
                });
                if let Some((_, at)) = host.max() {
                    hosts.push((at, format!("it holds the mount point {target}")));
                }
            }
        }
        let mut changed = false;
        for (at, why) in hosts {
            if !volumes[at].system.contains(&why) {
                volumes[at].system.push(why);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Whether a folder is above another one.
fn is_above(folder: &str, target: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    target
        .strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// The sets of disks that only go together, with what binds them.
fn bound(
    inventory: &Inventory,
    spec: &SystemSpec,
    volumes: &[Volume],
) -> Vec<(String, BTreeSet<DiskName>)> {
    let mut bound: Vec<(String, BTreeSet<DiskName>)> = volumes
        .iter()
        .map(|v| {
            (
                format!("volume {}", v.title),
                v.disks.iter().cloned().collect(),
            )
        })
        .collect();
    let mut groups: BTreeMap<&str, BTreeSet<DiskName>> = BTreeMap::new();
    for device in &inventory.devices {
        if let Some(group) = device.group.as_deref() {
            let disks = inventory.disks_under(&device.name);
            let disks = disks.into_iter().filter_map(|d| ours(spec, d));
            groups.entry(group).or_default().extend(disks);
        }
    }
    bound.extend(
        groups
            .into_iter()
            .map(|(g, disks)| (format!("volume group {g}"), disks)),
    );
    bound.retain(|(_, disks)| disks.len() > 1);
    bound
}

/// Judges every disk of the definition. Without an inventory only definition and configuration count.
pub fn roles(spec: &SystemSpec, config: &UpgradeConfig, inventory: Option<&Inventory>) -> Roles {
    let nothing = Inventory::default();
    let found = inventory.unwrap_or(&nothing);
    let volumes = volumes(found, spec);
    let mut roles = Roles::default();
    for disk in &spec.disks {
        roles
            .disks
            .insert(disk.name.clone(), first(spec, config, &volumes, &disk.name));
    }
    spread(&mut roles, &bound(found, spec, &volumes));
    contradictions(spec, config, inventory, &mut roles);
    mixed(spec, config, &volumes, &mut roles);
    roles
}

/// What a disk is before System spreads.
fn first(spec: &SystemSpec, config: &UpgradeConfig, volumes: &[Volume], name: &DiskName) -> Judged {
    let mut why: Vec<String> = Vec::new();
    if boot_disk(spec) == Some(name) {
        why.push("the firmware boots from it".to_owned());
    }
    for volume in volumes.iter().filter(|v| v.disks.contains(name)) {
        let here = &volume.title;
        why.extend(volume.system.iter().map(|w| format!("{here}: {w}")));
    }
    if !why.is_empty() && !planted::is("mandatory-disk-may-be-data") {
        let kind = DiskKind::MandatorySystem;
        return Judged { kind, why };
    }
    let defined = spec.disk(name).map_or(DiskRole::Data, |d| d.role);
    let (kind, why) = if config.system_disks.contains(name) {
        (DiskKind::System, "the configuration marks it System")
    } else if config.data_disks.contains(name) {
        (DiskKind::Data, "the configuration marks it Data")
    } else if defined == DiskRole::System {
        (DiskKind::System, "it was made a system disk")
    } else {
        // DK-06
        (DiskKind::Data, "nothing marks it System")
    };
    let why = vec![why.to_owned()];
    Judged { kind, why }
}

/// DK-15: until nothing more changes.
fn spread(roles: &mut Roles, bound: &[(String, BTreeSet<DiskName>)]) {
    if planted::is("spanned-volume-torn") {
        return;
    }
    loop {
        let mut changed = false;
        for (what, disks) in bound {
            let system = |name: &&DiskName| {
                roles
                    .disks
                    .get(*name)
                    .is_some_and(|j| j.kind.role() == DiskRole::System)
            };
            let Some(by) = disks.iter().find(system).cloned() else {
                continue;
            };
            for disk in disks {
                if let Some(judged) = roles.disks.get_mut(disk)
                    && judged.kind == DiskKind::Data
                {
                    *judged = Judged {
                        kind: DiskKind::System,
                        why: vec![format!("{what} lies on it and on `{by}`")],
                    };
                    changed = true;
                }
            }
        }
        if !changed {
            return;
        }
    }
}

/// What the configuration says that cannot be: DK-08, DK-34.
fn contradictions(
    spec: &SystemSpec,
    config: &UpgradeConfig,
    inventory: Option<&Inventory>,
    roles: &mut Roles,
) {
    for disk in config.system_disks.iter().chain(&config.data_disks) {
        let text = if spec.disk(disk).is_none() {
            format!("the configured disk `{disk}` is no disk of `{}`", spec.name)
        } else if inventory.is_some_and(|found| !has(found, disk)) {
            format!("the configured disk `{disk}` is not there: the guest does not see it")
        } else {
            continue;
        };
        roles.wrong.push(Wrong {
            disk: disk.clone(),
            text,
            advice: format!(
                "take it out of `[disks]`, or look at `flipside system show {}`",
                spec.name
            ),
        });
    }
    for disk in &config.data_disks {
        let Some(judged) = roles.disks.get(disk) else {
            continue;
        };
        let why = judged.why.join("; ");
        let text = match judged.kind {
            DiskKind::Data => continue,
            DiskKind::MandatorySystem => {
                format!("`{disk}` is a mandatory system disk and cannot be marked Data: {why}")
            }
            DiskKind::System => format!("`{disk}` cannot be marked Data: {why}"),
        };
        roles.wrong.push(Wrong {
            disk: disk.clone(),
            text,
            advice: "take it out of `disks.data`".to_owned(),
        });
    }
}

fn has(inventory: &Inventory, disk: &DiskName) -> bool {
    let serial = |d: &GuestDevice| d.serial.as_deref() == Some(disk.as_str());
    inventory.devices.iter().any(serial)
}

/// DK-32, RC-20: a volume that is meant as data on a disk that is upgraded. It is meant as data when its disk is
/// defined as Data and only the operating system's needs make it System, or when a configured data path lies in it.
fn mixed(spec: &SystemSpec, config: &UpgradeConfig, volumes: &[Volume], roles: &mut Roles) {
    for volume in volumes.iter().filter(|v| v.system.is_empty()) {
        for disk in &volume.disks {
            let judged = &roles.disks[disk];
            if judged.kind == DiskKind::Data {
                continue;
            }
            let Some(target) = volume.mounts.first() else {
                continue;
            };
            let defined = spec.disk(disk).map_or(DiskRole::Data, |d| d.role);
            let marked = config.system_disks.contains(disk);
            let path = |path: &&String| {
                volume
                    .mounts
                    .iter()
                    .any(|m| *path == m || is_above(m, path))
            };
            let declared = config.data_paths.iter().find(path);
            if declared.is_none() && (defined == DiskRole::System || marked) {
                continue;
            }
            let holds = declared.unwrap_or(target);
            let why = judged.why.join("; ");
            roles.wrong.push(Wrong {
                disk: disk.clone(),
                text: format!(
                    "`{disk}` holds data ({holds}, on {}) and is a system disk ({why}): what is written there after the split is gone at Commit",
                    volume.title
                ),
                advice: format!(
                    "keep data on disks of its own: move {holds} to a data disk, or move what makes `{disk}` a system disk away"
                ),
            });
        }
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;

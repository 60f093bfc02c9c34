//! The disks as an administrator sees them: to scale, with volumes, roles, colours and what a pointer is told (DK-16 to
//! DK-22), made of what host and guest say.

use crate::disks::{self, Judged, Roles};
use flipside_model::{
    DeviceKind, DiskKind, DiskMap, DiskName, DiskRole, DiskStatus, GuestDevice, Inventory, MapDisk,
    MirrorStatus, Segment, SystemSpec, UpgradeConfig, Volume, VolumeColour,
};
use std::collections::BTreeMap;

/// Gaps up to this size are the alignment of a partition table, not space that somebody could use.
const ALIGNMENT: u64 = 1 << 20;

/// DK-07: what may be on a disk that is marked System.
pub const CAUTION_MARK: &str = "Mark a disk System only if it holds application binaries and configuration data, and no persistent data.";

/// DK-24: what becomes of data on a system disk.
pub const CAUTION_DATA: &str = "CAUTION: data that the Production Side writes to the original system disk while the system is split is overwritten at commit. Keep no persistent data on a system disk.";

/// Everything the map is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The definition.
    pub spec: &'a SystemSpec,
    /// The configuration in force.
    pub config: &'a UpgradeConfig,
    /// What the guest has, or why it could not be asked.
    pub inventory: Result<Inventory, String>,
    /// What the host knows of each disk.
    pub status: &'a [DiskStatus],
    /// The roles that a session has established.
    pub frozen: Option<&'a BTreeMap<DiskName, DiskRole>>,
}

/// Draws the map.
pub fn draw(sources: &Sources<'_>) -> DiskMap {
    let found = sources.inventory.as_ref().ok();
    let mut roles = disks::roles(sources.spec, sources.config, found);
    freeze(sources, &mut roles);
    let volumes = found.map_or_else(Vec::new, |found| {
        let mut volumes = disks::volumes(found, sources.spec);
        volumes.retain(|v| !v.disks.is_empty());
        volumes
    });
    let disks = sources.spec.disks.iter().filter_map(|defined| {
        let status = sources.status.iter().find(|s| s.name == defined.name)?;
        let judged = roles.disks.get(&defined.name)?;
        let device = found.map(|found| device(found, &defined.name));
        Some(MapDisk {
            name: defined.name.clone(),
            kind: judged.kind,
            why: judged.why.clone(),
            may_be_data: may_be_data(sources, &defined.name),
            size: defined.size,
            mirror: status.mirror,
            legs: status.legs.clone(),
            plugged: device.map(|device| device.is_some()),
            segments: match (found, device.flatten()) {
                (Some(found), Some(device)) => {
                    segments(found, &volumes, device, judged, status.mirror)
                }
                _ => Vec::new(),
            },
        })
    });
    DiskMap {
        disks: disks.collect(),
        volumes: volumes.clone(),
        not_scanned: sources.inventory.as_ref().err().cloned(),
        problems: roles.wrong.into_iter().map(|w| w.text).collect(),
        cautions: vec![CAUTION_MARK.to_owned(), CAUTION_DATA.to_owned()],
    }
}

/// A session keeps the roles it began with, whatever would be judged now.
fn freeze(sources: &Sources<'_>, roles: &mut Roles) {
    let Some(frozen) = sources.frozen else { return };
    for disk in &sources.spec.disks {
        let role = *frozen.get(&disk.name).unwrap_or(&disk.role);
        if let Some(judged) = roles.disks.get_mut(&disk.name)
            && judged.kind.role() != role
        {
            let kind = match role {
                DiskRole::System => DiskKind::System,
                DiskRole::Data => DiskKind::Data,
            };
            let why = vec!["it was so when the session began".to_owned()];
            *judged = Judged { kind, why };
        }
    }
}

/// DK-08: Data can be chosen for what is neither mandatory nor taken along by a volume, if the mark were not there.
fn may_be_data(sources: &Sources<'_>, name: &DiskName) -> bool {
    let mut config = sources.config.clone();
    config.system_disks.retain(|d| d != name);
    config.data_disks = vec![name.clone()];
    let roles = disks::roles(sources.spec, &config, sources.inventory.as_ref().ok());
    let kind = roles.disks.get(name).map(|j| j.kind);
    kind == Some(DiskKind::Data)
}

fn device<'a>(found: &'a Inventory, name: &DiskName) -> Option<&'a GuestDevice> {
    let mut disks = found.devices.iter();
    disks.find(|d| d.below.is_empty() && d.serial.as_deref() == Some(name.as_str()))
}

/// The pieces of a disk from its beginning to its end.
fn segments(
    found: &Inventory,
    volumes: &[Volume],
    disk: &GuestDevice,
    judged: &Judged,
    mirror: MirrorStatus,
) -> Vec<Segment> {
    let held = |name: &str| -> Vec<usize> {
        let on = |(at, v): (usize, &Volume)| lies_on(found, &v.device, name).then_some(at);
        volumes.iter().enumerate().filter_map(on).collect()
    };
    let made = |start: u64, size: u64, device: &str| {
        let held = held(device);
        let (colour, meaning) = colour(judged.kind, mirror);
        Segment {
            start,
            size,
            device: Some(device.to_owned()),
            tip: tip(device, &held, volumes, judged, mirror),
            volumes: held,
            colour,
            meaning,
        }
    };
    let mut parts: Vec<&GuestDevice> = found
        .devices
        .iter()
        .filter(|d| d.kind == DeviceKind::Partition && d.below == [disk.name.clone()])
        .filter(|d| {
            !d.part_type
                .as_deref()
                .is_some_and(|t| disks::EXTENDED.contains(&t))
        })
        .collect();
    parts.sort_by_key(|d| d.start);
    if parts.is_empty() {
        let used = disk.format.is_some() || disk.group.is_some() || found.has_above(&disk.name);
        return match used {
            true => vec![made(0, disk.size, &disk.name)],
            false => vec![unassigned(0, disk.size)],
        };
    }
    let mut all = Vec::new();
    let mut end = 0;
    for part in parts {
        let start = part.start.unwrap_or(end).max(end);
        if start - end > ALIGNMENT {
            all.push(unassigned(end, start - end));
        }
        let size = part.size.min(disk.size.saturating_sub(start));
        all.push(made(start, size, &part.name));
        end = start + size;
    }
    if disk.size.saturating_sub(end) > ALIGNMENT {
        all.push(unassigned(end, disk.size - end));
    }
    all
}

/// Whether a device is another one or lies on it, however deep.
fn lies_on(found: &Inventory, device: &str, base: &str) -> bool {
    let mut todo = vec![device];
    let mut seen: Vec<&str> = Vec::new();
    while let Some(name) = todo.pop() {
        if name == base {
            return true;
        }
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let below = found
            .device(name)
            .map(|d| d.below.as_slice())
            .unwrap_or_default();
        todo.extend(below.iter().map(String::as_str));
    }
    false
}

fn unassigned(start: u64, size: u64) -> Segment {
    Segment {
        start,
        size,
        device: None,
        volumes: Vec::new(),
        colour: VolumeColour::Black,
        meaning: "unassigned".to_owned(),
        tip: "unassigned disk space".to_owned(),
    }
}

/// DK-17 to DK-21; the role stays in the words when red takes the colour (gap G.3.42).
fn colour(kind: DiskKind, mirror: MirrorStatus) -> (VolumeColour, String) {
    let (colour, word) = match kind {
        DiskKind::MandatorySystem => (VolumeColour::DarkGreen, "mandatory system"),
        DiskKind::System => (VolumeColour::LightGreen, "system"),
        DiskKind::Data => (VolumeColour::Blue, "data"),
    };
    match mirror {
        MirrorStatus::Resync(_) => (VolumeColour::Red, format!("{word}, {mirror}")),
        MirrorStatus::Simplex => (colour, format!("{word}, one leg only")),
        MirrorStatus::None => (colour, word.to_owned()),
    }
}

fn tip(
    device: &str,
    held: &[usize],
    volumes: &[Volume],
    judged: &Judged,
    mirror: MirrorStatus,
) -> String {
    let mut lines: Vec<String> = Vec::new();
    for volume in held.iter().filter_map(|at| volumes.get(*at)) {
        let mut line = volume.title.clone();
        for told in [&volume.format, &volume.label] {
            line.extend(told.iter().map(|t| format!(", {t}")));
        }
        if !volume.mounts.is_empty() {
            line = format!("{line}, mounted at {}", volume.mounts.join(" and "));
        }
        if volume.paging {
            line.push_str(", paged to");
        }
        if volume.disks.len() > 1 {
            let names: Vec<&str> = volume.disks.iter().map(DiskName::as_str).collect();
            line = format!("{line}, spans {}", names.join(" and "));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(format!("{device}, nothing known on it"));
    }
    lines.push(format!("{}: {}", judged.kind, judged.why.join("; ")));
    lines.push(format!("mirror {mirror}"));
    lines.join("\n")
}

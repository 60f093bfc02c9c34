//! The volumes of the simulated guest.

use crate::SimVolume;
use crate::state::State;
use flipside_model::{
    DeviceKind, DiskName, GuestDevice, GuestMount, GuestSwap, Inventory, MachineId,
};
use flipside_platform::PortResult;

/// The name that the simulated kernel gives to a disk.
fn kernel_name(disk: &DiskName) -> String {
    format!("sd-{disk}")
}

fn disk_device(disk: &DiskName, size: u64) -> GuestDevice {
    GuestDevice {
        name: kernel_name(disk),
        kind: DeviceKind::Disk,
        title: None,
        size,
        start: None,
        below: Vec::new(),
        serial: Some(disk.to_string()),
        format: None,
        label: None,
        uuid: None,
        group: None,
        part_type: None,
    }
}

impl State {
    /// What the guest has: a device for every disk that is plugged, and one for every volume.
    pub(crate) fn inventory(&mut self, id: MachineId) -> PortResult<Inventory> {
        let mounted = self
            .machine(id)?
            .guest
            .as_ref()
            .map(|g| g.mounts.clone())
            .unwrap_or_default();
        let plugged: Vec<DiskName> = self.machine(id)?.disks.keys().cloned().collect();
        let mut found = Inventory::default();
        for disk in &plugged {
            let size = self.spec.disk(disk).map_or(0, |d| d.size);
            found.devices.push(disk_device(disk, size));
        }
        let root = SimVolume {
            disks: self.root_disk().into_iter().collect(),
            target: Some("/".to_owned()),
            swap: false,
        };
        let data = self
            .options
            .mounts
            .iter()
            .filter(|m| mounted.contains_key(&m.target));
        let data = data.map(|m| SimVolume {
            disks: vec![m.disk.clone()],
            target: Some(m.target.clone()),
            swap: false,
        });
        let volumes = [root]
            .into_iter()
            .chain(data)
            .chain(self.options.volumes.clone());
        for (number, volume) in volumes.enumerate() {
            // A volume is not there without all of its disks.
            if volume.disks.iter().all(|d| plugged.contains(d)) {
                add(&mut found, number, &volume);
            }
        }
        Ok(found)
    }
}

fn add(found: &mut Inventory, number: usize, volume: &SimVolume) {
    let below: Vec<String> = volume.disks.iter().map(kernel_name).collect();
    let spans = below.len() > 1;
    let sizes = below.iter().filter_map(|b| found.device(b)).map(|d| d.size);
    let size = sizes.sum::<u64>() / 2;
    let name = format!("volume{number}");
    found.devices.push(GuestDevice {
        name: name.clone(),
        kind: if spans {
            DeviceKind::Logical
        } else {
            DeviceKind::Partition
        },
        title: spans.then(|| format!("group{number}/volume")),
        size,
        start: (!spans).then_some(0),
        below,
        serial: None,
        format: Some(
            if volume.swap && volume.target.is_none() {
                "swap"
            } else {
                "ext4"
            }
            .to_owned(),
        ),
        label: None,
        uuid: None,
        group: spans.then(|| format!("group{number}")),
        part_type: None,
    });
    if let Some(target) = &volume.target {
        found.mounts.push(GuestMount {
            target: target.clone(),
            format: "ext4".to_owned(),
            source: format!("/dev/{name}"),
            device: Some(name.clone()),
        });
    }
    if volume.swap {
        let device = format!("/dev/{name}");
        let file = volume.target.as_ref().map(|t| format!("{t}/swapfile"));
        found.swaps.push(GuestSwap {
            file: file.is_some(),
            path: file.unwrap_or(device),
            size,
            device: Some(name),
            mount: volume.target.clone(),
        });
    }
}

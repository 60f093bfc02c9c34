//! What the guest has of disks and volumes (DK-01), read in one look.

use super::blocks::{Block, Survey, is_under};
use super::escape::words;
use super::link::Script;
use super::{LinuxGuest, data, limits, records, script};
use flipside_model::{
    DeviceKind, GuestDevice, GuestMount, GuestSwap, Inventory, MAX_DEVICES, MAX_MOUNTS, MachineId,
};
use flipside_platform::PortResult;
use serde::Deserialize;
use std::collections::HashMap;

static INVENTORY: Script = script!("list the disks and volumes", "survey", "inventory");

/// Bytes in a sector, as the kernel counts them in every file of /sys.
const SECTOR: u64 = 512;

/// What lsblk prints. Fields that an older one does not know are missing.
#[derive(Debug, Default, Deserialize)]
struct Listed {
    #[serde(default)]
    blockdevices: Vec<Held>,
}

/// What a device holds.
#[derive(Debug, Default, Deserialize)]
struct Held {
    kname: Option<String>,
    fstype: Option<String>,
    label: Option<String>,
    uuid: Option<String>,
    parttype: Option<String>,
}

impl LinuxGuest {
    pub(super) async fn take_inventory(&self, id: MachineId) -> PortResult<Inventory> {
        let out = self.link.script(id, &INVENTORY, &[], limits::LOOK).await?;
        Ok(read(&out))
    }
}

/// Reads what the script prints; what is not understood is left out.
pub(super) fn read(output: &[u8]) -> Inventory {
    const LSBLK: &[u8] = b"\nlsblk\t\n";
    let at = output.windows(LSBLK.len()).position(|w| w == LSBLK);
    let (lines, json) = match at {
        Some(at) => (&output[..at], &output[at + LSBLK.len()..]),
        None => (output, &b""[..]),
    };
    let survey = Survey::read(lines);
    let listed: Listed = serde_json::from_slice(json).unwrap_or_default();
    let held: HashMap<&str, &Held> = listed
        .blockdevices
        .iter()
        .filter_map(|h| Some((h.kname.as_deref()?, h)))
        .collect();
    let text = String::from_utf8_lossy(lines);
    let mut sizes: HashMap<&str, (u64, Option<u64>)> = HashMap::new();
    let mut groups: HashMap<String, &str> = HashMap::new();
    let mut efi = false;
    for record in records(&text) {
        match record.as_slice() {
            ["size", name, sectors, start] => {
                let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(SECTOR);
                sizes.insert(name, (bytes(sectors).unwrap_or(0), bytes(start)));
            }
            ["pv", device, group] if !group.trim().is_empty() => {
                groups.insert((*device).to_owned(), group.trim());
            }
            ["efi", "yes"] => efi = true,
            _ => {}
        }
    }
    let mut inventory = Inventory {
        efi,
        ..Inventory::default()
    };
    for block in ordered(&survey) {
        let (size, start) = sizes.get(block.name.as_str()).copied().unwrap_or_default();
        // An empty drive or a loop device without a file.
        if size == 0 {
            continue;
        }
        if inventory.devices.len() == MAX_DEVICES {
            inventory.left_out += 1;
            continue;
        }
        let names = block.names().find_map(|name| groups.get(&name));
        inventory.devices.push(device(
            block,
            (size, start),
            held.get(block.name.as_str()).copied(),
            names.copied(),
        ));
    }
    // What lies on something that was left out would look like a disk.
    let known: Vec<String> = inventory.devices.iter().map(|d| d.name.clone()).collect();
    for device in &mut inventory.devices {
        device.below.retain(|below| known.contains(below));
    }
    mounts(&survey, &mut inventory);
    inventory.swaps = swaps(&text, &survey, &inventory);
    inventory
}

/// The devices with what lies below first.
fn ordered(survey: &Survey) -> Vec<&Block> {
    let mut done: Vec<&Block> = Vec::new();
    let mut left: Vec<&Block> = survey.blocks.iter().collect();
    loop {
        let before = left.len();
        left.retain(|block| {
            let waits = |name: &String| {
                survey.blocks.iter().any(|b| &b.name == name)
                    && !done.iter().any(|d| &d.name == name)
            };
            let mut below = block
                .below
                .iter()
                .chain((!block.parent.is_empty()).then_some(&block.parent));
            let twice = done.iter().any(|d| d.name == block.name);
            if twice || below.any(waits) {
                return !twice;
            }
            done.push(block);
            false
        });
        if left.is_empty() || left.len() == before {
            // What is still left lies in a cycle, which cannot be real.
            return done;
        }
    }
}

fn device(
    block: &Block,
    (size, start): (u64, Option<u64>),
    held: Option<&Held>,
    group: Option<&str>,
) -> GuestDevice {
    let clean = |text: &str| short(text);
    let told = |text: Option<&String>| text.filter(|t| !t.is_empty()).map(|t| clean(t));
    let kind = kind(block);
    let (title, own_group) = match kind {
        DeviceKind::Logical => {
            let group = data::volume_group(&block.dm);
            // Within device mapper's name the hyphens of both names are doubled.
            let volume = block.dm.get(group.replace('-', "--").len() + 1..);
            let volume = volume.unwrap_or_default().replace("--", "-");
            (Some(format!("{group}/{volume}")), Some(group))
        }
        _ if !block.dm.is_empty() => (Some(block.dm.clone()), None),
        _ => (None, None),
    };
    let mut below = block.below.clone();
    below.extend((!block.parent.is_empty()).then(|| block.parent.clone()));
    GuestDevice {
        name: block.name.clone(),
        kind,
        title: title.map(|t| clean(&t)),
        size,
        start: start.filter(|_| kind == DeviceKind::Partition),
        below,
        serial: Some(&block.serial)
            .filter(|s| !s.is_empty())
            .map(|s| clean(s)),
        format: told(held.and_then(|h| h.fstype.as_ref())),
        label: told(held.and_then(|h| h.label.as_ref())),
        uuid: told(held.and_then(|h| h.uuid.as_ref())),
        group: own_group.or(group.map(str::to_owned)).map(|g| clean(&g)),
        part_type: told(held.and_then(|h| h.parttype.as_ref())),
    }
}

fn kind(block: &Block) -> DeviceKind {
    let mapped = block
        .uuid
        .split('-')
        .next()
        .filter(|_| !block.dm.is_empty());
    match mapped {
        _ if !block.parent.is_empty() => DeviceKind::Partition,
        Some("LVM") => DeviceKind::Logical,
        Some("CRYPT") => DeviceKind::Crypt,
        Some(_) => DeviceKind::Other,
        None if block.name.starts_with("md") => DeviceKind::Raid,
        None if block.name.starts_with("loop") || !block.below.is_empty() => DeviceKind::Other,
        None => DeviceKind::Disk,
    }
}

fn mounts(survey: &Survey, inventory: &mut Inventory) {
    for mount in &survey.mounts {
        if inventory.mounts.len() == MAX_MOUNTS {
            inventory.left_out += 1;
            continue;
        }
        let on = survey.on_device(&mount.number, &mount.source);
        let pool = || {
            // A dataset of ZFS names its pool; the label of the pool's members is the pool's name.
            let pool = mount
                .source
                .split('/')
                .next()
                .filter(|_| mount.kind == "zfs")?;
            let member = inventory.devices.iter().find(|d| {
                d.format.as_deref() == Some("zfs_member") && d.label.as_deref() == Some(pool)
            });
            member.map(|d| d.name.clone())
        };
        let device = on
            .map(|b| b.name.clone())
            .filter(|name| inventory.device(name).is_some())
            .or_else(pool);
        inventory.mounts.push(GuestMount {
            target: words(mount.target.as_bytes()),
            format: short(&mount.kind),
            source: words(mount.source.as_bytes()),
            device,
        });
    }
}

/// Reads the lines of `/proc/swaps`: file, type, size in KiB, used, priority.
fn swaps(text: &str, survey: &Survey, inventory: &Inventory) -> Vec<GuestSwap> {
    let mut swaps = Vec::new();
    let lines = text.lines().filter_map(|line| line.strip_prefix("swap\t"));
    for line in lines.take(MAX_DEVICES) {
        let mut fields = line.split_whitespace();
        let (Some(path), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let path = super::fstab::unescape(path.as_bytes());
        if !path.starts_with('/') {
            continue;
        }
        let kib: u64 = fields.next().and_then(|f| f.parse().ok()).unwrap_or(0);
        let file = kind == "file";
        let within = survey
            .mounts
            .iter()
            .rev()
            .filter(|m| file && m.kind != "autofs" && is_under(&path, &m.target))
            .max_by_key(|m| m.target.len());
        let device = match within {
            Some(mount) => survey.on_device(&mount.number, &mount.source),
            None => survey.on_device("", &path),
        };
        let device = device.map(|b| b.name.clone());
        swaps.push(GuestSwap {
            path: words(path.as_bytes()),
            file,
            size: kib.saturating_mul(1024),
            device: device.filter(|name| inventory.device(name).is_some()),
            mount: within.map(|m| words(m.target.as_bytes())),
        });
    }
    swaps
}

/// A name of the guest: one line, not longer than any real one.
fn short(text: &str) -> String {
    const LONGEST: usize = 255;
    words(text.as_bytes())
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two disks of ours with LVM over both, LUKS, a swap file and a swap partition.
    const OUTPUT: &str = "block\tsda\t8:0\t\t\t\t\tsystem0\t\n\
        block\tsda1\t8:1\tsda\t\t\t\t\t\n\
        block\tsda2\t8:2\tsda\t\t\t\t\t\n\
        block\tsdb\t8:16\t\t\t\t\tdata0\t\n\
        block\tsr0\t11:0\t\t\t\t\t\t\n\
        block\tdm-0\t253:0\t\tmy--vg-ro--ot\tLVM-abc\tsda2 sdb\t\t\n\
        block\tdm-1\t253:1\t\tsecret\tCRYPT-LUKS2-x\tdm-0\t\t\n\
        block\tx1\t1:1\t\t\t\tx2\t\t\nblock\tx2\t1:2\t\t\t\tx1\t\t\n\
        mount\t26 1 253:1 / / rw - ext4 /dev/mapper/secret rw\n\
        mount\t27 26 8:1 / /boot rw - ext4 /dev/sda1 rw\n\
        mount\t28 26 0:40 / /mnt/far rw - nfs4 far:/x rw\n\
        swap\tFilename Type Size Used Priority\n\
        swap\t/boot/swap\\040file file 1024 0 -2\nswap\t/dev/dm-1 partition 2048 0 -3\n\
        size\tsda\t2048\t\nsize\tsda1\t512\t64\nsize\tsda2\t1024\t1024\nsize\tsdb\t4096\t\nsize\tsr0\t0\t\n\
        size\tdm-0\t3000\t\nsize\tdm-1\t2900\t\npv\t/dev/sda2\tmy-vg\npv\t/dev/sdb\tmy-vg\nefi\tyes\n\
        lsblk\t\n\
        {\"blockdevices\":[{\"kname\":\"sda1\",\"fstype\":\"ext4\",\"label\":\"boot\",\"uuid\":\"u-1\",\"parttype\":null},\
        {\"kname\":\"sda2\",\"fstype\":\"LVM2_member\"},{\"kname\":\"dm-0\",\"fstype\":\"crypto_LUKS\",\"label\":\"a\\u001b[31m\"}]}";

    // DK-01, DK-16: what lies on what, and on which of our disks.
    #[test]
    fn volumes_are_found_down_to_their_disks() {
        let found = read(OUTPUT.as_bytes());
        let names: Vec<&str> = found.devices.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["sda", "sda1", "sda2", "sdb", "dm-0", "dm-1"]);
        let root = found.device("dm-0").expect("there");
        assert_eq!(root.kind, DeviceKind::Logical);
        assert_eq!(root.title.as_deref(), Some("my-vg/ro-ot"));
        assert_eq!(root.group.as_deref(), Some("my-vg"));
        assert_eq!(
            found.device("sdb").and_then(|d| d.group.as_deref()),
            Some("my-vg")
        );
        let label = root.label.as_deref().expect("a label");
        assert!(!label.contains('\u{1b}'), "{label:?}");
        let disks: Vec<_> = found
            .disks_under("dm-1")
            .iter()
            .map(|d| d.serial.clone())
            .collect();
        assert_eq!(
            disks,
            [Some("system0".to_owned()), Some("data0".to_owned())]
        );
        let boot = found.device("sda1").expect("there");
        assert_eq!((boot.size, boot.start), (512 * 512, Some(64 * 512)));
        assert_eq!(
            found.device("dm-1").map(|d| d.kind),
            Some(DeviceKind::Crypt)
        );
        assert!(found.efi && found.left_out == 0);
        assert!(found.has_above("sda2") && !found.has_above("sda1"));
    }

    #[test]
    fn mounts_and_swap_name_their_devices() {
        let found = read(OUTPUT.as_bytes());
        let of = |target: &str| {
            let mount = found.mounts.iter().find(|m| m.target == target);
            mount.and_then(|m| m.device.clone())
        };
        assert_eq!(of("/").as_deref(), Some("dm-1"));
        assert_eq!(of("/boot").as_deref(), Some("sda1"));
        assert_eq!(of("/mnt/far"), None);
        assert_eq!(found.swaps.len(), 2);
        let file = &found.swaps[0];
        assert_eq!((file.path.as_str(), file.file), ("/boot/swap file", true));
        assert_eq!(file.device.as_deref(), Some("sda1"));
        assert_eq!(file.mount.as_deref(), Some("/boot"));
        assert_eq!(found.swaps[1].device.as_deref(), Some("dm-1"));
    }

    #[test]
    fn nonsense_gives_nothing() {
        for bytes in [
            &b""[..],
            b"\nlsblk\t\n{\"blockdevices\":7}",
            b"size\tsda\t99999999999999999999\t\n",
        ] {
            assert_eq!(read(bytes), Inventory::default());
        }
    }

    #[test]
    fn a_guest_cannot_list_for_ever() {
        let mut text = String::new();
        for i in 0..MAX_DEVICES + 9 {
            text.push_str(&format!(
                "block\td{i}\t9:{i}\t\t\t\t\t\t\nsize\td{i}\t8\t\n"
            ));
        }
        let found = read(text.as_bytes());
        assert_eq!(found.devices.len(), MAX_DEVICES);
        assert_eq!(found.left_out, 9);
    }
}

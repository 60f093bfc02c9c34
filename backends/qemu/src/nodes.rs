//! The vocabulary of our block graphs: what nodes are called and how they are described to QEMU.
//!
//! Names are deterministic, so that any process can read a graph that another one built:
//!
//! ```text
//! dev-data0            the guest's device
//!   root-data0-3-ab    quorum over legs A and B, third root of this disk in this process
//!     leg-data0-a      raw; change bitmaps live here, they outlive the root
//!       file-data0-a   the file, O_DIRECT and locked
//!     leg-data0-b …
//!   hole-data0         the placeholder that fails every request while a root is swapped
//!   overlay-data0-b    throw-away qcow2 over a read-only leg B
//! ```
//! QEMU does not report the children of a quorum, so the root's name says them; `blocks.rs` checks the name
//! against the files that QEMU reports below it.

use flipside_model::{DiskName, DiskRole, Leg};
use serde_json::{Value, json};
use std::path::Path;

/// The bitmap that holds what changed since the other leg was left behind.
pub(crate) const CHANGES: &str = "changes";
/// The bitmap of a running full compare: not to be trusted until the compare is complete.
pub(crate) const COMPARE: &str = "compare";
/// The bitmap that proves that nothing was written during the last pause of a resynchronisation.
pub(crate) const PROOF: &str = "proof";
/// The mark of a leg that is open as the target of rounds: never recording, it only says what the leg is for.
pub(crate) const TARGET: &str = "target";
/// The granularity of all bitmaps: the recipe's, and the cluster size of a backup job.
pub(crate) const GRANULARITY: u64 = 64 * 1024;

/// The SCSI id of the first data disk; system disks count from 0. Disk names have at most two digits.
const FIRST_DATA_ID: u32 = 100;
/// The SCSI id of the CD drive, above all disks (virtio-scsi takes up to 255).
pub(crate) const CD_ID: u32 = 200;

fn small(leg: Leg) -> char {
    match leg {
        Leg::A => 'a',
        Leg::B => 'b',
    }
}

fn leg_of(letter: char) -> Option<Leg> {
    match letter {
        'a' => Some(Leg::A),
        'b' => Some(Leg::B),
        _ => None,
    }
}

/// The guest's device of a disk.
pub(crate) fn device(disk: &DiskName) -> String {
    format!("dev-{disk}")
}
/// The raw node of a leg.
pub(crate) fn leg(disk: &DiskName, leg: Leg) -> String {
    format!("leg-{disk}-{}", small(leg))
}
/// The file node of a leg.
pub(crate) fn file(disk: &DiskName, leg: Leg) -> String {
    format!("file-{disk}-{}", small(leg))
}
/// The fault injected into a leg by a test.
pub(crate) fn fault(disk: &DiskName, leg: Leg) -> String {
    format!("fault-{disk}-{}", small(leg))
}
/// The placeholder of a disk.
pub(crate) fn hole(disk: &DiskName) -> String {
    format!("hole-{disk}")
}
/// The overlay of a disk over a leg.
pub(crate) fn overlay(disk: &DiskName, leg: Leg) -> String {
    format!("overlay-{disk}-{}", small(leg))
}
/// The carrier of a disk's bitmap.
pub(crate) fn carrier(disk: &DiskName) -> String {
    format!("carrier-{disk}")
}
/// The job that resynchronises a disk.
pub(crate) fn job(disk: &DiskName) -> String {
    format!("resync-{disk}")
}
/// The `number`th root of a disk in one process.
pub(crate) fn root(disk: &DiskName, number: u32, legs: &[Leg]) -> String {
    let legs: String = legs.iter().map(|l| small(*l)).collect();
    format!("root-{disk}-{number}-{legs}")
}

/// Reads the name of a root: its number and its legs.
pub(crate) fn read_root(disk: &DiskName, name: &str) -> Option<(u32, Vec<Leg>)> {
    let rest = name.strip_prefix("root-")?.strip_prefix(disk.as_str())?;
    let (number, letters) = rest.strip_prefix('-')?.split_once('-')?;
    let legs: Vec<Leg> = letters.chars().map(leg_of).collect::<Option<_>>()?;
    let valid = match legs.as_slice() {
        [_] => true,
        [one, two] => one != two,
        _ => false,
    };
    valid.then_some(())?;
    Some((number.parse().ok()?, legs))
}

/// Reads the name of an overlay: the leg below it.
pub(crate) fn read_overlay(disk: &DiskName, name: &str) -> Option<Leg> {
    let rest = name.strip_prefix("overlay-")?.strip_prefix(disk.as_str())?;
    let mut letters = rest.strip_prefix('-')?.chars();
    let leg = leg_of(letters.next()?)?;
    letters.next().is_none().then_some(leg)
}

/// Reads the id of a device: the disk it is. QEMU reports an id or a path that ends with it.
pub(crate) fn read_device(qdev: &str) -> Option<DiskName> {
    let id = qdev.rsplit('/').next()?;
    DiskName::new(id.strip_prefix("dev-")?).ok()
}

/// How a leg is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LegOpen<'a> {
    /// Its file.
    pub(crate) path: &'a Path,
    /// Bypass the host's cache; off only where the file system refuses it.
    pub(crate) direct: bool,
    /// For the frozen leg below an overlay.
    pub(crate) read_only: bool,
    /// For a machine that waits for a fork: opened for reading until it goes on, because Production still writes.
    pub(crate) waits: bool,
    /// Options of a `blkdebug` or `throttle` node between file and raw node, for tests.
    pub(crate) fault: Option<&'a Value>,
}

/// Describes a leg: raw, over perhaps a test's fault, over the file. One node with its children inside, so that
/// it opens and closes with a single command.
///
/// The format is always written out: a guest can write the header of another one. Locks are always on. The
/// cache is bypassed so that what the guest was told to be written is in the device, and no second copy lies
/// in the host's memory.
pub(crate) fn leg_node(disk: &DiskName, which: Leg, open: LegOpen<'_>) -> Value {
    let mut below = json!({
        "driver": if is_block_device(open.path) { "host_device" } else { "file" },
        "node-name": file(disk, which),
        "filename": open.path,
        "cache": { "direct": open.direct, "no-flush": false },
        "discard": "unmap",
        "locking": "on",
        "read-only": open.read_only,
        "auto-read-only": open.waits,
    });
    if let Some(options) = open.fault {
        let mut node = options.clone();
        let child = match options.get("driver").and_then(Value::as_str) {
            Some("blkdebug") => "image",
            _ => "file",
        };
        if let Some(map) = node.as_object_mut() {
            map.insert("node-name".into(), json!(fault(disk, which)));
            map.insert(child.into(), below);
        }
        below = node;
    }
    json!({
        "driver": "raw",
        "node-name": leg(disk, which),
        "file": below,
        "discard": "unmap",
        "read-only": open.read_only,
        "auto-read-only": false,
    })
}

fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device())
}

/// Describes a quorum over legs: no write is acknowledged before every leg has it.
pub(crate) fn quorum(disk: &DiskName, number: u32, legs: &[Leg]) -> Value {
    let children: Vec<String> = legs.iter().map(|l| leg(disk, *l)).collect();
    json!({
        "driver": "quorum",
        "node-name": root(disk, number, legs),
        "children": children,
        "vote-threshold": legs.len(),
        "read-pattern": "fifo",
    })
}

/// Describes the placeholder. A plain `null-co` would acknowledge writes and lose them if anybody continued the
/// guest half-way; this one fails every request, so the guest stops instead and nothing is lost.
pub(crate) fn placeholder(disk: &DiskName, size: u64) -> Value {
    let kinds = [
        "read",
        "write",
        "write-zeroes",
        "discard",
        "flush",
        "block-status",
    ];
    let errors: Vec<Value> = kinds
        .iter()
        .map(|kind| json!({ "event": "none", "iotype": kind, "once": false, "errno": 5 }))
        .collect();
    json!({
        "driver": "blkdebug",
        "node-name": hole(disk),
        "image": { "driver": "null-co", "size": size },
        "inject-error": errors,
    })
}

/// Describes the throw-away overlay over a leg. With a limit its file ends there: a window of a raw node cannot grow, so
/// QEMU itself answers `ENOSPC` to a write that would need more.
pub(crate) fn overlay_node(disk: &DiskName, below: Leg, path: &Path, limit: Option<u64>) -> Value {
    let mut holder = json!({
        "driver": "file",
        "node-name": format!("ofile-{disk}"),
        "filename": path,
        "discard": "unmap",
        "locking": "on",
    });
    if let Some(limit) = limit {
        holder = json!({
            "driver": "raw",
            "node-name": format!("owindow-{disk}"),
            "size": limit,
            "file": holder,
            "discard": "unmap",
        });
    }
    json!({
        "driver": "qcow2",
        "node-name": overlay(disk, below),
        "file": holder,
        "backing": leg(disk, below),
        "discard": "unmap",
        // Its content is worthless after the process: never wait for its metadata.
        "cache": { "direct": false, "no-flush": true },
    })
}

/// Describes the guest's device. Its address depends on its name only, so a forked machine and a disk plugged
/// again have the same one.
pub(crate) fn device_options(disk: &DiskName, drive: &str, role: DiskRole) -> Value {
    let digits = disk
        .as_str()
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    let number: u32 = digits.parse().unwrap_or(0);
    let scsi_id = match role {
        DiskRole::System => number,
        DiskRole::Data => FIRST_DATA_ID + number,
    };
    let mut options = json!({
        "driver": "scsi-hd",
        "id": device(disk),
        "bus": "scsi0.0",
        "channel": 0,
        "scsi-id": scsi_id,
        "lun": 0,
        "drive": drive,
        "serial": disk.as_str(),
        "device_id": disk.as_str(),
        "werror": "stop",
        "rerror": "stop",
    });
    if disk.as_str() == "system0" {
        options["bootindex"] = json!(1);
    }
    options
}

/// The role a disk's name says. Names are fixed when a disk is made; the *configured* role of a session may
/// differ, and has no influence on the machine.
pub(crate) fn named_role(disk: &DiskName) -> DiskRole {
    if disk.as_str().starts_with("system") {
        DiskRole::System
    } else {
        DiskRole::Data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> DiskName {
        DiskName::new(name).expect("valid")
    }

    #[test]
    fn root_names_are_read_back_and_others_are_not() {
        let data1 = disk("data1");
        for legs in [vec![Leg::A], vec![Leg::B, Leg::A]] {
            let name = root(&data1, 12, &legs);
            assert_eq!(read_root(&data1, &name), Some((12, legs)));
        }
        // `data1` is a prefix of `data11`.
        assert_eq!(
            read_root(&data1, &root(&disk("data11"), 1, &[Leg::A])),
            None
        );
        for other in [
            "root-data1-1-",
            "root-data1-1-aa",
            "root-data1-x-a",
            "root-data1-1-c",
            "",
        ] {
            assert_eq!(read_root(&data1, other), None, "{other}");
        }
        assert_eq!(read_overlay(&data1, "overlay-data1-b"), Some(Leg::B));
        assert_eq!(read_overlay(&data1, "overlay-data11-b"), None);
        assert_eq!(read_device("/machine/peripheral/dev-data1"), Some(data1));
        assert_eq!(read_device("cd0"), None);
    }

    #[test]
    fn addresses_never_collide() {
        let ids: std::collections::BTreeSet<u64> = ["system0", "system99", "data0", "data99"]
            .iter()
            .map(|n| device_options(&disk(n), "x", named_role(&disk(n)))["scsi-id"].as_u64())
            .map(|id| id.expect("a number"))
            .chain([u64::from(CD_ID)])
            .collect();
        assert_eq!(ids.len(), 5);
        assert!(ids.iter().all(|id| *id <= 255));
    }

    // Invariant 4: locks are never off and every open says its format.
    #[test]
    fn a_leg_is_raw_locked_and_direct() {
        let open = LegOpen {
            path: Path::new("/e/a/data0"),
            direct: true,
            read_only: false,
            waits: false,
            fault: None,
        };
        let node = leg_node(&disk("data0"), Leg::A, open);
        assert_eq!(node["driver"], "raw");
        assert_eq!(node["file"]["locking"], "on");
        assert_eq!(node["file"]["cache"]["direct"], true);
        let fault = json!({ "driver": "blkdebug", "inject-error": [] });
        let open = LegOpen {
            fault: Some(&fault),
            ..open
        };
        let node = leg_node(&disk("data0"), Leg::B, open);
        assert_eq!(node["file"]["node-name"], "fault-data0-b");
        assert_eq!(node["file"]["image"]["node-name"], "file-data0-b");
    }
}

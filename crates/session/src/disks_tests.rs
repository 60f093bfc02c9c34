use super::*;
use flipside_model::{
    DiskSpec, Firmware, GuestMount, GuestSwap, LegPaths, NetworkSpec, SystemName,
};
use std::path::PathBuf;

fn name(given: &str) -> DiskName {
    DiskName::new(given).expect("valid")
}

fn spec(disks: &[&str]) -> SystemSpec {
    let disk = |given: &&str| DiskSpec {
        name: name(given),
        role: if given.starts_with("system") {
            DiskRole::System
        } else {
            DiskRole::Data
        },
        size: 1 << 30,
        legs: LegPaths {
            a: PathBuf::from("/a"),
            b: PathBuf::from("/b"),
        },
    };
    SystemSpec {
        version: 1,
        layout: 1,
        name: SystemName::new("web").expect("valid"),
        uuid: uuid::Uuid::nil(),
        memory_mib: 1024,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:00:00:01".to_owned(),
        publish: Vec::new(),
        enclosures: [PathBuf::from("/a"), PathBuf::from("/b")],
        disks: disks.iter().map(disk).collect(),
    }
}

/// A guest with these disks; volumes are added to it.
fn guest(disks: &[&str]) -> Inventory {
    let disk = |serial: &&str| GuestDevice {
        name: format!("k-{serial}"),
        kind: DeviceKind::Disk,
        title: None,
        size: 1 << 30,
        start: None,
        below: Vec::new(),
        serial: Some((*serial).to_owned()),
        format: None,
        label: None,
        uuid: None,
        group: None,
        part_type: None,
    };
    Inventory {
        devices: disks.iter().map(disk).collect(),
        ..Inventory::default()
    }
}

fn add(found: &mut Inventory, device: &str, disks: &[&str], target: &str) {
    found.devices.push(GuestDevice {
        name: device.to_owned(),
        kind: if disks.len() > 1 {
            DeviceKind::Logical
        } else {
            DeviceKind::Partition
        },
        below: disks.iter().map(|d| format!("k-{d}")).collect(),
        serial: None,
        format: Some("ext4".to_owned()),
        ..found.devices[0].clone()
    });
    if !target.is_empty() {
        found.mounts.push(GuestMount {
            target: target.to_owned(),
            format: "ext4".to_owned(),
            source: format!("/dev/{device}"),
            device: Some(device.to_owned()),
        });
    }
}

fn swap(found: &mut Inventory, path: &str, device: &str, mount: Option<&str>) {
    found.swaps.push(GuestSwap {
        path: path.to_owned(),
        file: mount.is_some(),
        size: 1 << 20,
        device: Some(device.to_owned()),
        mount: mount.map(str::to_owned),
    });
}

fn kinds(roles: &Roles) -> Vec<(&str, DiskKind)> {
    roles
        .disks
        .iter()
        .map(|(n, j)| (n.as_str(), j.kind))
        .collect()
}

use DiskKind::{Data, MandatorySystem as Mandatory, System};

const ALL: [&str; 4] = ["system0", "system1", "data0", "data1"];

fn judged(found: &Inventory, config: &UpgradeConfig) -> Roles {
    roles(&spec(&ALL), config, Some(found))
}

fn marking(system: &[&str], data: &[&str]) -> UpgradeConfig {
    UpgradeConfig {
        system_disks: system.iter().map(|d| name(d)).collect(),
        data_disks: data.iter().map(|d| name(d)).collect(),
        ..UpgradeConfig::default()
    }
}

// DK-03, DK-04, DK-05, DK-06: marked System, marked Data, and Data by default.
#[test]
fn a_disk_is_what_the_configuration_marks_it_and_data_otherwise() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["data0"], "/srv/data");
    let none = judged(&found, &UpgradeConfig::default());
    let expected = [
        ("data0", Data),
        ("data1", Data),
        ("system0", Mandatory),
        ("system1", System),
    ];
    assert_eq!(kinds(&none), expected);
    assert!(none.changed(&spec(&ALL)).is_empty() && none.wrong.is_empty());
    let marked = judged(&found, &marking(&["data1"], &["system1"]));
    let expected = [
        ("data0", Data),
        ("data1", System),
        ("system0", Mandatory),
        ("system1", Data),
    ];
    assert_eq!(kinds(&marked), expected);
    let changed = BTreeMap::from([
        (name("data1"), DiskRole::System),
        (name("system1"), DiskRole::Data),
    ]);
    assert_eq!(marked.changed(&spec(&ALL)), changed);
    assert_eq!(marked.wrong, []);
}

// DK-09, DK-12: boot, EFI, root and /usr make their disks mandatory, each wherever it lies.
#[test]
fn what_the_system_boots_and_runs_from_is_mandatory() {
    for target in [
        "/",
        "/boot",
        "/boot/efi",
        "/efi",
        "/usr",
        "/usr/lib",
        "/var",
    ] {
        let mut found = guest(&ALL);
        add(&mut found, "p1", &["data1"], target);
        let roles = judged(&found, &UpgradeConfig::default());
        assert_eq!(roles.disks[&name("data1")].kind, Mandatory, "{target}");
    }
    for target in [
        "/usr/local",
        "/usr/share/doc",
        "/srv",
        "/var/lib/mysql",
        "/home",
        "/bootx",
    ] {
        let mut found = guest(&ALL);
        add(&mut found, "p1", &["data1"], target);
        let roles = judged(&found, &UpgradeConfig::default());
        assert_eq!(roles.disks[&name("data1")].kind, Data, "{target}");
    }
}

// DK-10: a swap partition, and the volume of a swap file. DK-13: only what is in use now.
#[test]
fn what_memory_is_paged_to_is_mandatory() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["data0"], "");
    assert_eq!(
        judged(&found, &marking(&[], &[])).disks[&name("data0")].kind,
        Data
    );
    swap(&mut found, "/dev/p1", "p1", None);
    assert_eq!(
        judged(&found, &marking(&[], &[])).disks[&name("data0")].kind,
        Mandatory
    );
    add(&mut found, "p2", &["data1"], "/srv/files");
    swap(&mut found, "/srv/files/swap", "p2", Some("/srv/files"));
    let roles = judged(&found, &marking(&[], &[]));
    assert_eq!(roles.disks[&name("data1")].kind, Mandatory);
    assert!(roles.disks[&name("data1")].why[0].contains("the swap file /srv/files/swap"));
}

// DK-11: the volume that holds the mount point of such a volume, and the host of that one.
#[test]
fn the_hosts_of_mount_points_are_mandatory() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["data0"], "/srv");
    add(&mut found, "p3", &["system1"], "/srv/deep");
    add(&mut found, "p4", &["data1"], "/srv/deep/swap");
    swap(
        &mut found,
        "/srv/deep/swap/file",
        "p4",
        Some("/srv/deep/swap"),
    );
    let expected = ALL.map(|disk| (disk, Mandatory));
    let mut kinds = kinds_of(&judged(&found, &UpgradeConfig::default()));
    kinds.sort_by_key(|(n, _)| ALL.iter().position(|a| a == n));
    assert_eq!(kinds, expected);
}

fn kinds_of(roles: &Roles) -> Vec<(&'static str, DiskKind)> {
    let known = |given: &DiskName| ALL.into_iter().find(|a| *a == given.as_str());
    roles
        .disks
        .iter()
        .filter_map(|(n, j)| Some((known(n)?, j.kind)))
        .collect()
}

// DK-08: neither the control nor a file can make a mandatory system disk Data.
#[test]
fn a_mandatory_system_disk_cannot_be_marked_data() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["system1"], "/usr");
    let roles = judged(&found, &marking(&[], &["system1"]));
    assert_eq!(roles.disks[&name("system1")].kind, Mandatory);
    assert_eq!(roles.wrong.len(), 1);
    let told = &roles.wrong[0];
    assert!(
        told.text.contains("mandatory system disk") && told.text.contains("programs"),
        "{told:?}"
    );
    // The firmware's disk is mandatory even when the guest cannot be asked.
    let asleep = super::roles(&spec(&ALL), &marking(&[], &["system0"]), None);
    assert_eq!(asleep.disks[&name("system0")].kind, Mandatory);
    assert_eq!(asleep.wrong.len(), 1);
}

// DK-14, DK-15, DK-16: System spreads over volumes that span disks until nothing more changes, and over a group.
#[test]
fn system_spreads_over_spanned_volumes() {
    let disks = ["system0", "data0", "data1", "data2", "data3"];
    let mut found = guest(&disks);
    add(&mut found, "p1", &["system0"], "/");
    // Listed against the direction of the spreading, so that one pass would not do.
    add(&mut found, "lv2", &["data1", "data2"], "/srv/b");
    add(&mut found, "lv1", &["data0", "data1"], "/srv/a");
    let spec = spec(&disks);
    let roles = super::roles(&spec, &marking(&["data0"], &[]), Some(&found));
    let expected = [
        ("data0", System),
        ("data1", System),
        ("data2", System),
        ("data3", Data),
        ("system0", Mandatory),
    ];
    assert_eq!(kinds(&roles), expected);
    assert!(
        roles.disks[&name("data2")].why[0].contains("lv2"),
        "{roles:?}"
    );
    // A mandatory disk spreads as well, and what it reaches cannot be Data.
    add(&mut found, "lv3", &["system0", "data3"], "");
    let roles = super::roles(&spec, &marking(&[], &["data3"]), Some(&found));
    assert_eq!(roles.disks[&name("data3")].kind, System);
    assert_eq!(roles.wrong.len(), 1, "{roles:?}");
    // Two volumes of one group on a disk each: LVM lets go of both or of none.
    let mut found = guest(&disks);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["data2"], "");
    for device in found.devices.iter_mut().filter(|d| d.name.starts_with('p')) {
        device.group = Some("vg".to_owned());
    }
    let roles = super::roles(&spec, &marking(&[], &[]), Some(&found));
    assert_eq!(roles.disks[&name("data2")].kind, System);
    assert!(roles.disks[&name("data2")].why[0].contains("volume group vg"));
}

// DK-16: members of one btrfs are one volume.
#[test]
fn a_file_system_of_several_devices_spans_them() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["data0"], "");
    for device in found.devices.iter_mut().filter(|d| d.name.starts_with('p')) {
        device.format = Some("btrfs".to_owned());
        device.uuid = Some("u".to_owned());
    }
    assert_eq!(
        judged(&found, &marking(&[], &[])).disks[&name("data0")].kind,
        Mandatory
    );
}

// DK-32, RC-20: data on a disk that must be System, by need or by a configured path; not what is marked on purpose.
#[test]
fn data_and_system_on_one_disk_are_refused() {
    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["data0"], "/srv/data");
    add(&mut found, "p3", &["data0"], "");
    assert_eq!(judged(&found, &marking(&[], &[])).wrong, []);
    swap(&mut found, "/dev/p3", "p3", None);
    let wrong = judged(&found, &marking(&[], &[])).wrong;
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].text.contains("/srv/data") && wrong[0].text.contains("active swap"),
        "{wrong:?}"
    );
    assert!(
        wrong[0].advice.contains("move /srv/data to a data disk"),
        "{wrong:?}"
    );

    let mut found = guest(&ALL);
    add(&mut found, "p1", &["system0"], "/");
    add(&mut found, "p2", &["system0"], "/opt/app");
    assert_eq!(judged(&found, &marking(&[], &[])).wrong, []);
    let declared = UpgradeConfig {
        data_paths: vec!["/opt/app/db".to_owned()],
        ..UpgradeConfig::default()
    };
    assert_eq!(judged(&found, &declared).wrong.len(), 1);
    add(&mut found, "p4", &["data1"], "/srv/programs");
    assert_eq!(judged(&found, &marking(&["data1"], &[])).wrong, []);
}

// DK-34: a configured disk that is gone is an Error of the readiness check.
#[test]
fn a_configured_disk_that_is_gone_is_told() {
    let found = guest(&["system0", "system1", "data0"]);
    let wrong = judged(&found, &marking(&["data1", "data7"], &[])).wrong;
    let texts: Vec<&str> = wrong.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("`data1` is not there") && texts[1].contains("`data7` is no disk of")
    );
}

// RC-19: a part outside the mirrored disks is seen.
#[test]
fn a_volume_partly_outside_says_so() {
    let mut found = guest(&["system0", "foreign"]);
    add(&mut found, "lv", &["system0", "foreign"], "/");
    add(&mut found, "p1", &["system0"], "/boot");
    let volumes = volumes(&found, &spec(&ALL));
    let outside: Vec<(&str, bool)> = volumes
        .iter()
        .map(|v| (v.title.as_str(), v.outside))
        .collect();
    assert_eq!(outside, [("lv", true), ("p1", false)]);
}

mod map {
    use super::*;
    use crate::disk_map::{Sources, draw};
    use flipside_model::{DiskMap, DiskStatus, MirrorStatus, VolumeColour};

    fn drawn(
        inventory: Result<Inventory, String>,
        mirror: MirrorStatus,
        config: &UpgradeConfig,
    ) -> DiskMap {
        let spec = spec(&ALL);
        let status = |d: &DiskSpec| DiskStatus {
            name: d.name.clone(),
            role: d.role,
            size: d.size,
            mirror,
            resync_copied: 0,
            resync_union: 0,
            legs: Vec::new(),
        };
        let status: Vec<DiskStatus> = spec.disks.iter().map(status).collect();
        draw(&Sources {
            spec: &spec,
            config,
            inventory,
            status: &status,
            frozen: None,
        })
    }

    fn part(
        found: &mut Inventory,
        device: &str,
        disk: &str,
        target: &str,
        (start, size): (u64, u64),
    ) {
        add(found, device, &[disk], target);
        let made = found.devices.last_mut().expect("just made");
        (made.start, made.size) = (Some(start << 20), size << 20);
    }

    fn colours(map: &DiskMap) -> Vec<(&str, Vec<(VolumeColour, u64)>)> {
        let of = |d: &flipside_model::MapDisk| {
            d.segments
                .iter()
                .map(|s| (s.colour, s.size >> 20))
                .collect()
        };
        map.disks.iter().map(|d| (d.name.as_str(), of(d))).collect()
    }

    // DK-17 to DK-20: black, blue, light green and dark green, to scale and without gaps; the words say the same.
    #[test]
    fn every_piece_has_the_guides_colour() {
        use VolumeColour::{Black, Blue, DarkGreen, LightGreen};
        let mut found = guest(&ALL);
        part(&mut found, "p1", "system0", "/", (1, 700));
        part(&mut found, "p2", "system1", "/opt", (1, 1023));
        part(&mut found, "p3", "data0", "/srv", (200, 500));
        let map = drawn(Ok(found), MirrorStatus::None, &UpgradeConfig::default());
        let expected = [
            ("system0", vec![(DarkGreen, 700), (Black, 323)]),
            ("system1", vec![(LightGreen, 1023)]),
            ("data0", vec![(Black, 200), (Blue, 500), (Black, 324)]),
            ("data1", vec![(Black, 1024)]),
        ];
        assert_eq!(colours(&map), expected);
        let words: Vec<&str> = map.disks[2]
            .segments
            .iter()
            .map(|s| s.meaning.as_str())
            .collect();
        assert_eq!(words, ["unassigned", "data", "unassigned"]);
        // DK-08, DK-22
        let free: Vec<bool> = map.disks.iter().map(|d| d.may_be_data).collect();
        assert_eq!(free, [false, true, true, true]);
        assert!(
            map.disks[0].segments[0]
                .tip
                .contains("mounted at /\nMandatory System: ")
        );
        // DK-07, DK-24
        assert!(
            map.cautions[0].contains("no persistent data")
                && map.cautions[1].contains("overwritten at commit")
        );
    }

    // DK-21, gap G.3.42: red while the mirror is resynchronised, with the role in words.
    #[test]
    fn a_resynchronising_disk_is_red() {
        let mut found = guest(&ALL);
        part(&mut found, "p1", "data0", "/srv", (1, 1023));
        let map = drawn(
            Ok(found),
            MirrorStatus::Resync(42),
            &UpgradeConfig::default(),
        );
        let piece = &map.disks[2].segments[0];
        assert_eq!(piece.colour, VolumeColour::Red);
        assert_eq!(piece.meaning, "data, Resync 42%");
    }

    // DK-16: a volume on several disks and several volumes on one disk are both in the map.
    #[test]
    fn volumes_and_disks_are_many_to_many() {
        let mut found = guest(&ALL);
        add(&mut found, "lv1", &["data0", "data1"], "/a");
        add(&mut found, "lv2", &["data0", "data1"], "/b");
        let map = drawn(Ok(found), MirrorStatus::None, &UpgradeConfig::default());
        for disk in &map.disks[2..] {
            assert_eq!(disk.segments[0].volumes, [0, 1], "{disk:?}");
            assert!(disk.segments[0].tip.contains("spans data0 and data1"));
        }
    }

    // DK-01: without a guest the host's knowledge is shown, and that it is only that.
    #[test]
    fn without_a_guest_the_map_says_so() {
        let map = drawn(
            Err("it sleeps".to_owned()),
            MirrorStatus::None,
            &UpgradeConfig::default(),
        );
        assert_eq!(map.not_scanned.as_deref(), Some("it sleeps"));
        assert!(
            map.disks
                .iter()
                .all(|d| d.segments.is_empty() && d.plugged.is_none())
        );
        assert_eq!(map.disks[0].kind, Mandatory);
    }
}

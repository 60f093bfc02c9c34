use super::*;
use flipside_model::{
    AcceptLoss, DiskName, DiskSpec, Firmware, Leg, LegEntry, LegPair, LegPaths, LegRole, MachineId,
    NetworkSpec, StaleReason, SystemName,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(super) fn spec() -> SystemSpec {
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
        disks: vec![DiskSpec {
            name: DiskName::new("system0").expect("valid"),
            role: DiskRole::System,
            size: 1 << 20,
            legs: LegPaths {
                a: PathBuf::from("/a/s"),
                b: PathBuf::from("/b/s"),
            },
        }],
    }
}

pub(super) fn book(other: LegRole) -> LegBook {
    let leg = |role| LegEntry {
        path: PathBuf::from("/x"),
        inode: 1,
        role,
    };
    LegBook {
        version: 1,
        generation: 1,
        clean: false,
        owner: Some(MachineId(1)),
        last_machine: MachineId(1),
        pause_until_ms: None,
        disks: BTreeMap::from([(
            DiskName::new("system0").expect("valid"),
            LegPair {
                a: leg(LegRole::Live),
                b: leg(other),
                authority: Leg::A,
            },
        )]),
    }
}

fn host(change: impl FnOnce(&mut HostSeen)) -> Asked<HostSeen> {
    let mut host = HostSeen {
        memory_available_mib: 8192,
        state_free_bytes: 100 << 30,
        hypervisor: "QEMU 7.2.22".to_owned(),
        running_hypervisor: Some("QEMU 7.2.22".to_owned()),
        ..HostSeen::default()
    };
    change(&mut host);
    Ok(host)
}

pub(super) fn good<'a>(
    spec: &'a SystemSpec,
    config: &'a UpgradeConfig,
    book: &'a LegBook,
) -> Observed<'a> {
    Observed {
        spec,
        config,
        book,
        resync: Vec::new(),
        running: Ok(true),
        agent_silent: None,
        agent_version: Some("7.2.22".to_owned()),
        host: host(|_| ()),
        leg_faults: Ok(Vec::new()),
        network: Ok(NetworkSeen::default()),
        guest: Ok(super::guest::tests::fine()),
        services: Ok(vec![ServiceSeen {
            unit: "nginx.service".to_owned(),
            exists: true,
            active: true,
            startup: "enabled".to_owned(),
            alias_of: None,
            refuses_stop: false,
        }]),
        written: Ok(Vec::new()),
        inventory: Ok(flipside_model::Inventory::default()),
        prepared: Prepared::default(),
    }
}

// RC-08, RC-11: every test reports; a good system has no warnings and no errors.
#[test]
fn a_good_system_passes_every_test_by_name() {
    let (spec, config, book) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let findings = judge(&good(&spec, &config, &book));
    assert_eq!(findings.len(), rules().count());
    assert!(findings.iter().all(|f| f.severity == Severity::Success));
}

// RC-09, RC-51: each rule can fail, names its component or says what to do, and hides no other rule.
#[test]
fn each_rule_fails_alone_and_hides_nothing() {
    let (spec, config) = (spec(), UpgradeConfig::none());
    let (fine, stale) = (
        book(LegRole::Live),
        book(LegRole::Stale(StaleReason::Session)),
    );
    let base = good(&spec, &config, &fine);
    let gone = ServiceSeen {
        unit: "x.service".to_owned(),
        exists: false,
        active: false,
        startup: "not-found".to_owned(),
        alias_of: None,
        refuses_stop: false,
    };
    let down = ServiceSeen {
        unit: "y.service".to_owned(),
        exists: true,
        active: false,
        startup: "static".to_owned(),
        alias_of: None,
        refuses_stop: false,
    };
    let stubborn = ServiceSeen {
        unit: "z.service".to_owned(),
        exists: true,
        active: true,
        startup: "static".to_owned(),
        alias_of: None,
        refuses_stop: true,
    };
    let file = |path: &str| WrittenFile {
        unit: "p".to_owned(),
        path: path.to_owned(),
    };
    let running = |version: &str| host(|h| h.running_hypervisor = Some(version.to_owned()));
    let cases: Vec<(Observed<'_>, Severity, &str)> = vec![
        (
            Observed {
                running: Err("no answer".into()),
                ..base.clone()
            },
            Severity::Error,
            "the machine does not answer",
        ),
        (
            Observed {
                agent_version: Some("2.4.1".into()),
                ..base.clone()
            },
            Severity::Error,
            "`2.4.1` is too old",
        ),
        (
            Observed {
                host: running("QEMU 7.2.9"),
                ..base.clone()
            },
            Severity::Warning,
            "the machine was started with QEMU 7.2.9",
        ),
        (
            Observed {
                host: running("QEMU 10.0.3"),
                ..base.clone()
            },
            Severity::Error,
            "the machine was started with QEMU 10.0.3",
        ),
        (
            Observed {
                running: Ok(false),
                ..base.clone()
            },
            Severity::Error,
            "is not running",
        ),
        (
            Observed {
                book: &stale,
                ..base.clone()
            },
            Severity::Error,
            "RDR disk is not duplexed",
        ),
        (
            Observed {
                leg_faults: Ok(vec![("system0".into(), "replaced".into())]),
                ..base.clone()
            },
            Severity::Error,
            "replaced",
        ),
        (
            Observed {
                host: host(|h| h.one_device = true),
                ..base.clone()
            },
            Severity::Warning,
            "one physical device",
        ),
        (
            Observed {
                agent_silent: Some("no".into()),
                ..base.clone()
            },
            Severity::Error,
            "does not answer",
        ),
        (
            Observed {
                host: host(|h| h.memory_available_mib = 1323),
                ..base.clone()
            },
            Severity::Error,
            "1324 MiB",
        ),
        (
            Observed {
                host: host(|h| h.state_free_bytes = 1),
                ..base.clone()
            },
            Severity::Error,
            "are free",
        ),
        (
            Observed {
                host: host(|h| h.hypervisor_bad = Some("old".into())),
                ..base.clone()
            },
            Severity::Error,
            "must not be used",
        ),
        (
            Observed {
                host: host(|h| h.not_forkable = Some("tpm".into())),
                ..base.clone()
            },
            Severity::Error,
            "cannot be forked",
        ),
        (
            Observed {
                services: Ok(vec![gone]),
                ..base.clone()
            },
            Severity::Error,
            "does not exist",
        ),
        (
            Observed {
                services: Ok(vec![stubborn]),
                ..base.clone()
            },
            Severity::Error,
            "cannot be stopped",
        ),
        (
            Observed {
                services: Ok(vec![down]),
                ..base.clone()
            },
            Severity::Error,
            "is not running",
        ),
        (
            Observed {
                written: Ok(vec![file("/var/lib/postgresql/15/x")]),
                ..base.clone()
            },
            Severity::Error,
            "gone at Commit",
        ),
        (
            Observed {
                written: Ok(vec![file("/opt/state/x")]),
                ..base.clone()
            },
            Severity::Warning,
            "gone at Commit",
        ),
    ];
    for (seen, severity, text) in cases {
        let findings = judge(&seen);
        let bad: Vec<_> = findings
            .iter()
            .filter(|f| f.severity > Severity::Information)
            .collect();
        assert_eq!(bad.len(), 1, "{text}: {bad:?}");
        assert_eq!(bad[0].severity, severity);
        assert!(bad[0].text.contains(text), "{}", bad[0].text);
        assert!(bad[0].advice.is_some(), "{text} has no advice");
        assert_eq!(findings.len(), rules().count(), "no rule is hidden");
    }
}

#[test]
fn accepted_losses_are_accepted_path_by_path() {
    let (spec, fine) = (spec(), book(LegRole::Live));
    let config = UpgradeConfig {
        accept_loss: vec![AcceptLoss("/opt/state/".into())],
        ..UpgradeConfig::none()
    };
    let file = |path: &str| WrittenFile {
        unit: "p".to_owned(),
        path: path.to_owned(),
    };
    let mut seen = good(&spec, &config, &fine);
    seen.written = Ok(vec![file("/opt/state/x")]);
    assert_eq!(count(&judge(&seen)), (0, 0));
    seen.written = Ok(vec![file("/opt/state2/x")]);
    assert_eq!(
        count(&judge(&seen)),
        (1, 0),
        "a sibling with the same beginning is not accepted"
    );
}

// CF-34, RC-36, RC-47, RC-51: what a child brought fails the parent's check, and the child is named.
#[test]
fn a_service_that_a_child_brought_names_the_child() {
    let (spec, fine) = (spec(), book(LegRole::Live));
    let mut config = UpgradeConfig::none();
    let key = UpgradeConfig::inherited_key("services", "db.service");
    config.inherited.insert(key, "db.Config".to_owned());
    let service = |unit: &str, exists| ServiceSeen {
        refuses_stop: false,
        unit: unit.to_owned(),
        exists,
        active: false,
        startup: "enabled".to_owned(),
        alias_of: None,
    };
    let mut seen = good(&spec, &config, &fine);
    seen.services = Ok(vec![
        service("db.service", false),
        service("db.service", true),
        service("own.service", false),
    ]);
    let bad: Vec<Finding> = judge(&seen)
        .into_iter()
        .filter(|f| f.severity == Severity::Error)
        .collect();
    assert_eq!(bad.len(), 3, "{bad:?}");
    for finding in &bad[..2] {
        let advice = finding.advice.as_deref().unwrap_or_default();
        assert!(
            finding.text.contains("(from `db.Config`)") && advice.contains("`db.Config`"),
            "{finding:?}"
        );
    }
    assert!(!bad[2].text.contains("from"), "{:?}", bad[2]);
}

// RC-40, fault 24: what is needed is enough, a little less is not; and the message gives both figures.
#[test]
fn memory_and_space_are_judged_to_the_last_unit() {
    let (spec, config, fine) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let base = good(&spec, &config, &fine);
    let errors = |memory_available_mib, state_free_bytes| {
        let host = host(|h| {
            h.memory_available_mib = memory_available_mib;
            h.state_free_bytes = state_free_bytes;
        });
        let seen = Observed {
            host,
            ..base.clone()
        };
        let found = judge(&seen).into_iter();
        let bad = found.filter(|f| f.severity == Severity::Error);
        bad.map(|f| f.text).collect::<Vec<_>>()
    };
    assert_eq!(errors(1024 + 300, 1 << 30), Vec::<String>::new());
    assert_eq!(
        errors(1323, 1 << 30),
        [
            "the Upgrade Side needs 1324 MiB (1024 MiB and a margin of 300 MiB), and 1323 MiB are available"
        ]
    );
    assert_eq!(
        errors(1324, (1 << 30) - 1),
        ["the fork needs 1024 MiB for throw-away copies and saved state, and 1023 MiB are free"]
    );
}

// RC-40, design 3.5: the copies of a rehearsal are written to, so the host must have room for each of them up to its bound.
#[test]
fn a_rehearsal_needs_room_for_its_copies() {
    let (mut spec, fine) = (spec(), book(LegRole::Live));
    let sizes = [20 << 30, 1 << 30];
    for (number, size) in sizes.into_iter().enumerate() {
        let mut disk = spec.disks[0].clone();
        disk.name = DiskName::numbered(DiskRole::Data, number);
        (disk.role, disk.size) = (DiskRole::Data, size);
        spec.disks.push(disk);
    }
    let config = UpgradeConfig {
        rehearsal: true,
        ..UpgradeConfig::none()
    };
    // Bounded, and whole with its tables; and what any fork needs.
    let needed = (8 << 30) + (1 << 30) + (1 << 22) + (16 << 20) + (1 << 30);
    let errors = |free| {
        let seen = Observed {
            host: host(|h| h.state_free_bytes = free),
            ..good(&spec, &config, &fine)
        };
        let found = judge(&seen).into_iter();
        let bad = found.filter(|f| f.severity == Severity::Error && f.check == "space");
        bad.map(|f| f.text).collect::<Vec<_>>()
    };
    assert_eq!(errors(needed), Vec::<String>::new());
    let texts = errors(needed - 1);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("the copies of a rehearsal"), "{texts:?}");
    // A small disk needs no more than itself; a large one is bounded.
    assert_eq!(copy_needs(1 << 30), (1 << 30) + (1 << 22) + (16 << 20));
    assert_eq!(copy_needs(1 << 50), REHEARSAL_COPY_BYTES);
    assert_eq!(copy_needs(u64::MAX), REHEARSAL_COPY_BYTES);
}

// RC-08: while the guest agent is silent its services cannot be judged: one error says why, and no test that could not
// be made looks like one that passed.
#[test]
fn services_are_not_blamed_for_a_silent_agent() {
    let (spec, config, fine) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &fine);
    seen.agent_silent = Some("no answer".to_owned());
    seen.services = Err("no answer".to_owned());
    seen.written = Err("no answer".to_owned());
    let found = judge(&seen);
    let of = |severity| {
        let of = found.iter().filter(|f| f.severity == severity);
        of.map(|f| f.check).collect::<Vec<_>>()
    };
    assert_eq!(of(Severity::Error), ["agent"]);
    assert_eq!(of(Severity::Warning), ["services", "data"]);
    assert_eq!(of(Severity::Success).len(), rules().count() - 3);
}

// RC-08: a question that an answering guest did not answer is as bad as its worst answer.
#[test]
fn what_could_not_be_asked_is_no_success() {
    let (spec, config, fine) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &fine);
    seen.services = Err("it took too long".to_owned());
    assert_eq!(count(&judge(&seen)), (0, 1));
    seen.services = Ok(Vec::new());
    seen.written = Err("it took too long".to_owned());
    assert_eq!(count(&judge(&seen)), (1, 0));
}

// RS-04, RC-17, RC-18: a disk that is being resynchronised says how far it is and how to wait; one that is not says where to look.
#[test]
fn a_simplex_disk_says_what_to_wait_for() {
    let (spec, config) = (spec(), UpgradeConfig::none());
    let stale = book(LegRole::Stale(StaleReason::Session));
    let mut seen = good(&spec, &config, &stale);
    let advice = |seen: &Observed<'_>| {
        let found = judge(seen).into_iter();
        let mut bad = found.filter(|f| f.severity == Severity::Error);
        let bad = bad.next().expect("an error");
        assert_eq!(bad.component.as_deref(), Some("system0"));
        bad.advice.expect("advice")
    };
    assert!(advice(&seen).contains("flipside system show"));
    seen.resync = vec![("data0".to_owned(), 10), ("system0".to_owned(), 42)];
    assert!(advice(&seen).contains("`Resync 42%`"), "{}", advice(&seen));
}

// DK-24, PR-17: a configured data path is as much an error as a well-known one, the directory itself included.
#[test]
fn files_on_data_paths_block_and_others_warn() {
    let (spec, fine) = (spec(), book(LegRole::Live));
    let config = UpgradeConfig {
        data_paths: vec!["/opt/shop".to_owned()],
        ..UpgradeConfig::none()
    };
    let severity = |path: &str| {
        let mut seen = good(&spec, &config, &fine);
        seen.written = Ok(vec![WrittenFile {
            unit: "p".to_owned(),
            path: path.to_owned(),
        }]);
        count(&judge(&seen))
    };
    for path in ["/opt/shop", "/opt/shop/orders", "/var/lib/mysql/x"] {
        assert_eq!(severity(path), (0, 1), "{path}");
    }
    for path in ["/opt/shopping", "/opt", "/var/lib/mysqlx/x"] {
        assert_eq!(severity(path), (1, 0), "{path}");
    }
}

// DK-24: without a data disk nothing an application writes survives Commit.
#[test]
fn a_system_may_have_no_data_disk() {
    let mut spec = spec();
    assert!(!has_data_disk(&spec));
    spec.disks[0].role = DiskRole::Data;
    assert!(has_data_disk(&spec));
}

// DK-08, DK-34, RC-20: an impossible selection is an Error that names the disk; a guest that cannot tell is one too.
#[test]
fn an_impossible_selection_of_disks_is_an_error() {
    let (spec, book) = (spec(), book(LegRole::Live));
    let config = UpgradeConfig {
        data_disks: vec![DiskName::new("system0").expect("valid")],
        ..UpgradeConfig::none()
    };
    let mut seen = good(&spec, &config, &book);
    for (inventory, errors) in [(Ok(Inventory::default()), 2), (Err("no".to_owned()), 2)] {
        seen.inventory = inventory;
        let found = judge(&seen);
        let told: Vec<_> = found
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .collect();
        assert_eq!(told.len(), errors, "{told:?}");
        assert!(
            told.iter()
                .all(|f| f.component.is_some() && f.advice.is_some())
        );
        assert!(
            told.iter()
                .any(|f| f.text.contains("mandatory system disk")),
            "{told:?}"
        );
    }
}

// RC-32, SV-02: what cannot be held and restored is said before the split, not met in it; every other startup type is fine.
#[test]
fn services_that_cannot_be_restored_are_errors() {
    let (spec, config, book) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &book);
    let service = |startup: &str, alias_of: Option<&str>| ServiceSeen {
        unit: "db.service".to_owned(),
        exists: true,
        active: true,
        refuses_stop: false,
        startup: startup.to_owned(),
        alias_of: alias_of.map(str::to_owned),
    };
    for fine in [
        "enabled",
        "disabled",
        "static",
        "indirect",
        "generated",
        "enabled-runtime",
        "",
    ] {
        seen.services = Ok(vec![service(fine, None)]);
        assert_eq!(count(&judge(&seen)), (0, 0), "{fine}");
    }
    for (bad, told) in [
        (service("transient", None), "is transient"),
        (
            service("alias", Some("maria.service")),
            "only another name of `maria.service`",
        ),
    ] {
        seen.services = Ok(vec![bad]);
        let found = judge(&seen);
        let finding = found
            .iter()
            .find(|f| f.severity == Severity::Error)
            .expect(told);
        assert!(
            finding.text.contains(told) && finding.advice.is_some(),
            "{finding:?}"
        );
    }
}

// RC-08: a host that does not answer hides no test, and is no success in any.
#[test]
fn a_silent_host_hides_nothing() {
    let (spec, config, fine) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &fine);
    seen.host = Err("no answer".to_owned());
    seen.leg_faults = Err("no answer".to_owned());
    let found = judge(&seen);
    assert_eq!(found.len(), rules().count());
    assert_eq!(
        count(&found),
        (0, 6),
        "memory, space, enclosures, legs, hypervisor twice"
    );
}

// RC-19, PR-16: root, boot and swap on mirrored disks; what is not known is told as such.
#[test]
fn an_operating_system_elsewhere_is_an_error() {
    use flipside_model::{DeviceKind, GuestDevice, GuestMount, GuestSwap, Inventory};
    let (spec, config, fine) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let disk = |name: &str, serial: &str| GuestDevice {
        name: name.to_owned(),
        kind: DeviceKind::Disk,
        title: None,
        size: 1 << 30,
        start: None,
        below: Vec::new(),
        serial: Some(serial.to_owned()),
        format: None,
        label: None,
        uuid: None,
        group: None,
        part_type: None,
    };
    let mount = |target: &str, device: Option<&str>| GuestMount {
        target: target.to_owned(),
        format: "ext4".to_owned(),
        source: "/dev/x".to_owned(),
        device: device.map(str::to_owned),
    };
    let swap = |device: &str| GuestSwap {
        path: format!("/dev/{device}"),
        file: false,
        size: 1 << 20,
        device: Some(device.to_owned()),
        mount: None,
    };
    let told = |mounts: Vec<GuestMount>, swaps: Vec<GuestSwap>| {
        let mut seen = good(&spec, &config, &fine);
        seen.inventory = Ok(Inventory {
            devices: vec![disk("sda", "system0"), disk("sdb", "USB-STICK")],
            mounts,
            swaps,
            ..Inventory::default()
        });
        let found = judge(&seen).into_iter();
        let ours = found.filter(|f| f.check == "placement");
        ours.map(|f| (f.severity, f.component.unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let error = |what: &str| vec![(Severity::Error, what.to_owned())];
    let root = || mount("/", Some("sda"));
    assert_eq!(told(vec![root()], vec![swap("sda")]), []);
    assert_eq!(told(vec![mount("/", Some("sdb"))], vec![]), error("`/`"));
    let boot = mount("/boot", Some("sdb"));
    assert_eq!(told(vec![root(), boot], vec![]), error("`/boot`"));
    assert_eq!(
        told(vec![root()], vec![swap("sdb")]),
        error("swap `/dev/sdb`")
    );
    // Compressed memory is no disk, and what is mounted over does not count.
    assert_eq!(told(vec![root()], vec![swap("zram0")]), []);
    assert_eq!(told(vec![mount("/", None), root()], vec![]), []);
    assert_eq!(
        told(vec![mount("/", None)], vec![]),
        [(Severity::Warning, "`/`".to_owned())]
    );
}

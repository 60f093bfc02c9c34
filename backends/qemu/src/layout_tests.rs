use super::*;
use flipside_model::{DiskRole, DiskSpec, LegPaths, NetworkSpec, SystemName};
use std::path::Path;

pub(crate) fn spec() -> SystemSpec {
    let disk = |name: &str, role| DiskSpec {
        name: DiskName::new(name).expect("valid"),
        role,
        size: 1 << 30,
        legs: LegPaths {
            a: format!("/e/a/{name}.raw").into(),
            b: format!("/e/b/{name}.raw").into(),
        },
    };
    SystemSpec {
        version: 1,
        layout: 1,
        name: SystemName::new("web").expect("valid"),
        uuid: Uuid::from_u128(7),
        memory_mib: 512,
        cpus: 2,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:aa:bb:cc".into(),
        publish: Vec::new(),
        enclosures: ["/e/a".into(), "/e/b".into()],
        disks: vec![
            disk("system0", DiskRole::System),
            disk("data0", DiskRole::Data),
        ],
    }
}

fn argv(id: u32, mode: StartMode, sources: &[(&str, DiskSource)]) -> Vec<String> {
    argv_of(&of_layout(SystemSpec::LAYOUT), id, mode, sources)
}

fn of_layout(layout: u32) -> SystemSpec {
    SystemSpec { layout, ..spec() }
}

fn argv_of(
    spec: &SystemSpec,
    id: u32,
    mode: StartMode,
    sources: &[(&str, DiskSource)],
) -> Vec<String> {
    let name = |n: &str| DiskName::new(n).expect("valid");
    let plan = StartPlan {
        copy_limit: None,
        mode,
        disks: sources.iter().map(|(n, s)| (name(n), s.clone())).collect(),
    };
    let system = crate::paths::SystemPaths::new(Path::new("/s"), &spec.name).expect("fits");
    let paths = system.machine(MachineId(id));
    let layout = Layout {
        spec,
        plan: &plan,
        id: MachineId(id),
        paths: &paths,
        accelerator: Accelerator::Tcg,
        token: "token",
        generation_id: Uuid::from_u128(u128::from(id)),
        forwards: &BTreeMap::from([(80, 20_080)]),
        ssh: 20_022,
        firmware: None,
        cached: &[],
        faults: &BTreeMap::new(),
    };
    layout.argv()
}

fn boot() -> StartMode {
    StartMode::Boot { after: None }
}

fn whole(layout: u32) -> Vec<String> {
    let both = vec![Leg::A, Leg::B];
    let sources = [
        ("system0", DiskSource::Legs(both.clone())),
        ("data0", DiskSource::Legs(both)),
    ];
    argv_of(&of_layout(layout), 1, boot(), &sources)
}

/// The command line of every layout, word for word. If this test fails, the layout of systems that exist changed:
/// make a new version instead.
#[test]
fn every_layout_is_what_it_was() {
    let goldens = [
        include_str!("layout_v1.golden"),
        include_str!("layout_v2.golden"),
    ];
    for (layout, golden) in (1..).zip(goldens) {
        let shown = whole(layout).join("\n") + "\n";
        if std::env::var_os("FLIPSIDE_BLESS").is_some() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
            let path = format!("{folder}/layout_v{layout}.golden");
            std::fs::write(path, &shown).expect("written");
            continue;
        }
        assert!(shown == golden, "layout {layout} changed:\n{shown}");
    }
    assert_eq!(goldens.len(), SystemSpec::LAYOUT as usize);
}

// The guest cannot tell layout 2 from layout 1: a fork between them would even work.
#[test]
fn layout_2_has_the_devices_of_layout_1() {
    assert_eq!(devices(&whole(1)), devices(&whole(2)));
}

/// What the guest sees: every device without its backend.
fn devices(line: &[String]) -> Vec<Value> {
    let values = line.windows(2).filter(|w| w[0] == "-device");
    let mut devices: Vec<Value> = values
        .map(|w| serde_json::from_str(&w[1]).expect("JSON"))
        .collect();
    for device in &mut devices {
        for backend in ["drive", "guid"] {
            device.as_object_mut().expect("an object").remove(backend);
        }
    }
    devices
}

// Design 4: a bridge changes what the card is connected to, and nothing that the guest sees; each side has its own tap.
#[test]
fn a_bridge_changes_nothing_that_the_guest_sees() {
    let disks = [("system0", DiskSource::Legs(vec![Leg::A, Leg::B]))];
    let bridged = SystemSpec {
        network: NetworkSpec::Bridge("br0".to_owned()),
        ..of_layout(SystemSpec::LAYOUT)
    };
    let (user, first) = (
        argv(1, boot(), &disks),
        argv_of(&bridged, 1, boot(), &disks),
    );
    let second = argv_of(&bridged, 2, boot(), &disks);
    assert_eq!(devices(&user), devices(&first));
    assert_eq!(devices(&user), devices(&second));
    let production = |line: &[String]| {
        let netdevs = line.windows(2).filter(|w| w[0] == "-netdev");
        let mut ours = netdevs.filter(|w| w[1].contains("id=prod"));
        ours.next().expect("a network")[1].clone()
    };
    let tap =
        |number| format!("tap,id=prod,ifname=fs0000000-{number},script=no,downscript=no,vhost=off");
    assert_eq!(production(&first), tap(1));
    assert_eq!(production(&second), tap(2));
}

#[test]
fn both_sides_of_a_fork_have_the_same_devices() {
    let production = argv(
        1,
        boot(),
        &[
            ("system0", DiskSource::Legs(vec![Leg::A, Leg::B])),
            ("data0", DiskSource::Legs(vec![Leg::B, Leg::A])),
        ],
    );
    let upgrade = argv(
        2,
        StartMode::Incoming { from: MachineId(1) },
        &[
            ("system0", DiskSource::Legs(vec![Leg::B])),
            ("data0", DiskSource::Overlay(Leg::B)),
        ],
    );
    assert_eq!(devices(&production), devices(&upgrade));
    let value = |line: &[String], flag: &str| {
        let at = line.iter().position(|w| w == flag).expect(flag);
        line[at + 1].clone()
    };
    for flag in [
        "-machine", "-cpu", "-m", "-smp", "-uuid", "-accel", "-rtc", "-action",
    ] {
        assert_eq!(value(&production, flag), value(&upgrade, flag), "{flag}");
    }
    assert!(upgrade.windows(2).any(|w| w == ["-incoming", "defer"]));
    assert!(!production.iter().any(|w| w == "-incoming"));
}

// Invariant 2, and security checklist 26 and 27.
#[test]
fn the_upgrade_side_opens_its_own_legs_only_and_data_read_only() {
    let line = argv(
        2,
        StartMode::Incoming { from: MachineId(1) },
        &[
            ("system0", DiskSource::Legs(vec![Leg::B])),
            ("data0", DiskSource::Overlay(Leg::B)),
        ],
    );
    let text = line.join(" ");
    assert!(!text.contains("/e/a/"));
    let nodes: Vec<Value> = line
        .windows(2)
        .filter(|w| w[0] == "-blockdev")
        .map(|w| serde_json::from_str(&w[1]).expect("JSON"))
        .collect();
    let data: Vec<&Value> = nodes
        .iter()
        .filter(|n| n["file"]["filename"] == "/e/b/data0.raw")
        .collect();
    assert!(data.len() == 1 && data[0]["read-only"] == true);
    assert_eq!(data[0]["file"]["read-only"], true);
    // Production writes to the other leg as well until the switch: until then this side must not have it for writing.
    let system = nodes
        .iter()
        .find(|n| n["file"]["filename"] == "/e/b/system0.raw");
    assert_eq!(system.expect("a leg")["file"]["auto-read-only"], true);
    for needed in [
        "-nodefaults",
        "-S",
        "-no-user-config",
        "spawn=deny",
        "unix:/s/systems/web/m2/vnc.sock",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    for never in [
        "-gdb",
        "-monitor",
        "locking\":\"off",
        "mode=readline",
        "tcp:0.0.0.0",
    ] {
        assert!(!text.contains(never), "{never}");
    }
}

#[test]
fn commas_in_paths_cannot_add_options() {
    assert_eq!(
        socket("qmp", PathBuf::from("/s/a,server=off/qmp")),
        "socket,id=qmp,path=/s/a,,server=off/qmp,server=on,wait=off"
    );
}

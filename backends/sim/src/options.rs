//! What a simulated system is made of.

use crate::files::BookCut;
use flipside_model::{
    BridgeFacts, DiskName, DiskRole, DiskSpec, Firmware, GuestCard, LegPaths, LogSelection,
    LogSource, MountPoint, NetworkSpec, Publish, Renewal, Surroundings, SystemName, SystemSpec,
};
use flipside_platform::{ExecOutput, HostFacts};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The bytes that one simulated block stands for.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// A service of the simulated guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimService {
    /// Unit name.
    pub unit: String,
    /// Startup type, `enabled` or `disabled`.
    pub startup: String,
    /// Mount points without which it does not start, and which it keeps busy while it runs.
    pub needs: Vec<String>,
    /// Whether clients need it: [`crate::SimWorld::client_write`] asks for it.
    pub controlled: bool,
    /// Files on the system disk that it has open for writing.
    pub writes: Vec<String>,
    /// The unit that it starts whenever that is down, as a socket with a client at it does.
    pub starts: Option<String>,
}

impl SimService {
    /// Makes a service that clients need and that keeps its data on these mount points.
    pub fn controlled(unit: &str, needs: &[&str]) -> Self {
        Self {
            unit: unit.to_owned(),
            startup: "enabled".to_owned(),
            needs: needs.iter().map(|n| (*n).to_owned()).collect(),
            controlled: true,
            writes: Vec::new(),
            starts: None,
        }
    }

    /// Makes a socket at which somebody always knocks: it starts its service whenever that is down.
    pub fn socket(unit: &str, starts: &str) -> Self {
        Self {
            controlled: false,
            starts: Some(starts.to_owned()),
            ..Self::controlled(unit, &[])
        }
    }

    /// Makes a service that acts by itself, such as `cron.service`.
    pub fn by_itself(unit: &str) -> Self {
        Self {
            controlled: false,
            ..Self::controlled(unit, &[])
        }
    }
}

/// A volume of the guest beside its root file system and its data mounts; [`SimOptions::mounts`] lists those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimVolume {
    /// The disks it lies on.
    pub disks: Vec<DiskName>,
    /// Where it is mounted.
    pub target: Option<String>,
    /// Whether memory is paged to it; to a file on it, if it is mounted.
    pub swap: bool,
}

/// Sizes, timings and contents of a simulated system.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Blocks of every disk, whatever size its definition says.
    pub blocks: usize,
    /// Services of the guest. Empty means: `db.service` and `web.service` on all data mounts, both controlled,
    /// and `cron.service` and `apt-daily.timer`, which act by themselves.
    pub services: Vec<SimService>,
    /// File systems on data disks. Empty means: `dataN` at `/srv/dataN`.
    pub mounts: Vec<MountPoint>,
    /// Further volumes: they span disks, or are paged to.
    pub volumes: Vec<SimVolume>,
    /// Disks that are something else in the test's sessions than in the definition: the invariants expect of each what
    /// belongs to its role there (DK-04, DK-05, DK-26, DK-27).
    pub roles: BTreeMap<DiskName, DiskRole>,
    /// How long a guest needs until its agent answers.
    pub boot: Duration,
    /// How much of it the firmware needs.
    pub firmware: Duration,
    /// How long it takes to write a guest's memory to a file.
    pub dumping: Duration,
    /// Whether the guest boots when a data disk in its mount table is missing; else it falls into emergency mode
    /// and its agent is silent.
    pub nofail: bool,
    /// Calls of `fork_poll` until the source is paused.
    pub precopy_polls: u32,
    /// How long a fork's copying takes at least when nobody polls it, because the server is away.
    pub copying_alone: Duration,
    /// Blocks copied or compared by each call of `resync_poll`.
    pub resync_blocks_per_poll: usize,
    /// With at most this many dirty blocks left a resynchronisation is `Nearly`.
    pub nearly_blocks: usize,
    /// Simulated duration of every port call.
    pub latency: Duration,
    /// After how long a call that hangs answers `TimedOut`.
    pub deadline: Duration,
    /// How long `lease` waits for another holder.
    pub lease_wait: Duration,
    /// Whether a killed machine leaves one write on one leg only.
    pub torn_writes_on_kill: bool,
    /// Whether a leg can be opened for writing only once, as QEMU's image locks have it. Off only to plant bugs.
    pub image_locks: bool,
    /// Whether all invariants are checked after every call that changes something, not only when a test asks.
    pub check_every_call: bool,
    /// Whether a planned crash of the server is a power cut of the whole host.
    pub crash_cuts_power: bool,
    /// What a power cut leaves of a leg book that was not synced.
    pub book_cut: BookCut,
    /// Wall-clock time at the start, in milliseconds since 1970.
    pub epoch_ms: i64,
    /// Connections that are still busy when a drain's bound has passed.
    pub busy_connections: u64,
    /// Whether every running guest writes before every port call: whatever the server does, it does to a guest at work.
    pub busy_guests: bool,
    /// What the host has room for in each throw-away copy, in bytes, if less than its bound.
    pub copy_room: Option<u64>,
    /// Software versions whose health checks fail.
    pub unhealthy_versions: BTreeSet<String>,
    /// Programs of the guest beyond `true`, `false`, `echo`, `cat`, `env` and `sleep`, by `argv[0]`.
    pub programs: BTreeMap<String, ExecOutput>,
    /// Files on the system disk; an executable one is a script (`actions.rs`).
    pub files: BTreeMap<String, Vec<u8>>,
    /// Logs of the guest; one of kind `broken` cannot be copied.
    pub logs: Vec<LogSource>,
    /// What the host says of itself.
    pub facts: HostFacts,
    /// The bridge that the network is on, if it is on one.
    pub bridge: Option<BridgeFacts>,
    /// What every guest says of its surroundings.
    pub surroundings: Surroundings,
    /// What becomes of a lease that is renewed.
    pub renewal: Renewal,
    /// Whether guests are reached over the private path.
    pub private_path: bool,
}

fn log(log: LogSelection) -> LogSource {
    LogSource {
        log,
        kind: "journal".to_owned(),
        bytes: 8 << 20,
    }
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            blocks: 64,
            services: Vec::new(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            roles: BTreeMap::new(),
            boot: Duration::from_secs(3),
            firmware: Duration::ZERO,
            dumping: Duration::from_secs(2),
            nofail: false,
            precopy_polls: 2,
            copying_alone: Duration::ZERO,
            resync_blocks_per_poll: 16,
            nearly_blocks: 4,
            latency: Duration::ZERO,
            deadline: Duration::from_secs(30),
            lease_wait: Duration::from_secs(5),
            torn_writes_on_kill: true,
            image_locks: true,
            check_every_call: false,
            crash_cuts_power: false,
            book_cut: BookCut::Lost,
            epoch_ms: 1_800_000_000_000,
            busy_connections: 0,
            busy_guests: false,
            copy_room: None,
            unhealthy_versions: BTreeSet::new(),
            programs: BTreeMap::new(),
            files: BTreeMap::new(),
            logs: vec![
                log(LogSelection::SystemJournal),
                log(LogSelection::UserJournals),
            ],
            facts: HostFacts {
                memory_available_mib: 65_536,
                state_free_bytes: 1 << 40,
                hypervisor: "sim 1".to_owned(),
                running_hypervisor: None,
                hypervisor_bad: None,
                one_device: false,
                cpu_model: "sim".to_owned(),
                not_forkable: None,
            },
            bridge: None,
            surroundings: surroundings(),
            renewal: Renewal::Renewed,
            private_path: true,
        }
    }
}

impl SimOptions {
    /// Fills what was left empty from the definition of the system.
    pub(crate) fn complete(mut self, spec: &SystemSpec) -> Self {
        if self.mounts.is_empty() {
            self.mounts = spec
                .disks_of(DiskRole::Data)
                .map(|d| MountPoint {
                    disk: d.name.clone(),
                    target: format!("/srv/{}", d.name),
                    source: format!("LABEL={}", d.name),
                })
                .collect();
        }
        if self.services.is_empty() {
            let targets: Vec<&str> = self.mounts.iter().map(|m| m.target.as_str()).collect();
            self.services = vec![
                SimService::controlled("db.service", &targets),
                SimService::controlled("web.service", &targets),
                SimService::by_itself("cron.service"),
                SimService::by_itself("apt-daily.timer"),
            ];
        }
        self
    }
}

/// Makes the definition of a system with so many disks, for tests.
pub fn example_spec(system_disks: usize, data_disks: usize) -> SystemSpec {
    let disk = |role, index| {
        let name = DiskName::numbered(role, index);
        DiskSpec {
            legs: LegPaths {
                a: format!("/sim/a/{name}.raw").into(),
                b: format!("/sim/b/{name}.raw").into(),
            },
            name,
            role,
            size: 64 * BLOCK_BYTES,
        }
    };
    SystemSpec {
        version: SystemSpec::VERSION,
        layout: SystemSpec::LAYOUT,
        name: SystemName::new("demo").expect("a valid name"),
        uuid: uuid::Uuid::from_u128(0x0f11_b51d_e000_4000_8000_0000_0000_0001),
        memory_mib: 512,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: MAC.to_owned(),
        publish: vec![Publish {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host_port: 8080,
            guest_port: 80,
        }],
        enclosures: ["/sim/a".into(), "/sim/b".into()],
        disks: (0..system_disks)
            .map(|i| disk(DiskRole::System, i))
            .chain((0..data_disks).map(|i| disk(DiskRole::Data, i)))
            .collect(),
    }
}

/// The address of the production card of a simulated system.
const MAC: &str = "52:54:00:f1:1b:01";

/// A guest of which readiness has nothing to tell.
fn surroundings() -> Surroundings {
    let card = GuestCard {
        name: "eth0".to_owned(),
        mac: MAC.to_owned(),
        physical: true,
        master: None,
        addresses: vec!["10.0.2.15/24".to_owned()],
        dhcp: true,
    };
    Surroundings {
        cards: vec![card],
        logins: vec!["ssh.service".to_owned()],
        administrators: vec!["root".to_owned()],
        ..Surroundings::default()
    }
}

//! A small system on real QEMU, with a guest that writes all the time, and a guard with a process of its own.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    future::Future,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use flipside_backend_qemu::{
    Accelerator, Options, QemuSystem, guard::GuardEvent, network::UserNetwork,
};
use flipside_model::*;
use flipside_platform::*;
use flipside_qmp::QmpClient;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) const M1: MachineId = MachineId(1);
pub(crate) const M2: MachineId = MachineId(2);
/// For things that take milliseconds, on a loaded host.
pub(crate) const LONG: Duration = Duration::from_secs(30);
const SIZE: u64 = 4 * 1024 * 1024;
/// Where the guest writes.
pub(crate) const SECTOR: u64 = 2048;

/// Counts in memory, writes the counter to sector 2048 of its disk some 18 times a second, and says `.` or `E` on its
/// serial console each time.
const GUEST: [u8; 46] = [
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xc0, // mov es, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0x88, 0x16, 0x00, 0x7e, // mov [0x7e00], dl
    0xfb, // sti
    0x66, 0xff, 0x06, 0x00, 0x80, // again: inc dword [0x8000]
    0xbe, 0x50, 0x7c, // mov si, packet
    0xb8, 0x00, 0x43, // mov ax, 0x4300 (extended write)
    0x8a, 0x16, 0x00, 0x7e, // mov dl, [0x7e00]
    0xcd, 0x13, // int 0x13
    0xb0, 0x2e, // mov al, '.'
    0x73, 0x02, // jnc said
    0xb0, 0x45, // mov al, 'E'
    0xba, 0xf8, 0x03, // said: mov dx, 0x3f8
    0xee, // out dx, al
    0xf4, // hlt (until the timer ticks)
    0xeb, 0xe2, // jmp again
];
/// One sector from 0:8000 to sector 2048.
const PACKET: [u8; 16] = [0x10, 0, 1, 0, 0, 0x80, 0, 0, 0x00, 0x08, 0, 0, 0, 0, 0, 0];

fn image() -> Vec<u8> {
    let mut image = vec![0; SIZE as usize];
    image[..GUEST.len()].copy_from_slice(&GUEST);
    image[0x50..0x60].copy_from_slice(&PACKET);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

pub(crate) fn disk() -> DiskName {
    DiskName::new("system0").unwrap()
}

pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// A leg whose requests of a kind fail.
pub(crate) fn failing(kind: &str, sector: u64, errno: u32) -> Value {
    let rule =
        json!({ "event": "none", "iotype": kind, "errno": errno, "once": false, "sector": sector });
    json!({ "driver": "blkdebug", "inject-error": [rule] })
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) spec: SystemSpec,
    pub(crate) system: QemuSystem,
    pub(crate) network: UserNetwork,
    chain: BTreeMap<String, Value>,
}

impl World {
    /// Makes the system; `chain` holds the faults of its legs.
    pub(crate) async fn new(chain: &[(&str, Value)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let legs = LegPaths {
            a: root.join("a.raw"),
            b: root.join("b.raw"),
        };
        for leg in [&legs.a, &legs.b] {
            fs::write(leg, image()).unwrap();
        }
        let spec = SystemSpec {
            version: SystemSpec::VERSION,
            layout: SystemSpec::LAYOUT,
            name: SystemName::new("web").unwrap(),
            uuid: uuid::Uuid::new_v4(),
            memory_mib: 32,
            cpus: 1,
            firmware: Firmware::Bios,
            network: NetworkSpec::User,
            mac: "52:54:00:12:34:56".to_owned(),
            publish: vec![Publish {
                address: Ipv4Addr::LOCALHOST.into(),
                host_port: free_port(),
                guest_port: 80,
            }],
            enclosures: [root.clone(), root.clone()],
            disks: vec![DiskSpec {
                name: disk(),
                role: DiskRole::System,
                size: SIZE,
                legs: legs.clone(),
            }],
        };
        let chain = chain
            .iter()
            .map(|(leg, node)| ((*leg).to_owned(), node.clone()))
            .collect();
        let state = root.join("s");
        fs::create_dir(&state).unwrap();
        let world = Self {
            system: open(&spec, &state, &chain),
            network: client(&spec, &state),
            spec,
            chain,
            dir,
        };
        let entry = |path: &PathBuf| LegEntry {
            path: path.clone(),
            inode: fs::metadata(path).unwrap().ino(),
            role: LegRole::Live,
        };
        let pair = LegPair {
            a: entry(&legs.a),
            b: entry(&legs.b),
            authority: Leg::A,
        };
        let book = LegBook {
            version: LegBook::VERSION,
            generation: 0,
            clean: false,
            owner: Some(M1),
            last_machine: M1,
            pause_until_ms: None,
            disks: BTreeMap::from([(disk(), pair)]),
        };
        world.system.store(&book).await.unwrap();
        world
    }

    pub(crate) fn state(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("s")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.state().join("systems/web")
    }

    /// What a new server has: nothing but what is on disk.
    pub(crate) fn restart_server(&mut self) {
        self.system = open(&self.spec, &self.state(), &self.chain);
        self.network = client(&self.spec, &self.state());
    }

    pub(crate) async fn boot(&self, legs: &[Leg]) {
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Boot { after: None },
            disks: BTreeMap::from([(disk(), DiskSource::Legs(legs.to_vec()))]),
        };
        self.system.start(M1, &plan).await.unwrap();
    }

    pub(crate) async fn edit(&self, change: impl FnOnce(&mut LegBook)) {
        let mut book = self.system.load().await.unwrap();
        change(&mut book);
        self.system.store(&book).await.unwrap();
    }

    pub(crate) async fn pair(&self) -> LegPair {
        self.system.load().await.unwrap().disks[&disk()].clone()
    }

    pub(crate) async fn run(&self) -> RunState {
        self.system.observe(M1).await.unwrap().run
    }

    pub(crate) async fn legs(&self) -> DiskSource {
        self.system.observe(M1).await.unwrap().disks[&disk()]
            .source
            .clone()
    }

    /// The guest's counter as a leg has it.
    pub(crate) fn counter(&self, leg: Leg) -> u32 {
        let bytes = fs::read(self.spec.disks[0].legs.get(leg)).unwrap();
        let at = SECTOR as usize * 512;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Waits until the guest has written a few more times, and checks that it never saw an error.
    pub(crate) async fn guest_writes_to(&self, leg: Leg) {
        let now = self.counter(leg);
        until("the guest writes", || async { self.counter(leg) > now + 3 }).await;
        let said = fs::read_to_string(self.root().join("m1/serial.log")).unwrap();
        assert!(said.contains("..") && !said.contains('E'), "{said}");
    }

    pub(crate) async fn events(&self) -> Vec<GuardEvent> {
        self.network.guard_events(0).await
    }

    /// Waits for something the guard says.
    pub(crate) async fn hears(&self, word: &str) -> GuardEvent {
        let found = |e: &GuardEvent| e.what.contains(word) || e.why.contains(word);
        until(word, || async { self.events().await.iter().any(found) }).await;
        self.events().await.into_iter().find(found).unwrap()
    }

    pub(crate) fn guard_pid(&self) -> Option<String> {
        let pid = fs::read_to_string(self.root().join("guard.pid")).ok()?;
        Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    pub(crate) fn kill_guard(&self) {
        kill(&self.guard_pid().unwrap());
    }

    /// The server's own QMP socket, which must be free: see [`World::restart_server`].
    pub(crate) async fn qmp(&self) -> QmpClient {
        let path = self.root().join("m1/qmp.sock");
        let begun = Instant::now();
        loop {
            match QmpClient::connect(&path, Duration::from_secs(2)).await {
                Ok((client, _)) => return client,
                Err(e) => assert!(begun.elapsed() < LONG, "{e}"),
            }
        }
    }
}

/// Kills one process by its id and waits until it is gone.
fn kill(pid: &str) {
    let script =
        "kill -9 \"$1\" 2>/dev/null; while kill -0 \"$1\" 2>/dev/null; do sleep 0.01; done";
    let _ = Command::new("timeout")
        .args(["5", "sh", "-c", script, "sh", pid])
        .status();
}

impl Drop for World {
    fn drop(&mut self) {
        let machines =
            ["m1", "m2"].map(|m| fs::read_to_string(self.root().join(m).join("pid")).ok());
        for pid in machines.into_iter().flatten().chain(self.guard_pid()) {
            kill(pid.trim());
        }
        if std::thread::panicking() {
            for log in [
                "guard.log",
                "guard-events.jsonl",
                "legs.json",
                "m1/qemu.log",
            ] {
                eprintln!(
                    "== {log}\n{}",
                    fs::read_to_string(self.root().join(log)).unwrap_or_default()
                );
            }
        }
    }
}

fn open(spec: &SystemSpec, state: &std::path::Path, chain: &BTreeMap<String, Value>) -> QemuSystem {
    let options = Options {
        accelerator: Some(Accelerator::Tcg),
        test_chain: chain.clone(),
        ..Options::default()
    };
    QemuSystem::open(spec.clone(), state, options).unwrap()
}

fn client(spec: &SystemSpec, state: &std::path::Path) -> UserNetwork {
    let program = env!("CARGO_BIN_EXE_flipside-guard-test");
    UserNetwork::new(spec.clone(), state)
        .unwrap()
        .with_program(program)
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that something stays as it is for longer than the guard needs to act.
pub(crate) async fn stays<T, F>(expected: T, mut what: impl FnMut() -> F)
where
    T: PartialEq + Debug,
    F: Future<Output = T>,
{
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        assert_eq!(what().await, expected);
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

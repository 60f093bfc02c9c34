//! A system on real QEMU for tests: tiny disks, and a guest of forty bytes that writes for ever.

pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod spoil;

use flipside_backend_qemu::network::UserNetwork;
use flipside_backend_qemu::{Accelerator, DiskContent, Options, QemuSystem, create_disk};
use flipside_model::{
    DiskName, DiskRole, DiskSpec, Firmware, Leg, LegBook, LegEntry, LegPair, LegPaths, LegRole,
    MachineId, NetworkSpec, SystemName, SystemSpec,
};
use flipside_platform::{
    DiskPort, DiskSource, DiskView, MachinePort, MachineView, NetworkPort, ResyncPhase, RunState,
    StartMode, StartPlan,
};
use program::Program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Every wait here ends. A guest's first write comes after a second; on a host with ten runnable processes a core it
/// was seen after twenty.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const MIB: u64 = 1024 * 1024;
pub(crate) const M1: MachineId = MachineId(1);
pub(crate) const M2: MachineId = MachineId(2);

pub(crate) fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

pub(crate) fn legs(legs: &[Leg]) -> DiskSource {
    DiskSource::Legs(legs.to_vec())
}

/// A system; its machines end with it.
pub(crate) struct Bench {
    pub(crate) system: QemuSystem,
    pub(crate) dir: tempfile::TempDir,
    uuid: uuid::Uuid,
    options: Options,
    firmware: Firmware,
}

impl Bench {
    /// `system0` boots the program; `data0` is blank.
    pub(crate) async fn new(program: &Program) -> Self {
        Self::with_faults(program, BTreeMap::new()).await
    }

    /// With UEFI firmware, which does not boot the program.
    pub(crate) async fn uefi(program: &Program) -> Self {
        Self::make(program, Firmware::Uefi, |_| Options::default()).await
    }

    pub(crate) async fn with_faults(program: &Program, faults: BTreeMap<String, Value>) -> Self {
        Self::make(program, Firmware::Bios, |_| Options {
            test_chain: faults,
            ..Options::default()
        })
        .await
    }

    /// With a QEMU of the test's own, made in the bench's directory.
    pub(crate) async fn with_qemu(program: &Program, qemu: fn(&Path) -> PathBuf) -> Self {
        Self::make(program, Firmware::Bios, |dir| Options {
            program: qemu(dir),
            ..Options::default()
        })
        .await
    }

    async fn make(
        program: &Program,
        firmware: Firmware,
        options: impl FnOnce(&Path) -> Options,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let uuid = uuid::Uuid::new_v4();
        let options = Options {
            accelerator: Some(Accelerator::Tcg),
            ..options(dir.path())
        };
        let system = open(dir.path(), uuid, options.clone(), firmware);
        let boot = dir.path().join("boot.raw");
        std::fs::write(&boot, program.image(32 * MIB)).expect("written");
        for spec in &system.spec().disks {
            let content = match spec.role {
                DiskRole::System => DiskContent::Image(boot.clone()),
                DiskRole::Data => DiskContent::Blank(spec.size),
            };
            let made = create_disk(&content, &spec.legs, &|_| {})
                .await
                .expect("made");
            assert_eq!(made.size, spec.size);
        }
        Self {
            system,
            dir,
            uuid,
            options,
            firmware,
        }
    }

    /// Opens the system again, as a server does that was restarted.
    pub(crate) fn reopen(&self) -> QemuSystem {
        self.open_with(self.options.test_chain.clone())
    }

    /// Opens it once more; legs that this one opens have these faults.
    pub(crate) fn open_with(&self, faults: BTreeMap<String, Value>) -> QemuSystem {
        let options = Options {
            test_chain: faults,
            ..self.options.clone()
        };
        open(self.dir.path(), self.uuid, options, self.firmware)
    }

    /// Starts the guard; it ends with the bench.
    pub(crate) async fn guard(&self) -> UserNetwork {
        let network = UserNetwork::new(self.system.spec().clone(), self.dir.path());
        let program = env!("CARGO_BIN_EXE_flipside-guard-test");
        let network = network.expect("opened").with_program(program);
        network.ensure().await.expect("a guard");
        network
    }

    /// The book of a system that machine 1 owns, its legs as they are on disk now.
    pub(crate) fn book(&self) -> LegBook {
        let entry = |path: &PathBuf| LegEntry {
            path: path.clone(),
            inode: std::fs::metadata(path).expect("there").ino(),
            role: LegRole::Live,
        };
        let pair = |spec: &DiskSpec| LegPair {
            a: entry(&spec.legs.a),
            b: entry(&spec.legs.b),
            authority: Leg::A,
        };
        let disks = self.system.spec().disks.iter();
        LegBook {
            clean: false,
            owner: Some(M1),
            last_machine: M1,
            ..LegBook::new(disks.map(|d| (d.name.clone(), pair(d))).collect())
        }
    }

    pub(crate) fn leg(&self, name: &str, leg: Leg) -> PathBuf {
        let spec = self.system.spec().disk(&disk(name)).expect("there");
        spec.legs.get(leg).clone()
    }

    /// Boots machine 1 on both legs of every disk.
    pub(crate) async fn boot(&self) {
        self.boot_on(&[Leg::A, Leg::B]).await;
    }

    pub(crate) async fn boot_on(&self, on: &[Leg]) {
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Boot { after: None },
            disks: [disk("system0"), disk("data0")]
                .map(|d| (d, legs(on)))
                .into(),
        };
        self.system.start(M1, &plan).await.expect("started");
    }

    /// Starts machine 2 to wait for a fork of machine 1, as the Upgrade Side does.
    pub(crate) async fn await_fork(&self) {
        let plan = StartPlan {
            copy_limit: None,
            mode: StartMode::Incoming { from: M1 },
            disks: BTreeMap::from([
                (disk("system0"), legs(&[Leg::B])),
                (disk("data0"), DiskSource::Overlay(Leg::B)),
            ]),
        };
        self.system.start(M2, &plan).await.expect("started");
    }

    pub(crate) async fn view(&self, id: MachineId) -> MachineView {
        self.system.observe(id).await.expect("observed")
    }

    pub(crate) async fn disk_view(&self, id: MachineId, name: &str) -> DiskView {
        self.view(id).await.disks[&disk(name)].clone()
    }

    /// How far the resynchronisation of `data0` is.
    pub(crate) async fn resync_phase(&self) -> ResyncPhase {
        let view = self.system.resync_poll(M1, &disk("data0")).await;
        view.expect("polled").phase
    }

    /// Lets machine 1 run `data0` on leg A alone.
    pub(crate) async fn simplex(&self) {
        self.system.pause(M1).await.expect("paused");
        let swapped = self.system.set_legs(M1, &disk("data0"), &[Leg::A]).await;
        swapped.expect("swapped");
        self.system.resume(M1).await.expect("continued");
    }

    /// The number the guest acknowledged last.
    pub(crate) fn acknowledged(&self, id: MachineId) -> u32 {
        let serial = self.dir.path().join(format!("systems/web/{id}/serial.log"));
        let said = std::fs::read(serial).unwrap_or_default();
        let last = said.chunks_exact(4).next_back();
        last.map_or(0, |four| u32::from_le_bytes(four.try_into().expect("four")))
    }

    /// Waits until the guest has written `more` times more.
    pub(crate) async fn writes(&self, id: MachineId, more: u32) {
        let goal = self.acknowledged(id) + more;
        until("the guest writes", || async {
            self.acknowledged(id) >= goal
        })
        .await;
    }

    pub(crate) async fn state(&self, id: MachineId, wanted: RunState) {
        until(&format!("{id} is {wanted:?}"), || async {
            self.view(id).await.run == wanted
        })
        .await;
    }

    /// Compares both legs byte for byte.
    pub(crate) fn equal(&self, name: &str) -> bool {
        let read = |leg| std::fs::read(self.leg(name, leg)).expect("read");
        read(Leg::A) == read(Leg::B)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let system = self.reopen();
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                for id in system.list().await.unwrap_or_default() {
                    let _ = system.end(id).await;
                }
            });
        });
        let _ = end.join();
        let pid = std::fs::read_to_string(self.dir.path().join("systems/web/guard.pid"));
        if let Ok(pid) = pid {
            // It would end by itself a moment after its directory went.
            let _ = std::process::Command::new("kill").arg(pid.trim()).status();
        }
    }
}

/// Waits for a condition, not for a time.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn open(state: &Path, uuid: uuid::Uuid, options: Options, firmware: Firmware) -> QemuSystem {
    let spec = |name: &str, role, size| DiskSpec {
        name: disk(name),
        role,
        size,
        legs: LegPaths {
            a: state.join(format!("a/{name}.raw")),
            b: state.join(format!("b/{name}.raw")),
        },
    };
    let spec = SystemSpec {
        version: SystemSpec::VERSION,
        layout: SystemSpec::LAYOUT,
        name: SystemName::new("web").expect("valid"),
        uuid,
        memory_mib: if firmware == Firmware::Uefi { 128 } else { 32 },
        cpus: 1,
        firmware,
        network: NetworkSpec::User,
        mac: "52:54:00:12:34:56".into(),
        publish: Vec::new(),
        enclosures: [state.join("a"), state.join("b")],
        disks: vec![
            spec("system0", DiskRole::System, 32 * MIB),
            spec("data0", DiskRole::Data, 64 * MIB),
        ],
    };
    QemuSystem::open(spec, state, options).expect("opened")
}

//! A system on real QEMU that is made anew for every check.

use crate::program::Program;
use async_trait::async_trait;
use flipside_backend_qemu::guest::LinuxGuest;
use flipside_backend_qemu::network::UserNetwork;
use flipside_backend_qemu::{Accelerator, DiskContent, Options, QemuSystem, create_disk};
use flipside_model::{
    DiskName, DiskRole, DiskSpec, Firmware, Leg, LegBook, LegEntry, LegPair, LegPaths, LegRole,
    MachineId, MountPoint, NetworkSpec, Publish, SystemName, SystemSpec,
};
use flipside_platform::conformance::{Fixture, GuestFixture, LegDamage};
use flipside_platform::{Clock, LegPort, NetworkPort, Ports};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
/// A check with the small guest takes a second or two; on a starved host it was seen to take twenty.
const SMALL_PATIENCE: Duration = Duration::from_secs(90);
/// A systemd guest boots in 30 s under emulation, in minutes on a loaded host.
const GUEST_PATIENCE: Duration = Duration::from_secs(420);

/// Writes to sixteen blocks of `system0` and of `data0` in turn.
const BOTH: Program = Program {
    drive: 0x80,
    alternate: true,
    spread: 5,
    stride: 7,
    reads: false,
};

/// What is on the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A boot sector that writes to both disks for ever.
    Program,
    /// The mini image of `guest/`.
    Mini,
}

struct WallClock;

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        i64::try_from(since.expect("after 1970").as_millis()).expect("fits")
    }
}

/// One incarnation of the system.
struct World {
    dir: tempfile::TempDir,
    system: QemuSystem,
    network: Arc<UserNetwork>,
    ports: Ports,
}

/// The fixture.
pub(crate) struct Real {
    content: Content,
    /// What fills the disks: a system image, and a data image or none for a blank disk.
    images: (PathBuf, Option<PathBuf>),
    _boot: tempfile::TempDir,
    world: Option<World>,
}

fn mini_images() -> Result<(PathBuf, Option<PathBuf>), String> {
    let folder = std::env::var_os("FLIPSIDE_GUEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    );
    let [system, data] = ["mini.raw", "mini-data.raw"].map(|name| folder.join(name));
    for image in [&system, &data] {
        if !image.is_file() {
            let image = image.display();
            return Err(format!(
                "{image} is missing: run guest/build.sh --only mini"
            ));
        }
    }
    Ok((system, Some(data)))
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("an address").port()
}

impl Real {
    /// Prepares the content of the disks.
    pub(crate) fn new(content: Content) -> Result<Self, String> {
        let boot = tempfile::tempdir().map_err(|e| e.to_string())?;
        let images = match content {
            Content::Mini => mini_images()?,
            Content::Program => {
                let image = boot.path().join("boot.raw");
                std::fs::write(&image, BOTH.image(32 * MIB)).map_err(|e| e.to_string())?;
                (image, None)
            }
        };
        Ok(Self {
            content,
            images,
            _boot: boot,
            world: None,
        })
    }

    fn world(&self) -> &World {
        self.world.as_ref().expect("made by reset")
    }

    fn spec_in(&self, root: &Path) -> SystemSpec {
        let size = |image: Option<&PathBuf>| {
            image.map_or(64 * MIB, |i| std::fs::metadata(i).expect("there").len())
        };
        let spec = |name: &str, role, size| DiskSpec {
            name: DiskName::new(name).expect("valid"),
            role,
            size,
            legs: LegPaths {
                a: root.join(format!("a/{name}.raw")),
                b: root.join(format!("b/{name}.raw")),
            },
        };
        let (system, data) = &self.images;
        SystemSpec {
            version: SystemSpec::VERSION,
            layout: SystemSpec::LAYOUT,
            name: SystemName::new("conform").expect("valid"),
            uuid: uuid::Uuid::new_v4(),
            memory_mib: if self.content == Content::Mini {
                384
            } else {
                32
            },
            cpus: 1,
            firmware: Firmware::Bios,
            network: NetworkSpec::User,
            mac: "52:54:00:12:34:58".to_owned(),
            publish: vec![Publish {
                address: Ipv4Addr::LOCALHOST.into(),
                host_port: free_port(),
                guest_port: 80,
            }],
            enclosures: [root.join("a"), root.join("b")],
            disks: vec![
                spec("system0", DiskRole::System, size(Some(system))),
                spec("data0", DiskRole::Data, size(data.as_ref())),
            ],
        }
    }

    /// Ends the guard, then every machine.
    pub(crate) async fn end(&mut self) {
        let Some(world) = self.world.take() else {
            return;
        };
        let shut = world.network.shut().await;
        let system = world.ports.machine.clone();
        for id in system.list().await.unwrap_or_default() {
            system.end(id).await.expect("ended");
        }
        world.system.disconnect().await;
        shut.expect("the guard ended");
    }

    async fn fill(&self, spec: &SystemSpec) -> Result<(), String> {
        for disk in &spec.disks {
            let content = match (disk.role, &self.images) {
                (DiskRole::System, (image, _)) | (DiskRole::Data, (_, Some(image))) => {
                    DiskContent::Image(image.clone())
                }
                (DiskRole::Data, (_, None)) => DiskContent::Blank(disk.size),
            };
            let made = create_disk(&content, &disk.legs, &|_| {}).await;
            made.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Waits until the small guest has written to both its disks.
    async fn written(&self, id: MachineId) -> Result<bool, String> {
        let root = self.world().dir.path();
        let serial = root.join(format!("systems/conform/{id}/serial.log"));
        let said = || std::fs::metadata(&serial).map_or(0, |m| m.len());
        // A number is four bytes, and every second one is for this disk.
        let goal = said() + 3 * 4;
        let begun = Instant::now();
        while said() < goal {
            if begun.elapsed() > SMALL_PATIENCE {
                return Err(format!("{id} writes nothing"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(true)
    }
}

/// Changes the file of a leg that no machine has open; the recorded one is kept beside it.
fn change_file(path: &Path, size: u64, how: Option<LegDamage>) -> std::io::Result<()> {
    let kept = path.with_extension("kept");
    let resize = |to| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(to)
    };
    match how {
        Some(LegDamage::Shrunk) => return resize(size / 2),
        None if !kept.exists() => return resize(size),
        None => return std::fs::rename(&kept, path),
        Some(_) => std::fs::rename(path, &kept)?,
    }
    match how {
        Some(LegDamage::Replaced) => {
            std::fs::copy(&kept, path)?;
        }
        Some(LegDamage::Linked) => std::os::unix::fs::symlink(&kept, path)?,
        _ => {}
    }
    Ok(())
}

fn new_book(spec: &SystemSpec) -> Result<LegBook, String> {
    let entry = |path: &Path| {
        let inode = std::fs::metadata(path).map_err(|e| e.to_string())?.ino();
        Ok::<_, String>(LegEntry {
            path: path.to_owned(),
            inode,
            role: LegRole::Live,
        })
    };
    let mut disks = BTreeMap::new();
    for disk in &spec.disks {
        let pair = LegPair {
            a: entry(&disk.legs.a)?,
            b: entry(&disk.legs.b)?,
            authority: Leg::A,
        };
        disks.insert(disk.name.clone(), pair);
    }
    Ok(LegBook::new(disks))
}

#[async_trait]
impl Fixture for Real {
    fn ports(&self) -> Ports {
        self.world().ports.clone()
    }

    fn spec(&self) -> SystemSpec {
        self.world().system.spec().clone()
    }

    async fn reset(&mut self) -> Result<(), String> {
        self.end().await;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let spec = self.spec_in(dir.path());
        self.fill(&spec).await?;
        let options = Options {
            accelerator: Some(Accelerator::Tcg),
            ..Options::default()
        };
        let open = QemuSystem::open(spec.clone(), dir.path(), options);
        let system = open.map_err(|e| e.to_string())?;
        let book = new_book(&spec)?;
        LegPort::store(&system, &book)
            .await
            .map_err(|e| e.to_string())?;
        let network = UserNetwork::new(spec, dir.path()).map_err(|e| e.to_string())?;
        let network = Arc::new(network.with_program(env!("CARGO_BIN_EXE_flipside-guard-test")));
        let agents = system.clone();
        let guest = LinuxGuest::new(move |id| agents.reach(id).ok().flatten().map(|r| r.agent));
        let ports = Ports {
            machine: system.machine(),
            disk: system.disk(),
            guest: Arc::new(guest),
            network: network.clone(),
            legs: system.legs(),
            host: system.host(),
            side: system.side(),
            clock: Arc::new(WallClock),
        };
        self.world = Some(World {
            dir,
            system,
            network,
            ports,
        });
        Ok(())
    }

    async fn write(&mut self, id: MachineId, _: &DiskName, _seed: u64) -> Result<bool, String> {
        match self.content {
            Content::Program => self.written(id).await,
            Content::Mini => Ok(false),
        }
    }

    async fn legs_equal(&mut self, disk: &DiskName) -> Result<bool, String> {
        let spec = self
            .world()
            .system
            .spec()
            .disk(disk)
            .ok_or("no such disk")?;
        let read = |path: &Path| std::fs::read(path).map_err(|e| e.to_string());
        Ok(read(&spec.legs.a)? == read(&spec.legs.b)?)
    }

    async fn change_leg(
        &mut self,
        disk: &DiskName,
        leg: Leg,
        how: Option<LegDamage>,
    ) -> Result<(), String> {
        let spec = self
            .world()
            .system
            .spec()
            .disk(disk)
            .ok_or("no such disk")?;
        let path = spec.legs.get(leg);
        change_file(path, spec.size, how).map_err(|e| format!("{}: {e}", path.display()))
    }

    async fn image(&mut self) -> Result<PathBuf, String> {
        // An empty volume: its first descriptor is all that anybody looks at.
        let mut bytes = vec![0; 20 * 2048];
        bytes[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
        let path = self.world().dir.path().join("x.iso");
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        Ok(path)
    }

    fn guest(&self) -> Option<GuestFixture> {
        (self.content == Content::Mini).then(|| GuestFixture {
            units: vec!["mini-writer.service".to_owned()],
            mounts: vec![MountPoint {
                disk: DiskName::new("data0").expect("valid"),
                target: "/srv/data".to_owned(),
                source: "LABEL=flipside-data".to_owned(),
            }],
            quiesce: vec!["*.timer".to_owned()],
        })
    }

    fn patience(&self) -> Duration {
        match self.content {
            Content::Program => SMALL_PATIENCE,
            Content::Mini => GUEST_PATIENCE,
        }
    }
}

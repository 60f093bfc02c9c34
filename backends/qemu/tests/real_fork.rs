//! A Linux guest with a server in it is forked while clients write; afterwards only what changed is copied.
#![allow(clippy::print_stdout)]

use flipside_backend_qemu::{Accelerator, DiskContent, Options, QemuSystem, create_disk};
use flipside_model::{
    DiskName, DiskRole, DiskSpec, Firmware, Leg, LegPaths, MachineId, NetworkSpec, Publish,
    SystemName, SystemSpec,
};
use flipside_platform::{
    DiskPort, DiskSource, MachinePort, ResyncPhase, ResyncStart, RunState, StartMode, StartPlan,
};
use flipside_qmp::AgentClient;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A systemd guest under TCG boots in 20 to 30 s, on a loaded machine in a minute or two.
const BOOT: Duration = Duration::from_secs(420);
const M1: MachineId = MachineId(1);
const M2: MachineId = MachineId(2);

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

fn images() -> Result<[PathBuf; 2], String> {
    let folder = std::env::var_os("FLIPSIDE_GUEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    );
    let found = ["mini.raw", "mini-data.raw"].map(|name| folder.join(name));
    match found.iter().find(|image| !image.is_file()) {
        None => Ok(found),
        Some(missing) => Err(format!(
            "{} is missing: run guest/build.sh --only mini",
            missing.display()
        )),
    }
}

/// Ends the machines of a system whatever happens to the test.
struct Ending(QemuSystem);

impl Drop for Ending {
    fn drop(&mut self) {
        let system = self.0.clone();
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                system.disconnect().await;
                for id in system.list().await.unwrap_or_default() {
                    let _ = system.end(id).await;
                }
            });
        });
        let _ = end.join();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wait = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: mini\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|code| *code == "200")?;
    Some(body.to_owned())
}

/// What a client saw: the numbers it was promised, and the longest wait for one.
struct Seen {
    promised: Vec<u64>,
    longest: Duration,
    failures: u32,
}

fn write_for_ever(port: u16, stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        promised: Vec::new(),
        longest: Duration::ZERO,
        failures: 0,
    };
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match get(port, "/write?n=fork").and_then(|body| body.trim().parse().ok()) {
            Some(number) => seen.promised.push(number),
            None => seen.failures += 1,
        }
        seen.longest = seen.longest.max(begun.elapsed());
    }
    seen
}

async fn wait(what: &str, limit: Duration, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < limit, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a guest of its own; `real_upgrade` forks the same one in every run"]
async fn a_serving_guest_is_forked_and_made_whole_again() {
    let [system_image, data_image] = match images() {
        Ok(found) => found,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            println!("not run: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let spec = |name: &str, role, image: &Path| DiskSpec {
        name: disk(name),
        role,
        size: std::fs::metadata(image).expect("there").len(),
        legs: LegPaths {
            a: dir.path().join(format!("a/{name}.raw")),
            b: dir.path().join(format!("b/{name}.raw")),
        },
    };
    let spec = SystemSpec {
        version: SystemSpec::VERSION,
        layout: SystemSpec::LAYOUT,
        name: SystemName::new("mini").expect("valid"),
        uuid: uuid::Uuid::new_v4(),
        memory_mib: 512,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:12:34:57".into(),
        publish: vec![Publish {
            address: Ipv4Addr::LOCALHOST.into(),
            host_port: 0,
            guest_port: 80,
        }],
        enclosures: [dir.path().join("a"), dir.path().join("b")],
        disks: vec![
            spec("system0", DiskRole::System, &system_image),
            spec("data0", DiskRole::Data, &data_image),
        ],
    };
    for (disk, image) in spec.disks.iter().zip([&system_image, &data_image]) {
        let content = DiskContent::Image(image.clone());
        create_disk(&content, &disk.legs, &|_| {})
            .await
            .expect("made");
    }
    let options = Options {
        accelerator: Some(Accelerator::Tcg),
        ..Options::default()
    };
    let system = QemuSystem::open(spec, dir.path(), options).expect("opened");
    let _ending = Ending(system.clone());
    let both = DiskSource::Legs(vec![Leg::A, Leg::B]);
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Boot { after: None },
        disks: [disk("system0"), disk("data0")]
            .map(|d| (d, both.clone()))
            .into(),
    };
    system.start(M1, &plan).await.expect("started");
    system.set_link(M1, true).await.expect("raised");
    let port = system.reach(M1).expect("read").expect("running").forwards[&80];
    let begun = Instant::now();
    wait("the guest serves", BOOT, async || {
        tokio::task::spawn_blocking(move || get(port, "/write?n=boot"))
            .await
            .expect("ran")
            .is_some()
    })
    .await;
    println!("serving after {} ms", begun.elapsed().as_millis());

    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let client = std::thread::spawn(move || write_for_ever(port, &flag));
    tokio::time::sleep(Duration::from_secs(2)).await;

    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Incoming { from: M1 },
        disks: BTreeMap::from([
            (disk("system0"), DiskSource::Legs(vec![Leg::B])),
            (disk("data0"), DiskSource::Overlay(Leg::B)),
        ]),
    };
    system.start(M2, &plan).await.expect("started");
    system.fork_begin(M1, M2).await.expect("begun");
    wait("the fork is ready", Duration::from_secs(60), async || {
        system.fork_poll(M1).await.expect("polled").ready
    })
    .await;
    let keep = BTreeMap::from([(disk("system0"), Leg::A), (disk("data0"), Leg::A)]);
    let figures = system.fork_switch(M1, M2, &keep).await.expect("switched");
    println!("fork {figures:?}");
    assert!(
        figures.pause_us < 2_000_000,
        "production stalls for less than two seconds"
    );

    system.resume(M2).await.expect("continued");
    let agent = system.reach(M2).expect("read").expect("running").agent;
    wait(
        "the forked guest answers",
        Duration::from_secs(60),
        async || match AgentClient::connect(&agent).await {
            Ok(agent) => agent.ping().await.is_ok(),
            Err(_) => false,
        },
    )
    .await;
    let two = system.observe(M2).await.expect("observed");
    assert!(two.run == RunState::Running && !two.link_up);
    println!("Upgrade Side {:?}", two.disks);

    // Abort: the Upgrade Side ends, and the legs it had are made equal again while the client writes on.
    system.end(M2).await.expect("ended");
    for name in ["system0", "data0"] {
        let disk = disk(name);
        // Its system leg was written by the other side as well: that bitmap is gone with it.
        let how = match name {
            "system0" => ResyncStart::Compare,
            _ => ResyncStart::Bitmap,
        };
        system
            .resync_start(M1, &disk, Leg::A, Leg::B, how, 0)
            .await
            .expect("started");
        wait("nearly", Duration::from_secs(120), async || {
            let view = system.resync_poll(M1, &disk).await.expect("polled");
            assert!(!matches!(view.phase, ResyncPhase::Failed(_)), "{view:?}");
            view.phase == ResyncPhase::Nearly
        })
        .await;
        let figures = system.resync_finish(M1, &disk).await.expect("finished");
        println!("resync {figures:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let seen = client.join().expect("the client ended");
    println!(
        "client: {} writes promised, {} failures, longest wait {} ms",
        seen.promised.len(),
        seen.failures,
        seen.longest.as_millis()
    );
    assert_eq!(seen.failures, 0, "no client saw an error");
    let list = tokio::task::spawn_blocking(move || get(port, "/list"))
        .await
        .expect("ran");
    let list = list.expect("listed");
    let kept: std::collections::BTreeSet<u64> = list
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    assert!(
        seen.promised.iter().all(|n| kept.contains(n)),
        "no promised write is lost"
    );

    system.pause(M1).await.expect("paused");
    for spec in &system.spec().disks {
        let same = std::process::Command::new("cmp")
            .args([&spec.legs.a, &spec.legs.b])
            .status();
        assert!(
            same.expect("cmp runs").success(),
            "{}: both legs are equal",
            spec.name
        );
    }
}

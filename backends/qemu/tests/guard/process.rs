//! The guard as a process, its door and its control socket.

use crate::world::*;
use flipside_model::*;
use flipside_platform::*;
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout},
};

// Fault 4: a guard that hangs is ended and started again, and the door is where it was.
#[tokio::test]
async fn a_guard_that_hangs_is_replaced() {
    let world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    world.network.open(M1).await.unwrap();
    let pid = world.guard_pid().unwrap();
    stop(&pid).await;
    assert_eq!(
        world.network.view().await.unwrap_err().kind,
        PortErrorKind::TimedOut
    );
    world.network.ensure().await.unwrap();
    assert_ne!(world.guard_pid().unwrap(), pid);
    assert_eq!(world.network.view().await.unwrap().open_to, Some(M1));
    // One that hangs is ended with the system as well.
    stop(&world.guard_pid().unwrap()).await;
    world.network.shut().await.unwrap();
    assert_eq!(
        world.network.view().await.unwrap_err().kind,
        PortErrorKind::Absent
    );
}

// Fault 4, invariant 23: a server that hangs with the lease while it has the machine paused is ended, and the guest runs.
#[tokio::test]
async fn a_server_that_hangs_in_a_pause_is_ended() {
    let world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    world.boot(&[Leg::A, Leg::B]).await;
    world.guest_writes_to(Leg::A).await;
    let lease = world.root().join("lease.lock");
    let mut server = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&lease)
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    let pid = server.id();
    let comm = format!("/proc/{pid}/comm");
    until("it has the lease", || async {
        fs::read_to_string(&comm).unwrap().trim() == "sleep"
    })
    .await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let start: u64 = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let signed = serde_json::json!({ "pid": pid, "start": start, "boot": boot.trim() });
    fs::write(&lease, signed.to_string()).unwrap();
    // As the server would have it: announced, then paused.
    world
        .edit(|book| book.pause_until_ms = Some(now_ms() + 500))
        .await;
    world.system.pause(M1).await.unwrap();
    let paused = Instant::now();
    // Whoever started it collects it.
    let collected = tokio::task::spawn_blocking(move || server.wait().unwrap());
    until("it runs", || async {
        world.run().await == RunState::Running
    })
    .await;
    assert!(
        paused.elapsed() < guard::PAUSE_MAX,
        "{:?}",
        paused.elapsed()
    );
    assert!(collected.await.unwrap().code().is_none(), "it was killed");
    world.hears("which held the lease").await;
    world.guest_writes_to(Leg::A).await;
}

/// Stops a process, and waits until all of it stands.
async fn stop(pid: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", "STOP", pid])
        .status();
    assert!(sent.unwrap().success());
    let stat = format!("/proc/{pid}/stat");
    until("it stands", || async {
        let stat = fs::read_to_string(&stat).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
    .await;
}

#[tokio::test]
async fn the_guard_outlives_the_server_and_the_door_outlives_the_guard() {
    let mut world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    let pid = world.guard_pid();
    let new = world.network.view().await.unwrap();
    assert_eq!(new.open_to, None, "a new door is held");
    world.boot(&[Leg::A, Leg::B]).await;
    world.network.open(M1).await.unwrap();
    // The server goes and comes back: the same guard, still open.
    world.restart_server();
    world.network.ensure().await.unwrap();
    assert_eq!(world.guard_pid(), pid);
    assert_eq!(world.network.view().await.unwrap().open_to, Some(M1));
    // The guard is killed: a new one opens to the owner in the book.
    world.kill_guard();
    assert_eq!(
        world.network.view().await.unwrap_err().kind,
        PortErrorKind::Absent
    );
    world.network.ensure().await.unwrap();
    assert_ne!(world.guard_pid(), pid);
    assert_eq!(world.network.view().await.unwrap().open_to, Some(M1));
    // The owner is paused when the next one comes: it opens when the owner runs again.
    world.system.pause(M1).await.unwrap();
    world.kill_guard();
    world.network.ensure().await.unwrap();
    stays(None, || async {
        world.network.view().await.unwrap().open_to
    })
    .await;
    world.system.resume(M1).await.unwrap();
    until("open", || async {
        world.network.view().await.unwrap().open_to == Some(M1)
    })
    .await;
    // A door that was held stays held, whoever owns and runs.
    world.network.hold().await.unwrap();
    world.kill_guard();
    world.network.ensure().await.unwrap();
    stays(None, || async {
        world.network.view().await.unwrap().open_to
    })
    .await;
    // An owner that is gone is not opened to.
    world.network.open(M1).await.unwrap();
    world.system.end(M1).await.unwrap();
    world.kill_guard();
    world.network.ensure().await.unwrap();
    stays(None, || async {
        world.network.view().await.unwrap().open_to
    })
    .await;
    assert_eq!(
        world.network.open(M1).await.unwrap_err().kind,
        PortErrorKind::Absent
    );
}

#[tokio::test]
async fn clients_wait_at_a_held_door() {
    let world = World::new(&[]).await;
    for _ in 0..2 {
        world.network.ensure().await.unwrap();
    }
    world.boot(&[Leg::A, Leg::B]).await;
    let port = world.spec.publish[0].host_port;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    client.write_all(b"hello\n").await.unwrap();
    until("held", || async {
        world.network.view().await.unwrap().held == 1
    })
    .await;
    let report = world.network.drain(1000).await.unwrap();
    assert_eq!((report.quiet, report.busy), (0, 0));
    assert_eq!(world.network.cut().await.unwrap(), 0);
    let held_ms = world.network.open(M1).await.unwrap();
    // The door tells the client's own task to go on; that task counts it out.
    until("let in", || async {
        world.network.view().await.unwrap().held == 0
    })
    .await;
    let view = world.network.view().await.unwrap();
    assert_eq!((view.open_to, view.held_ms), (Some(M1), held_ms));
    assert!(held_ms > 0);
    assert_eq!(
        world.network.open(M1).await.unwrap(),
        held_ms,
        "opening twice is opening once"
    );
    // A drain of an open door would mean nothing.
    assert_eq!(
        world.network.drain(10).await.unwrap_err().kind,
        PortErrorKind::Failed
    );
    for _ in 0..2 {
        world.network.shut().await.unwrap();
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the published port is free");
    assert!(
        !world
            .events()
            .await
            .iter()
            .any(|e| e.severity == Severity::Error)
    );
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let world = World::new(&[]).await;
    let port = world.spec.publish[0].host_port;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let refused = world.network.ensure().await.unwrap_err();
    assert_eq!(refused.kind, PortErrorKind::InUse);
    assert!(
        refused
            .message
            .contains(&format!("address 127.0.0.1 port {port}")),
        "{refused:?}"
    );
    assert_eq!(refused.component, Some(format!("127.0.0.1:{port}")));
    assert!(refused.advice.unwrap().contains("ss -ltnp"));
    drop(other);
    world.network.ensure().await.unwrap();
}

#[tokio::test]
async fn a_guard_is_small_private_and_alone() {
    let world = World::new(&[]).await;
    // Two at once start one.
    let (one, two) = tokio::join!(world.network.ensure(), world.network.ensure());
    one.and(two).unwrap();
    let pid = world.guard_pid().unwrap();
    let field = |name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .to_owned();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    world.boot(&[Leg::A, Leg::B]).await;
    world.guest_writes_to(Leg::A).await;
    assert!(
        field("VmRSS:") < 8 * 1024,
        "{} KiB in a debug build",
        field("VmRSS:")
    );
    assert_ne!(field("PPid:"), u64::from(std::process::id()));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|l| l.starts_with(name)).unwrap();
        line[name.len()..]
            .split_ascii_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert!(limit("Max open files").parse::<u64>().unwrap() >= 1024);
    for name in ["guard-control.sock", "guard.log", "guard.pid", "guard.json"] {
        let meta = fs::metadata(world.root().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o077, 0, "{name}");
    }
    // It asks four times a second and is otherwise idle.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..]
            .split_ascii_whitespace()
            .collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    let (before, begun) = (ticks(), Instant::now());
    sleep(Duration::from_secs(2)).await;
    let share = (ticks() - before) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    assert!(share < 0.05, "{share}");
}

// Reliability 3.2: nothing said on the socket holds the guard up.
#[tokio::test]
async fn a_client_that_says_nonsense_is_told_and_dropped() {
    let world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    let path = world.root().join("guard-control.sock");
    for said in [
        b"{\n".to_vec(),
        b"{\"id\":1,\"cmd\":\"end\"}\n".to_vec(),
        vec![b'x'; 100_000],
    ] {
        let mut client = UnixStream::connect(&path).await.unwrap();
        // It may hang up before it has heard everything.
        let _ = client.write_all(&said).await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, client.read_to_end(&mut answer))
            .await
            .unwrap();
        let told = serde_json::from_slice::<Value>(&answer).map(|a| a["error"]["code"].clone());
        assert!(answer.is_empty() || told.unwrap() == "usage");
    }
    // More silent clients than there are places: they are dropped, and the server is heard.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    until("heard", || async { world.network.view().await.is_ok() }).await;
}

#[tokio::test]
async fn the_guard_ends_with_its_system() {
    let world = World::new(&[]).await;
    world.network.ensure().await.unwrap();
    let proc = format!("/proc/{}", world.guard_pid().unwrap());
    fs::remove_dir_all(world.root()).unwrap();
    until("it ends", || async { !fs::exists(&proc).unwrap() }).await;
}

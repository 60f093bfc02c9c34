//! The front door between real sockets and real little servers.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "door/load.rs"]
mod load;
#[path = "door/service.rs"]
mod service;

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use flipside_backend_qemu::door::{
    Door, DoorError, DoorLimits, DoorStatus, PublishedPort, RouteStatus, Targets,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use service::*;

#[tokio::test]
async fn forwards_and_counts() {
    let (service, other) = (Service::start("p", 128), Service::start("ssh", 128));
    let ports = [80, 22].map(|guest_port| PublishedPort {
        listen: local(),
        guest_port,
    });
    let door = Door::bind(ports.to_vec()).await.unwrap();
    let [web, ssh] = [0, 1].map(|port| door.ports()[port].listen);
    assert!(soon(request(web, "closed")).await.is_err());
    door.open(
        BTreeMap::from([(80, service.addr), (22, other.addr)]),
        "production",
    );
    assert_eq!(soon(request(web, "a")).await.unwrap(), "p a");
    assert_eq!(soon(request(ssh, "b")).await.unwrap(), "ssh b");
    until(&door, |status| status.active == 0).await;
    let status = door.status();
    assert_eq!(
        (
            status.totals.accepted,
            status.totals.refused,
            status.totals.served
        ),
        (3, 1, 2)
    );
    assert_eq!(
        (status.totals.bytes_to_side, status.totals.bytes_to_client),
        (4, 10)
    );
    assert_eq!(status.ports[1].totals.served, 1);
    assert!(status.last_client_byte_ms_ago.is_some() && status.outages.is_empty());
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<DoorStatus>(&json).unwrap(), status);
}

#[tokio::test]
async fn hold_then_open_releases_and_the_clock_tells() {
    let (service, (door, addr)) = (Service::start("new", 128), new_door().await);
    door.open(Targets::from([(PORT, local())]), "old");
    let began = Instant::now();
    door.hold();
    let clients: Vec<_> = (0..20)
        .map(|n| tokio::spawn(async move { request(addr, &format!("{n}")).await }))
        .collect();
    until(&door, |status| status.held == 20).await;
    assert!(
        matches!(door.status().route, RouteStatus::Hold { from: Some(ref from), .. } if from == "old")
    );
    until(&door, |_| began.elapsed() >= Duration::from_millis(50)).await;
    door.open(service.targets(), "new");
    for (n, client) in clients.into_iter().enumerate() {
        assert_eq!(soon(client).await.unwrap().unwrap(), format!("new {n}"));
    }
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap();
    let outage = door.status().last_outage().cloned().unwrap();
    let served_after_ms = outage.served_after_ms.unwrap();
    assert!(
        outage.held_ms >= 50 && outage.held_ms <= served_after_ms && served_after_ms <= whole,
        "{outage:?}"
    );
    assert_eq!(
        (
            outage.from.as_deref(),
            outage.to.as_deref(),
            outage.released
        ),
        (Some("old"), Some("new"), 20)
    );
    for _ in 0..20 {
        door.hold();
        door.open(service.targets(), "new");
    }
    assert_eq!(door.status().outages.len(), 8);
    assert_eq!(door.status().last_outage().unwrap().served_after_ms, None);
}

#[tokio::test]
async fn a_hold_expires_and_is_bounded() {
    let limits = |hold| {
        let mut limits = DoorLimits::default();
        (limits.hold, limits.held_max) = (hold, 2);
        limits
    };
    let (door, addr) = door_with(limits(Duration::from_millis(60))).await;
    door.hold();
    let began = Instant::now();
    let error = soon(request(addr, "x")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(began.elapsed() >= Duration::from_millis(60));
    assert_eq!(door.status().totals.expired, 1);

    let (door, addr) = door_with(limits(BOUND)).await;
    door.hold();
    let _held = [
        TcpStream::connect(addr).await.unwrap(),
        TcpStream::connect(addr).await.unwrap(),
    ];
    until(&door, |status| status.held == 2).await;
    assert!(soon(request(addr, "third")).await.is_err());
    assert_eq!((door.status().held, door.status().totals.refused), (2, 1));
}

#[tokio::test]
async fn a_held_client_that_hangs_up_is_noticed() {
    let (service, (door, addr)) = (Service::start("p", 128), new_door().await);
    door.hold();
    let silent = TcpStream::connect(addr).await.unwrap();
    let mut spoke = TcpStream::connect(addr).await.unwrap();
    spoke.write_all(b"never\n").await.unwrap();
    let broken = TcpStream::connect(addr).await.unwrap();
    broken.set_zero_linger().unwrap();
    until(&door, |status| status.held == 3).await;
    for (left, client) in [silent, spoke, broken].into_iter().enumerate() {
        drop(client);
        until(&door, |status| status.held == 2 - left).await;
    }
    assert_eq!(door.status().totals.abandoned, 3);
    door.open(service.targets(), "p");
    assert_eq!(soon(request(addr, "after")).await.unwrap(), "p after");
    assert_eq!(service.times("never"), 0);

    let mut limits = DoorLimits::default();
    limits.keep_half_closed = true;
    let (door, addr) = door_with(limits).await;
    door.hold();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"half\n").await.unwrap();
    half.shutdown().await.unwrap();
    until(&door, |status| status.held == 1).await;
    door.open(service.targets(), "p");
    assert_eq!(soon(hear(&mut half)).await.unwrap(), "p half");
}

#[tokio::test]
async fn drain_waits_for_requests_and_not_for_idle_connections() {
    let (service, (door, addr)) = (Service::start("p", 128), new_door().await);
    door.open(service.targets(), "p");
    let mut idle = TcpStream::connect(addr).await.unwrap();
    assert_eq!(soon(ask(&mut idle, "idle")).await.unwrap(), "p idle");
    door.hold();
    let report = door.drain(BOUND).await;
    assert!(
        report.quiescent == 1 && (100..1000).contains(&report.waited_ms),
        "the answer is fresh: {report:?}"
    );
    let report = door.drain(BOUND).await;
    assert_eq!((report.quiescent, report.busy, report.closed), (1, 0, 0));
    assert!(report.waited_ms < 50, "nothing has moved since: {report:?}");

    // Frozen: what comes now is not executed, until the same side gets its clients back.
    idle.write_all(b"frozen\n").await.unwrap();
    door.open(service.targets(), "p");
    assert_eq!(soon(hear(&mut idle)).await.unwrap(), "p frozen");

    idle.write_all(b"slow\n").await.unwrap();
    until(&door, |_| service.times("slow") == 1).await;
    door.hold();
    let report = door.drain(Duration::from_millis(200)).await;
    assert_eq!((report.quiescent, report.busy), (0, 1));
    let draining = tokio::spawn({
        let door = door.clone();
        async move { door.drain(BOUND).await }
    });
    assert!(
        timeout(Duration::from_millis(200), hear(&mut idle))
            .await
            .is_err()
    );
    assert!(!draining.is_finished());
    service.slow.add_permits(1);
    assert_eq!(soon(hear(&mut idle)).await.unwrap(), "p slow");
    let report = soon(draining).await.unwrap();
    assert_eq!((report.quiescent, report.busy), (1, 0));
    assert!(report.waited_ms >= 300, "{report:?}");
}

#[tokio::test]
async fn cut_ends_idle_connections_with_a_fin_and_busy_ones_with_a_reset() {
    let (service, (door, addr)) = (Service::start("old", 128), new_door().await);
    door.open(service.targets(), "old");
    let mut idle = TcpStream::connect(addr).await.unwrap();
    soon(ask(&mut idle, "a")).await.unwrap();
    let mut busy = TcpStream::connect(addr).await.unwrap();
    busy.write_all(b"slow\n").await.unwrap();
    let mut silent = TcpStream::connect(addr).await.unwrap();
    until(&door, |status| status.active == 2 && status.dialing == 1).await;
    assert_eq!(door.cut(), 0, "these belong to the owner of the network");
    door.hold();
    assert_eq!(door.drain(Duration::from_millis(200)).await.busy, 1);
    assert_eq!(door.cut(), 2);
    assert_eq!(
        soon(idle.read_u8()).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    assert_eq!(
        soon(busy.read_u8()).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    until(&door, |status| status.active == 0 && status.held == 1).await;
    assert_eq!(
        (
            door.status().totals.cut_quiet,
            door.status().totals.cut_busy
        ),
        (1, 1)
    );
    // A client that had said nothing is not cut: it gets the new side.
    let new = Service::start("new", 128);
    door.open(new.targets(), "new");
    assert_eq!(soon(ask(&mut silent, "s")).await.unwrap(), "new s");
}

#[tokio::test]
async fn a_forward_that_resets_at_first_costs_no_request_and_doubles_none() {
    let (service, (door, addr)) = (Service::start("p", 128), new_door().await);
    service.refusing.store(true, SeqCst);
    door.open(service.targets(), "p");
    let client = tokio::spawn(async move { request(addr, "once").await });
    until(&door, |_| service.accepted.load(SeqCst) >= 3).await;
    service.refusing.store(false, SeqCst);
    assert_eq!(soon(client).await.unwrap().unwrap(), "p once");
    assert_eq!(service.times("once"), 1);
    assert!(
        matches!(door.status().route, RouteStatus::Open { ref targets, .. } if targets[0].proven)
    );

    // Nobody listens at all: the client is reset when the limit has passed.
    let mut limits = DoorLimits::default();
    limits.dial_retry = Duration::from_millis(50);
    let (door, addr) = door_with(limits).await;
    let free = TcpListener::bind(local())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    door.open(Targets::from([(PORT, free)]), "nobody");
    assert!(soon(request(addr, "x")).await.is_err());
    assert_eq!(door.status().totals.failed, 1);
}

#[tokio::test]
async fn a_connection_that_breaks_after_its_request_is_not_repeated() {
    let (door, addr) = new_door().await;
    let side = TcpListener::bind(local()).await.unwrap();
    door.open(Targets::from([(PORT, side.local_addr().unwrap())]), "p");
    let client = tokio::spawn(async move { request(addr, "POST").await });
    let (mut stream, _) = soon(side.accept()).await.unwrap();
    assert_eq!(soon(hear(&mut stream)).await.unwrap(), "POST");
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(
        soon(client).await.unwrap().unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(
        timeout(Duration::from_millis(300), side.accept())
            .await
            .is_err(),
        "dialled again"
    );
    assert_eq!(door.status().totals.failed, 1);
}

#[tokio::test]
async fn a_port_in_use_is_named_and_sockets_can_be_handed_over() {
    let (door, addr) = new_door().await;
    let free = PublishedPort {
        listen: local(),
        guest_port: 22,
    };
    let error = Door::bind(vec![
        free,
        PublishedPort {
            listen: addr,
            guest_port: PORT,
        },
    ])
    .await
    .unwrap_err();
    assert!(matches!(error, DoorError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "address 127.0.0.1 port {} (for guest port 80) is already in use",
            addr.port()
        )
    );

    let sockets = door.listeners().unwrap();
    door.hold();
    let mut held = TcpStream::connect(addr).await.unwrap();
    until(&door, |status| status.held == 1).await;
    soon(door.shutdown()).await;
    assert!(soon(held.read_u8()).await.is_err());
    assert_eq!(
        (door.status().held, door.status().route),
        (0, RouteStatus::Ended)
    );
    // Nobody accepts now, and still nobody is refused.
    let client = tokio::spawn(async move { request(addr, "between").await });
    let next = Door::from_std(sockets).unwrap();
    let service = Service::start("p", 128);
    next.open(service.targets(), "p");
    assert_eq!(soon(client).await.unwrap().unwrap(), "p between");
    drop(next);
    soon(async { while TcpStream::connect(addr).await.is_ok() {} }).await;
}

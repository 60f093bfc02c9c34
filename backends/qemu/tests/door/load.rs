//! Much through the door: large transfers, many clients, many switch-overs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use flipside_backend_qemu::door::Targets;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::service::*;

/// FNV-1a: enough to see a lost, doubled or swapped chunk.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

async fn exchange(stream: TcpStream, seed: u64, total: usize) -> (u64, u64) {
    let (mut read, mut write) = stream.into_split();
    let sender = tokio::spawn(async move {
        let (mut sum, mut state, mut block) = (0, seed, vec![0; 100_003]);
        for start in (0..total).step_by(block.len()) {
            for byte in &mut block {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let part = &block[..(total - start).min(block.len())];
            sum = checksum(sum, part);
            write.write_all(part).await.unwrap();
        }
        write.shutdown().await.unwrap();
        sum
    });
    let (mut sum, mut buffer) = (0, vec![0; 70_000]);
    loop {
        match read.read(&mut buffer).await.unwrap() {
            0 => return (sender.await.unwrap(), sum),
            count => sum = checksum(sum, &buffer[..count]),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transfer_arrives_whole_both_ways_and_ends_by_half_close() {
    let (door, addr) = new_door().await;
    let side = TcpListener::bind(local()).await.unwrap();
    door.open(Targets::from([(PORT, side.local_addr().unwrap())]), "p");
    let client = tokio::spawn(async move {
        exchange(TcpStream::connect(addr).await.unwrap(), 1, 24 << 20).await
    });
    let (stream, _) = soon(side.accept()).await.unwrap();
    let (sent, heard) = timeout(BOUND * 6, exchange(stream, 2, 9 << 20))
        .await
        .unwrap();
    let (client_sent, client_heard) = timeout(BOUND * 6, client).await.unwrap().unwrap();
    assert_eq!((sent, client_sent), (client_heard, heard));
    until(&door, |status| status.active == 0).await;
    assert_eq!(door.status().totals.bytes_to_side, 24 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_held_clients_pass_a_backlog_of_one() {
    let (service, (door, addr)) = (Service::start("p", 1), new_door().await);
    door.hold();
    let client = |n| async move { request(addr, &format!("{n}")).await };
    let clients: Vec<_> = (0..1000).map(|n| tokio::spawn(client(n))).collect();
    until(&door, |status| status.held == 1000).await;
    door.open(service.targets(), "p");
    for client in clients {
        timeout(BOUND * 3, client).await.unwrap().unwrap().unwrap();
    }
    assert!((0..1000).all(|n| service.times(&n.to_string()) == 1));
    assert_eq!(door.status().totals.failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_switch_overs_fail_no_request_and_double_none() {
    let (services, (door, addr)) = (
        [Service::start("a", 1), Service::start("b", 1)],
        new_door().await,
    );
    door.open(services[0].targets(), "a");
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(SeqCst) {
                    let id = format!("{client}/{}", answers.len());
                    answers.push((id.clone(), soon(request(addr, &id)).await));
                    done.fetch_add(1, SeqCst);
                }
                answers
            })
        })
        .collect();
    for round in 1..=20 {
        let before = done.load(SeqCst);
        until(&door, |_| done.load(SeqCst) >= before + 20).await;
        door.hold();
        let report = door.drain(BOUND).await;
        assert_eq!((report.busy, report.interrupted), (0, false));
        door.cut();
        let next = &services[round % 2];
        // Every other time the service is not there yet when the door opens.
        next.refusing.store(round % 4 < 2, SeqCst);
        let accepted = next.accepted.load(SeqCst);
        door.open(next.targets(), if round % 2 == 0 { "a" } else { "b" });
        until(&door, |_| next.accepted.load(SeqCst) > accepted).await;
        next.refusing.store(false, SeqCst);
    }
    let before = done.load(SeqCst);
    until(&door, |_| done.load(SeqCst) >= before + 20).await;
    stop.store(true, SeqCst);
    for client in clients {
        for (id, answer) in soon(client).await.unwrap() {
            let answer = answer.unwrap_or_else(|error| panic!("{id}: {error}"));
            assert!(answer == format!("a {id}") || answer == format!("b {id}"));
            assert_eq!(
                services[0].times(&id) + services[1].times(&id),
                1,
                "{id} was executed twice"
            );
        }
    }
    let status = door.status();
    assert_eq!(
        (
            status.totals.failed,
            status.totals.expired,
            status.totals.cut_busy
        ),
        (0, 0, 0)
    );
    assert!(
        status
            .outages
            .iter()
            .all(|outage| outage.served_after_ms.is_some()),
        "{:?}",
        status.outages
    );
}

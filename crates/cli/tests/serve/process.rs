//! Signals, limits and other servers.

use crate::server::{NAME, PATIENCE, Server, until};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

// Fault 4.
#[test]
fn a_stopped_server_stays_the_only_one_and_goes_on() {
    let server = Server::start();
    server.create();
    server.signal(Signal::STOP);
    let other = server
        .command(&server.dir.path().join("other"))
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    let holder = format!("process {}", server.pid());
    assert!(
        said.contains(&holder) && said.contains("stop it first"),
        "{said}"
    );
    // What was asked meanwhile is answered afterwards: once, and as if nothing had been.
    let asked = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.session("check", None));
        let pause = std::time::Duration::from_millis(300);
        std::thread::park_timeout(pause);
        assert!(!waiting.is_finished(), "a stopped server answers");
        server.signal(Signal::CONT);
        waiting.join().unwrap()
    });
    assert_eq!(asked.status, 200, "{asked:?}");
    let status = server.settled();
    assert_eq!(status["upgrade_state"], "Idle");
    let checks = server.ask("GET", &format!("/v1/systems/{NAME}/log"), "");
    assert_eq!(
        checks.body.matches("\"accepted\"").count(),
        1,
        "{}",
        checks.body
    );
}

// Fault 5.
#[test]
fn of_servers_started_at_once_one_serves() {
    let server = Server::prepare();
    let sockets: Vec<_> = (0..4)
        .map(|n| server.dir.path().join(format!("s{n}")))
        .collect();
    let mut children: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let mut command = server.command(socket);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    until("all but one have ended", || {
        let ended = children
            .iter_mut()
            .filter_map(|c| c.try_wait().unwrap())
            .count();
        (ended == 3).then_some(())
    });
    let mut serving = 0;
    for (child, socket) in children.iter_mut().zip(&sockets) {
        match child.try_wait().unwrap() {
            None => {
                until("the one answers", || {
                    std::os::unix::net::UnixStream::connect(socket).ok()
                });
                serving += 1;
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Some(status) => {
                assert_eq!(status.code(), Some(1));
                let mut said = String::new();
                child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut said)
                    .unwrap();
                assert!(said.contains("another flipside server"), "{said}");
            }
        }
    }
    assert_eq!(serving, 1);
}

// Fault 10: the machines are not its children, so only its own end is its business.
#[test]
fn told_to_stop_it_ends_well_and_is_taken_up_again() {
    let mut server = Server::start();
    server.create();
    assert_eq!(server.session("check", None).status, 200);
    let before = server.settled();
    let mut stream = server.connect().unwrap();
    let follow = format!("GET /v1/systems/{NAME}/log?follow=true HTTP/1.1\r\nHost: f\r\n\r\n");
    stream.write_all(follow.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("200"));
    let begun = Instant::now();
    server.signal(Signal::TERM);
    let status = server.ended();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(begun.elapsed() < PATIENCE, "an open stream kept it");
    assert!(!server.socket().exists(), "its socket is gone");
    // The stream has ended as well, and did not stop in the middle of a line that was told to be whole.
    assert!(lines.map_while(Result::ok).count() > 0);
    server.again();
    let after = server.status();
    assert_eq!(after["upgrade_state"], before["upgrade_state"]);
    assert!(after["last_seq"].as_u64() > before["last_seq"].as_u64());
}

// Fault 9: without descriptors nothing is answered half, and with them it goes on.
#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let mut server = Server::prepare();
    let mut command = Command::new("sh");
    let args = server.arguments(&server.socket());
    let program = env!("CARGO_BIN_EXE_flipside");
    command
        .args(["-c", "ulimit -n 40; exec \"$@\"", "sh", program])
        .args(args);
    server.run(command, std::path::PathBuf::new());
    server.create();
    let idle: Vec<_> = (0..60).map(|_| server.connect().unwrap()).collect();
    let mut late = server.connect().unwrap();
    late.write_all(b"GET /v1/version HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")
        .unwrap();
    until("it says that it has none", || {
        server.log().contains("could not be accepted").then_some(())
    });
    drop(idle);
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.session("check", None).status, 200);
    assert_eq!(server.settled()["upgrade_state"], "Idle");
}

//! Hostile, broken and slow clients, and two who ask the same thing (security list, lines 1 to 3).

use crate::server::{NAME, PATIENCE, Server, until};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

/// The server closes what does not come to an end after ten seconds.
const TOO_LATE: Duration = Duration::from_secs(40);

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

// Security 1, 30.
#[test]
fn everything_is_private_from_the_first_moment() {
    let server = Server::start();
    server.create();
    assert_eq!(mode(&server.socket()), 0o600);
    assert_eq!(mode(server.socket().parent().unwrap()), 0o700);
    assert_eq!(mode(&server.state()), 0o700);
    for name in ["system.json", "legs.json", "journal/journal.0001"] {
        assert_eq!(mode(&server.file(name)), 0o600, "{name}");
    }
}

// Security 1, 17: where others could put things, nothing is served.
#[test]
fn directories_that_others_may_write_to_are_refused() {
    let server = Server::prepare();
    for (name, open) in [
        ("state", server.state()),
        ("run", server.dir.path().join("run")),
    ] {
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let output = server.command(&server.socket()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("others may write to") && said.contains("chmod go-w"),
            "{said}"
        );
        std::fs::remove_dir_all(&open).unwrap();
    }
}

// Security 2: too large, too deep, not JSON, of no known kind; none of it moves anything, and the server goes on.
#[test]
fn what_is_no_request_is_refused() {
    let server = Server::start();
    server.create();
    let before = server.status()["last_seq"].clone();
    let path = format!("/v1/systems/{NAME}/session");
    let deep = "[".repeat(100_000);
    let large = format!(
        "{{\"command\":\"check\",\"x\":\"{}\"}}",
        "x".repeat(3 << 20)
    );
    let unknown = "{\"command\":\"check\",\"path\":\"/etc/passwd\"}";
    for body in [
        &deep,
        &large,
        unknown,
        "",
        "null",
        "{",
        "{\"command\":\"rm\"}",
        "\u{0}",
    ] {
        let answer = server.ask("POST", &path, body);
        let shown: String = body.chars().take(40).collect();
        assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
    }
    for (method, path) in [
        ("GET", "/v1/systems/..%2f..%2fetc"),
        ("GET", "/v1/../etc/passwd"),
        ("POST", "/v1/version"),
        ("BREW", "/v1/version"),
    ] {
        let answer = server.ask(method, path, "");
        assert!(
            (400..500).contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
    }
    assert_eq!(server.status()["last_seq"], before);
}

// Security 2: neither a head nor a body that never ends keeps its place, and nobody waits for it.
#[test]
fn slow_clients_are_closed_and_hold_nobody_up() {
    let server = Server::start();
    server.create();
    let mut head = server.connect().unwrap();
    head.write_all(b"GET /v1/version HT").unwrap();
    let mut body = server.connect().unwrap();
    let begun = format!(
        "POST /v1/systems/{NAME}/session HTTP/1.1\r\nHost: f\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{\"command\":\"check\""
    );
    body.write_all(begun.as_bytes()).unwrap();
    let before = server.status();
    let begun = Instant::now();
    let mut said = String::new();
    body.read_to_string(&mut said).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 400") && said.contains("in time"),
        "{said}"
    );
    head.read_to_string(&mut String::new()).unwrap();
    assert!(begun.elapsed() < TOO_LATE, "{:?}", begun.elapsed());
    assert_eq!(
        server.status()["last_seq"],
        before["last_seq"],
        "half a request is none"
    );
}

// Security 2: so many connections and no more; the next one waits for a place.
#[test]
fn the_connections_are_counted() {
    let server = Server::start();
    let mut held: Vec<_> = (0..256).map(|_| server.connect().unwrap()).collect();
    let ask = b"GET /v1/version HTTP/1.1\r\nHost: f\r\n\r\n";
    // The last one is served, so all of them have a place.
    let last = held.last_mut().unwrap();
    last.write_all(ask).unwrap();
    assert!(last.read(&mut [0; 64]).unwrap() > 0);
    let mut next = server.connect().unwrap();
    next.write_all(ask).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(next.read(&mut [0; 64]).is_err(), "there was no place");
    drop(held);
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(next.read(&mut [0; 64]).unwrap() > 0, "there is one now");
}

// Fault 64: a double click, a request that comes again, two administrators: one is done.
#[test]
fn the_same_request_twice_is_one() {
    let server = Server::start();
    server.create();
    let seen = server.status()["last_seq"].as_u64();
    assert_eq!(server.session("check", seen).status, 200);
    let end = server.settled()["last_seq"].clone();
    let again = server.session("check", seen);
    assert_eq!(again.status, 409, "{again:?}");
    assert!(again.body.contains("was moved since"), "{again:?}");
    assert_eq!(server.settled()["last_seq"], end);
    let (a, b) = std::thread::scope(|scope| {
        let seen = end.as_u64();
        let server = &server;
        let one = scope.spawn(move || server.session("check", seen).status);
        let two = scope.spawn(move || server.session("check", seen).status);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!([a.min(b), a.max(b)], [200, 409]);
    until("it ends", || {
        (server.settled()["upgrade_state"] == "Idle").then_some(())
    });
}

// Fault 64: a client that hangs up has asked all the same, once.
#[test]
fn a_client_that_hangs_up_loses_nothing() {
    let server = Server::start();
    server.create();
    let body = "{\"command\":\"check\"}";
    let mut stream = server.connect().unwrap();
    let request = format!(
        "POST /v1/systems/{NAME}/session HTTP/1.1\r\nHost: f\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    // The answer has begun: it was taken down. Whoever leaves now has only missed how it ended.
    assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    drop(stream);
    let status = server.settled();
    assert_eq!(status["upgrade_state"], "Idle");
    let log = server.ask("GET", &format!("/v1/systems/{NAME}/log"), "");
    assert_eq!(log.body.matches("\"accepted\"").count(), 1, "{}", log.body);
}

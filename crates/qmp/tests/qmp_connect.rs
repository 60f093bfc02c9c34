//! Peers that misbehave while a connection is being made, or at its end.

mod common;

use common::{LONG, MEDIUM, Peer, SHORT};
use flipside_qmp::{QmpClient, QmpError, RecvError, Version};
use serde_json::{Value, json};

#[tokio::test]
async fn a_silent_socket_is_held_by_another_client() {
    let peer = Peer::new();
    let error = QmpClient::connect(&peer.path, SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::NoGreeting { .. }), "{error}");
    assert!(error.to_string().contains("another client"), "{error}");
    assert!(!error.outcome_unknown());
}

#[tokio::test]
async fn a_full_queue_of_listeners_is_silence_too() {
    let peer = Peer::new();
    // Fill the backlog of the listener, which accepts nobody.
    let mut others = Vec::new();
    let full = loop {
        match tokio::net::UnixStream::connect(&peer.path).await {
            Ok(stream) => others.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let error = QmpClient::connect(&peer.path, SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::NoGreeting { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let error = QmpClient::connect(&path, LONG).await.unwrap_err();
    assert!(matches!(error, QmpError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("none"), "{error}");
}

// Fault 29.
#[tokio::test]
async fn half_a_greeting_then_silence_or_an_end() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.send(b"{\"QMP\": {").await;
        link.gone().await;
    });
    let error = QmpClient::connect(&path, SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::NoGreeting { .. }), "{error}");
    script.await.unwrap();

    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move { link.send(b"{\"QMP\": {").await });
    let error = QmpClient::connect(&path, LONG).await.unwrap_err();
    assert!(matches!(error, QmpError::Closed), "{error}");
    script.await.unwrap();
}

// Fault 29.
#[tokio::test]
async fn other_first_lines_are_refused() {
    for (line, not_qmp) in [
        (&b"{\"return\": {}}\n"[..], true),
        (b"{\"QMP\": {\"version\": 7}}\n", true),
        (b"SSH-2.0-OpenSSH_9.2\r\n", false),
    ] {
        let peer = Peer::new();
        let path = peer.path.clone();
        let script = peer.play(move |mut link| async move {
            link.send(line).await;
            link.gone().await;
        });
        let error = QmpClient::connect(&path, LONG).await.unwrap_err();
        let as_expected = match error {
            QmpError::NotQmp { .. } => not_qmp,
            QmpError::Protocol(_) => !not_qmp,
            _ => false,
        };
        assert!(as_expected, "{error}");
        script.await.unwrap();
    }
}

// Fault 29.
#[tokio::test]
async fn silence_after_the_greeting_is_a_time_out() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.greet().await;
        link.gone().await;
    });
    let error = QmpClient::connect(&path, MEDIUM).await.unwrap_err();
    let QmpError::TimedOut { command, after } = &error else {
        panic!("{error}");
    };
    assert_eq!((command.as_str(), *after), ("qmp_capabilities", MEDIUM));
    script.await.unwrap();
}

#[tokio::test]
async fn a_refused_negotiation_is_an_error() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.greet().await;
        let command = link.command("qmp_capabilities").await;
        let error = json!({"class": "GenericError", "desc": "no"});
        link.send_json(json!({"error": error, "id": command["id"]}))
            .await;
        link.gone().await;
    });
    let error = QmpClient::connect(&path, LONG).await.unwrap_err();
    assert!(matches!(error, QmpError::Command { .. }), "{error}");
    script.await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_socket() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let command = link.command("query-name").await;
        link.reply(&command, json!({})).await;
        link.gone().await;
    });
    let (first, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
    let version = Version {
        major: 7,
        minor: 2,
        micro: 22,
    };
    assert_eq!(first.greeting_version(), version);
    let second = first.clone();
    drop(first);
    second
        .execute("query-name", Value::Null, LONG)
        .await
        .unwrap();
    drop(second);
    // The stream alone does not keep the socket open.
    tokio::time::timeout(LONG, script).await.unwrap().unwrap();
    assert_eq!(events.recv().await, Err(RecvError::Closed));
}

/// Lines that must end the connection, in the middle of a command (fault 29).
#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() {
    let deep = [
        b"{\"return\": ".to_vec(),
        b"[".repeat(65),
        b"]".repeat(65),
        b"}\n".to_vec(),
    ];
    let wide = [b"{\"return\": [0".to_vec(), b",0".repeat(300_000)];
    let bad: [(&str, Vec<u8>); 7] = [
        ("not JSON", b"garbage\n".to_vec()),
        ("not JSON", b"{\"return\": {}\n".to_vec()),
        ("UTF-8", b"{\"return\": \"\xC3\x28\"}\n".to_vec()),
        ("deep", deep.concat()),
        ("elements", [wide.concat(), b"]}\n".to_vec()].concat()),
        ("none of the forms", b"{\"hello\": 1}\n".to_vec()),
        ("none of the forms", b"[1]\n".to_vec()),
    ];
    for (word, line) in bad {
        let peer = Peer::new();
        let path = peer.path.clone();
        let script = peer.play(move |mut link| async move {
            link.handshake().await;
            link.command("stop").await;
            link.send(line).await;
            link.gone().await;
        });
        let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
        for _ in 0..2 {
            // The command in flight and any later one hear the same reason.
            let error = client.execute("stop", json!({}), LONG).await.unwrap_err();
            let QmpError::Protocol(violation) = &error else {
                panic!("{error}");
            };
            assert!(violation.to_string().contains(word), "{violation}");
            assert!(error.outcome_unknown() && error.connection_lost());
        }
        assert_eq!(events.recv().await, Err(RecvError::Closed));
        script.await.unwrap();
    }
}

// Fault 29: 64 MiB in one line.
#[tokio::test]
async fn an_endless_line_is_refused_at_the_limit() {
    const MIB: usize = 1024 * 1024;
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        use tokio::io::AsyncWriteExt;
        link.handshake().await;
        link.command("stop").await;
        link.send(b"{\"return\": \"").await;
        let mebibyte = vec![b'x'; MIB];
        let mut sent = 0;
        while sent < 64 && link.writer.write_all(&mebibyte).await.is_ok() {
            sent += 1;
        }
        assert!((16..20).contains(&sent), "{sent} MiB were taken");
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let error = client.execute("stop", json!({}), LONG).await.unwrap_err();
    assert!(matches!(error, QmpError::Protocol(_)), "{error}");
    script.await.unwrap();
}

// Fault 29.
#[tokio::test]
async fn a_socket_closed_mid_command_is_told_at_once() {
    for half_line in [&b""[..], b"{\"return\": {}, \"id\""] {
        let peer = Peer::new();
        let path = peer.path.clone();
        let script = peer.play(move |mut link| async move {
            link.handshake().await;
            link.command("cont").await;
            link.send(half_line).await;
        });
        let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
        let error = client.execute("cont", json!({}), LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed), "{error}");
        let error = client.execute("cont", json!({}), LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed), "{error}");
        assert_eq!(events.recv().await, Err(RecvError::Closed));
        script.await.unwrap();
    }
}

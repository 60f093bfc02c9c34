//! Replies and events that come late, twice, wrong or in floods.

mod common;

use std::time::Duration;

use common::{LONG, Peer, SHORT};
use flipside_qmp::{MAX_BUFFERED_EVENTS, QmpClient, QmpError, RecvError, RunState};
use serde_json::{Value, json};
use tokio::sync::oneshot;

#[tokio::test]
async fn replies_find_their_commands_in_any_order() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let first = link.command("first").await;
        let second = link.command("second").await;
        assert_ne!(first["id"], second["id"]);
        assert_eq!(first.get("arguments"), None);
        assert_eq!(second["arguments"], json!({"a": 1}));
        link.reply(&second, json!(2)).await;
        link.reply(&first, json!(1)).await;
        link.gone().await;
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let (first, second) = tokio::join!(
        client.execute("first", Value::Null, LONG),
        client.execute("second", json!({"a": 1}), LONG),
    );
    assert_eq!((first.unwrap(), second.unwrap()), (json!(1), json!(2)));
    drop(client);
    script.await.unwrap();
}

// Fault 29: a duplicate id, an id that is not ours.
#[tokio::test]
async fn foreign_and_repeated_replies_are_dropped() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let first = link.command("first").await;
        for id in [json!(0), json!("0"), json!(null), json!(["x"])] {
            link.send_json(json!({"return": "foreign", "id": id})).await;
        }
        link.send_json(json!({"return": "none"})).await;
        link.send_json(json!({"error": {"class": "GenericError", "desc": "none"}}))
            .await;
        link.reply(&first, json!(1)).await;
        link.reply(&first, json!("again")).await;
        let second = link.command("second").await;
        link.reply(&first, json!("again")).await;
        link.reply(&second, json!(2)).await;
        link.gone().await;
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let first = client.execute("first", json!({}), LONG).await.unwrap();
    let second = client.execute("second", json!({}), LONG).await.unwrap();
    assert_eq!((first, second), (json!(1), json!(2)));
    assert_eq!(client.dropped_replies(), 8);
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn two_connections_never_share_an_id() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let peer = Peer::new();
        let path = peer.path.clone();
        let (tell, told) = oneshot::channel();
        let script = peer.play(|mut link| async move {
            link.handshake().await;
            let command = link.command("stop").await;
            tell.send(command["id"].clone()).unwrap();
            link.reply(&command, json!({})).await;
        });
        let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
        client.execute("stop", json!({}), LONG).await.unwrap();
        ids.push(told.await.unwrap());
        script.await.unwrap();
    }
    assert_ne!(ids[0], ids[1]);
}

// Fault 31.
#[tokio::test]
async fn a_late_reply_is_dropped_and_the_next_command_works() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let slow = link.command("slow").await;
        // The next command shows that the first was given up.
        let next = link.command("next").await;
        link.reply(&slow, json!("late")).await;
        link.reply(&next, json!("next")).await;
        link.gone().await;
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let error = client.execute("slow", json!({}), SHORT).await.unwrap_err();
    assert!(matches!(&error, QmpError::TimedOut { command, after }
        if command == "slow" && *after == SHORT));
    assert!(error.outcome_unknown() && !error.connection_lost());
    let next = client.execute("next", json!({}), LONG).await.unwrap();
    assert_eq!(next, "next");
    assert_eq!(client.dropped_replies(), 1);
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn a_command_given_up_unsent_is_never_sent() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let (wake, woken) = oneshot::channel();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        // A stopped QEMU: nothing is read until both were given up.
        woken.await.unwrap();
        let large = link.command("large").await;
        link.reply(&large, json!("late")).await;
        let next = link.command("next").await;
        link.reply(&next, json!("next")).await;
        link.gone().await;
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let large = json!({"text": "x".repeat(4 * 1024 * 1024)});
    let (large, unsent) = tokio::join!(
        client.execute("large", large, SHORT),
        client.execute("unsent", json!({}), SHORT),
    );
    assert!(matches!(large, Err(QmpError::TimedOut { .. })));
    assert!(matches!(unsent, Err(QmpError::TimedOut { .. })));
    wake.send(()).unwrap();
    let next = client.execute("next", json!({}), LONG).await.unwrap();
    assert_eq!(next, "next");
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn clients_dropped_while_the_peer_reads_nothing_still_close() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let (wake, woken) = oneshot::channel();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        woken.await.unwrap();
        link.gone().await;
    });
    let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
    let large = json!({"text": "x".repeat(4 * 1024 * 1024)});
    let error = client.execute("large", large, SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::TimedOut { .. }), "{error}");
    drop(client);
    assert_eq!(events.recv_timeout(LONG).await, Err(RecvError::Closed));
    wake.send(()).unwrap();
    script.await.unwrap();
}

// Fault 30.
#[tokio::test]
async fn an_error_reply_keeps_its_words() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let command = link.command("device_del").await;
        let error = json!({"class": "DeviceNotFound", "desc": "Device 'd' not found"});
        link.send_json(json!({"id": command["id"], "error": error}))
            .await;
        let command = link.command("query-status").await;
        link.reply(&command, json!({"status": "io-error", "running": false}))
            .await;
        let command = link.command("query-status").await;
        link.reply(&command, json!({"state": 1})).await;
        let command = link.command("query-status").await;
        link.reply(&command, json!({"status": "dreaming"})).await;
        link.gone().await;
    });
    let (client, _events) = QmpClient::connect(&path, LONG).await.unwrap();
    let error = client
        .execute("device_del", json!({"id": "d"}), LONG)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the QMP command `device_del` failed: Device 'd' not found (DeviceNotFound)"
    );
    assert!(!error.outcome_unknown());
    assert_eq!(client.query_status().await.unwrap(), RunState::IoError);
    let error = client.query_status().await.unwrap_err();
    assert!(matches!(error, QmpError::UnexpectedReply { .. }), "{error}");
    let dreaming = RunState::Other("dreaming".to_owned());
    assert_eq!(client.query_status().await.unwrap(), dreaming);
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn events_come_before_between_and_after_a_reply() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.greet().await;
        let command = link.command("qmp_capabilities").await;
        link.event("EARLY").await;
        link.reply(&command, json!({})).await;
        let command = link.command("stop").await;
        link.event("BEFORE").await;
        // One write holds an event, half a reply, and the rest comes later.
        let reply = json!({"return": {}, "id": command["id"]}).to_string();
        let (head, tail) = reply.split_at(reply.len() / 2);
        link.send(format!("{{\"event\": \"BESIDE\"}}\n{head}"))
            .await;
        link.send(format!("{tail}\n{{\"event\": \"AFTER\"}}\n"))
            .await;
        link.event("AFTER").await;
    });
    let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
    let mut later = client.subscribe();
    client.execute("stop", json!({}), LONG).await.unwrap();
    let early = events.recv().await.unwrap();
    assert_eq!(early.name, "EARLY");
    assert_eq!(early.data, json!({"of": "EARLY"}));
    assert_eq!((early.seconds, early.microseconds), (12, 34));
    for stream in [&mut events, &mut later] {
        for name in ["BEFORE", "BESIDE", "AFTER", "AFTER"] {
            assert_eq!(stream.recv_timeout(LONG).await.unwrap().name, name);
        }
        assert_eq!(stream.recv().await, Err(RecvError::Closed));
        assert_eq!(stream.lagged(), 0);
    }
    script.await.unwrap();
}

#[tokio::test]
async fn waiting_for_an_event_has_a_deadline() {
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        link.event("ONE").await;
        link.event("TWO").await;
        link.gone().await;
    });
    let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
    let two = events.wait_for(|e| e.name == "TWO", Duration::MAX).await;
    assert_eq!(two.unwrap().name, "TWO");
    let three = events.wait_for(|e| e.name == "THREE", SHORT).await;
    assert_eq!(three, Err(RecvError::TimedOut));
    assert_eq!(events.try_recv(), Ok(None));
    drop(client);
    script.await.unwrap();
}

// Fault 32.
#[tokio::test]
async fn a_flood_of_events_is_bounded_and_holds_nothing_up() {
    const FLOOD: usize = 100_000;
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.handshake().await;
        let command = link.command("query-status").await;
        let mut lines = String::new();
        for number in 0..FLOOD {
            let event = json!({"event": "BLOCK_IO_ERROR", "data": {"n": number}});
            lines.push_str(&format!("{event}\n"));
        }
        link.send(lines).await;
        link.reply(&command, json!({"status": "running"})).await;
        link.gone().await;
    });
    let (client, mut events) = QmpClient::connect(&path, LONG).await.unwrap();
    // Nobody listens meanwhile; the reply comes through all the same.
    let status = client.execute("query-status", Value::Null, LONG).await;
    assert_eq!(status.unwrap()["status"], "running");
    for number in FLOOD - MAX_BUFFERED_EVENTS..FLOOD {
        let event = events.try_recv().unwrap().unwrap();
        assert_eq!(event.data["n"], number);
    }
    assert_eq!(events.try_recv(), Ok(None));
    let lagged = usize::try_from(events.lagged()).unwrap();
    assert_eq!(lagged, FLOOD - MAX_BUFFERED_EVENTS);
    drop(client);
    script.await.unwrap();
}

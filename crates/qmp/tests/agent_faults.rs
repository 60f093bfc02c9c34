//! Agents that hang, lie, close, or still talk of something else.

mod common;

use common::{LONG, Link, MEDIUM, Peer, SHORT};
use flipside_qmp::{AgentClient, AgentError, Exec, ShutdownMode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Connects to an agent that plays a script.
async fn agent<F>(script: impl FnOnce(Link) -> F + Send + 'static) -> (AgentClient, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(script);
    let client = AgentClient::connect(&path).await.expect("a connection");
    (client.with_call_timeout(LONG), script)
}

// Fault 38.
#[tokio::test]
async fn stale_bytes_before_the_synchronisation_are_skipped() {
    let (client, script) = agent(|mut link| async move {
        link.send(b"{\"return\": {\"pid\": 1}}\nhalf of a rep")
            .await;
        let id = link.sync_request().await;
        // What agents say to the 0xFF byte itself, and to an earlier client.
        link.send(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"stray\"}}\n")
            .await;
        link.send(b"\xFF{\"return\": 7}\n").await;
        link.send(b"x".repeat(1024 * 1024)).await;
        link.sync_reply(id).await;
        link.answer("guest-ping", json!({})).await;
        // In step: no second synchronisation.
        link.answer("guest-ping", json!({})).await;
        link.gone().await;
    })
    .await;
    client.ping().await.unwrap();
    client.ping().await.unwrap();
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn an_absent_agent_gets_no_command() {
    let (client, script) = agent(|mut link| async move {
        let first = link.sync_request().await;
        let second = link.sync_request().await;
        assert_ne!(first, second);
        // The agent starts and answers everything that waited.
        link.sync_reply(first).await;
        link.sync_reply(second).await;
        link.answer("guest-ping", json!({})).await;
        link.gone().await;
    })
    .await;
    let hasty = client.with_call_timeout(SHORT);
    let error = hasty.shutdown(ShutdownMode::PowerDown).await.unwrap_err();
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
    assert!(!error.outcome_unknown());
    client.ping().await.unwrap();
    drop((client, hasty));
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn a_late_reply_after_a_time_out_is_not_mistaken() {
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        link.answer("guest-ping", json!({})).await;
        link.command("guest-get-host-name").await;
        // The next call shows that the first was given up.
        let id = link.sync_request().await;
        link.send_json(json!({"return": {"host-name": "late"}}))
            .await;
        link.sync_reply(id).await;
        link.answer("guest-get-host-name", json!({"host-name": "right"}))
            .await;
        link.gone().await;
    })
    .await;
    let hasty = client.with_call_timeout(SHORT);
    client.ping().await.unwrap();
    let error = hasty.host_name().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::TimedOut { command, after }
            if command == "guest-get-host-name" && *after == SHORT),
        "{error}"
    );
    assert!(error.outcome_unknown());
    assert_eq!(client.host_name().await.unwrap(), "right");
    drop((client, hasty));
    script.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_call_is_followed_by_a_synchronisation() {
    let (heard, hears) = oneshot::channel();
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        link.command("guest-get-host-name").await;
        heard.send(()).expect("the test waits");
        link.sync().await;
        link.answer("guest-ping", json!({})).await;
        link.gone().await;
    })
    .await;
    tokio::select! {
        _ = client.host_name() => panic!("nobody answered"),
        _ = hears => {}
    }
    client.ping().await.unwrap();
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn a_reply_sent_twice_does_not_answer_the_next_command() {
    let (tell, told) = oneshot::channel();
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        let reply = json!({"return": {"host-name": "one"}});
        link.command("guest-get-host-name").await;
        link.send(format!("{reply}\n")).await;
        link.send(format!("{reply}\n")).await;
        tell.send(()).expect("the test waits");
        link.sync().await;
        link.answer("guest-get-host-name", json!({"host-name": "two"}))
            .await;
        link.gone().await;
    })
    .await;
    assert_eq!(client.host_name().await.unwrap(), "one");
    told.await.unwrap();
    assert_eq!(client.host_name().await.unwrap(), "two");
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn calls_take_turns_and_do_not_wait_for_ever() {
    let (heard, hears) = oneshot::channel();
    let (go, goes) = oneshot::channel();
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        let command = link.command("guest-get-host-name").await;
        assert_eq!(command.get("arguments"), None);
        heard.send(()).expect("the test waits");
        goes.await.expect("the test goes on");
        link.send_json(json!({"return": {"host-name": "one"}}))
            .await;
        link.answer("guest-ping", json!({})).await;
        link.gone().await;
    })
    .await;
    let first = client.clone();
    let first = tokio::spawn(async move { first.host_name().await });
    hears.await.unwrap();
    let error = client.with_call_timeout(SHORT).ping().await.unwrap_err();
    assert!(matches!(error, AgentError::Busy { .. }), "{error}");
    assert!(!error.outcome_unknown());
    go.send(()).unwrap();
    client.ping().await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), "one");
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn what_is_no_reply_is_an_error_and_then_a_synchronisation() {
    let deep = [b"[".repeat(65), b"]".repeat(65)].concat();
    let wide = [b"[0".to_vec(), b",0".repeat(300_000), b"]".to_vec()].concat();
    let bad: [(&str, Vec<u8>); 6] = [
        ("not JSON", b"garbage".to_vec()),
        ("UTF-8", b"{\"return\": \"\xFE\xC3\x28\"}".to_vec()),
        ("UTF-8", b"\xFF{\"return\": {}}".to_vec()),
        ("deep", [&b"{\"return\": "[..], &deep, b"}"].concat()),
        ("elements", [&b"{\"return\": "[..], &wide, b"}"].concat()),
        ("none of the forms", b"{\"event\": \"STOP\"}".to_vec()),
    ];
    for (word, line) in bad {
        let (client, script) = agent(move |mut link| async move {
            link.sync().await;
            link.command("guest-ping").await;
            link.send([&line[..], b"\n"].concat()).await;
            link.sync().await;
            link.answer("guest-ping", json!({})).await;
            link.gone().await;
        })
        .await;
        let error = client.ping().await.unwrap_err();
        let AgentError::Protocol { source, .. } = &error else {
            panic!("{error}");
        };
        assert!(source.to_string().contains(word), "{source}");
        client.ping().await.unwrap();
        drop(client);
        script.await.unwrap();
    }
}

// Fault 38.
#[tokio::test]
async fn a_huge_reply_is_refused_at_the_limit() {
    const MIB: usize = 1024 * 1024;
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        link.command("guest-get-host-name").await;
        link.send(b"{\"return\": {\"host-name\": \"").await;
        let mebibyte = vec![b'x'; MIB];
        for _ in 0..64 {
            link.send(&mebibyte).await;
        }
        link.send(b"\"}}\n").await;
        link.sync().await;
        link.answer("guest-ping", json!({})).await;
        link.gone().await;
    })
    .await;
    // The error comes at the limit; the next call throws the rest away.
    let error = client.host_name().await.unwrap_err();
    let AgentError::Protocol { source, .. } = &error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("50331648"), "{source}");
    client.ping().await.unwrap();
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn a_closed_socket_is_told_at_once_and_stays_closed() {
    for half in [&b""[..], b"{\"return\": "] {
        let (client, script) = agent(move |mut link| async move {
            link.sync().await;
            link.command("guest-ping").await;
            link.send(half).await;
        })
        .await;
        for _ in 0..2 {
            let error = client.ping().await.unwrap_err();
            assert!(matches!(error, AgentError::Closed), "{error}");
        }
        script.await.unwrap();
    }
    let (client, script) = agent(|link| async move { drop(link) }).await;
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, AgentError::Closed), "{error}");
    script.await.unwrap();
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let error = AgentClient::connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

// Fault 38.
#[tokio::test]
async fn lies_in_a_reply_are_typed_errors() {
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        let out = json!({"exited": true, "exitcode": 0, "out-data": "no base64!"});
        link.answer("guest-exec-status", out).await;
        link.answer("guest-exec", json!({"pid": "one"})).await;
        // The wrong form: is it the reply to something else?
        link.sync().await;
        link.command("guest-exec").await;
        link.send_json(json!({"error": ["words"], "return": {"pid": 1}}))
            .await;
        link.gone().await;
    })
    .await;
    let error = client.exec_status(1).await.unwrap_err();
    let is_base64 = |member| member == "out-data";
    assert!(
        matches!(&error, AgentError::NotBase64 { member, .. } if is_base64(*member)),
        "{error}"
    );
    let exec = Exec::new("true", Vec::<String>::new());
    let error = client.exec(&exec).await.unwrap_err();
    assert!(
        matches!(error, AgentError::UnexpectedReply { .. }),
        "{error}"
    );
    let error = client.exec(&exec).await.unwrap_err();
    assert!(matches!(error, AgentError::Command { .. }), "{error}");
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn shutdown_takes_silence_and_an_end_for_yes() {
    // A refusal.
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        let command = link.command("guest-shutdown").await;
        assert_eq!(command["arguments"], json!({"mode": "reboot"}));
        link.send_json(json!({"error": {"class": "GenericError", "desc": "no"}}))
            .await;
        // Proves itself alive again before every request.
        link.sync().await;
        link.command("guest-shutdown").await;
    })
    .await;
    let error = client.shutdown(ShutdownMode::Reboot).await.unwrap_err();
    assert!(matches!(error, AgentError::Command { .. }), "{error}");
    // The connection ends.
    client.shutdown(ShutdownMode::Reboot).await.unwrap();
    script.await.unwrap();

    // Silence.
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        link.command("guest-shutdown").await;
        link.gone().await;
    })
    .await;
    let hasty = client.with_call_timeout(MEDIUM);
    hasty.shutdown(ShutdownMode::PowerDown).await.unwrap();
    drop((client, hasty));
    script.await.unwrap();
}

#[tokio::test]
async fn any_command_may_be_executed() {
    let (client, script) = agent(|mut link| async move {
        link.sync().await;
        let command = link.answer("guest-get-time", json!(5)).await;
        assert_eq!(command, json!({"execute": "guest-get-time"}));
        link.gone().await;
    })
    .await;
    let time = client.execute("guest-get-time", Value::Null, LONG).await;
    assert_eq!(time.unwrap(), 5);
    drop(client);
    script.await.unwrap();
}

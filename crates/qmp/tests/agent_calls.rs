//! The typed calls of the guest agent.

mod common;

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{LONG, Link, MEDIUM, Peer, SHORT};
use flipside_qmp::{AgentClient, AgentError, Exec, FileMode, IpAddress};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Connects to an agent that is in step and plays a script.
async fn agent<F>(script: impl FnOnce(Link) -> F + Send + 'static) -> (AgentClient, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(|mut link| async move {
        link.sync().await;
        script(link).await;
    });
    let client = AgentClient::connect(&path).await.expect("a connection");
    (client.with_call_timeout(LONG), script)
}

/// Serves one file, in memory, until the client leaves.
async fn serve_file(mut link: Link, mut content: Vec<u8>, largest_write: usize) {
    let mut position = 0;
    while let Some(line) = link.line().await {
        let request: Value = serde_json::from_slice(&line).expect("JSON");
        let arguments = &request["arguments"];
        let value = match request["execute"].as_str().expect("a name") {
            "guest-file-open" => {
                if arguments["mode"] == "wb" {
                    content.clear();
                }
                position = 0;
                json!(1000)
            }
            "guest-file-write" => {
                let text = arguments["buf-b64"].as_str().expect("base64");
                let mut bytes = STANDARD.decode(text).expect("base64");
                bytes.truncate(largest_write);
                content.extend_from_slice(&bytes);
                json!({"count": bytes.len(), "eof": false})
            }
            "guest-file-read" => {
                let count = arguments["count"].as_u64().expect("a count");
                let rest = &content[position..];
                let piece = &rest[..rest.len().min(usize::try_from(count).expect("small"))];
                position += piece.len();
                let text = STANDARD.encode(piece);
                json!({"count": piece.len(), "buf-b64": text, "eof": position == content.len()})
            }
            "guest-file-close" => json!({}),
            other => panic!("unexpected `{other}`"),
        };
        link.send_json(json!({ "return": value })).await;
    }
}

#[tokio::test]
async fn a_program_is_started_as_described() {
    let (client, script) = agent(|mut link| async move {
        let command = link.answer("guest-exec", json!({"pid": 42})).await;
        let expected = json!({
            "path": "/bin/tool",
            "arg": ["a b", "$HOME"],
            "env": ["LANG=C", "X=1=2"],
            "input-data": "AP8=",
            "capture-output": true,
        });
        assert_eq!(command["arguments"], expected);
        let command = link.answer("guest-exec", json!({"pid": 43})).await;
        let expected = json!({"path": "true", "arg": [], "capture-output": false});
        assert_eq!(command["arguments"], expected);
        link.gone().await;
    })
    .await;
    let mut exec = Exec::new("/bin/tool", ["a b", "$HOME"]);
    exec.env = vec![
        ("LANG".to_owned(), "C".to_owned()),
        ("X".to_owned(), "1=2".to_owned()),
    ];
    exec.input = Some(vec![0x00, 0xFF]);
    assert_eq!(client.exec(&exec).await.unwrap(), 42);
    let plain = Exec {
        path: "true".to_owned(),
        ..Exec::default()
    };
    assert_eq!(client.exec(&plain).await.unwrap(), 43);
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn output_is_bytes_and_may_be_truncated() {
    let (client, script) = agent(|mut link| async move {
        let status = json!({
            "exited": true, "exitcode": 3,
            "out-data": STANDARD.encode(b"\xFF\xFE out"), "out-truncated": true,
            "err-data": "", "later-member": [1],
        });
        let command = link.answer("guest-exec-status", status).await;
        assert_eq!(command["arguments"], json!({"pid": 42}));
        link.answer("guest-exec-status", json!({"exited": true, "signal": 9}))
            .await;
        link.gone().await;
    })
    .await;
    let status = client.exec_status(42).await.unwrap();
    assert_eq!(status.out, b"\xFF\xFE out");
    assert_eq!((status.exitcode, status.signal), (Some(3), None));
    assert!(status.out_truncated && !status.err_truncated && !status.success());
    let status = client.exec_status(42).await.unwrap();
    assert_eq!((status.exitcode, status.signal), (None, Some(9)));
    assert!(!status.success());
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn waiting_for_a_program_survives_a_lost_look() {
    let (client, script) = agent(|mut link| async move {
        link.answer("guest-exec", json!({"pid": 42})).await;
        link.answer("guest-exec-status", json!({"exited": false}))
            .await;
        link.command("guest-exec-status").await;
        link.sync().await;
        let status = json!({"exited": true, "exitcode": 0, "out-data": "b2s="});
        link.answer("guest-exec-status", status).await;
        link.gone().await;
    })
    .await;
    let hasty = client.with_call_timeout(MEDIUM);
    let exec = Exec::new("true", Vec::<String>::new());
    let status = hasty.exec_wait(&exec, LONG).await.unwrap();
    assert!(status.success());
    assert_eq!(status.out, b"ok");
    drop((client, hasty));
    script.await.unwrap();
}

#[tokio::test]
async fn a_program_that_runs_on_is_named() {
    let (client, script) = agent(|mut link| async move {
        link.answer("guest-exec", json!({"pid": 42})).await;
        while let Some(line) = link.line().await {
            let request: Value = serde_json::from_slice(&line).expect("JSON");
            assert_eq!(request["execute"], "guest-exec-status");
            link.send_json(json!({"return": {"exited": false}})).await;
        }
    })
    .await;
    let exec = Exec::new("sleep", ["1000"]);
    let error = client.exec_wait(&exec, SHORT).await.unwrap_err();
    assert!(
        matches!(error, AgentError::StillRunning { pid: 42, after } if after == SHORT),
        "{error}"
    );
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn files_go_both_ways_in_pieces() {
    let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    for largest_write in [usize::MAX, 100_000] {
        let (client, script) =
            agent(move |link| serve_file(link, b"old".to_vec(), largest_write)).await;
        assert_eq!(client.read_file("/f", 3).await.unwrap(), b"old");
        let error = client.read_file("/f", 2).await.unwrap_err();
        assert!(
            matches!(error, AgentError::FileTooLarge { max: 2, .. }),
            "{error}"
        );
        client.write_file("/f", &content, None).await.unwrap();
        assert!(client.read_file("/f", 5_000_000).await.unwrap() == content);
        client.write_file("/f", b"", None).await.unwrap();
        assert_eq!(client.read_file("/f", 0).await.unwrap(), b"");
        drop(client);
        script.await.unwrap();
    }
}

#[tokio::test]
async fn access_rights_are_set_before_the_first_byte() {
    let (client, script) = agent(|mut link| async move {
        for exitcode in [0, 1] {
            link.answer("guest-file-open", json!(7)).await;
            let command = link.answer("guest-exec", json!({"pid": 1})).await;
            assert_eq!(command["arguments"]["arg"], json!(["0600", "--", "/s"]));
            let error = STANDARD.encode("not permitted\n");
            let status = json!({"exited": true, "exitcode": exitcode, "err-data": error});
            link.answer("guest-exec-status", status).await;
            if exitcode == 0 {
                link.answer("guest-file-write", json!({"count": 6})).await;
            }
            link.answer("guest-file-close", json!({})).await;
        }
        link.gone().await;
    })
    .await;
    let write = || client.write_file("/s", b"secret", Some(0o600));
    write().await.unwrap();
    let error = write().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Permissions { detail, .. } if detail == "not permitted"),
        "{error}"
    );
    drop(client);
    script.await.unwrap();
}

// Fault 38.
#[tokio::test]
async fn lies_about_files_are_contradictions() {
    let (client, script) = agent(|mut link| async move {
        link.answer("guest-file-open", json!(1)).await;
        for reply in [
            json!({"count": 9, "buf-b64": "b2s=", "eof": false}),
            json!({"count": 2, "buf-b64": "b2s=", "eof": false}),
        ] {
            link.answer("guest-file-read", reply).await;
        }
        link.answer(
            "guest-file-read",
            json!({"count": 1, "buf-b64": "b2s", "eof": true}),
        )
        .await;
        link.answer("guest-file-write", json!({"count": 3})).await;
        // Endless reads and writes of nothing.
        let nothing = json!({"count": 0, "buf-b64": "", "eof": false});
        link.answer("guest-file-open", json!(1)).await;
        link.answer("guest-file-read", nothing).await;
        link.answer("guest-file-close", json!({})).await;
        link.answer("guest-file-open", json!(1)).await;
        link.answer("guest-file-write", json!({"count": 0})).await;
        link.answer("guest-file-close", json!({})).await;
        link.gone().await;
    })
    .await;
    let file = client.file_open("/f", FileMode::Append).await.unwrap();
    let mut errors = VecDeque::new();
    errors.push_back(client.file_read(file, 9).await.unwrap_err());
    errors.push_back(client.file_read(file, 1).await.unwrap_err());
    let not_base64 = client.file_read(file, 9).await.unwrap_err();
    assert!(
        matches!(not_base64, AgentError::NotBase64 { .. }),
        "{not_base64}"
    );
    errors.push_back(client.file_write(file, b"ok").await.unwrap_err());
    errors.push_back(client.read_file("/f", 100).await.unwrap_err());
    errors.push_back(client.write_file("/f", b"x", None).await.unwrap_err());
    for error in errors {
        assert!(matches!(error, AgentError::Contradiction { .. }), "{error}");
    }
    drop(client);
    script.await.unwrap();
}

#[tokio::test]
async fn the_guest_describes_itself() {
    let (client, script) = agent(|mut link| async move {
        let info = json!({"version": "7.2.22", "supported_commands": [
            {"name": "guest-exec", "enabled": true, "success-response": true},
            {"name": "guest-set-time", "enabled": false, "success-response": true},
        ]});
        link.answer("guest-info", info).await;
        link.answer("guest-get-host-name", json!({"host-name": "db1"}))
            .await;
        link.answer(
            "guest-get-osinfo",
            json!({"id": "debian", "version-id": "12"}),
        )
        .await;
        let interfaces = json!([
            {"name": "lo", "ip-addresses": [
                {"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
            {"name": "eth0", "hardware-address": "52:54:00:12:34:56",
             "statistics": {"rx-bytes": 1}},
        ]);
        link.answer("guest-network-get-interfaces", interfaces)
            .await;
        let command = link.answer("guest-set-time", json!({})).await;
        assert_eq!(
            command["arguments"],
            json!({"time": 1_700_000_000_000_000_001_i64})
        );
        let command = link.answer("guest-set-time", json!({})).await;
        assert_eq!(command.get("arguments"), None);
        link.gone().await;
    })
    .await;
    let info = client.info().await.unwrap();
    assert_eq!(info.version, "7.2.22");
    assert!(info.has_command("guest-exec") && !info.has_command("guest-set-time"));
    assert_eq!(client.host_name().await.unwrap(), "db1");
    let os = client.os_info().await.unwrap();
    assert_eq!((os.id.as_deref(), os.name), (Some("debian"), None));
    let interfaces = client.network_interfaces().await.unwrap();
    let loopback = IpAddress {
        ip_address: "127.0.0.1".to_owned(),
        ip_address_type: "ipv4".to_owned(),
        prefix: 8,
    };
    assert_eq!(interfaces[0].ip_addresses, [loopback]);
    let mac = interfaces[1].hardware_address.as_deref();
    assert_eq!(mac, Some("52:54:00:12:34:56"));
    client
        .set_time(Some(1_700_000_000_000_000_001))
        .await
        .unwrap();
    client.set_time(None).await.unwrap();
    drop(client);
    script.await.unwrap();
}

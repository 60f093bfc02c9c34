//! The client against the QEMU installed here.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{LONG, SHORT};
use flipside_qmp::{EventStream, QmpClient, QmpError, RecvError, RunState, Version};
use serde_json::{Value, json};
use tokio::time::Instant;

const QEMU: &str = "qemu-system-x86_64";

/// A QEMU without a machine, killed when the test ends.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// Starts QEMU; `None` if it is not installed.
    fn start(socket: &Path) -> Option<Self> {
        let started = Command::new(QEMU)
            .args(["-nodefaults", "-machine", "none", "-S", "-display", "none"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .stdin(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self(child)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: `{QEMU}` is not installed");
                None
            }
            Err(error) => panic!("cannot start `{QEMU}`: {error}"),
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name])
            .arg(self.0.id().to_string())
            .status();
        assert!(status.expect("a shell").success());
    }
}

/// Connects as soon as QEMU listens.
async fn connect(path: &Path) -> (QmpClient, EventStream) {
    let deadline = Instant::now() + LONG;
    loop {
        match QmpClient::connect(path, LONG).await {
            Ok(connected) => return connected,
            Err(QmpError::Connect { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_real_qemu_from_greeting_to_quit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    let Some(qemu) = Qemu::start(&path) else {
        return;
    };
    let (client, mut events) = connect(&path).await;

    // Queries.
    let version = client.query_version().await.unwrap();
    assert_eq!(version, client.greeting_version());
    let oldest = Version {
        major: 7,
        minor: 2,
        micro: 0,
    };
    assert!(version >= oldest, "{version}");
    assert_eq!(client.query_status().await.unwrap(), RunState::Prelaunch);
    assert_eq!(client.query_uuid().await.unwrap().len(), 36);
    assert!(client.has_command("blockdev-add").await.unwrap());
    assert!(!client.has_command("no-such-command").await.unwrap());
    let error = client
        .execute("no-such-command", Value::Null, LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, QmpError::Command { class, .. } if class == "CommandNotFound"));

    // The schema.
    let schema = client.query_schema().await.unwrap();
    assert!(schema.has_command("migrate") && !schema.has_command("no-such-command"));
    assert!(schema.has_event("QUORUM_REPORT_BAD"));
    assert!(schema.has_argument("blockdev-add", "node-name"));
    let drivers = schema.argument_values("blockdev-add", "driver");
    assert!(drivers.contains("raw") && !drivers.contains("no-such-driver"));

    // A second client hears nothing.
    let error = QmpClient::connect(&path, SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::NoGreeting { .. }), "{error}");

    // A stopped QEMU: the outcome is unknown, its late reply is dropped.
    qemu.signal("STOP");
    let error = client
        .execute("query-status", json!({}), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, QmpError::TimedOut { .. }), "{error}");
    qemu.signal("CONT");
    assert_eq!(client.query_status().await.unwrap(), RunState::Prelaunch);
    assert_eq!(client.dropped_replies(), 1);

    // Events.
    client.execute("cont", json!({}), LONG).await.unwrap();
    events.wait_for(|e| e.name == "RESUME", LONG).await.unwrap();
    client.execute("stop", json!({}), LONG).await.unwrap();
    let stop = events.wait_for(|e| e.name == "STOP", LONG).await.unwrap();
    assert!(stop.seconds > 0);
    assert_eq!(client.query_status().await.unwrap(), RunState::Paused);

    // A new client may come when the old one has gone.
    drop(client);
    assert_eq!(events.recv_timeout(LONG).await, Err(RecvError::Closed));
    let (client, mut events) = connect(&path).await;
    client.execute("quit", json!({}), LONG).await.unwrap();
    events
        .wait_for(|e| e.name == "SHUTDOWN", LONG)
        .await
        .unwrap();
    assert_eq!(events.recv_timeout(LONG).await, Err(RecvError::Closed));
    let error = client.query_status().await.unwrap_err();
    assert!(matches!(error, QmpError::Closed), "{error}");
}

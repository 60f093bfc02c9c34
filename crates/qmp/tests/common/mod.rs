//! A peer on a Unix socket that does exactly what a test says.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// Long enough for anything that is to happen, also on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// For calls of which one step is to happen and a later one is not.
pub(crate) const MEDIUM: Duration = Duration::from_millis(800);
/// For what is not to happen.
pub(crate) const SHORT: Duration = Duration::from_millis(80);

/// A listening socket in a directory of its own.
pub(crate) struct Peer {
    directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
    listener: UnixListener,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        Self {
            directory,
            path,
            listener,
        }
    }

    /// Accepts one client and plays the script. Await the handle at the end of
    /// the test: it carries the script's panics.
    pub(crate) fn play<F>(self, script: impl FnOnce(Link) -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = self.listener;
        let directory = self.directory;
        tokio::spawn(async move {
            let _directory = directory;
            let (stream, _) = listener.accept().await.expect("a client");
            let (reader, writer) = stream.into_split();
            let link = Link {
                reader: BufReader::new(reader),
                writer,
            };
            script(link).await;
        })
    }
}

/// The peer's end of a connection.
pub(crate) struct Link {
    pub(crate) reader: BufReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
}

impl Link {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.writer.write_all(bytes.as_ref()).await;
        sent.expect("the client reads");
    }

    pub(crate) async fn send_json(&mut self, value: Value) {
        self.send(format!("{value}\r\n")).await;
    }

    /// Reads one line; `None` when the client has left.
    pub(crate) async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let count = self.reader.read_until(b'\n', &mut line).await;
        (count.unwrap_or(0) > 0).then_some(line)
    }

    /// Reads one command, which must bear this name.
    pub(crate) async fn command(&mut self, name: &str) -> Value {
        let line = self.line().await.expect("a command");
        let command: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(command["execute"], name);
        command
    }

    /// Waits until the client has closed its end.
    pub(crate) async fn gone(&mut self) {
        while self.line().await.is_some() {}
    }

    // QMP

    pub(crate) async fn greet(&mut self) {
        self.send_json(json!({"QMP": {
            "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
            "capabilities": ["oob"],
        }}))
        .await;
    }

    pub(crate) async fn handshake(&mut self) {
        self.greet().await;
        let command = self.command("qmp_capabilities").await;
        self.reply(&command, json!({})).await;
    }

    pub(crate) async fn reply(&mut self, command: &Value, value: Value) {
        self.send_json(json!({"return": value, "id": command["id"]}))
            .await;
    }

    pub(crate) async fn event(&mut self, name: &str) {
        self.send_json(json!({
            "event": name,
            "data": {"of": name},
            "timestamp": {"seconds": 12, "microseconds": 34},
        }))
        .await;
    }

    // Guest agent

    /// Reads a synchronisation and returns its number.
    pub(crate) async fn sync_request(&mut self) -> u64 {
        let line = self.line().await.expect("a synchronisation");
        assert_eq!(line[0], 0xFF, "{}", line.escape_ascii());
        let command: Value = serde_json::from_slice(&line[1..]).expect("JSON");
        assert_eq!(command["execute"], "guest-sync-delimited");
        command["arguments"]["id"].as_u64().expect("a number")
    }

    pub(crate) async fn sync_reply(&mut self, id: u64) {
        self.send(b"\xFF").await;
        self.send_json(json!({ "return": id })).await;
    }

    pub(crate) async fn sync(&mut self) {
        let id = self.sync_request().await;
        self.sync_reply(id).await;
    }

    /// Reads one command and returns a value for it.
    pub(crate) async fn answer(&mut self, name: &str, value: Value) -> Value {
        let command = self.command(name).await;
        self.send_json(json!({ "return": value })).await;
        command
    }
}

//! The clients themselves against a hostile peer on a socket: calls end, and only a true answer is taken for one.
//!
//! The bytes are the peer's script. Between zero bytes stands what it writes after each request; `$ID` in it becomes the
//! `id` of the request (or the number of a synchronisation), which a peer knows and bytes from elsewhere do not.

use flipside_qmp::{AgentClient, Exec, FileMode, QmpClient, QmpError};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

/// A deadline that is never reached: the peer speaks or closes, so nobody waits for the clock.
const NEVER: Duration = Duration::from_secs(20);

/// Requests that a client makes; the peer closes when its script is over.
const CALLS: usize = 4;

/// Events that are sent before anybody reads them are kept up to this number and a little more.
const EVENTS: usize = flipside_qmp::MAX_BUFFERED_EVENTS;

fn run<F: Future<Output = ()>>(talk: impl FnOnce(PathBuf, UnixListener) -> F) {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    let place = PLACE.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let thread = format!("{:?}", std::thread::current().id());
    let path = place.path().join(thread.replace(['(', ')'], "-"));
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("a socket");
            tokio::time::timeout(NEVER * 2, talk(path.clone(), listener))
                .await
                .expect("a call hangs");
        });
    });
}

/// Puts the number of a request into a piece of the script.
fn filled(piece: &[u8], id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len());
    let mut rest = piece;
    while let Some(at) = rest.windows(3).position(|w| w == b"$ID") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(id.as_bytes());
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

/// Reads a request; none when the client has left, or waits for more of an answer than the script gives.
async fn request(reader: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = Vec::new();
    let count = tokio::select! {
        biased;
        count = reader.read_until(b'\n', &mut line) => count.ok()?,
        () = nobody_else_acts() => return None,
    };
    let from = line.iter().position(|b| *b == b'{').unwrap_or(0);
    (count > 0).then(|| serde_json::from_slice(&line[from..]).expect("a request is JSON"))
}

/// Ends when the client has had every chance to act: it runs on the same thread and waits for nothing but the socket.
async fn nobody_else_acts() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Drives the QMP client; the piece before the first zero byte stands in place of the greeting.
pub fn qmp_client(data: &[u8]) {
    run(|path, listener| async move {
        tokio::join!(qemu(listener, data), monitor(&path, data));
    });
}

async fn qemu(listener: UnixListener, script: &[u8]) {
    let Ok((stream, _)) = listener.accept().await else {
        return;
    };
    let mut reader = BufReader::new(stream);
    let mut id = String::new();
    for piece in script.split(|b| *b == 0).take(CALLS + 2) {
        if reader
            .get_mut()
            .write_all(&filled(piece, &id))
            .await
            .is_err()
        {
            return;
        }
        let Some(request) = request(&mut reader).await else {
            return;
        };
        id = request["id"]
            .as_str()
            .expect("a request has an id")
            .to_owned();
    }
}

async fn monitor(path: &Path, script: &[u8]) {
    let named = script.windows(3).any(|w| w == b"$ID");
    let (client, mut events) = match QmpClient::connect(path, NEVER).await {
        Ok(connected) => connected,
        Err(error) => {
            assert!(
                !matches!(error, QmpError::TimedOut { .. }),
                "it waited for the clock"
            );
            return;
        }
    };
    assert!(
        named,
        "an answer to somebody else was taken for the one to `qmp_capabilities`"
    );
    let _ = client.query_status().await;
    let _ = client.query_uuid().await;
    let _ = client.query_commands().await;
    let last = client.execute("stop", Value::Null, NEVER).await;
    assert!(
        !matches!(last, Err(QmpError::TimedOut { .. })),
        "it waited for the clock"
    );
    let mut kept = 0;
    while let Ok(Some(_)) = events.try_recv() {
        kept += 1;
        assert!(kept <= EVENTS + 1, "events are collected without bound");
    }
}

/// Drives the agent's client; when the script is over the peer is honest, and is then believed again.
pub fn agent_client(data: &[u8]) {
    run(|path, listener| async move {
        tokio::join!(guest(listener, data), caller(&path));
    });
}

async fn guest(listener: UnixListener, script: &[u8]) {
    let Ok((stream, _)) = listener.accept().await else {
        return;
    };
    let mut reader = BufReader::new(stream);
    let mut script = script.split(|b| *b == 0).take(8);
    while let Some(request) = request(&mut reader).await {
        let id = request["arguments"]["id"].to_string();
        let answer = match (script.next(), request["execute"].as_str()) {
            // A synchronisation is always answered, so that the calls behind it are reached.
            (Some(piece), Some("guest-sync-delimited")) => {
                let answer = format!("{{\"return\": {id}}}\n");
                [filled(piece, &id).as_slice(), b"\xff", answer.as_bytes()].concat()
            }
            // The line is ended, or the client would wait for its end.
            (Some(piece), _) => [filled(piece, &id).as_slice(), b"\n{\"return\": null}\n"].concat(),
            (None, Some("guest-sync-delimited")) => {
                [b"\xff", format!("{{\"return\": {id}}}\n").as_bytes()].concat()
            }
            (None, _) => b"{\"return\": {}}\n".to_vec(),
        };
        if reader.get_mut().write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn caller(path: &Path) {
    let client = AgentClient::connect(path)
        .await
        .expect("connects")
        .with_call_timeout(NEVER);
    let _ = client.info().await;
    if let Ok(handle) = client.file_open("/x", FileMode::Read).await
        && let Ok(read) = client.file_read(handle, 16).await
    {
        assert!(read.bytes.len() <= 16, "more than was asked for");
    }
    if let Ok(pid) = client.exec(&Exec::new("/bin/true", ["x"])).await {
        let _ = client.exec_status(pid).await;
    }
    for _ in 0..8 {
        let _ = client.execute("guest-ping", json!({}), NEVER).await;
    }
    // The script is over by now: the first call may still hear what was left of it, the second is in step.
    let _ = client.ping().await;
    client
        .ping()
        .await
        .expect("an honest agent is believed again");
}

//! A proxy in front of a real QEMU's QMP socket that spoils what a test asks for.
//!
//! QEMU is started by a wrapper that gives it another name for its socket; the proxy listens at the name that flipside
//! knows. So every byte between flipside and QEMU passes here, from the first greeting on.

use super::Bench;
use flipside_model::MachineId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// What happens to one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// QEMU never sees it; the answer is an error.
    Refuse,
    /// QEMU executes it; the connection ends instead of the reply.
    LoseReply,
    /// QEMU executes it; the reply is cut in the middle, and then the connection ends.
    CutReply,
    /// QEMU executes it; the reply comes so much later, and nothing else meanwhile.
    Delay(Duration),
}

/// Commands that change nothing.
pub(crate) fn is_query(command: &str) -> bool {
    command.starts_with("query-") || command == "qmp_capabilities"
}

#[derive(Debug, Default)]
struct Plan {
    /// Spoil the command with this number, counted from 0 since it was armed.
    spoil: Option<(usize, Spoil)>,
    /// What counts: every command that changes something, and each query once between two of those, so that the number
    /// does not depend on how often somebody looks.
    seen: Vec<String>,
    queries: BTreeSet<String>,
    hit: Option<usize>,
    /// The operation is over; what comes is not its own.
    over: bool,
    /// Events are kept back.
    mute: bool,
}

/// The proxy of one machine; it ends with the test's runtime.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    plan: Arc<Mutex<Plan>>,
}

/// Makes the wrapper, to be a [`Bench`]'s program. The name counts: flipside looks for processes called `qemu…`.
pub(crate) fn wrapper(dir: &Path) -> PathBuf {
    let path = dir.join("qemu-behind-proxy");
    let script = "#!/bin/sh\nn=$#\nwhile [ $n -gt 0 ]; do\n  w=$1; shift; n=$((n - 1))\n  \
                  case $w in *path=*/qmp.sock,*) w=\"${w%%/qmp.sock,*}/real.sock,${w#*/qmp.sock,}\";; esac\n  \
                  set -- \"$@\" \"$w\"\ndone\nexec qemu-system-x86_64 \"$@\"\n";
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
    path
}

impl Proxy {
    /// Serves a machine, from its start on and whenever it is started again.
    pub(crate) fn serve(bench: &Bench, id: MachineId) -> Self {
        let proxy = Self {
            plan: Arc::default(),
        };
        let dir = bench.dir.path().join(format!("systems/web/{id}"));
        tokio::spawn(proxy.clone().run(dir));
        proxy
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("not poisoned")
    }

    /// Begins to count; the command with this number is spoiled.
    pub(crate) fn arm(&self, number: usize, spoil: Spoil) {
        let mut plan = self.plan();
        *plan = Plan {
            spoil: Some((number, spoil)),
            mute: plan.mute,
            ..Plan::default()
        };
    }

    /// Ends counting: the command that was spoiled, and what came after it.
    pub(crate) fn disarm(&self) -> Option<(String, Vec<String>)> {
        let mut plan = self.plan();
        plan.spoil = None;
        let hit = plan.hit?;
        Some((plan.seen[hit].clone(), plan.seen[hit + 1..].to_vec()))
    }

    /// Ends counting before what follows a failure.
    pub(crate) fn over(&self) {
        self.plan().over = true;
    }

    /// Keeps back events, or lets them pass again.
    pub(crate) fn mute(&self, mute: bool) {
        self.plan().mute = mute;
    }

    /// Notes a command; says whether it is to be spoiled.
    fn note(&self, command: &str) -> Option<Spoil> {
        let mut plan = self.plan();
        if plan.over {
            return None;
        }
        let counts = match is_query(command) {
            true => plan.queries.insert(command.to_owned()),
            false => {
                plan.queries.clear();
                true
            }
        };
        if !counts {
            return None;
        }
        let number = plan.seen.len();
        plan.seen.push(command.to_owned());
        let (_, spoil) = plan.spoil.filter(|(wanted, _)| *wanted == number)?;
        plan.hit = Some(number);
        Some(spoil)
    }

    async fn run(self, dir: PathBuf) {
        let (ours, real) = (dir.join("qmp.sock"), dir.join("real.sock"));
        loop {
            until_there(&real).await;
            let Ok(listener) = UnixListener::bind(&ours) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            // Until the machine's directory is gone and made again.
            while real.exists() {
                let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept());
                let Ok(Ok((client, _))) = accepted.await else {
                    continue;
                };
                if let Ok(qemu) = UnixStream::connect(&real).await {
                    self.pass(client, qemu).await;
                }
            }
        }
    }

    /// Passes lines to and fro until either side leaves or the plan ends the connection.
    async fn pass(&self, client: UnixStream, qemu: UnixStream) {
        let (from_client, mut to_client) = client.into_split();
        let (from_qemu, mut to_qemu) = qemu.into_split();
        let (mut from_client, mut from_qemu) = (lines(from_client), lines(from_qemu));
        let mut spoiled: Option<(Value, Spoil)> = None;
        loop {
            tokio::select! {
                line = next(&mut from_client) => {
                    let Some(line) = line else { return };
                    let command: Value = serde_json::from_slice(&line).expect("JSON");
                    let name = command["execute"].as_str().expect("a name");
                    match self.note(name) {
                        Some(Spoil::Refuse) => refuse(&mut to_client, &command["id"]).await,
                        spoil => {
                            spoiled = spoil.map(|s| (command["id"].clone(), s)).or(spoiled);
                            if to_qemu.write_all(&line).await.is_err() { return }
                        }
                    }
                }
                line = next(&mut from_qemu) => {
                    let Some(line) = line else { return };
                    let message: Value = serde_json::from_slice(&line).expect("JSON");
                    let ours = spoiled.as_ref().filter(|(id, _)| message.get("id") == Some(id));
                    match ours.map(|(_, spoil)| *spoil) {
                        Some(Spoil::LoseReply) => return,
                        Some(Spoil::CutReply) => {
                            let _ = to_client.write_all(&line[..line.len() / 2]).await;
                            return;
                        }
                        Some(Spoil::Delay(length)) => tokio::time::sleep(length).await,
                        Some(Spoil::Refuse) | None => {}
                    }
                    let muted = message.get("event").is_some() && self.plan().mute;
                    if !muted && to_client.write_all(&line).await.is_err() { return }
                }
            }
        }
    }
}

/// Lines of one half, complete even when waiting for one is given up.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

fn lines(half: OwnedReadHalf) -> Lines {
    Lines {
        reader: BufReader::new(half),
        line: Vec::new(),
    }
}

async fn next(lines: &mut Lines) -> Option<Vec<u8>> {
    // What was read of a line stays in the buffer when this future is dropped.
    match lines.reader.read_until(b'\n', &mut lines.line).await {
        Ok(_) if lines.line.ends_with(b"\n") => Some(std::mem::take(&mut lines.line)),
        _ => None,
    }
}

async fn refuse(client: &mut OwnedWriteHalf, id: &Value) {
    let error =
        json!({ "error": { "class": "GenericError", "desc": "planted by the test" }, "id": id });
    let _ = client.write_all(format!("{error}\r\n").as_bytes()).await;
}

async fn until_there(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

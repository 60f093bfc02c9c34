//! The network port of a user-mode network: a client of the guard, which holds the front door.
//!
//! Nothing is kept here: a new server with a new [`UserNetwork`] finds the guard as the old one left it.

use crate::error;
use crate::guard::GuardEvent;
use crate::guard::desk::{DoorView, Drained};
use crate::guard::events::read_after;
use crate::guard::files::{GuardConfig, GuardFiles};
use crate::guard::limits::{
    CALL_TIMEOUT, DRAIN_MAX, END_TIMEOUT, LOG_MAX_BYTES, POLL, REPLY_MAX, START_TIMEOUT,
};
use crate::guard::wire::{Command, Reply, Request, Started, line, port_error, read_line};
use crate::paths::{SystemPaths, private_dir};
use crate::process::{Identity, tail};
use async_trait::async_trait;
use flipside_model::{BridgeFacts, MachineId, SystemSpec};
use flipside_platform::{
    DrainReport, NetworkPort, NetworkView, Note, PortError, PortErrorKind, PortResult,
};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::ChildStdout;
use tokio::time::{Instant, sleep, timeout};

/// What a deleted program is called by the kernel, for example after an upgrade of flipside itself.
const DELETED: &str = " (deleted)";

/// How long a guest may take to greet who comes over the private path: a second or two under emulation.
const GREETING: Duration = Duration::from_secs(5);

/// The network of one system: who owns it, and the front door that clients come through.
#[derive(Debug)]
pub struct UserNetwork {
    spec: SystemSpec,
    paths: SystemPaths,
    files: GuardFiles,
    program: Option<PathBuf>,
    requests: AtomicU64,
    starting: tokio::sync::Mutex<()>,
}

impl UserNetwork {
    /// Names the network of a system. Starts nothing.
    pub fn new(spec: SystemSpec, state_dir: &Path) -> PortResult<Self> {
        let paths = SystemPaths::new(state_dir, &spec.name)?;
        Ok(Self {
            files: GuardFiles::new(&paths),
            paths,
            spec,
            program: None,
            requests: AtomicU64::new(1),
            starting: tokio::sync::Mutex::default(),
        })
    }

    /// Starts the guard as `PROGRAM guard --state-dir DIR --system NAME` instead of with our own program.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Returns what the guard did after the event of this number (0: from the beginning), the oldest first and a
    /// bounded number at once. It answers also when no guard runs, from the guard's file.
    pub async fn guard_events(&self, after: u64) -> Vec<GuardEvent> {
        match self.ask(Command::Events { after }).await {
            Ok(events) => events,
            Err(_) => read_after(&self.files.events(), after),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, command: Command) -> PortResult<T> {
        let value = self.call(command, CALL_TIMEOUT).await?;
        serde_json::from_value(value).map_err(|e| {
            error::mismatch("the guard answered in words of another version of flipside")
                .because(&e)
        })
    }

    /// Sends a request and waits for its reply.
    async fn call(&self, command: Command, limit: Duration) -> PortResult<Value> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let name = &self.spec.name;
        let late = || PortError::timed_out(format!("the guard of system {name} does not answer"));
        let talk = async {
            let stream = UnixStream::connect(self.files.control())
                .await
                .map_err(|e| self.absent(&e))?;
            let lost = |e: io::Error| late().because(&e);
            let (reader, mut writer) = stream.into_split();
            writer
                .write_all(&line(&Request { id, command }))
                .await
                .map_err(lost)?;
            let mut reader = BufReader::new(reader);
            let text = read_line(&mut reader, REPLY_MAX)
                .await
                .map_err(lost)?
                .ok_or_else(late)?;
            let reply: Reply = serde_json::from_slice(&text)
                .map_err(|e| error::mismatch("the guard's answer is not one").because(&e))?;
            match reply.error {
                Some(problem) => Err(port_error(problem)),
                None if reply.id != id => {
                    Err(error::mismatch("the guard answered another request"))
                }
                None => Ok(reply.ok.unwrap_or_default()),
            }
        };
        timeout(limit, talk).await.map_err(|_| late())?
    }

    fn absent(&self, error: &io::Error) -> PortError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => PortErrorKind::Absent,
            // So many others wait that the kernel takes no more.
            io::ErrorKind::WouldBlock => PortErrorKind::TimedOut,
            _ => PortErrorKind::Failed,
        };
        PortError::new(
            kind,
            format!("the guard of system {} cannot be reached", self.spec.name),
        )
        .about(self.files.control().display().to_string())
        .because(error)
    }

    /// Starts a guard and waits until it says how that went.
    async fn start(&self) -> PortResult<()> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => own_program()?,
        };
        let log_path = self.files.log();
        let log = self
            .open_log()
            .map_err(|e| error::file(&e, "write", &log_path))?;
        let failed = |e: &io::Error| {
            PortError::failed(format!(
                "cannot start the guard of system {}",
                self.spec.name
            ))
            .because(e)
        };
        let mut command = tokio::process::Command::new("setsid");
        command
            .arg("--fork")
            .arg(&program)
            .arg("guard")
            .arg("--state-dir")
            .arg(self.paths.state())
            .arg("--system")
            .arg(self.spec.name.as_str())
            // It outlives us: nothing of our environment is its business but how much it prints.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        for kept in ["RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let out = child
            .stdout
            .take()
            .ok_or_else(|| PortError::failed("the guard has no output"))?;
        let started = timeout(START_TIMEOUT, async {
            let status = child.wait().await.map_err(|e| failed(&e))?;
            if !status.success() {
                let mut error = PortError::failed(format!("cannot start `{}`", program.display()));
                error.causes = tail(&log_path, 3);
                return Err(error);
            }
            self.hear(out).await
        });
        let late = |_| {
            PortError::timed_out("the guard was started and did not say in time whether it began")
        };
        started.await.map_err(late)?
    }

    async fn hear(&self, out: ChildStdout) -> PortResult<()> {
        let mut text = Vec::new();
        let limit = u64::try_from(REPLY_MAX).unwrap_or(u64::MAX);
        let read = BufReader::new(out)
            .take(limit)
            .read_until(b'\n', &mut text)
            .await;
        read.map_err(|e| PortError::failed("cannot hear the guard").because(&e))?;
        match serde_json::from_slice(&text) {
            Ok(Started::Ready) => Ok(()),
            Ok(Started::Failed(problem)) => Err(port_error(problem)),
            Err(_) => {
                let name = &self.spec.name;
                let mut error =
                    PortError::failed(format!("the guard of system {name} ended at once"))
                        .about(self.files.log().display().to_string());
                error.causes = tail(&self.files.log(), 3);
                Err(error)
            }
        }
    }

    /// Ends the guard that has the place; false if it was not found.
    async fn end_guard(&self) -> PortResult<bool> {
        let occupant = || self.files.occupant()?.parse::<i32>().ok();
        let Some(pid) = occupant() else {
            return Ok(false);
        };
        let Some(guard) = Identity::of(pid).filter(|_| occupant() == Some(pid)) else {
            return Ok(false);
        };
        tracing::warn!(pid, "the guard does not answer and is ended");
        guard.kill().await?;
        Ok(true)
    }

    fn open_log(&self) -> io::Result<fs::File> {
        let path = self.files.log();
        let long = fs::metadata(&path).is_ok_and(|m| m.len() > LOG_MAX_BYTES);
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        if long {
            log.set_len(0)?;
        }
        Ok(log)
    }
}

/// Finds our own program. After an upgrade in place it is the new one under the old name.
fn own_program() -> PortResult<PathBuf> {
    let program = std::env::current_exe()
        .map_err(|e| PortError::failed("cannot find our own program").because(&e))?;
    let text: OsString = program.into_os_string();
    match text.to_str().and_then(|t| t.strip_suffix(DELETED)) {
        Some(name) => Ok(PathBuf::from(name)),
        None => Ok(PathBuf::from(text)),
    }
}

#[async_trait]
impl NetworkPort for UserNetwork {
    async fn notes(&self, after: u64) -> Vec<Note> {
        let events = self.guard_events(after).await;
        let sentence = |event: GuardEvent| Note {
            number: event.sequence,
            severity: event.severity,
            text: match event.machine {
                Some(machine) => format!("Guard, {machine}: {}: {}", event.what, event.why),
                None => format!("Guard: {}: {}", event.what, event.why),
            },
        };
        events.into_iter().map(sentence).collect()
    }

    async fn ensure(&self) -> PortResult<()> {
        let _only_one = self.starting.lock().await;
        private_dir(self.paths.root())?;
        GuardConfig::new(self.spec.clone()).store(&self.files)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.ask::<DoorView>(Command::View).await {
                Ok(_) => return Ok(()),
                // One that has the place and does not answer lets no client in and may hold the lease (fault 4): a killed
                // guard is simply started again.
                Err(e) if e.kind == PortErrorKind::TimedOut => {
                    if !self.end_guard().await? {
                        return Err(e.advise("Retry"));
                    }
                }
                Err(e) if e.kind != PortErrorKind::Absent => return Err(e.advise("Retry")),
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => {}
            }
            // One that is just beginning, or just ending, does not answer; it has the place all the same.
            if self.files.occupant().is_none() {
                match self.start().await {
                    Ok(()) => {}
                    Err(e) if self.files.occupant().is_none() => return Err(e),
                    Err(_) => sleep(POLL).await,
                }
            } else {
                sleep(POLL).await;
            }
        }
    }

    async fn shut(&self) -> PortResult<()> {
        let asked = self.call(Command::Shut, CALL_TIMEOUT).await;
        if asked
            .as_ref()
            .is_err_and(|e| e.kind == PortErrorKind::TimedOut)
        {
            self.end_guard().await?;
            self.files.forget_door()?;
        }
        let deadline = Instant::now() + END_TIMEOUT;
        while self.files.occupant().is_some() {
            if Instant::now() >= deadline {
                let late = PortError::timed_out(format!(
                    "the guard of system {} does not end",
                    self.spec.name
                ));
                return Err(asked.err().unwrap_or(late));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn view(&self) -> PortResult<NetworkView> {
        let view: DoorView = self.ask(Command::View).await?;
        Ok(NetworkView {
            open_to: view.open_to,
            held: view.held,
            active: view.active,
            held_ms: view.held_ms,
        })
    }

    async fn hold(&self) -> PortResult<()> {
        self.call(Command::Hold, CALL_TIMEOUT).await.map(drop)
    }

    /// The connections of a guard that has ended are gone.
    async fn drain(&self, bound_ms: u64) -> PortResult<DrainReport> {
        let bound = Duration::from_millis(bound_ms).min(DRAIN_MAX);
        let drained = match self
            .call(Command::Drain { bound_ms }, bound + CALL_TIMEOUT)
            .await
        {
            Ok(value) => serde_json::from_value(value).map_err(|e| {
                error::mismatch("the guard's report of a drain is not one").because(&e)
            })?,
            Err(e) if e.kind == PortErrorKind::Absent => Drained::default(),
            Err(e) => return Err(e),
        };
        Ok(DrainReport {
            quiet: drained.quiet,
            busy: drained.busy,
            took_ms: drained.took_ms,
        })
    }

    /// The connections of a guard that has ended are gone.
    async fn cut(&self) -> PortResult<u64> {
        match self.ask(Command::Cut).await {
            Err(e) if e.kind == PortErrorKind::Absent => Ok(0),
            other => other,
        }
    }

    async fn open(&self, to: MachineId) -> PortResult<u64> {
        self.ask(Command::Open { machine: to }).await
    }

    async fn answers(&self, id: MachineId) -> PortResult<bool> {
        let launch = crate::process::Launch::read(&self.paths.machine(id))?
            .ok_or_else(|| PortError::absent(format!("machine {id} does not run")))?;
        let greeting = async {
            let address = (std::net::Ipv4Addr::LOCALHOST, launch.ssh);
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            // A user-mode network accepts for everybody: only a word of the guest is an answer.
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.ok()?;
            (&word == b"SSH-").then_some(())
        };
        Ok(matches!(timeout(GREETING, greeting).await, Ok(Some(()))))
    }

    async fn bridge(&self) -> PortResult<Option<BridgeFacts>> {
        Ok(None)
    }
}

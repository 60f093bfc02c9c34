//! A QEMU process: started so that it outlives us, recognised again by who it is, ended only as itself.
//!
//! It is never our child: `setsid --fork` leaves it to init in a session of its own. A process id alone
//! proves nothing, for the kernel uses it again; a process is ours when its start time on this boot of the
//! host is the recorded one and its command line bears our token. Signals go through a pidfd that was opened
//! before that check, so they cannot reach a successor.

use crate::error;
use crate::layout::Accelerator;
use crate::paths::{MachinePaths, write_atomically};
use flipside_model::MachineId;
use flipside_platform::{PortError, PortResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use uuid::Uuid;

/// The score the kernel's out-of-memory killer subtracts: a machine that serves users goes after everything
/// that can be started again, yet before the system's own services.
const OOM_SCORE_ADJ: &str = "-500";

/// How long a killed process may take to go. It ends at once unless a system call on hung storage holds it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `setsid` may take to fork.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells one process from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks from the host's boot to its start.
    pub(crate) start: u64,
    /// Which boot of the host.
    pub(crate) boot: String,
}

/// How a machine process was started; the content of `launch.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) version: u32,
    pub(crate) machine: MachineId,
    pub(crate) uuid: Uuid,
    /// The name given to the process; holds a random token.
    pub(crate) name: String,
    pub(crate) accelerator: Accelerator,
    pub(crate) cpu: String,
    /// Host port by guest port on the production card.
    pub(crate) forwards: BTreeMap<u16, u16>,
    /// Host port of the guest's SSH on the private card.
    pub(crate) ssh: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) argv: Vec<String>,
    /// Recorded once the process is known; a crash in between leaves it out.
    pub(crate) process: Option<Identity>,
}

impl Launch {
    pub(crate) const VERSION: u32 = 1;

    /// Reads `launch.json`; none when there is none.
    pub(crate) fn read(paths: &MachinePaths) -> PortResult<Option<Self>> {
        let path = paths.launch();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error::file(&e, "read", &path)),
        };
        let launch: Launch = serde_json::from_slice(&bytes)
            .map_err(|e| error::mismatch(format!("`{}` is damaged", path.display())).because(&e))?;
        if launch.version != Self::VERSION {
            return Err(error::mismatch(format!(
                "`{}` has version {}, this flipside reads version {}",
                path.display(),
                launch.version,
                Self::VERSION
            ))
            .advise("Use the version of flipside that started the machine, or a later one"));
        }
        Ok(Some(launch))
    }

    /// Writes `launch.json`.
    pub(crate) fn write(&self, paths: &MachinePaths) -> PortResult<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| PortError::failed("cannot write down a launch").because(&e))?;
        write_atomically(&paths.launch(), &bytes)
    }

    /// Finds the process that was started so, if it lives.
    pub(crate) fn find(&self) -> Option<Identity> {
        match &self.process {
            Some(known) => {
                (known.is_alive() && bears(known.pid, &self.name)).then(|| known.clone())
            }
            None => processes()
                .find_map(|pid| bears(pid, &self.name).then(|| Identity::of(pid)).flatten()),
        }
    }
}

impl Identity {
    /// Identifies a running process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        Some(Self {
            pid,
            start,
            boot: host_boot()?,
        })
    }

    /// Says whether this very process still runs. A zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Kills this very process and waits until it is gone.
    pub(crate) async fn kill(&self) -> PortResult<()> {
        let Some(handle) = self.handle()? else {
            return Ok(());
        };
        match rustix::process::pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => {
                return Err(
                    PortError::failed(format!("cannot end process {}", self.pid))
                        .because(&io::Error::from(e)),
                );
            }
        }
        if gone(handle, KILL_TIMEOUT).await? {
            return Ok(());
        }
        Err(PortError::timed_out(format!(
            "process {} was killed and is still there after {} s",
            self.pid,
            KILL_TIMEOUT.as_secs()
        ))
        .advise("It waits for storage of the host that does not answer"))
    }

    /// Waits until this process is gone; false when it is still there after the time-out.
    pub(crate) async fn wait_gone(&self, timeout: Duration) -> PortResult<bool> {
        match self.handle()? {
            Some(handle) => gone(handle, timeout).await,
            None => Ok(true),
        }
    }

    /// Opens a handle to the process, and only then checks that it is the one meant.
    fn handle(&self) -> PortResult<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(self.is_alive().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(
                PortError::failed(format!("cannot reach process {}", self.pid))
                    .because(&io::Error::from(e)),
            ),
        }
    }
}

/// Waits for the end that a pidfd announces; false when it did not come in time.
async fn gone(handle: OwnedFd, timeout: Duration) -> PortResult<bool> {
    let failed = |e: io::Error| PortError::failed("cannot wait for a process").because(&e);
    let limit = Timespec::try_from(timeout).map_err(|e| failed(io::Error::other(e)))?;
    let wait = move || loop {
        let mut polled = [PollFd::new(&handle, PollFlags::IN)];
        match poll(&mut polled, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    };
    let polled = tokio::task::spawn_blocking(wait).await;
    let polled = polled.map_err(|e| failed(io::Error::other(e)))?;
    polled.map(|ready| ready > 0).map_err(|e| failed(e.into()))
}

/// Names the boot of this host.
pub(crate) fn host_boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Reads state and start time. The name in parentheses may hold anything, so reading begins after its end.
fn stat(pid: i32) -> Option<(char, u64)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = line.get(line.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Start time is field 22; state is field 3.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn command_line(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|b| *b == 0);
    Some(
        words
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect(),
    )
}

fn named(words: &[String]) -> Option<&str> {
    let at = words.iter().position(|w| w == "-name")?;
    let value = words.get(at + 1)?.strip_prefix("guest=")?;
    value.split(',').next()
}

/// Other users' processes can bear any words.
fn own(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ours = rustix::process::geteuid().as_raw();
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == ours)
}

fn bears(pid: i32, name: &str) -> bool {
    own(pid) && command_line(pid).is_some_and(|words| named(&words) == Some(name))
}

/// Says whether a process of ours was given this setting, `NAME=value`, or inherited it.
pub(crate) fn environment_has(pid: i32, setting: &[u8]) -> bool {
    let environment = || fs::read(format!("/proc/{pid}/environ")).ok();
    own(pid) && environment().is_some_and(|all| all.split(|b| *b == 0).any(|one| one == setting))
}

/// Lists all processes of the host.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Finds the machines of a system among all processes of the host, whoever started them: name and uuid count.
pub(crate) fn running_machines(system: &str, uuid: Uuid) -> Vec<(MachineId, Identity)> {
    let uuid = uuid.to_string();
    let machine = |pid: i32| {
        let words = command_line(pid)?;
        let mut parts = named(&words)?.split(':');
        let ours = own(pid) && parts.next()? == system && words.contains(&uuid);
        let id = MachineId(parts.next()?.strip_prefix('m')?.parse().ok()?);
        // `setsid` bears the same words for a moment; QEMU is what counts.
        let program = Path::new(words.first()?).file_name()?.to_str()?;
        (ours && program.starts_with("qemu")).then(|| Some((id, Identity::of(pid)?)))?
    };
    processes().filter_map(machine).collect()
}

/// Starts QEMU detached from us. Returns once it is on its own; whether it lives is seen by talking to it.
pub(crate) async fn spawn(program: &Path, argv: &[String], log: &Path) -> PortResult<()> {
    let open = |path: &Path| {
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    };
    let out = open(log).map_err(|e| error::file(&e, "write", log))?;
    let err = out.try_clone().map_err(|e| error::file(&e, "write", log))?;
    let mut command = tokio::process::Command::new("setsid");
    command
        .arg("--fork")
        .arg(program)
        .args(argv)
        // Nothing of the server's environment is the machine's business.
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let failed = |e: &io::Error| {
        PortError::failed(format!("cannot start `{}`", program.display()))
            .because(e)
            .advise("Install QEMU 7.2 or later (Debian: qemu-system-x86) and util-linux")
    };
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    let ended = tokio::time::timeout(FORK_TIMEOUT, child.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(PortError::failed(format!(
            "cannot start `{}`: setsid ended with {status}",
            program.display()
        ))),
        Ok(Err(e)) => Err(failed(&e)),
        Err(_) => Err(PortError::timed_out("starting QEMU did not return in time")),
    }
}

/// Settles a started process: no core dumps (they would hold the guest's memory), and a low rank among the
/// victims of an out-of-memory kill. Both are best effort; what failed is returned as a warning.
pub(crate) fn settle(identity: &Identity) -> Vec<String> {
    let mut warnings = Vec::new();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(e) = rustix::process::prlimit(Pid::from_raw(identity.pid), Resource::Core, none) {
        warnings.push(format!("core dumps could not be turned off: {e}"));
    }
    let path = format!("/proc/{}/oom_score_adj", identity.pid);
    if let Err(e) = fs::write(&path, OOM_SCORE_ADJ) {
        warnings.push(format!(
            "the machine is not protected from the out-of-memory killer: {e}"
        ));
    }
    warnings
}

/// Returns the last lines of a log for an error message, without control characters.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let Ok(bytes) = fs::read(path) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let clean = |line: &str| {
        let shown = line.chars().filter(|c| !c.is_control());
        shown.take(400).collect::<String>()
    };
    let all: Vec<String> = text.lines().map(clean).filter(|l| !l.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_start_time_not_its_number() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let me = Identity::of(own).expect("running");
        assert!(me.is_alive());
        for other in [
            Identity {
                start: me.start + 1,
                ..me.clone()
            },
            Identity {
                boot: "another".into(),
                ..me.clone()
            },
            Identity {
                pid: 0,
                ..me.clone()
            },
        ] {
            assert!(!other.is_alive());
        }
    }

    #[tokio::test]
    async fn killing_a_successor_is_refused() {
        let mut child = tokio::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let pid = i32::try_from(child.id().expect("running")).expect("fits");
        let real = Identity::of(pid).expect("running");
        let older = Identity {
            start: real.start - 1,
            ..real.clone()
        };
        older.kill().await.expect("absent is done");
        assert!(real.is_alive());
        real.kill().await.expect("killed");
        assert!(!real.is_alive(), "a zombie does not run");
        child.wait().await.expect("reaped");
    }

    #[test]
    fn names_are_read_from_command_lines() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            named(&words("qemu -name guest=web:m1:tok,debug-threads=on -S")),
            Some("web:m1:tok")
        );
        for other in ["qemu", "qemu -name", "qemu -name web"] {
            assert_eq!(named(&words(other)), None);
        }
    }
}

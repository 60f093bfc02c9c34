//! Processes of the demo: recognised by who they are, ended only as themselves.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Often enough to lose no time, seldom enough to cost none.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A killed process goes at once, unless a system call on hung storage holds it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A process id alone proves nothing, for the kernel uses it again; with the start time it is one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    /// Clock ticks from the host's boot to its start.
    start: u64,
}

impl Process {
    /// Identifies a running process.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start })
    }

    /// Reads a file that holds a process id, and identifies the process if its command line names `dir`.
    pub(super) fn from_pid_file(file: &Path, dir: &Path) -> Option<Self> {
        let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        Self::of(pid).filter(|process| process.names(dir))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Says whether this very process still runs.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Says whether its command line holds the path of a directory, or of something in it.
    pub(super) fn names(&self, dir: &Path) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        holds_path(&line, dir)
    }

    /// Ends it: asks, waits for `grace`, then kills. False when it is still there.
    pub(super) async fn end(&self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        if self.gone(grace).await {
            return true;
        }
        self.signal(Signal::KILL);
        self.gone(KILL_TIMEOUT).await
    }

    /// The handle is opened before the check, so the signal cannot reach a successor.
    fn signal(&self, signal: Signal) {
        let Some(handle) = Pid::from_raw(self.pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .filter(|_| self.is_alive())
        else {
            return;
        };
        // What is gone meanwhile needs no signal; what may not be signalled is found still running.
        let _ = pidfd_send_signal(&handle, signal);
    }

    async fn gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// The name in parentheses may hold anything, so reading begins after its end.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Start time is field 22; state is field 3.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The path must end where it ends: `/a/demo` is not in `/a/demo2`.
fn holds_path(line: &[u8], dir: &Path) -> bool {
    let path = dir.as_os_str().as_encoded_bytes();
    !path.is_empty()
        && line.windows(path.len()).enumerate().any(|(at, window)| {
            window == path
                && line
                    .get(at + path.len())
                    .is_none_or(|next| !next.is_ascii_alphanumeric() && !b"._-".contains(next))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_start_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(stat), Some(('S', 4711)));
        assert_eq!(parse_stat("nothing"), None);
    }

    #[test]
    fn a_directory_is_not_another_one_that_begins_like_it() {
        let dir = Path::new("/x/demo");
        assert!(holds_path(b"qemu\0file=/x/demo/a.raw,on\0", dir));
        assert!(holds_path(b"serve\0--state-dir\0/x/demo\0", dir));
        assert!(holds_path(b"/x/demo2 /x/demo,", dir));
        for other in [&b"/x/demo2\0"[..], b"/x/demo-2/a", b"/x/demo.raw", b""] {
            assert!(!holds_path(other, dir));
        }
    }

    #[tokio::test]
    async fn only_the_very_process_is_ended() {
        let mut child = tokio::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let pid = i32::try_from(child.id().expect("running")).expect("fits");
        let real = Process::of(pid).expect("running");
        let older = Process {
            start: real.start - 1,
            ..real.clone()
        };
        assert!(older.end(Duration::ZERO).await && real.is_alive());
        assert!(real.end(Duration::from_secs(5)).await && !real.is_alive());
        child.wait().await.expect("reaped");
    }
}

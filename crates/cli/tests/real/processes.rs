//! The processes of one state directory: found by its path in their command line, so that nobody else's is touched.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A killed process goes at once.
const GONE: Duration = Duration::from_secs(10);

/// Says whether the command line of a process names this directory.
pub(crate) fn names(pid: i32, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let dir = dir.as_os_str().as_bytes();
    line.windows(dir.len()).any(|part| part == dir)
}

/// Says whether a process runs; one that is dead but not reaped does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn pid_in(file: &Path, dir: &Path) -> Option<i32> {
    let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (runs(pid) && names(pid, dir)).then_some(pid)
}

/// The running machines of the system in this state directory: number and process id.
pub(crate) fn machines(dir: &Path) -> BTreeMap<u32, i32> {
    folders(dir)
        .into_iter()
        .filter_map(|(id, folder)| Some((id, pid_in(&folder.join("pid"), dir)?)))
        .collect()
}

/// The machines of a divided system: the Production Side's, which is the older one, and the Upgrade Side's.
#[track_caller]
pub(crate) fn sides(dir: &Path) -> [i32; 2] {
    let machines = machines(dir);
    let [production, upgrade] = machines.values().copied().collect::<Vec<_>>()[..] else {
        panic!("a divided system has two machines: {machines:?}");
    };
    [production, upgrade]
}

/// The folders of machines, running or not.
pub(crate) fn folders(dir: &Path) -> BTreeMap<u32, PathBuf> {
    let system = dir.join("systems").join(super::NAME);
    let entries = std::fs::read_dir(system).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = name.to_str()?.strip_prefix('m')?.parse().ok()?;
            Some((id, entry.path()))
        })
        .collect()
}

/// The guard.
pub(crate) fn guard(dir: &Path) -> Option<i32> {
    let file = dir.join("systems").join(super::NAME).join("guard.pid");
    pid_in(&file, dir)
}

/// Kills one process of this state directory.
pub(crate) fn kill(pid: i32, dir: &Path) {
    let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return;
    };
    // The handle is opened before the check, so the signal cannot reach a successor.
    if names(pid, dir) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
    super::until("a killed process is gone", GONE, || {
        (!runs(pid)).then_some(())
    });
}

/// Kills the guard and every machine of this state directory. Panics nowhere, for it runs in a panic too.
pub(crate) fn end_all(dir: &Path) {
    let deadline = std::time::Instant::now() + GONE;
    loop {
        let left: Vec<i32> = guard(dir)
            .into_iter()
            .chain(machines(dir).into_values())
            .collect();
        if left.is_empty() || std::time::Instant::now() >= deadline {
            break;
        }
        for pid in left {
            let handle = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
            if let Some(Ok(handle)) = handle
                && names(pid, dir)
            {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
        super::moment(Duration::from_millis(20));
    }
}

/// What a process has in memory, in KiB.
#[track_caller]
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let figure = line.and_then(|l| l.trim().split(' ').next()?.parse().ok());
    figure.expect("a figure")
}

/// What a session has left behind in a state directory: folders of machines that do not run, carried bitmaps, memory
/// images and files that were being written.
pub(crate) fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let running = machines(dir);
    let dead = folders(dir)
        .into_iter()
        .filter(|(id, _)| !running.contains_key(id));
    let mut left: Vec<PathBuf> = dead.map(|(_, folder)| folder).collect();
    let system = dir.join("systems").join(super::NAME);
    let named = |folder: &Path, wanted: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path());
        files
            .filter(|path| path.to_str().is_some_and(wanted))
            .collect()
    };
    left.extend(named(&system.join("carried"), &|_| true));
    for folder in [
        &system,
        &dir.join("enclosures/a/mini"),
        &dir.join("enclosures/b/mini"),
    ] {
        left.extend(named(folder, &|name| {
            [".tmp", ".mem", ".fork", ".qcow2"]
                .iter()
                .any(|end| name.ends_with(end))
        }));
    }
    left
}

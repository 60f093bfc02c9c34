//! The legs: who has them open, and whether both hold the same bytes.

use super::processes;
use rustix::fs::{SeekFrom, seek};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Often enough to see a state that lasts; a look costs about a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many bytes are compared at once.
const CHUNK: u64 = 1 << 20;

/// How a process has a file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Read,
    Write,
}

/// The files below `dir/enclosures` that a process has open, and how.
pub(crate) fn open_legs(pid: i32, dir: &Path) -> BTreeMap<PathBuf, Mode> {
    let enclosures = dir.join("enclosures");
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let mut found = BTreeMap::new();
    for entry in entries.into_iter().flatten().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        if !target.starts_with(&enclosures) {
            continue;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        // O_ACCMODE: 0 is for reading only. What was closed meanwhile is not open.
        let Some(flags) = flags else { continue };
        let mode = if flags & 3 == 0 {
            Mode::Read
        } else {
            Mode::Write
        };
        let known = found.entry(target).or_insert(mode);
        *known = (*known).max(mode);
    }
    found
}

/// Who writes to each leg: every process of the host is looked at, not only those that should have it.
fn writers(dir: &Path) -> BTreeMap<PathBuf, BTreeSet<i32>> {
    let mut writers: BTreeMap<PathBuf, BTreeSet<i32>> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A test that damages a leg on purpose is not what is watched.
        if u32::try_from(pid) == Ok(std::process::id()) {
            continue;
        }
        for (leg, mode) in open_legs(pid, dir) {
            if mode == Mode::Write {
                writers.entry(leg).or_default().insert(pid);
            }
        }
    }
    writers
}

/// Looks all the time that no leg is open for writing in two processes at once.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(dir: &Path) -> Self {
        let (stop, looks, seen) =
            <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<Mutex<Vec<_>>>)>::default();
        let ours = (dir.to_owned(), stop.clone(), looks.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let (dir, stop, looks, seen) = ours;
            // While a system is being made its legs belong to nobody: the server and `qemu-img` fill them together.
            let defined = dir.join("systems").join(super::NAME).join("system.json");
            while !stop.load(Ordering::Acquire) {
                if defined.exists() {
                    seen.lock().expect("no panic").extend(two_writers(&dir));
                }
                looks.fetch_add(1, Ordering::Relaxed);
                super::moment(LOOK_EVERY);
            }
        });
        Self {
            stop,
            looks,
            seen,
            thread,
        }
    }

    /// Fails if ever two processes had one leg open for writing.
    #[track_caller]
    pub(crate) fn all_is_well(&self) {
        let seen = self.seen.lock().expect("no panic").clone();
        assert!(seen.is_empty(), "two writers of one leg: {seen:#?}");
        assert!(self.looks.load(Ordering::Relaxed) > 0);
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

/// Finds legs with two writers. Processes are looked at one after the other, so the first is looked at again: only
/// what it still has open then was open in both at once.
fn two_writers(dir: &Path) -> Vec<String> {
    let first = writers(dir);
    let suspects = first.into_iter().filter(|(_, pids)| pids.len() > 1);
    suspects
        .filter_map(|(leg, pids)| {
            let writes = |pid: &&i32| open_legs(**pid, dir).get(&leg) == Some(&Mode::Write);
            let still: Vec<String> = pids.iter().filter(writes).map(|pid| who(*pid)).collect();
            (still.len() > 1).then(|| format!("{}: {}", leg.display(), still.join(", ")))
        })
        .collect()
}

fn who(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let machine = line.split("/systems/mini/").nth(1).unwrap_or(&line);
    format!(
        "{pid} ({})",
        machine.split([' ', '/', ',']).next().unwrap_or("")
    )
}

/// The legs that each machine of this state directory has open.
pub(crate) fn by_machine(dir: &Path) -> BTreeMap<u32, BTreeMap<PathBuf, Mode>> {
    processes::machines(dir)
        .into_iter()
        .map(|(id, pid)| (id, open_legs(pid, dir)))
        .collect()
}

/// Fails unless both files hold the same bytes; returns how many were read. Holes on both sides are skipped.
#[track_caller]
pub(crate) fn identical(a: &Path, b: &Path) -> u64 {
    let open = |path: &Path| {
        let file = File::open(path).expect("a leg");
        let length = file.metadata().expect("a leg").len();
        (file, length)
    };
    let ((left, length), (right, other)) = (open(a), open(b));
    assert_eq!(length, other, "{} and {}", a.display(), b.display());
    let (mut one, mut two) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let (mut at, mut compared) = (0, 0);
    while let Some(from) = next_data(&left, at, length)
        .into_iter()
        .chain(next_data(&right, at, length))
        .min()
    {
        let from = from / CHUNK * CHUNK;
        let count = CHUNK.min(length - from) as usize;
        left.read_exact_at(&mut one[..count], from).expect("read");
        right.read_exact_at(&mut two[..count], from).expect("read");
        if one[..count] != two[..count] {
            let same = one.iter().zip(&two).take_while(|(l, r)| l == r).count();
            panic!(
                "{} and {} differ at byte {}; all of them: {:?}",
                a.display(),
                b.display(),
                from + same as u64,
                differences(&left, &right, length)
            );
        }
        compared += count as u64;
        at = from + count as u64;
    }
    compared
}

/// The blocks of 64 KiB that differ, the first of them.
fn differences(left: &File, right: &File, length: u64) -> Vec<u64> {
    let (mut one, mut two) = (vec![0; 65536], vec![0; 65536]);
    (0..length / 65536)
        .filter(|block| {
            left.read_exact_at(&mut one, block * 65536).expect("read");
            right.read_exact_at(&mut two, block * 65536).expect("read");
            one != two
        })
        .take(40)
        .collect()
}

fn next_data(file: &File, at: u64, length: u64) -> Option<u64> {
    if at >= length {
        return None;
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(found) => (found < length).then_some(found),
        Err(rustix::io::Errno::NXIO) => None,
        // A file system that knows no holes has data everywhere.
        Err(_) => Some(at),
    }
}

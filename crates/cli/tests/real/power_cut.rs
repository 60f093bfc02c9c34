//! The power is cut at flushes all through a session: what users were promised is on the authority leg.
//!
//! The legs that every power cut falls back to (A, of both disks) are opened through QEMU's `blklogwrites`. Afterwards
//! the log is replayed: at a flush the leg holds at least what was flushed; of what is written until the next flush any
//! sectors may have arrived. Each image is repaired by e2fsck as a boot would, and read. Faults 6 and 7, invariant 8.

use crate::real::figures::Figures;
use crate::real::write_log::{self, Replay};
use crate::real::{Lab, NAME, images, moment};
use crate::{MARK, merge, split};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many boundaries of the data leg are looked at, each with one image more of a cut after it.
const LOOK_AT: u64 = 100;

/// The system leg is larger, and only its file system can be checked.
const LOOK_AT_SYSTEM: u64 = 20;

/// Between two notes of what was promised by then.
const NOTE_EVERY: Duration = Duration::from_millis(200);

/// Where the file system of the system disk begins.
const PARTITION: u64 = 1024 * 1024;

/// What was promised at the moment when so many entries were in the log.
#[derive(Clone, Copy)]
struct Promise {
    acknowledged: usize,
    entries: u64,
}

fn log_of(dir: &Path, disk: &str) -> PathBuf {
    dir.join(format!("{disk}.writes"))
}

fn chain(dir: &Path) -> String {
    let mut chain = serde_json::Map::new();
    for disk in ["system0", "data0"] {
        let path = log_of(dir, disk);
        write_log::create(&path);
        let node = json!({
            "driver": "blklogwrites",
            "log": { "driver": "file", "filename": path },
            "log-append": true,
        });
        chain.insert(format!("{disk}/A"), node);
    }
    serde_json::Value::Object(chain).to_string()
}

/// Repairs a file system as a boot does, and checks it.
fn repaired(image: &Path) -> Result<(), String> {
    for (how, most) in [("-fp", 1), ("-fn", 0)] {
        let output = Command::new("e2fsck").arg(how).arg(image).output();
        let output = output.expect("e2fsck, of e2fsprogs");
        if output.status.code().is_none_or(|code| code > most) {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(format!("e2fsck {how}: {}\n{said}", output.status));
        }
    }
    Ok(())
}

/// The keys in the users' file of a data disk, in the order of their numbers.
fn keys(image: &Path) -> Result<Vec<String>, String> {
    let mut command = Command::new("debugfs");
    let command = command.args(["-R", "cat /writes.log"]).arg(image);
    let output = command.stderr(Stdio::null()).output().expect("debugfs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut keys = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let number = words.next().and_then(|n| n.parse::<usize>().ok());
        // A line that nobody was promised may be torn; nothing may follow it.
        if number != Some(keys.len() + 1) {
            break;
        }
        keys.push(words.next().unwrap_or("").to_owned());
    }
    Ok(keys)
}

/// Notes all the time what was promised by when.
fn notary(lab: &Lab, stop: &Arc<AtomicBool>, notes: &Arc<Mutex<Vec<Promise>>>) {
    let (log, client) = (log_of(&lab.dir, "data0"), lab.client());
    while !stop.load(Ordering::Acquire) {
        // In this order: what is acknowledged now is in the entries that are read after it.
        let acknowledged = client.acknowledged().len();
        let entries = write_log::entries(&log);
        notes.lock().expect("whole").push(Promise {
            acknowledged,
            entries,
        });
        moment(NOTE_EVERY);
    }
}

/// Checks one image: its file system, and that the first `promised` of the users' keys are in its file.
fn holds(image: &Path, promised: &[String]) -> Result<(), String> {
    repaired(image)?;
    let there: std::collections::HashSet<String> = keys(image)?.into_iter().collect();
    let lost: Vec<&String> = promised.iter().filter(|k| !there.contains(*k)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} of {} are lost: {lost:?}",
        lost.len(),
        promised.len()
    ))
}

/// Looks at the data leg; returns how many images were checked.
fn data_leg(lab: &Lab, notes: &[Promise], keys: &[String], before: &Path) -> usize {
    let log = log_of(&lab.dir, "data0");
    let (base, cut) = (lab.dir.join("base.img"), lab.dir.join("cut.img"));
    let mut replay = Replay::new(&log, before, &base, 42);
    let every = (flushes(&log, before, &base) / LOOK_AT).max(1);
    let (mut seen, mut checked, mut most) = (0, 0, 0);
    while replay.next_flush() {
        seen += 1;
        if seen % every != 0 {
            continue;
        }
        let promised = notes.iter().filter(|n| n.entries <= replay.done());
        let promised = promised.map(|n| n.acknowledged).max().unwrap_or(0);
        most = most.max(promised);
        for torn in [false, true] {
            if torn {
                replay.cut(&cut, u64::MAX);
            } else {
                write_log::sparse_copy(&base, &cut);
            }
            if let Err(why) = holds(&cut, &keys[..promised]) {
                panic!("flush {seen} of data0, torn {torn}: {why}");
            }
            checked += 1;
        }
    }
    assert!(most > 20, "only {most} promises were looked for");
    checked
}

fn flushes(log: &Path, before: &Path, image: &Path) -> u64 {
    let mut replay = Replay::new(log, before, image, 1);
    let mut count = 0;
    while replay.next_flush() {
        count += 1;
    }
    write_log::sparse_copy(before, image);
    count
}

/// Looks at the system leg until the commit, when it becomes the one that is rewritten.
fn system_leg(lab: &Lab, until: u64, before: &Path) -> usize {
    let log = log_of(&lab.dir, "system0");
    let (base, cut) = (lab.dir.join("base.img"), lab.dir.join("cut.img"));
    let partition = lab.dir.join("partition.img");
    let every = (flushes(&log, before, &base) / LOOK_AT_SYSTEM).max(1);
    let mut replay = Replay::new(&log, before, &base, 43);
    let (mut seen, mut checked) = (0, 0);
    while replay.next_flush() && replay.done() <= until {
        seen += 1;
        if seen % every == 0 {
            // After the commit this leg is the one that is rewritten.
            replay.cut(&cut, until);
            write_log::sparse_copy_from(&cut, PARTITION, &partition);
            if let Err(why) = repaired(&partition) {
                panic!("flush {seen} of system0: {why}");
            }
            checked += 1;
        }
    }
    checked
}

#[test]
fn a_power_cut_at_any_flush_loses_nothing() {
    let Some(folder) = images() else { return };
    let Some(mut lab) = Lab::booted_with(|dir| Some(chain(dir))) else {
        return;
    };
    let mut figures = Figures::default();
    let (stop, notes) = (Arc::default(), Arc::default());
    let until = std::thread::scope(|scope| {
        scope.spawn(|| notary(&lab, &stop, &notes));
        split(&lab, &mut figures);
        lab.sh(None, MARK);
        merge(&lab, &mut figures);
        let until = write_log::entries(&log_of(&lab.dir, "system0"));
        lab.ok(&["commit", NAME, "--yes"]);
        lab.finish();
        stop.store(true, Ordering::Release);
        until
    });
    let keys = lab.client().acknowledged();
    lab.stop_and_compare();
    let notes = notes.lock().expect("whole").clone();
    let data = data_leg(&lab, &notes, &keys, &folder.join("mini-data.raw"));
    lab.note(&format!(
        "data0: {data} images of power cuts are whole, with all that was promised"
    ));
    let system = system_leg(&lab, until, &folder.join("mini.raw"));
    lab.note(&format!("system0: {system} images of power cuts are whole"));
    assert!(data >= 100 && system >= 5, "too few");
}

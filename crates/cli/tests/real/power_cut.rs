//! The power is cut at flushes all through a session: what users were promised is on the authority leg.
//!
//! The legs that every power cut falls back to (A, of both disks) are opened through QEMU's `blklogwrites`. Afterwards
//! the log is replayed: at a flush the leg holds at least what was flushed; of what is written until the next flush any
//! sectors may have arrived. Each image is repaired by e2fsck as a boot would, and read. The same is done with the file
//! system that holds the journal and the leg book. Faults 6 and 7, invariants 8, 10 and 17.

use crate::real::figures::Figures;
use crate::real::state_disk::{Mounted, StateDisk};
use crate::real::write_log::{self, Replay};
use crate::real::{Extras, Lab, NAME, images, moment};
use crate::{MARK, merge, split};
use flipside_journal::{FileStorage, Journal};
use flipside_model::LegBook;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many boundaries of the data leg are looked at, each with one image more of a cut after it.
const LOOK_AT: u64 = 100;

/// The system leg is larger, and only its file system can be checked.
const LOOK_AT_SYSTEM: u64 = 20;

/// So many boundaries of the file system of the journal are looked at, each with one image more of a cut after it.
const LOOK_AT_STATE: u64 = 90;

/// A night looks at more of them: `FLIPSIDE_POWER_CUTS` is the factor.
fn look_at(boundaries: u64) -> u64 {
    let factor = std::env::var("FLIPSIDE_POWER_CUTS");
    boundaries * factor.map_or(1, |text| text.parse().expect("a whole number"))
}

/// Between two notes of what was promised by then.
const NOTE_EVERY: Duration = Duration::from_millis(200);

/// Where the file system of the system disk begins.
const PARTITION: u64 = 1024 * 1024;

/// What was promised at the moment when so many entries were in the logs.
#[derive(Clone, Copy)]
struct Promise {
    acknowledged: usize,
    entries: u64,
    /// The last record of the session that a client was shown, and the generation of the leg book.
    record: u64,
    book: u64,
    state_entries: u64,
}

fn log_of(dir: &Path, disk: &str) -> PathBuf {
    dir.join(format!("{disk}.writes"))
}

fn extras(dir: &Path) -> Extras {
    let missing = StateDisk::missing();
    if let Some(why) = &missing {
        println!("skipped: power cuts of the journal's file system: {why}");
    }
    Extras {
        chain: Some(chain(dir)),
        state_disk: missing
            .is_none()
            .then(|| StateDisk::mounted(dir, &dir.join("systems"))),
        ..Extras::default()
    }
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
    let check = |how: &[&str]| {
        let output = Command::new("e2fsck").args(how).arg(image).output();
        let output = output.expect("e2fsck, of e2fsprogs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = format!("e2fsck {how:?}: {}\n{said}", output.status);
        (output.status.code().unwrap_or(i32::MAX), told)
    };
    let (mut code, mut told) = check(&["-fp"]);
    if code == UNREADABLE {
        // ext4 takes a block of its own for whole, and this tear went through the superblock: it has copies for that. What
        // users were promised must be there all the same.
        (code, told) = check(&["-fy", "-b", SECOND_SUPERBLOCK, "-B", BLOCK]);
    }
    if code > 1 {
        return Err(told);
    }
    let (code, told) = check(&["-fn"]);
    if code == 0 { Ok(()) } else { Err(told) }
}

/// What e2fsck ends with when it finds no superblock that it may use by itself.
const UNREADABLE: i32 = 8;

/// The block size of the small guest's data disk, and where its first copy of the superblock is.
const BLOCK: &str = "1024";
const SECOND_SUPERBLOCK: &str = "8193";

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

/// Reads a leg book in a folder of the system's state, which it must be whole in whenever it is read.
fn book_in(system: &Path) -> Result<LegBook, String> {
    let bytes = std::fs::read(system.join("legs.json")).map_err(|e| format!("legs.json: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("legs.json: {e}"))
}

/// Notes all the time what was promised by when.
fn notary(lab: &Lab, stop: &Arc<AtomicBool>, notes: &Arc<Mutex<Vec<Promise>>>) {
    let (log, client) = (log_of(&lab.dir, "data0"), lab.client());
    let state_log = lab.state_disk.as_ref().map(StateDisk::log);
    let system = lab.dir.join("systems").join(NAME);
    let (mut pending, mut book) = (None, 0);
    while !stop.load(Ordering::Acquire) {
        // In this order: what is acknowledged now is in the entries that are read after it.
        let acknowledged = client.acknowledged().len();
        let seen = book_in(&system).expect("it is whole").generation;
        let record = lab.status().last_seq;
        // A book that could be seen is durable once a record was written after it.
        let (at, generation) = *pending.get_or_insert((record, seen));
        if record > at {
            (pending, book) = (None, generation);
        }
        notes.lock().expect("whole").push(Promise {
            acknowledged,
            entries: write_log::entries(&log),
            record,
            book,
            state_entries: state_log.as_deref().map_or(0, write_log::entries),
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
    let every = (flushes(&log, before, &base) / look_at(LOOK_AT)).max(1);
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
    let every = (flushes(&log, before, &base) / look_at(LOOK_AT_SYSTEM)).max(1);
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

/// Every record of a journal, with its number.
fn records(folder: &Path) -> Result<Vec<(u64, Value)>, String> {
    let storage = FileStorage::open(folder).map_err(|e| e.to_string())?;
    let (_, opened) = Journal::<Value>::open(storage).map_err(|e| e.to_string())?;
    let entries = opened.records.into_iter();
    Ok(entries.map(|entry| (entry.seq, entry.record)).collect())
}

/// What a power cut left of the state: a true beginning of the journal with all that was shown, and a whole leg book.
fn state_holds(image: &Path, promised: (u64, u64), whole: &[(u64, Value)]) -> Result<(), String> {
    let at = image.with_extension("mounted");
    let mounted = Mounted::new(image, &at)?;
    let system = at.join(NAME);
    let journal = records(&system.join("journal"))?;
    if !whole.starts_with(&journal) {
        return Err(format!("the journal is another one: {journal:?}"));
    }
    let last = journal.last().map_or(0, |(seq, _)| *seq);
    let book = book_in(&system)?.generation;
    drop(mounted);
    if last < promised.0 || book < promised.1 {
        return Err(format!(
            "record {last} and leg book {book} are there, {promised:?} were promised"
        ));
    }
    Ok(())
}

/// Looks at the file system of the journal and the leg book; returns how many images were checked.
fn state(lab: &Lab, disk: &StateDisk, notes: &[Promise], whole: &[(u64, Value)]) -> usize {
    let (base, cut) = (lab.dir.join("base.img"), lab.dir.join("cut.img"));
    let mut replay = Replay::new(&disk.log(), &disk.before(), &base, 44);
    let (mut seen, mut checked, mut most) = (0, 0, (0, 0));
    let from = notes.first().map_or(0, |note| note.state_entries);
    // The unmounting at the end is the test's own: ext4 writes its superblock in place then, which half a sector spoils.
    let until = notes.last().map_or(0, |note| note.state_entries);
    let every = (flushes(&disk.log(), &disk.before(), &base) / look_at(LOOK_AT_STATE)).max(1);
    while replay.next_flush() && replay.done() <= until {
        seen += 1;
        // Before the first note the system was being created.
        if seen % every != 0 || replay.done() < from {
            continue;
        }
        let by_then = notes.iter().filter(|n| n.state_entries <= replay.done());
        let promised = by_then.fold((0, 0), |(r, b), n| (n.record.max(r), n.book.max(b)));
        most = promised;
        for torn in [false, true] {
            if torn {
                replay.cut(&cut, until);
            } else {
                write_log::sparse_copy(&base, &cut);
            }
            if let Err(why) = state_holds(&cut, promised, whole) {
                panic!("flush {seen} of the state, torn {torn}: {why}");
            }
            checked += 1;
        }
    }
    lab.note(&format!("of {seen} flushes; promised at last: {most:?}"));
    assert!(most.0 > 40 && most.1 > 4, "only {most:?} was looked for");
    checked
}

#[test]
fn a_power_cut_at_any_flush_loses_nothing() {
    let Some(folder) = images() else { return };
    let Some(mut lab) = Lab::booted_with(extras) else {
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
    let Some(mut disk) = lab.state_disk.take() else {
        return;
    };
    lab.end();
    let system = lab.dir.join("systems").join(NAME);
    let whole = records(&system.join("journal")).expect("the journal is whole");
    disk.unmount();
    let images = state(&lab, &disk, &notes, &whole);
    lab.note(&format!("state: {images} images of power cuts are whole"));
    assert!(images >= 100, "too few");
}

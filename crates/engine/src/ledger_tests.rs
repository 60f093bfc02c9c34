use super::*;
use flipside_journal::{ABORT_RESERVE, Fault, MemoryDisk, MemoryStorage};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> i64 {
        1_000
    }
}

/// The ledger of a journal in memory, its disk, and how often it said that the server must end.
struct Desk {
    disk: MemoryDisk,
    ledger: Ledger,
    fatal: Arc<AtomicU32>,
}

fn open(disk: &MemoryDisk) -> Ledger {
    let (journal, opened) = Journal::open(MemoryStorage::new(disk)).expect("opened");
    Ledger::open(journal, opened, Arc::new(Still), Arc::new(|_| {})).expect("replayed")
}

fn desk() -> Desk {
    let disk = MemoryDisk::default();
    drop(Journal::<Stamped>::create(MemoryStorage::new(&disk)).expect("created"));
    let (journal, opened) = Journal::open(MemoryStorage::new(&disk)).expect("opened");
    let fatal = Arc::new(AtomicU32::new(0));
    let ends = Arc::clone(&fatal);
    let end = move |_: &str| {
        ends.fetch_add(1, Ordering::Relaxed);
    };
    let ledger = Ledger::open(journal, opened, Arc::new(Still), Arc::new(end));
    Desk {
        disk,
        ledger: ledger.expect("replayed"),
        fatal,
    }
}

fn log(text: &str) -> Record {
    Record::log(Severity::Information, text)
}

// Invariant 17: each kind of write gets the next number, and the next server finds what this one believed.
#[test]
fn every_record_is_numbered_believed_shown_and_found_again() {
    let Desk { disk, ledger, .. } = desk();
    let mut followed = ledger.follow();
    assert_eq!(ledger.write(log("one")).expect("written"), 1);
    assert_eq!(ledger.write_reserved(log("two")).expect("written"), 2);
    assert_eq!(ledger.fact(Fact::Heard(7)).expect("written"), 3);
    assert_eq!(ledger.log(Severity::Warning, "four").expect("written"), 4);
    let all = ledger.entries_after(0);
    let shown: Vec<Entry> = std::iter::from_fn(|| followed.try_recv().ok()).collect();
    assert_eq!(shown, all);
    let records: Vec<Record> = all.iter().map(|e| e.record.clone()).collect();
    assert_eq!(
        records,
        [
            log("one"),
            log("two"),
            Record::Fact(Fact::Heard(7)),
            Record::log(Severity::Warning, "four"),
        ]
    );
    assert!(all.iter().all(|e| e.at_ms == 1_000));
    assert_eq!(ledger.entries_after(2), all[2..]);
    assert_eq!(ledger.entries_after(4), []);
    assert_eq!(
        (ledger.state().last_seq, ledger.state().facts.heard),
        (4, 7)
    );
    let again = open(&disk);
    assert_eq!(again.entries_after(0), all);
    assert_eq!(again.state(), ledger.state());
}

// Who waits for changes sees each record, and a change of progress as the same number once more.
#[test]
fn watchers_are_told_of_records_and_of_progress() {
    let Desk { ledger, .. } = desk();
    let mut changes = ledger.changes();
    assert!(!changes.has_changed().expect("open"));
    ledger.write(log("one")).expect("written");
    assert!(changes.has_changed().expect("open"));
    assert_eq!(*changes.borrow_and_update(), 1);
    ledger.touch();
    assert!(changes.has_changed().expect("open"));
    assert_eq!(*changes.borrow_and_update(), 1);
}

// Fault 11: a full journal is told as what it is and ends nothing; the reserve still takes the records of an abort.
#[test]
fn a_full_journal_is_told_and_leaves_room_for_an_abort() {
    let Desk {
        disk,
        ledger,
        fatal,
    } = desk();
    disk.set_space(Some(disk.contents().len() as u64 + ABORT_RESERVE));
    let problem = ledger.write(log("one")).expect_err("full");
    assert_eq!(problem.code, ProblemCode::NoSpace);
    assert!(ledger.entries_after(0).is_empty(), "nothing is believed");
    assert_eq!(ledger.state().last_seq, 0);
    assert_eq!(ledger.write_reserved(log("abort")).expect("written"), 1);
    assert_eq!(fatal.load(Ordering::Relaxed), 0);
}

// Fault 12, design 3.11: after a failed sync the server must end, and nothing of the record is believed or shown.
#[test]
fn a_failed_sync_ends_the_server() {
    let Desk {
        disk,
        ledger,
        fatal,
    } = desk();
    let mut followed = ledger.follow();
    let sync = disk.calls() + 3; // reserve, append, sync
    let (kind, written) = (ErrorKind::Other, 0);
    disk.fail_call(sync, Fault { kind, written });
    let problem = ledger.write(log("one")).expect_err("failed");
    assert_eq!(problem.code, ProblemCode::Failed);
    assert_eq!(fatal.load(Ordering::Relaxed), 1);
    assert!(ledger.entries_after(0).is_empty() && followed.try_recv().is_err());
}

// Invariant 12: a record that the law does not allow is neither written nor believed.
#[test]
fn an_illegal_record_is_refused_before_it_is_written() {
    let Desk { disk, ledger, .. } = desk();
    let before = disk.contents();
    let problem = ledger.fact(Fact::Committed).expect_err("outside Commit");
    assert_eq!(problem.code, ProblemCode::Internal);
    assert_eq!(disk.contents(), before);
    assert!(!ledger.state().facts.committed);
}

// A machine that ended is looked for by its successor: the last one of that side that is another one.
#[test]
fn the_machine_before_is_the_last_other_one_of_that_side() {
    let Desk { ledger, .. } = desk();
    let machine = |side, n: Option<u32>| {
        let machine = n.map(MachineId);
        ledger
            .fact(Fact::Machine { side, machine })
            .expect("written");
    };
    assert_eq!(ledger.machine_before(Side::Production, MachineId(1)), None);
    machine(Side::Production, Some(1));
    machine(Side::Upgrade, Some(2));
    machine(Side::Production, None);
    machine(Side::Production, Some(3));
    machine(Side::Upgrade, Some(4));
    let before = |side, n| ledger.machine_before(side, MachineId(n));
    assert_eq!(before(Side::Production, 3), Some(MachineId(1)));
    assert_eq!(before(Side::Production, 9), Some(MachineId(3)));
    assert_eq!(before(Side::Upgrade, 4), Some(MachineId(2)));
    assert_eq!(before(Side::Upgrade, 2), Some(MachineId(4)));
}

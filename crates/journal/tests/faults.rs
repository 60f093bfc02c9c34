//! Failing storage: the first failure is the last write, and what was acknowledged is there afterwards.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::io::ErrorKind;

use common::{Record, history, record, reopen};
use flipside_journal::{
    ABORT_RESERVE, Fault, Journal, JournalError, MAX_LINE_BYTES, MemoryDisk, MemoryStorage,
};

/// An error, and the journal it came from if one could be created.
type Failure = (JournalError, Option<Journal<Record>>);

/// Works until the first error. Returns the number of acknowledged records, and the failure.
fn work(disk: &MemoryDisk) -> (u64, Option<Failure>) {
    let mut journal = match Journal::create(MemoryStorage::new(disk)) {
        Ok(journal) => journal,
        Err(error) => return (0, Some((error, None))),
    };
    let mut acknowledged = 0;
    for n in 1..=8 {
        let result = match n {
            4 => journal.rotate(&record(n)),
            6 => journal.append_reserved(&record(n)),
            _ => journal.append(&record(n)),
        };
        match result {
            Ok(seq) => acknowledged = seq,
            Err(error) => return (acknowledged, Some((error, Some(journal)))),
        }
    }
    (acknowledged, None)
}

/// Fails the Nth call for every N until nothing fails any more, and cuts the power afterwards.
// Faults 11 and 12.
#[test]
fn every_call_may_fail_in_every_way() {
    let kinds = [
        ErrorKind::Other,
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::Interrupted,
    ];
    let mut failures = 0;
    for kind in kinds {
        for written in [0, 1, 20, usize::MAX] {
            let full = matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            if full && written > 0 {
                continue; // The port promises that this does not happen.
            }
            for call in 1.. {
                let disk = MemoryDisk::default();
                disk.fail_call(call, Fault { kind, written });
                let (acknowledged, failure) = work(&disk);
                let what = format!("call {call}, {kind:?}, {written} bytes written");
                let Some((error, journal)) = failure else {
                    // Nothing failed: either the work has fewer calls, or it was a reservation for a reserved append.
                    if disk.calls() < call {
                        break;
                    }
                    assert_eq!(acknowledged, 8, "{what}");
                    continue;
                };
                failures += 1;
                // "Full" is said when nothing has changed, and only then: after a failed sync that is unknown.
                let unsynced = matches!(
                    error,
                    JournalError::Failed {
                        operation: "sync",
                        ..
                    }
                );
                let says_full = matches!(error, JournalError::Full { .. });
                assert_eq!(says_full, full && !unsynced, "{what}: {error}");
                if let Some(mut journal) = journal {
                    stays_dead_or_unharmed(&disk, &mut journal, &error, acknowledged, &what);
                }
                for keep in [0, usize::MAX] {
                    disk.power_cut(keep);
                    match reopen(&disk) {
                        Ok((journal, records)) => {
                            let seq = journal.position().seq;
                            assert!(
                                (acknowledged..=acknowledged + 1).contains(&seq),
                                "{what}: {seq}"
                            );
                            let first = seq + 1 - records.len() as u64;
                            assert!(records.into_iter().eq((first..=seq).map(record)), "{what}");
                        }
                        Err(JournalError::Missing { .. }) => assert_eq!(acknowledged, 0, "{what}"),
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            }
        }
    }
    assert!(failures > 100, "{failures}");
}

fn stays_dead_or_unharmed(
    disk: &MemoryDisk,
    journal: &mut Journal<Record>,
    error: &JournalError,
    acknowledged: u64,
    what: &str,
) {
    assert_eq!(journal.position().seq, acknowledged, "{what}");
    if matches!(error, JournalError::Full { .. }) {
        assert_eq!(journal.poisoned(), None, "{what}");
        assert_eq!(
            journal.append(&record(acknowledged + 1)).unwrap(),
            acknowledged + 1,
            "{what}: may be repeated"
        );
        disk.set_contents(&{
            // Take it back, so that the caller finds what it acknowledged.
            let bytes = disk.contents();
            let end = bytes[..bytes.len() - 1]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            bytes[..end].to_vec()
        });
        return;
    }
    assert!(
        matches!(error, JournalError::Failed { .. }),
        "{what}: {error}"
    );
    assert!(journal.poisoned().is_some(), "{what}");
    let calls = disk.calls();
    let next = record(acknowledged + 1);
    let refusals = [
        journal.append(&next),
        journal.append_reserved(&next),
        journal.append_all(std::slice::from_ref(&next)),
        journal.rotate(&next),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, Err(JournalError::Poisoned { .. })),
            "{what}: {refusal:?}"
        );
    }
    assert_eq!(
        disk.calls(),
        calls,
        "{what}: a poisoned journal must not touch its storage"
    );
}

// Fault 12: fail-stop, and what is there decides.
#[test]
fn a_failed_sync_is_not_repeated_and_the_next_opening_decides() {
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    disk.fail_call(
        disk.calls() + 3,
        Fault {
            kind: ErrorKind::Other,
            written: 0,
        },
    ); // reserve, append, sync
    let error = journal.append(&record(7)).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Failed {
                operation: "sync",
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        journal.append(&record(7)),
        Err(JournalError::Poisoned { .. })
    ));
    disk.power_cut(0);
    assert_eq!(reopen(&disk).unwrap().1.len(), 6);
}

#[test]
fn opening_makes_durable_what_it_returns() {
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    disk.fail_call(
        disk.calls() + 3,
        Fault {
            kind: ErrorKind::Other,
            written: 0,
        },
    );
    journal.append(&record(7)).unwrap_err();
    // The process ends, the machine runs on: the record can be read.
    assert_eq!(reopen(&disk).unwrap().1.len(), 7);
    disk.power_cut(0);
    assert_eq!(
        reopen(&disk).unwrap().1.len(),
        7,
        "somebody may have acted on it"
    );
}

#[test]
fn a_tail_that_cannot_be_cut_off_is_an_error_and_the_next_opening_tries_again() {
    for call in 1..=4 {
        let disk = history(6);
        let whole = disk.contents();
        disk.set_contents(&whole[..whole.len() - 5]);
        disk.fail_call(
            disk.calls() + call,
            Fault {
                kind: ErrorKind::Other,
                written: 0,
            },
        ); // sync, read, truncate, sync
        assert!(
            matches!(reopen(&disk), Err(JournalError::Io { .. })),
            "call {call}"
        );
        assert_eq!(reopen(&disk).unwrap().1.len(), 3, "call {call}");
        disk.power_cut(0);
        assert_eq!(reopen(&disk).unwrap().1.len(), 3, "call {call}");
    }
}

#[test]
fn every_power_cut_in_the_last_append_leaves_all_or_nothing() {
    let before = history(6).contents().len();
    let disk = history(6);
    reopen(&disk)
        .unwrap()
        .0
        .append_all(&[record(7), record(8)])
        .unwrap();
    let len = disk.contents().len() - before;
    for kept in 0..=len {
        let disk = history(6);
        let (mut journal, _) = reopen(&disk).unwrap();
        disk.fail_call(
            disk.calls() + 3,
            Fault {
                kind: ErrorKind::Other,
                written: 0,
            },
        );
        journal.append_all(&[record(7), record(8)]).unwrap_err();
        disk.power_cut(kept);
        assert_eq!(
            reopen(&disk).unwrap().1.len(),
            if kept == len { 8 } else { 6 },
            "{kept} bytes kept"
        );
    }
}

// Fault 11.
#[test]
fn a_full_disk_refuses_work_but_has_room_for_an_abort() {
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    journal.append(&record(7)).unwrap();
    disk.set_space(Some(disk.contents().len() as u64));
    let bytes = disk.contents();
    let error = journal.append(&record(8)).unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(matches!(
        journal.rotate(&record(8)),
        Err(JournalError::Full { .. })
    ));
    assert_eq!(disk.contents(), bytes, "nothing may have been written");

    let mut logged = 0;
    let error = loop {
        match journal.append_reserved(&record(8 + logged)) {
            Ok(_) => logged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(logged >= 1000, "only {logged} records fit into the reserve");
    let used = disk.contents().len() as u64 - bytes.len() as u64;
    assert!(used > ABORT_RESERVE - 200, "{used}");

    disk.set_space(None);
    journal.append(&record(8 + logged)).unwrap();
    assert_eq!(reopen(&disk).unwrap().1.len() as u64, 8 + logged);
}

#[test]
fn records_that_could_not_be_read_again_are_not_written() {
    let disk = MemoryDisk::default();
    let mut journal = Journal::<f64>::create(MemoryStorage::new(&disk)).unwrap();
    let bytes = disk.contents();
    assert!(matches!(
        journal.append(&f64::NAN),
        Err(JournalError::Encode { .. })
    ));
    assert_eq!(disk.contents(), bytes);
    journal.append(&0.1).unwrap();

    let disk = MemoryDisk::default();
    let mut journal = Journal::<String>::create(MemoryStorage::new(&disk)).unwrap();
    let error = journal.append(&"x".repeat(MAX_LINE_BYTES)).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(
        journal.append(&"x".repeat(MAX_LINE_BYTES - 100)).unwrap(),
        1
    );
}

// Fault 8.
#[test]
fn a_record_of_a_newer_program_is_refused_and_kept() {
    let disk = MemoryDisk::default();
    let mut journal = Journal::<serde_json::Value>::create(MemoryStorage::new(&disk)).unwrap();
    journal
        .append(&serde_json::json!({"kind": "invented_later"}))
        .unwrap();
    let bytes = disk.contents();
    let error = reopen(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::NotUnderstood {
                seq: 1,
                line: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(disk.contents(), bytes);
}

#[test]
fn a_rotated_journal_goes_on_from_its_snapshot() {
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    let before = journal.position();
    assert_eq!(journal.rotate(&record(7)).unwrap(), 7);
    assert_eq!(journal.append(&record(8)).unwrap(), 8);
    let (journal, records) = reopen(&disk).unwrap();
    assert_eq!(records, [record(7), record(8)]);
    assert_eq!(
        (journal.position().generation, journal.position().seq),
        (2, 8)
    );
    let header = format!(
        "flipside-journal 1 generation=2 first=7 chain={:08x} ",
        before.chain
    );
    assert!(
        String::from_utf8(disk.contents())
            .unwrap()
            .starts_with(&header)
    );
}

#[test]
fn creating_and_opening_do_not_stand_in_for_each_other() {
    let disk = MemoryDisk::default();
    assert!(matches!(reopen(&disk), Err(JournalError::Missing { .. })));
    let mut journal = Journal::<Record>::create(MemoryStorage::new(&disk)).unwrap();
    assert_eq!(journal.append_all(&[]).unwrap(), 0);
    assert!(matches!(
        Journal::<Record>::create(MemoryStorage::new(&disk)),
        Err(JournalError::AlreadyExists { .. })
    ));
    assert!(reopen(&disk).unwrap().1.is_empty());
}

// Fault 11: an ordinary record needs its own space and leaves the reserve for an abort; a byte less, and it is refused.
#[test]
fn the_reserve_for_an_abort_is_kept_to_the_byte() {
    let disk = history(6);
    let before = disk.contents().len() as u64;
    reopen(&disk).unwrap().0.append(&record(7)).unwrap();
    let line = disk.contents().len() as u64 - before;
    for (missing, fits) in [(0, true), (1, false)] {
        let disk = MemoryDisk::default();
        disk.set_contents(&history(6).contents());
        disk.set_space(Some(before + line + ABORT_RESERVE - missing));
        let (mut journal, _) = reopen(&disk).unwrap();
        let result = journal.append(&record(7));
        assert_eq!(result.is_ok(), fits, "{missing} bytes are missing");
        if !fits {
            assert!(matches!(result, Err(JournalError::Full { .. })));
            assert_eq!(journal.append_reserved(&record(7)).unwrap(), 7);
        }
    }
}

// Fault 11: a new file appears only with its reserve behind it.
#[test]
fn a_rotation_needs_room_for_the_reserve_to_the_byte() {
    let disk = history(6);
    reopen(&disk).unwrap().0.rotate(&record(7)).unwrap();
    let needed = disk.contents().len() as u64 + ABORT_RESERVE;
    for (space, fits) in [(needed, true), (needed - 1, false)] {
        let disk = history(6);
        let (mut journal, _) = reopen(&disk).unwrap();
        disk.set_space(Some(space));
        assert_eq!(journal.rotate(&record(7)).is_ok(), fits);
        assert_eq!(journal.position().generation, if fits { 2 } else { 1 });
        assert_eq!(journal.poisoned(), None);
    }
}

#[test]
fn a_line_may_have_its_limit_and_not_a_byte_more() {
    let disk = MemoryDisk::default();
    let mut journal = Journal::<String>::create(MemoryStorage::new(&disk)).unwrap();
    let before = disk.contents().len();
    journal.append(&String::new()).unwrap();
    let frame = disk.contents().len() - before;
    let fits = "x".repeat(MAX_LINE_BYTES - frame);
    assert_eq!(journal.append(&fits).unwrap(), 2);
    let error = journal.append(&(fits + "x")).unwrap_err();
    assert!(
        matches!(error, JournalError::TooLarge { bytes, limit }
            if bytes == limit + 1 && limit == MAX_LINE_BYTES),
        "{error}"
    );
    assert_eq!(journal.append(&String::new()).unwrap(), 3);
}

#[test]
fn old_files_are_removed_and_the_row_goes_on() {
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    for n in 7..=9 {
        journal.rotate(&record(n)).unwrap();
    }
    let kept = |disk: &MemoryDisk| disk.sizes().iter().filter(|size| **size > 0).count();
    journal.prune(3).unwrap();
    assert_eq!(kept(&disk), 3);
    journal.prune(0).unwrap();
    assert_eq!(kept(&disk), 1, "the current file always stays");
    assert_eq!(journal.append(&record(10)).unwrap(), 10);
    drop(journal);
    let (journal, records) = reopen(&disk).unwrap();
    assert_eq!(records, [record(9), record(10)]);
    assert_eq!(journal.position().generation, 4);
}

#[test]
fn errors_name_the_file() {
    let disk = MemoryDisk::default();
    let missing = reopen(&disk).unwrap_err();
    assert!(missing.to_string().contains("`memory:0001`"), "{missing}");
    let disk = history(6);
    let (mut journal, _) = reopen(&disk).unwrap();
    journal.rotate(&record(7)).unwrap();
    let exists = Journal::<Record>::create(MemoryStorage::new(&disk)).unwrap_err();
    assert!(exists.to_string().contains("`memory:0002`"), "{exists}");
}

// A failed call may have done its work all the same, and then the next opening finds that.
#[test]
fn a_rotation_that_failed_after_its_work_is_found() {
    for (written, records, generation) in [(0, 6, 1), (1, 1, 2)] {
        let disk = history(6);
        let (mut journal, _) = reopen(&disk).unwrap();
        let fault = Fault {
            kind: ErrorKind::Other,
            written,
        };
        disk.fail_call(disk.calls() + 1, fault);
        let error = journal.rotate(&record(7)).unwrap_err();
        assert!(matches!(error, JournalError::Failed { .. }), "{error}");
        drop(journal);
        let (journal, found) = reopen(&disk).unwrap();
        assert_eq!(found.len(), records);
        assert_eq!(journal.position().generation, generation);
    }
}

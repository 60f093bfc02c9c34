//! The format, byte for byte: version 1 must stay readable, and must not change without becoming version 2.
//!
//! `FLIPSIDE_BLESS=1` writes the golden files anew: right for a new version's files, never for files that were released.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{Record, record, reopen};
use flipside_journal::{Journal, MemoryDisk, MemoryStorage, decode};

const FIRST: &str = include_str!("golden/v1.0001");
const SECOND: &str = include_str!("golden/v1.0002");

/// The history of the golden files: three records, a batch, then a rotation and one more record.
fn write() -> (String, String) {
    let disk = MemoryDisk::default();
    let mut journal = Journal::create(MemoryStorage::new(&disk)).unwrap();
    for n in 1..=3 {
        journal.append(&record(n)).unwrap();
    }
    journal.append_all(&[record(4), record(5)]).unwrap();
    let first = String::from_utf8(disk.contents()).unwrap();
    journal.rotate(&record(6)).unwrap();
    journal.append(&record(7)).unwrap();
    (first, String::from_utf8(disk.contents()).unwrap())
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let (first, second) = write();
    if std::env::var_os("FLIPSIDE_BLESS").is_some() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        std::fs::write(format!("{dir}/v1.0001"), &first).unwrap();
        std::fs::write(format!("{dir}/v1.0002"), &second).unwrap();
        return;
    }
    assert_eq!(first, FIRST);
    assert_eq!(second, SECOND);
}

#[test]
fn version_1_is_read() {
    let first = decode::<Record>("golden", FIRST.as_bytes()).unwrap();
    assert_eq!((first.generation, first.next_seq, first.tail), (1, 6, None));
    assert!(
        first
            .entries
            .into_iter()
            .map(|entry| (entry.seq, entry.record))
            .eq((1..=5).map(|n| (n, record(n))))
    );
    let second = decode::<Record>("golden", SECOND.as_bytes()).unwrap();
    assert_eq!(
        (second.generation, second.next_seq, second.tail),
        (2, 8, None)
    );
    assert!(
        second
            .entries
            .into_iter()
            .map(|entry| (entry.seq, entry.record))
            .eq((6..=7).map(|n| (n, record(n))))
    );
}

#[test]
fn a_later_file_in_the_place_of_the_first_is_refused() {
    let disk = MemoryDisk::default();
    disk.set_contents(SECOND.as_bytes());
    let error = reopen(&disk).unwrap_err();
    assert!(error.to_string().contains("generation 2"), "{error}");
}

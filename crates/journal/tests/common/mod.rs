//! What the tests of the journal share: a record like the engine's, and histories of it.
#![allow(dead_code, reason = "not every test binary uses every helper")]

use flipside_journal::{Journal, MemoryDisk, MemoryStorage};
use serde::{Deserialize, Serialize};

/// A record like the engine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    Opened { system: String },
    Intent { step: String, attempt: u32 },
    Outcome { step: String, cause: Option<String> },
}

/// Returns the record that stands at a place of every history here. Some hold text that looks like a journal.
pub(crate) fn record(n: u64) -> Record {
    match n % 3 {
        0 => Record::Opened {
            system: format!("web-{n}"),
        },
        1 => Record::Intent {
            step: format!("SX.s{n}"),
            attempt: 1,
        },
        _ => Record::Outcome {
            step: format!("SX.s{}", n - 1),
            cause: n
                .is_multiple_of(2)
                .then(|| format!("line\n00000000 {n} 00000000 {{}} – ümlaut \"quoted\"")),
        },
    }
}

/// Writes the first `count` records of the history, the last three of them as one batch.
pub(crate) fn history(count: u64) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut journal = Journal::create(MemoryStorage::new(&disk)).unwrap();
    let batch: Vec<_> = (count - 2..=count).map(record).collect();
    for n in 1..=count - 3 {
        assert_eq!(journal.append(&record(n)).unwrap(), n);
    }
    assert_eq!(journal.append_all(&batch).unwrap(), count);
    disk
}

/// Opens a disk and returns the journal and its records, after checking that their numbers are right.
pub(crate) fn reopen(
    disk: &MemoryDisk,
) -> Result<(Journal<Record>, Vec<Record>), flipside_journal::JournalError> {
    let (journal, opened) = Journal::open(MemoryStorage::new(disk))?;
    if let Some(first) = opened.records.first() {
        assert!(
            opened
                .records
                .iter()
                .zip(first.seq..)
                .all(|(entry, seq)| entry.seq == seq)
        );
    }
    Ok((
        journal,
        opened
            .records
            .into_iter()
            .map(|entry| entry.record)
            .collect(),
    ))
}

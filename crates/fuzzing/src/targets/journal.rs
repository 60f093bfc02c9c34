//! The journal's file: every input is recovered or refused, and what is recovered is a prefix of what was written.

use flipside_journal::{
    Damage, Decoded, Entry, Journal, JournalError, MemoryDisk, MemoryStorage, decode,
};
use serde_json::{Value, json};

/// Places at which an accepted journal is cut, so that a long one does not take long.
const CUTS: usize = 24;

/// Records of the journal that is damaged.
const WRITTEN: u64 = 8;

/// Reads the bytes as a journal as they are and with the checksums put right, and as damage to a known journal.
pub fn journal(data: &[u8]) {
    judge(data);
    judge(&mended(data));
    damaged(data);
}

fn judge(bytes: &[u8]) {
    let Ok(found) = decode::<Value>("fuzz", bytes) else {
        refused_without_change(bytes);
        return;
    };
    let intact = usize::try_from(found.intact).expect("a length in memory");
    assert!(intact <= bytes.len());
    match &found.tail {
        None => assert_eq!(intact, bytes.len()),
        Some(tail) => {
            assert_eq!(tail.offset, found.intact);
            assert_eq!(tail.offset + tail.bytes, bytes.len() as u64);
        }
    }
    for pair in found.entries.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "a gap in the numbers");
    }
    if let Some(last) = found.entries.last() {
        assert_eq!(last.seq + 1, found.next_seq);
    }
    let again: Decoded<Value> =
        decode("fuzz", &bytes[..intact]).expect("the intact part is a journal");
    assert!(again.tail.is_none(), "the intact part has a spoilt end");
    assert_eq!(
        (&again.entries, again.chain, again.next_seq),
        (&found.entries, found.chain, found.next_seq)
    );
    every_prefix_is_recovered(bytes, intact, &found.entries);
    goes_on(bytes, &found);
}

/// Invariant 17: a journal that was cut short anywhere behind its header holds the first of its records.
fn every_prefix_is_recovered(bytes: &[u8], intact: usize, entries: &[Entry<Value>]) {
    let header = bytes
        .iter()
        .position(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let step = (intact - header).div_ceil(CUTS).max(1);
    for cut in (header..intact).step_by(step) {
        let found = decode::<Value>("fuzz", &bytes[..cut]).expect("a prefix of a journal is one");
        assert!(entries.starts_with(&found.entries), "cut at {cut}");
    }
}

/// What was recovered can be written on, and is then read again with what was added.
fn goes_on(bytes: &[u8], found: &Decoded<Value>) {
    let disk = MemoryDisk::default();
    disk.set_contents(bytes);
    let opened = Journal::<Value>::open(MemoryStorage::new(&disk));
    if found.generation != 1 {
        let wrong = matches!(
            opened,
            Err(JournalError::Damaged {
                why: Damage::Generation { .. },
                ..
            })
        );
        assert!(
            wrong && disk.contents() == bytes,
            "another file's number is noticed"
        );
        return;
    }
    let (mut journal, opened) = opened.expect("what decodes opens");
    assert_eq!(opened.records, found.entries);
    let record = json!({"kind": "added"});
    match journal.append(&record) {
        Ok(seq) => assert_eq!(seq, found.next_seq),
        Err(error) => panic!("a recovered journal cannot be written on: {error}"),
    }
    let again = Journal::<Value>::open(MemoryStorage::new(&disk))
        .expect("opens again")
        .1;
    assert!(again.dropped_tail.is_none());
    let (last, before) = again.records.split_last().expect("a record");
    assert!(before == found.entries && last.record == record);
}

fn refused_without_change(bytes: &[u8]) {
    let disk = MemoryDisk::default();
    disk.set_contents(bytes);
    assert!(Journal::<Value>::open(MemoryStorage::new(&disk)).is_err());
    assert_eq!(disk.contents(), bytes, "a refused journal was changed");
}

/// Puts checksums and chain right, so that what lies behind them is reached; the last line, if it has no end, stays.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    let mut chain = 0;
    for (number, line) in data.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(text) = line.strip_suffix(b"\n") else {
            out.extend_from_slice(line);
            break;
        };
        let body = if number == 0 {
            let end = text.windows(5).rposition(|w| w == b" crc=");
            text[..end.unwrap_or(text.len())].to_vec()
        } else {
            let body = text.get(9..).unwrap_or_default();
            let mut parts = body.splitn(3, |b| *b == b' ');
            let (seq, _, json) = (parts.next(), parts.next(), parts.next());
            let [seq, json] = [seq, json].map(Option::unwrap_or_default);
            [seq, format!(" {chain:08x} ").as_bytes(), json].concat()
        };
        chain = crc32c::crc32c(&body);
        if number == 0 {
            out.extend_from_slice(&body);
            out.extend_from_slice(format!(" crc={chain:08x}\n").as_bytes());
        } else {
            out.extend_from_slice(format!("{chain:08x} ").as_bytes());
            out.extend_from_slice(&body);
            out.push(b'\n');
        }
    }
    out
}

/// Damages a known journal as the bytes say: what is still read is a prefix of what was written.
fn damaged(script: &[u8]) {
    let record = |n: u64| json!({"kind": "intent", "step": format!("SX.s{n}"), "attempt": n});
    let disk = MemoryDisk::default();
    let mut journal = Journal::create(MemoryStorage::new(&disk)).expect("created");
    for n in 1..=WRITTEN - 2 {
        journal.append(&record(n)).expect("written");
    }
    journal
        .append_all(&[record(WRITTEN - 1), record(WRITTEN)])
        .expect("written");
    let mut bytes = disk.contents();
    for edit in script.chunks_exact(4).take(16) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (bytes.len() + 1);
        let end = (at + usize::from(edit[3] >> 2)).min(bytes.len());
        match edit[3] & 3 {
            0 => drop(bytes.drain(at..end)),
            1 => bytes[at..end].fill(edit[2]),
            2 => bytes.insert(at, edit[2]),
            _ => {
                let copy = bytes[at..end].to_vec();
                let to = usize::from(edit[2]) * 4 % (bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
        }
    }
    if let Ok(found) = decode::<Value>("fuzz", &bytes) {
        assert!(found.entries.len() as u64 <= WRITTEN);
        for (entry, n) in found.entries.iter().zip(1..) {
            assert_eq!(
                (entry.seq, &entry.record),
                (n, &record(n)),
                "a record that was never written"
            );
        }
    }
}

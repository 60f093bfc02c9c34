//! Damages a journal in every small way: it opens with a prefix of what was written, or it is refused, and never panics.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{Record, history, record, reopen};
use flipside_journal::{Damage, JournalError, MemoryDisk, decode};

const COUNT: u64 = 30;

/// Opens a spoilt copy; returns how many records it still has, `None` when it is refused.
fn judge(bytes: &[u8], what: &str) -> Option<u64> {
    let disk = MemoryDisk::default();
    disk.set_contents(bytes);
    match reopen(&disk) {
        Ok((mut journal, records)) => {
            let wrong = records
                .iter()
                .zip(1..)
                .find(|(found, n)| **found != record(*n));
            assert!(
                wrong.is_none() && records.len() as u64 <= COUNT,
                "{what}: {wrong:?}"
            );
            let next = records.len() as u64 + 1;
            assert_eq!(journal.append(&record(next)).unwrap(), next, "{what}");
            assert_eq!(
                reopen(&disk).unwrap().1.len() as u64,
                next,
                "{what}: what is written afterwards must stay"
            );
            Some(next - 1)
        }
        Err(error) => {
            assert_eq!(
                disk.contents(),
                bytes,
                "{what}: a refused journal must not be changed ({error})"
            );
            None
        }
    }
}

/// Returns where each line begins.
fn line_starts(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(at, _)| at + 1);
    std::iter::once(0)
        .chain(ends)
        .take_while(|at| *at < bytes.len())
        .collect()
}

#[test]
fn every_truncation_leaves_the_complete_lines() {
    let bytes = history(COUNT).contents();
    let starts = line_starts(&bytes);
    assert_eq!(
        starts.len() as u64,
        1 + COUNT - 3 + 1,
        "a header, single records, and a batch of three in one line"
    );
    for len in 0..bytes.len() {
        // Complete lines without the header; every one of them is a single record, as the batch is the last.
        let complete = starts
            .iter()
            .filter(|start| **start <= len && **start > 0)
            .count() as u64;
        let expected = (len >= starts[1]).then(|| complete - 1);
        assert_eq!(
            judge(&bytes[..len], &format!("cut to {len} bytes")),
            expected,
            "cut to {len} bytes"
        );
    }
    assert_eq!(judge(&bytes, "whole"), Some(COUNT));
}

#[test]
fn every_flipped_bit_is_refused_or_costs_only_the_last_line() {
    let bytes = history(COUNT).contents();
    let last_line = *line_starts(&bytes).last().unwrap();
    let mut dropped = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1 << bit;
            let left = judge(&spoilt, &format!("bit {bit} of byte {at}"));
            if at < last_line {
                assert_eq!(
                    left, None,
                    "bit {bit} of byte {at} is before the last line, so records would be lost"
                );
            } else {
                assert!(
                    matches!(left, None | Some(27)),
                    "bit {bit} of byte {at}: {left:?}"
                );
                dropped += u64::from(left.is_some());
            }
        }
    }
    assert!(
        dropped > 0,
        "a spoilt last line must be dropped, not refused"
    );
}

#[test]
fn every_lost_doubled_or_exchanged_line_is_refused() {
    let bytes = history(COUNT).contents();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    for at in 0..lines.len() {
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(
            judge(&doubled.concat(), "doubled"),
            None,
            "line {at} doubled"
        );
        if at + 1 < lines.len() {
            let mut lost = lines.clone();
            lost.remove(at);
            assert_eq!(judge(&lost.concat(), "lost"), None, "line {at} lost");
            let mut exchanged = lines.clone();
            exchanged.swap(at, at + 1);
            assert_eq!(
                judge(&exchanged.concat(), "exchanged"),
                None,
                "line {at} exchanged with the next"
            );
        }
    }
}

#[test]
fn a_line_of_another_journal_is_refused() {
    let bytes = history(COUNT).contents();
    // The same numbers, another past.
    let other = MemoryDisk::default();
    let mut journal =
        flipside_journal::Journal::create(flipside_journal::MemoryStorage::new(&other)).unwrap();
    for n in 1..=10 {
        journal.append(&record(n + 1)).unwrap();
    }
    let ours: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').take(10).collect();
    let theirs = other.contents();
    let foreign = theirs.split_inclusive(|b| *b == b'\n').nth(10).unwrap();
    let error =
        decode::<Record>("test", &[ours.concat().as_slice(), foreign].concat()).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Damaged {
                line: 11,
                why: Damage::Chain { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// A power cut may leave any of the sectors of an unsynced write, in any combination; the others read as zeros.
#[test]
fn every_combination_of_lost_sectors_of_the_last_append_leaves_all_of_it_or_nothing() {
    let long = || Record::Outcome {
        step: "SX".to_owned(),
        cause: Some("x".repeat(1400)),
    };
    let disk = history(6);
    let before = disk.contents();
    reopen(&disk)
        .unwrap()
        .0
        .append_all(&[long(), long()])
        .unwrap();
    let after = disk.contents();

    let sectors: Vec<usize> = (before.len() / 512..after.len().div_ceil(512)).collect();
    assert!((6..12).contains(&sectors.len()));
    for present in 0..1_u32 << sectors.len() {
        let mut torn = after.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if present & (1 << bit) == 0 {
                let (from, to) = (
                    before.len().max(sector * 512),
                    after.len().min((sector + 1) * 512),
                );
                torn[from..to].fill(0);
            }
        }
        let disk = MemoryDisk::default();
        disk.set_contents(&torn);
        let records = reopen(&disk)
            .unwrap_or_else(|error| panic!("sectors {present:b}: {error}"))
            .1;
        let all = present + 1 == 1 << sectors.len();
        assert_eq!(
            records.len(),
            if all { 8 } else { 6 },
            "sectors {present:b}"
        );
    }
}

/// Larger damage: runs of bytes overwritten, inserted and removed at seeded places.
#[test]
fn random_damage_never_yields_a_wrong_record() {
    let bytes = history(COUNT).contents();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for round in 0..20_000 {
        let mut spoilt = bytes.clone();
        for _ in 0..=random(3) {
            let at = random(spoilt.len());
            let end = (at + random(200)).min(spoilt.len());
            match random(4) {
                0 => drop(spoilt.drain(at..end)),
                1 => spoilt[at..end].fill(b"\0\n 0"[random(4)]),
                2 => spoilt[at..end].reverse(),
                _ => {
                    let copy = spoilt[at..end].to_vec();
                    let to = random(spoilt.len());
                    spoilt.splice(to..to, copy);
                }
            }
            if spoilt.is_empty() {
                break;
            }
        }
        judge(&spoilt, &format!("round {round}"));
    }
}

#[test]
fn arbitrary_bytes_are_refused() {
    let newer = "flipside-journal 2 something else\nwhatever\n";
    assert!(matches!(
        decode::<Record>("test", newer.as_bytes()),
        Err(JournalError::NewerVersion {
            found: 2,
            known: 1,
            ..
        })
    ));
    for text in [
        "",
        "\n",
        "flipside-journal",
        "flipside-journal 1\n",
        "flipside-journal 0 \n",
        "\0\0\0\0",
        "{}\n",
    ] {
        let error = decode::<Record>("test", text.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                JournalError::Damaged {
                    line: 1,
                    why: Damage::Header,
                    ..
                }
            ),
            "{text:?}: {error}"
        );
    }
}

// Found by fuzzing: the number of the next record overflowed, after it had been written.
#[test]
fn a_number_after_which_nobody_could_count_on_is_refused() {
    for first in [u64::MAX, u64::MAX - 1, (1 << 53) + 1] {
        let head = format!("flipside-journal 1 generation=1 first={first} chain=00000000");
        let text = format!("{head} crc={:08x}\n", crc32c::crc32c(head.as_bytes()));
        assert_eq!(
            judge(text.as_bytes(), "a header with a valid checksum"),
            None
        );
    }
}

/// Renders a line with a good checksum, whatever it says; returns it with that checksum.
fn forged(numbers: &str, chain: u32, json: &str) -> (String, u32) {
    let body = format!("{numbers} {chain:08x} {json}");
    let crc = crc32c::crc32c(body.as_bytes());
    (format!("{crc:08x} {body}\n"), crc)
}

/// Renders a header with a good checksum.
fn forged_header(generation: u32, first: u64) -> (String, u32) {
    let head = format!("flipside-journal 1 generation={generation} first={first} chain=00000000");
    let crc = crc32c::crc32c(head.as_bytes());
    (format!("{head} crc={crc:08x}\n"), crc)
}

fn json(n: u64) -> String {
    serde_json::to_string(&record(n)).unwrap()
}

/// Decodes a header, a good first record, and one more line; returns what is wrong with that line.
fn damage_of(numbers: &str, json_text: &str) -> Damage {
    let (head, chain) = forged_header(1, 1);
    let (first, chain) = forged("1", chain, &json(1));
    let (second, _) = forged(numbers, chain, json_text);
    let text = head + &first + &second;
    match decode::<Record>("test", text.as_bytes()) {
        Err(JournalError::Damaged { line: 3, why, .. }) => why,
        other => panic!("{numbers}: {other:?}"),
    }
}

// Invariant 17: a line that continues the one before it and has a number too high or too low is refused, although its
// checksums are right.
#[test]
fn a_gap_in_the_numbers_is_refused_even_when_the_checksums_are_right() {
    for found in [1, 3, 4] {
        let expected = 2;
        assert_eq!(
            damage_of(&found.to_string(), &json(found)),
            Damage::Sequence { expected, found }
        );
    }
}

#[test]
fn a_batch_holds_as_many_records_as_its_numbers_say() {
    let many = |count| {
        let records: Vec<_> = (2..2 + count).map(json).collect();
        format!("[{}]", records.join(","))
    };
    for found in [0, 1, 2, 4] {
        let expected = 3;
        assert_eq!(
            damage_of("2-4", &many(found)),
            Damage::Batch { expected, found }
        );
    }
    let (head, chain) = forged_header(1, 1);
    let text = head
        + &forged(
            "1-3",
            chain,
            &format!("[{},{},{}]", json(1), json(2), json(3)),
        )
        .0;
    assert_eq!(judge(text.as_bytes(), "a batch as it should be"), Some(3));
}

// A range that counts down or to the end of all numbers is no line of ours: nothing is read of it, and nothing overflows.
#[test]
fn an_impossible_range_of_numbers_yields_no_record() {
    for numbers in ["2-1", "1-0", &format!("1-{}", u64::MAX)] {
        let (head, chain) = forged_header(1, 1);
        let (line, _) = forged(numbers, chain, &format!("[{}]", json(1)));
        let decoded = decode::<Record>("test", (head.clone() + &line).as_bytes()).unwrap();
        assert!(decoded.entries.is_empty(), "{numbers}");
        let tail = decoded.tail.expect("what is not understood is reported");
        assert_eq!(
            (tail.line, tail.offset, tail.bytes, tail.complete),
            (2, head.len() as u64, line.len() as u64, true),
            "{numbers}"
        );
    }
}

#[test]
fn a_header_that_counts_from_zero_is_refused() {
    for (generation, first) in [(0, 1), (1, 0), (0, 0)] {
        let (head, _) = forged_header(generation, first);
        let error = decode::<Record>("test", head.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                JournalError::Damaged {
                    line: 1,
                    why: Damage::Header,
                    ..
                }
            ),
            "generation {generation}, first {first}: {error}"
        );
    }
    let (head, _) = forged_header(1, 1 << 53);
    assert_eq!(
        decode::<Record>("test", head.as_bytes()).unwrap().next_seq,
        1 << 53,
        "the highest number that is believed"
    );
}

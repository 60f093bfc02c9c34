//! What the QEMU backend reads: images, guests' answers, the block graph, the guard's socket, the leg book.

use crate::oracle::{fit_to_show, survives_json};
use flipside_backend_qemu::fuzzing;
use flipside_model::{Leg, LegBook, LegRole};

/// An image's first bytes; the eight before them are the length of the file.
pub fn image(data: &[u8]) {
    let Some((length, head)) = data.split_first_chunk::<8>() else {
        return;
    };
    let length = u64::from_le_bytes(*length);
    if length == 0 {
        // An empty file is refused before its bytes are looked at.
        return;
    }
    let Ok((format, size)) = fuzzing::image(head, length) else {
        return;
    };
    assert!(size > 0);
    let number = |at: usize, bytes: usize| {
        let mut value = 0u64;
        head[at..at + bytes]
            .iter()
            .for_each(|b| value = value << 8 | u64::from(*b));
        value
    };
    match format {
        "raw" => {
            assert!(size == length && length % 512 == 0);
            assert!(!head.starts_with(b"QFI\xfb"), "a qcow2 was taken for raw");
        }
        "qcow2" => {
            // Security checklist 28, from the words of the format's description.
            assert!(matches!(number(4, 4), 2 | 3), "an unknown version");
            assert_eq!(number(8, 8), 0, "it names a backing file");
            assert_eq!(number(32, 4), 0, "it is encrypted");
            if number(4, 4) == 3 {
                assert_eq!(
                    number(72, 8) & !0b1_1001,
                    0,
                    "an external file, damage, or unknown"
                );
            }
            assert_eq!(size, number(24, 8));
        }
        other => panic!("a format that is not imported: {other}"),
    }
}

/// Answers of the scripts that are run in a guest.
pub fn guest(data: &[u8]) {
    fuzzing::guest(data);
}

/// Answers of QEMU about its block graph, and its events about it.
pub fn graph(data: &[u8]) {
    fuzzing::graph(data);
}

/// Messages on the guard's socket and its files.
pub fn guard(data: &[u8]) {
    if let Some(problem) = fuzzing::guard(data) {
        assert!(problem.causes.len() <= data.len());
    }
}

/// The leg book: what is read is fit to decide by.
pub fn legbook(data: &[u8]) {
    let mut book = match fuzzing::legbook(data) {
        Ok(book) => book,
        Err(problem) => return fit_to_show(&problem),
    };
    assert_eq!(book.version, LegBook::VERSION);
    survives_json(&book);
    for pair in book.disks.values() {
        let live = pair.live();
        assert_eq!(live[0], pair.authority, "the authority decides");
        assert!(live.len() <= 2 && pair.duplexed() <= (live.len() == 2));
        assert!(pair.stale().is_none_or(|(leg, _)| leg != pair.authority));
    }
    // Invariant 10: after an unclean end the authority alone is used, whatever the book said.
    let marked = book.mark_unclean();
    assert!(
        book.mark_unclean().is_empty(),
        "marking twice is marking once"
    );
    for (disk, leg) in marked {
        let pair = &book.disks[&disk];
        assert_ne!(leg, pair.authority);
        assert!(matches!(pair.get(leg).role, LegRole::Stale(_)));
    }
    for pair in book.disks.values() {
        assert!(!pair.duplexed());
        let other: Leg = pair.authority.other();
        assert_ne!(pair.get(other).role, LegRole::Live);
    }
}

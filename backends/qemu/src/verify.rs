//! Compares both legs of a disk while the guest runs, and changes nothing.
//!
//! Both files are read side by side. A write in flight may have reached one leg only, so what differs is only a suspect:
//! it is read again until it is equal, or until it stayed the same on both legs, and different, several times in a row.
//! A write in flight ends within that time and changes one of them; what rests and differs is damage.

use crate::compare::{ALIGNMENT, Aligned, CHUNK, ahead, hole, open};
use crate::error;
use flipside_platform::{PortError, PortResult, Verified};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is called equal or different as a whole; the alignment of direct reads.
const BLOCK: usize = ALIGNMENT;

/// Between two looks at the suspects: far longer than a write is in flight.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// A block that rested and differed so many times in a row is damaged.
const RESTED: u32 = 4;

/// A block that is still being written differently after this time is called different: no write is in flight for so long.
const SUSPECT_LIMIT: Duration = Duration::from_secs(30);

/// More suspects than this are not looked at again: 64 MiB that differ are no writes in flight.
const MOST_SUSPECTS: usize = 16_384;

/// How far it is, shared with the thread that reads.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    done: AtomicU64,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    /// Bytes compared so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Nobody wants the result any more.
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits; fails when it was stopped.
    fn pause(&self, length: Duration) -> PortResult<()> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(stopped, length, |stopped| !*stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return Err(PortError::failed("the comparison was stopped"));
        }
        Ok(())
    }
}

/// A block that differed, with what it held when it was looked at last.
#[derive(Debug, Default)]
struct Suspect {
    content: u64,
    rested: u32,
}

/// Compares `size` bytes of two files; `rate` limits the reading in bytes per second, 0 does not.
pub(crate) fn verify(
    legs: [&Path; 2],
    size: u64,
    rate: u64,
    watch: &Watch,
) -> PortResult<Verified> {
    let files = [
        open(legs[0], OFlags::RDONLY)?,
        open(legs[1], OFlags::RDONLY)?,
    ];
    let mut reader = Reader {
        legs,
        files,
        buffers: [Aligned::new(), Aligned::new()],
    };
    let mut suspects = BTreeMap::new();
    let begun = Instant::now();
    let mut at = 0_u64;
    while at < size {
        let length = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
        if !reader.files.iter().all(|file| hole(file, at, length)) {
            let [ours, theirs] = reader.read(at, length)?;
            let blocks = ours.chunks(BLOCK).zip(theirs.chunks(BLOCK));
            for (index, _) in blocks.enumerate().filter(|(_, (a, b))| a != b) {
                suspects.insert(at + (index * BLOCK) as u64, Suspect::default());
            }
        }
        at += length as u64;
        watch.done.store(at, Ordering::Relaxed);
        watch.pause(ahead(at, rate, begun))?;
    }
    let different = reader.different(suspects, size, watch)?;
    Ok(Verified {
        compared_bytes: size,
        different_bytes: different
            .iter()
            .map(|at| (size - at).min(BLOCK as u64))
            .sum(),
        first_difference: different.first().copied(),
    })
}

struct Reader<'a> {
    legs: [&'a Path; 2],
    files: [File; 2],
    buffers: [Aligned; 2],
}

impl Reader<'_> {
    fn read(&mut self, at: u64, length: usize) -> PortResult<[&[u8]; 2]> {
        let [ours, theirs] = &mut self.buffers;
        let both = [ours.slice(length), theirs.slice(length)];
        for ((buffer, file), path) in both.into_iter().zip(&self.files).zip(self.legs) {
            file.read_exact_at(buffer, at)
                .map_err(|e| error::file(&e, "read", path))?;
        }
        let [ours, theirs] = &mut self.buffers;
        Ok([ours.slice(length), theirs.slice(length)])
    }

    /// Looks at suspects until every one is equal or known to be different; returns the different ones.
    fn different(
        &mut self,
        mut suspects: BTreeMap<u64, Suspect>,
        size: u64,
        watch: &Watch,
    ) -> PortResult<Vec<u64>> {
        let mut different: Vec<u64> = Vec::new();
        if suspects.len() > MOST_SUSPECTS {
            different.extend(suspects.keys());
            return Ok(different);
        }
        let begun = Instant::now();
        while !suspects.is_empty() {
            watch.pause(LOOK_AGAIN)?;
            let late = begun.elapsed() > SUSPECT_LIMIT;
            let mut left = BTreeMap::new();
            for (at, mut suspect) in suspects {
                let length = BLOCK.min(usize::try_from(size - at).unwrap_or(BLOCK));
                let both = self.read(at, length)?;
                if both[0] == both[1] {
                    continue;
                }
                let mut hasher = DefaultHasher::new();
                both.hash(&mut hasher);
                let content = hasher.finish();
                let rests = content == suspect.content;
                suspect.rested = if rests { suspect.rested + 1 } else { 0 };
                suspect.content = content;
                if suspect.rested >= RESTED || late {
                    different.push(at);
                } else {
                    left.insert(at, suspect);
                }
            }
            suspects = left;
        }
        different.sort_unstable();
        Ok(different)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const SIZE: u64 = 3 * 1024 * 1024 + 4096;

    fn legs(dir: &Path) -> [std::path::PathBuf; 2] {
        ["a", "b"].map(|name| {
            let path = dir.join(name);
            let file = File::create(&path).expect("made");
            file.set_len(SIZE).expect("sized");
            file.write_all_at(&[7; 100_000], 1_500_000)
                .expect("written");
            path
        })
    }

    fn change(path: &Path, at: u64, byte: u8) {
        let file = File::options().write(true).open(path).expect("opened");
        file.write_all_at(&[byte], at).expect("written");
    }

    #[test]
    fn equal_legs_are_equal() {
        let dir = tempfile::tempdir().expect("a directory");
        let legs = legs(dir.path());
        let watch = Watch::default();
        let found = verify([&legs[0], &legs[1]], SIZE, 0, &watch).expect("compared");
        assert_eq!((found.compared_bytes, found.different_bytes), (SIZE, 0));
        assert_eq!(found.first_difference, None);
        assert_eq!(watch.done(), SIZE);
    }

    // Fault 20: one flipped bit is found, in data, in what is a hole on the other leg, and in the last block.
    #[test]
    fn what_rests_and_differs_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let legs = legs(dir.path());
        for at in [1_500_001, 200_000, SIZE - 1] {
            change(&legs[1], at, 9);
        }
        let found = verify([&legs[0], &legs[1]], SIZE, 0, &Watch::default()).expect("compared");
        assert_eq!(found.different_bytes, 3 * 4096);
        assert_eq!(found.first_difference, Some(200_000 / 4096 * 4096));
    }

    // A guest that writes one block for ever, to one leg after the other, is no damage.
    #[test]
    fn a_write_in_flight_is_no_difference() {
        let dir = tempfile::tempdir().expect("a directory");
        let legs = legs(dir.path());
        // The first look sees a write that has reached one leg.
        change(&legs[0], 1_500_000, 1);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut byte = 1_u8;
                while !stop.load(Ordering::Relaxed) {
                    change(&legs[1], 1_500_000, byte);
                    byte = byte.wrapping_add(1);
                    change(&legs[0], 1_500_000, byte);
                    std::thread::park_timeout(Duration::from_micros(500));
                }
                change(&legs[1], 1_500_000, byte);
            });
            let found = verify([&legs[0], &legs[1]], SIZE, 0, &Watch::default());
            stop.store(true, Ordering::Relaxed);
            assert_eq!(found.expect("compared").different_bytes, 0);
        });
    }

    #[test]
    fn it_ends_when_nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let legs = legs(dir.path());
        let watch = Watch::default();
        watch.stop();
        assert!(verify([&legs[0], &legs[1]], SIZE, 0, &watch).is_err());
        assert!(watch.done() < SIZE);
    }
}

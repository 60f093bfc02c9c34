//! The log that QEMU's `blklogwrites` keeps of a leg: every write in its order, and every flush.
//!
//! Little endian. A superblock (magic, version, entries: 8 bytes each; sector size: 4), then for each entry a header of
//! one sector (sector, sectors, flags, length of other data: 8 bytes each), then its data.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: usize = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// Makes a log without entries, so that every opening of the leg can append to it.
pub(crate) fn create(path: &Path) {
    let mut superblock = vec![0; SECTOR];
    superblock[..8].copy_from_slice(&MAGIC.to_le_bytes());
    superblock[8..16].copy_from_slice(&1_u64.to_le_bytes());
    superblock[24..28].copy_from_slice(&u32::try_from(SECTOR).expect("small").to_le_bytes());
    std::fs::write(path, superblock).expect("written");
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
}

/// How many entries are complete; also while QEMU appends.
pub(crate) fn entries(path: &Path) -> u64 {
    let mut superblock = [0; SECTOR];
    let file = File::open(path).expect("a log");
    file.read_exact_at(&mut superblock, 0).expect("a log");
    assert_eq!(number(&superblock, 0), MAGIC, "not a log");
    number(&superblock, 16)
}

/// One write; data of a discard is left out.
struct Entry {
    at: u64,
    data: Vec<u8>,
    flags: u64,
}

/// Replays a log onto an image.
pub(crate) struct Replay {
    log: File,
    left: u64,
    done: u64,
    image: PathBuf,
    /// Written since the last flush: a power cut may lose any part of it.
    unflushed: Vec<Entry>,
    random: u64,
}

impl Replay {
    /// Begins with the leg as it was before the first entry.
    pub(crate) fn new(log: &Path, from: &Path, image: &Path, seed: u64) -> Self {
        sparse_copy(from, image);
        let mut file = File::open(log).expect("a log");
        let left = entries(log);
        file.seek(SeekFrom::Start(SECTOR as u64)).expect("a log");
        Self {
            log: file,
            left,
            done: 0,
            image: image.to_owned(),
            unflushed: Vec::new(),
            random: seed | 1,
        }
    }

    /// How many entries were replayed.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    fn next(&mut self) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        let mut header = [0; SECTOR];
        self.log.read_exact(&mut header).expect("a header");
        let sectors = usize::try_from(number(&header, 8)).expect("fits");
        let flags = number(&header, 16);
        let carries = if flags & DISCARD == 0 { sectors } else { 0 };
        let mut data = vec![0; carries * SECTOR];
        self.log.read_exact(&mut data).expect("data");
        self.done += 1;
        Some(Entry {
            at: number(&header, 0) * SECTOR as u64,
            data,
            flags,
        })
    }

    /// Goes on to the next flush: the image then holds what a power cut right after it would leave for certain.
    /// Returns false at the end of the log.
    pub(crate) fn next_flush(&mut self) -> bool {
        while let Some(entry) = self.next() {
            let boundary = entry.flags & (FLUSH | FUA) != 0;
            // A flush covers what came before it; FUA covers its own data too, and comes with a flush here.
            self.unflushed.push(entry);
            if boundary {
                let image = writable(&self.image);
                for entry in self.unflushed.drain(..) {
                    image.write_all_at(&entry.data, entry.at).expect("written");
                }
                return true;
            }
        }
        false
    }

    /// Makes an image of a power cut before the flush after this one: of what is written until then, some sectors
    /// arrived, others not, in no order. Entries after `limit` were not written. The replay itself stays where it is.
    pub(crate) fn cut(&mut self, to: &Path, limit: u64) {
        sparse_copy(&self.image, to);
        let (position, left, done) = (
            self.log.stream_position().expect("a log"),
            self.left,
            self.done,
        );
        let image = writable(to);
        while self.done < limit
            && let Some(entry) = self.next()
        {
            if entry.flags & (FLUSH | FUA) != 0 {
                break;
            }
            for (index, sector) in entry.data.chunks(SECTOR).enumerate() {
                if self.coin() {
                    let at = entry.at + (index * SECTOR) as u64;
                    image.write_all_at(sector, at).expect("written");
                }
            }
        }
        self.log.seek(SeekFrom::Start(position)).expect("a log");
        (self.left, self.done) = (left, done);
    }

    /// Xorshift: the same log and seed give the same images.
    fn coin(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random & 1 == 1
    }
}

fn writable(path: &Path) -> File {
    let mut options = File::options();
    options.write(true).open(path).expect("an image")
}

/// Copies a file and leaves its holes.
pub(crate) fn sparse_copy(from: &Path, to: &Path) {
    sparse_copy_from(from, 0, to);
}

/// Copies what comes after `skip` bytes, and leaves its holes.
pub(crate) fn sparse_copy_from(from: &Path, skip: u64, to: &Path) {
    let mut source = File::open(from).expect("a file");
    let mut target = File::create(to).expect("a file");
    let size = source.metadata().expect("a file").len();
    target.set_len(size - skip).expect("room");
    let mut at = skip;
    while let Ok(begin) = rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(begin)).expect("an end");
        source.seek(SeekFrom::Start(begin)).expect("a file");
        target.seek(SeekFrom::Start(begin - skip)).expect("a file");
        std::io::copy(&mut (&source).take(end - begin), &mut target).expect("copied");
        at = end;
    }
    target.flush().expect("copied");
}

//! The full compare: makes a stale leg equal to the authority when no bitmap says what differs.
//!
//! QMP cannot set bits in a bitmap, and copying everything would write a whole leg to change a few blocks. So this
//! is a thread of our own that reads both files side by side and writes only what differs. The guest runs on, and
//! that is why it is correct:
//!
//! 1. Before the first read a bitmap `compare` records every write of the guest to the source.
//! 2. A block that the thread reads *before* the guest changes it is copied in its old form; the bitmap has the
//!    block marked no later than when that write is acknowledged, so a later round copies it again.
//! 3. A block the thread reads *after* the change is copied in its new form, and once more for nothing.
//! 4. A block torn in between is case 2.
//! 5. Rounds start only when the thread is done, so no round is ever overwritten by an old block.
//!
//! The target belongs to nobody else meanwhile: no machine has it open. Only when the compare is complete is
//! the bitmap renamed to `changes`, and only then is the target opened in the machine. So what a restart finds
//! (a bitmap called `compare`, no target) cannot be taken for a resynchronisation that is nearly done: a compare
//! that was interrupted begins at zero.
//!
//! Reads bypass the host's cache wherever the machine's own do, because a page cached earlier may be older than
//! what the machine wrote past the cache. Ranges that are holes in both files are equal without being read.

use crate::error;
use crate::nodes::GRANULARITY;
use flipside_platform::{PortError, PortResult};
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes read at once: large enough for a disk's sequential speed, small enough to be stopped at once.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// Bytes compared and written at once; the granularity of the bitmaps, so that figures agree.
const BLOCK: usize = GRANULARITY as usize;

/// Alignment that every device takes for direct I/O.
pub(crate) const ALIGNMENT: usize = 4096;

/// How far a compare is, shared with the thread that runs it.
#[derive(Debug, Default)]
pub(crate) struct Compare {
    done: AtomicU64,
    written: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    ended: Option<Result<(), PortError>>,
}

impl Compare {
    /// Starts the thread. Both files have `size` bytes; `rate` limits the reading, 0 does not.
    pub(crate) fn start(
        source: PathBuf,
        target: PathBuf,
        size: u64,
        rate: u64,
    ) -> PortResult<Arc<Self>> {
        let shared = Arc::new(Self::default());
        let own = Arc::clone(&shared);
        let run = move || {
            let ended = own.run(&source, &target, size, rate);
            own.lock().ended = Some(ended);
            own.changed.notify_all();
        };
        std::thread::Builder::new()
            .name("compare".into())
            .spawn(run)
            .map_err(|e| PortError::failed("cannot start comparing").because(&e))?;
        Ok(shared)
    }

    /// Bytes compared, and bytes that differed and were written.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.written.load(Ordering::Relaxed),
        )
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Result<(), PortError>> {
        self.lock().ended.clone()
    }

    /// Tells it to stop and waits until it writes no more; false when it still does after the time-out.
    pub(crate) fn stop(&self, timeout: Duration) -> bool {
        let mut state = self.lock();
        state.stop = true;
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_timeout_while(state, timeout, |s| s.ended.is_none());
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .ended
            .is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a while unless told to stop; says whether to go on.
    fn pause(&self, length: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, length, |s| !s.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    fn run(&self, source: &Path, target: &Path, size: u64, rate: u64) -> PortResult<()> {
        let from = open(source, OFlags::RDONLY)?;
        let to = open(target, OFlags::RDWR)?;
        let mut ours = Aligned::new();
        let mut theirs = Aligned::new();
        let begun = Instant::now();
        let mut at = 0u64;
        while at < size {
            let length = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
            if !(hole(&from, at, length) && hole(&to, at, length)) {
                let (ours, theirs) = (ours.slice(length), theirs.slice(length));
                from.read_exact_at(ours, at)
                    .map_err(|e| error::file(&e, "read", source))?;
                to.read_exact_at(theirs, at)
                    .map_err(|e| error::file(&e, "read", target))?;
                self.copy_differences(&to, ours, theirs, at)
                    .map_err(|e| error::file(&e, "write", target))?;
            }
            at += length as u64;
            self.done.store(at, Ordering::Relaxed);
            if !self.pause(ahead(at, rate, begun)) {
                return Err(PortError::failed("the compare was stopped"));
            }
        }
        rustix::fs::fdatasync(&to).map_err(|e| error::file(&e.into(), "flush", target))
    }

    fn copy_differences(&self, to: &File, ours: &[u8], theirs: &[u8], at: u64) -> io::Result<()> {
        let blocks = ours.chunks(BLOCK).zip(theirs.chunks(BLOCK));
        for (index, (ours, theirs)) in blocks.enumerate() {
            if ours != theirs {
                to.write_all_at(ours, at + (index * BLOCK) as u64)?;
                self.written.fetch_add(ours.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// How long to wait after `at` bytes so as not to read faster than `rate` bytes per second; 0 is no limit.
pub(crate) fn ahead(at: u64, rate: u64, begun: Instant) -> Duration {
    match rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(at as f64 / rate as f64).saturating_sub(begun.elapsed()),
    }
}

/// Opens a leg past the host's cache where that is possible.
pub(crate) fn open(path: &Path, access: OFlags) -> PortResult<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::INVAL) => rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .map_err(|e| error::file(&e.into(), "open", path)),
        Err(e) => Err(error::file(&e.into(), "open", path)),
    }
}

/// Says whether a range is a hole; what cannot be found out is not one.
pub(crate) fn hole(file: &File, at: u64, length: usize) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data >= at + length as u64,
        // No data from here to the end.
        Err(rustix::io::Errno::NXIO) => true,
        Err(_) => false,
    }
}

/// A buffer with room for an aligned chunk.
pub(crate) struct Aligned(Vec<u8>);

impl Aligned {
    pub(crate) fn new() -> Self {
        Self(vec![0; CHUNK + ALIGNMENT])
    }

    pub(crate) fn slice(&mut self, length: usize) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        &mut self.0[start..start + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(compare: &Compare) -> Result<(), PortError> {
        let state = compare.lock();
        let waited = compare
            .changed
            .wait_timeout_while(state, Duration::from_secs(20), |s| s.ended.is_none());
        waited
            .expect("not poisoned")
            .0
            .ended
            .clone()
            .expect("ended in time")
    }

    #[test]
    fn only_blocks_that_differ_are_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let size = 5 * 1024 * 1024 + 65_536u64;
        for path in [&a, &b] {
            let file = File::create(path).expect("made");
            file.set_len(size).expect("sized");
            file.write_all_at(&[7; 300_000], 2_000_000)
                .expect("written");
        }
        let change = |path: &Path, byte: u8, at: u64| {
            let file = File::options().write(true).open(path).expect("opened");
            file.write_all_at(&[byte; 3], at).expect("written");
        };
        change(&a, 1, 65_536 * 3 - 1); // two blocks
        change(&b, 2, 2_100_000); // one block
        change(&b, 3, size - 3); // the last, short of a chunk, a hole in the source
        let compare = Compare::start(a.clone(), b.clone(), size, 0).expect("started");
        wait(&compare).expect("compared");
        assert_eq!(compare.progress(), (size, 4 * 65_536));
        assert!(std::fs::read(&a).expect("read") == std::fs::read(&b).expect("read"));
    }

    #[test]
    fn a_stopped_compare_writes_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for path in [&a, &b] {
            let file = File::create(path).expect("made");
            file.set_len(64 * 1024 * 1024).expect("sized");
        }
        // One MiB a second: it would take a minute.
        let compare = Compare::start(a, b, 64 * 1024 * 1024, 1024 * 1024).expect("started");
        assert!(compare.stop(Duration::from_secs(10)));
        assert!(compare.ended().expect("ended").is_err());
        assert!(compare.progress().0 < 64 * 1024 * 1024);
    }

    #[test]
    fn a_leg_too_short_is_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, vec![1; 131_072]).expect("written");
        std::fs::write(&b, vec![1; 65_536]).expect("written");
        let compare = Compare::start(a, b, 131_072, 0).expect("started");
        assert!(wait(&compare).is_err());
    }
}

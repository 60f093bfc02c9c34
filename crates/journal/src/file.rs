//! A journal's files in a directory of the host.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Advice, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags, fadvise,
    fallocate, fdatasync, flock, fstat, fstatvfs, fsync, ftruncate, open, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

use crate::error::FileError;
use crate::storage::{ABORT_RESERVE, Storage, is_full};

const LOCK_NAME: &str = "journal.lock";
const NEXT_NAME: &str = "journal.next.tmp";
const PREFIX: &str = "journal.";

/// How much more than needed is reserved at a time, in bytes, so that most appends find their space reserved already.
const RESERVE_STEP: u64 = 64 * 1024;

/// Private to the owner: a journal may name hosts, paths and commands.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Keeps a journal in `journal.0001`, `journal.0002`, … of one directory, which it holds locked.
///
/// Nothing is trusted that somebody else could have put there: symbolic links, further hard links, files that are not
/// regular, another owner or permissions for others are refused.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
    dir: OwnedFd,
    /// Held for its lock, which ends with it.
    _lock: File,
    generation: u32,
    current: Option<File>,
    len: u64,
    reserved: u64,
}

impl FileStorage {
    /// Locks a directory and finds the journal's current file in it. The directory must exist.
    ///
    /// # Errors
    /// [`FileError::Locked`] when another process has it open, [`FileError::Unsafe`], [`FileError::Io`].
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |operation, path: &Path, source: Errno| FileError::Io {
            operation,
            path: path.to_owned(),
            source: source.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = open(path, flags, Mode::empty()).map_err(|source| match source {
            Errno::LOOP | Errno::NOTDIR => {
                refused(path, "it is not a directory, or it is a symbolic link")
            }
            source => fail("open the directory", path, source),
        })?;
        check_directory(path, &dir)?;
        let lock = take_lock(path, &dir)?;

        // A crash after a rotation's rename leaves a name that can be seen and is not yet durable: without this, records
        // could be acknowledged in a file that the next power cut takes away.
        fsync(&dir).map_err(|source| fail("sync", path, source))?;
        let generation = newest(&dir).map_err(|source| fail("list", path, source))?;
        let current = match generation {
            0 => None,
            _ => Some(open_file(
                path,
                &dir,
                &file_name(generation),
                OFlags::empty(),
            )?),
        };
        let mut storage = Self {
            path: path.to_owned(),
            dir,
            _lock: lock,
            generation,
            current,
            len: 0,
            reserved: 0,
        };
        if let Some(file) = &storage.current {
            let stat = fstat(file).map_err(|source| fail("look at", path, source))?;
            storage.len = stat.st_size.unsigned_abs();
            storage.reserved = storage.len;
            // Best effort: a disk that is full already must not keep the journal from being opened for an Abort.
            let _ = storage.reserve(ABORT_RESERVE);
        }
        Ok(storage)
    }

    /// Returns the path of a file of the row, whether it exists or not.
    #[must_use]
    pub fn file_path(&self, generation: u32) -> PathBuf {
        self.path.join(file_name(generation))
    }

    fn current(&self) -> io::Result<&File> {
        self.current
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Starts the next file; `reached` is told each point at which a crash would leave a different directory.
    fn start_next_file(
        &mut self,
        contents: &[u8],
        reached: &mut dyn FnMut(&'static str) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = self
            .generation
            .checked_add(1)
            .ok_or_else(|| io::Error::other("there are too many files"))?;
        reached("nothing done")?;
        remove_leftover(&self.dir)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.dir, NEXT_NAME, flags, FILE_MODE)?);
        reached("created")?;
        let reserved = contents.len() as u64 + ABORT_RESERVE;
        let written =
            reserve_space(&file, 0, reserved).and_then(|()| file.write_all_at(contents, 0));
        if let Err(error) = written {
            // The temporary file is invisible to everybody, so whatever went wrong, nothing has changed.
            let _ = remove_leftover(&self.dir);
            return Err(error);
        }
        reached("written")?;
        fsync(&file)?;
        reached("synced")?;
        renameat(&self.dir, NEXT_NAME, &self.dir, file_name(number))?;
        reached("renamed")?;
        // From here on the new file may be the current one: a full disk is no longer harmless.
        fsync(&self.dir).map_err(never_full)?;
        reached("directory synced")?;
        self.generation = number;
        self.current = Some(file);
        self.len = contents.len() as u64;
        self.reserved = reserved;
        Ok(())
    }
}

impl Storage for FileStorage {
    fn name(&self) -> String {
        self.file_path(self.generation.max(1)).display().to_string()
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut file = self.current()?;
        // After a failed sync the kernel may keep pages that it calls clean and that the disk never got. They would be read
        // here as if they were durable, so the cache is emptied first.
        fadvise(file, 0, None, Advice::DontNeed)?;
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file)?;
        file.read_to_end(&mut bytes)?;
        self.len = bytes.len() as u64;
        Ok(bytes)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let needed = self.len + bytes;
        if needed <= self.reserved {
            return Ok(());
        }
        let generous = needed.next_multiple_of(RESERVE_STEP);
        let file = self.current()?;
        self.reserved = match reserve_space(file, self.len, generous) {
            Err(error) if is_full(&error) => {
                reserve_space(file, self.len, needed).map(|()| needed)?
            }
            result => result.map(|()| generous)?,
        };
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self
                .current()?
                .write_at(&bytes[written..], self.len + written as u64)
            {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if written > 0 => return Err(never_full(error)),
                Err(error) => return Err(error),
            }
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(fdatasync(self.current()?)?)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        ftruncate(self.current()?, len)?;
        self.len = len;
        // Truncating gives back what was reserved behind the end. Best effort, as in `open`.
        self.reserved = len;
        let _ = self.reserve(ABORT_RESERVE);
        Ok(())
    }

    fn start_next(&mut self, contents: &[u8]) -> io::Result<()> {
        self.start_next_file(contents, &mut |_| Ok(()))
    }

    fn prune(&mut self, keep: u32) -> io::Result<()> {
        let last = self.generation.saturating_sub(keep.max(1));
        for number in generations(&self.dir)?
            .into_iter()
            .filter(|number| *number <= last)
        {
            unlinkat(&self.dir, file_name(number), AtFlags::empty())?;
        }
        Ok(fsync(&self.dir)?)
    }
}

fn file_name(generation: u32) -> String {
    format!("{PREFIX}{generation:04}")
}

fn generations(dir: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut numbers = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        let number = name
            .strip_prefix(PREFIX)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0);
        if number > 0 && file_name(number) == name {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn newest(dir: &OwnedFd) -> Result<u32, Errno> {
    Ok(generations(dir)?.into_iter().max().unwrap_or(0))
}

fn remove_leftover(dir: &OwnedFd) -> io::Result<()> {
    match unlinkat(dir, NEXT_NAME, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

fn refused(path: &Path, why: impl Into<String>) -> FileError {
    FileError::Unsafe {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn check_directory(path: &Path, dir: &OwnedFd) -> Result<(), FileError> {
    let stat = fstat(dir).map_err(|source| FileError::Io {
        operation: "look at",
        path: path.to_owned(),
        source: source.into(),
    })?;
    let mode = stat.st_mode & 0o7777;
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid != us {
        return Err(refused(
            path,
            format!("it belongs to user {}, not to user {us}", stat.st_uid),
        ));
    }
    if mode & 0o022 != 0 {
        return Err(refused(
            path,
            format!("others may write to it (mode {mode:04o}); `chmod go-w` mends that"),
        ));
    }
    Ok(())
}

fn open_file(path: &Path, dir: &OwnedFd, name: &str, extra: OFlags) -> Result<File, FileError> {
    let path = path.join(name);
    let fail = |operation, source: Errno| FileError::Io {
        operation,
        path: path.clone(),
        source: source.into(),
    };
    // NONBLOCK: a pipe in the file's place is then refused below instead of being waited for.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | extra;
    let file = openat(dir, name, flags, FILE_MODE).map_err(|source| match source {
        Errno::LOOP => refused(&path, "it is a symbolic link"),
        Errno::ISDIR => refused(&path, "it is a directory"),
        source => fail("open", source),
    })?;
    let stat = fstat(&file).map_err(|source| fail("look at", source))?;
    let mode = stat.st_mode & 0o7777;
    let us = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused(&path, "it is not a regular file"));
    }
    if stat.st_uid != us {
        return Err(refused(
            &path,
            format!("it belongs to user {}, not to user {us}", stat.st_uid),
        ));
    }
    if stat.st_nlink != 1 {
        return Err(refused(
            &path,
            format!("it has {} hard links, it may have one", stat.st_nlink),
        ));
    }
    if mode & 0o077 != 0 {
        return Err(refused(
            &path,
            format!("others have rights to it (mode {mode:04o}); `chmod 600` mends that"),
        ));
    }
    Ok(File::from(file))
}

fn take_lock(path: &Path, dir: &OwnedFd) -> Result<File, FileError> {
    let lock = open_file(path, dir, LOCK_NAME, OFlags::CREATE)?;
    let fail = |operation, source| FileError::Io {
        operation,
        path: path.join(LOCK_NAME),
        source,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Only a hint for the message: the holder may be about to write it.
            let pid = (&lock)
                .take(32)
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(FileError::Locked {
                dir: path.to_owned(),
                pid,
            });
        }
        result => result.map_err(|source| fail("lock", source.into()))?,
    }
    let pid = format!("{}\n", std::process::id());
    lock.set_len(0)
        .and_then(|()| lock.write_all_at(pid.as_bytes(), 0))
        .or_else(|error| {
            // On a full disk the lock still holds, only its hint is missing.
            if is_full(&error) {
                Ok(())
            } else {
                Err(fail("write", error))
            }
        })?;
    Ok(lock)
}

/// Reserves the space of a file from `from` to `to` without making it longer.
fn reserve_space(file: &File, from: u64, to: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, to - from) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            // The best that such a file system allows: look whether there is enough. Others may still take it.
            let stat = fstatvfs(file)?;
            if stat.f_bavail.saturating_mul(stat.f_frsize) < to - from {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Gives an error another kind, because [`Storage`] promises that "full" means that nothing has changed.
fn never_full(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    if is_full(&error) {
        io::Error::other(error)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Journal;

    const POINTS: [&str; 6] = [
        "nothing done",
        "created",
        "written",
        "synced",
        "renamed",
        "directory synced",
    ];

    /// Leaves the directory exactly as a crash at each point would, and opens it again.
    #[test]
    fn a_crash_at_any_point_of_a_rotation_leaves_the_old_file_or_the_whole_new_one() {
        for crash_at in POINTS {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = Journal::create(FileStorage::open(dir.path()).unwrap()).unwrap();
            journal.append(&"one".to_owned()).unwrap();
            drop(journal);

            let mut storage = FileStorage::open(dir.path()).unwrap();
            let next = next_contents(&mut storage);
            let crash = &mut |point| {
                if point == crash_at {
                    Err(io::Error::other("crash"))
                } else {
                    Ok(())
                }
            };
            storage.start_next_file(&next, crash).unwrap_err();
            drop(storage);

            let (mut journal, opened) =
                Journal::<String>::open(FileStorage::open(dir.path()).unwrap()).unwrap();
            let texts: Vec<_> = opened
                .records
                .iter()
                .map(|entry| entry.record.as_str())
                .collect();
            let renamed = matches!(crash_at, "renamed" | "directory synced");
            assert_eq!(
                texts,
                [if renamed { "snapshot" } else { "one" }],
                "crash at {crash_at}"
            );
            // Whatever the crash left behind, both further work and the next rotation succeed.
            journal.append(&"two".to_owned()).unwrap();
            journal.rotate(&"snapshot".to_owned()).unwrap();
            assert_eq!(journal.position().generation, if renamed { 3 } else { 2 });
        }
    }

    fn next_contents(storage: &mut FileStorage) -> Vec<u8> {
        let bytes = storage.read_all().unwrap();
        let decoded = crate::decode::<String>("test", &bytes).unwrap();
        let (head, chain) =
            crate::format::header(decoded.generation + 1, decoded.next_seq, decoded.chain);
        let (line, _) = crate::format::line(decoded.next_seq, chain, &["\"snapshot\"".to_owned()]);
        (head + &line).into_bytes()
    }

    #[test]
    fn the_points_of_a_rotation_are_the_ones_that_are_tested() {
        let dir = tempfile::tempdir().unwrap();
        let mut points = Vec::new();
        let mut storage = FileStorage::open(dir.path()).unwrap();
        storage
            .start_next_file(b"x", &mut |point| {
                points.push(point);
                Ok(())
            })
            .unwrap();
        assert_eq!(points, POINTS);
    }

    #[test]
    fn full_is_only_said_where_nothing_has_changed() {
        assert!(!is_full(&never_full(io::Error::from(
            io::ErrorKind::StorageFull
        ))));
        assert!(!is_full(&never_full(io::Error::from(
            io::ErrorKind::QuotaExceeded
        ))));
    }
}

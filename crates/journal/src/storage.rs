//! The port through which a journal reaches its bytes.

use std::fmt::Debug;
use std::io;

/// The space that ordinary appends leave free, in bytes, so that an Abort can always be logged.
///
/// An Abort of the longest session takes fewer than 100 steps, and a step two records of rarely more than 1 KiB. 256 KiB is
/// that, and a quarter more.
pub const ABORT_RESERVE: u64 = 256 * 1024;

/// Holds the bytes of a journal: a row of numbered files, of which the last is the current one.
///
/// The contract on errors is what makes a full disk harmless. An error of the kind [`io::ErrorKind::StorageFull`] (or
/// [`io::ErrorKind::QuotaExceeded`]) from [`reserve`](Self::reserve), [`append`](Self::append) or
/// [`start_next`](Self::start_next) promises that nothing has changed. After any other error the state is unknown, and the
/// journal never calls the storage again.
pub trait Storage: Debug + Send {
    /// Names the current file, or the one that would be the first, for messages.
    fn name(&self) -> String;

    /// Returns the number of the current file, counted from 1; 0 says that there is none.
    fn generation(&self) -> u32;

    /// Returns the whole current file, as the disk has it rather than as a cache remembers it.
    ///
    /// # Errors
    /// Any error of reading.
    fn read_all(&mut self) -> io::Result<Vec<u8>>;

    /// Makes sure that `bytes` more can be appended without running out of space.
    ///
    /// # Errors
    /// See the contract above.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;

    /// Writes at the end of the current file; durable only after [`sync`](Self::sync).
    ///
    /// # Errors
    /// See the contract above: running out of space half-way is *not* `StorageFull`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything that was appended or truncated before is durable.
    ///
    /// # Errors
    /// Any error; it is never followed by a second try.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the current file down to `len` bytes; durable only after [`sync`](Self::sync).
    ///
    /// # Errors
    /// Any error of truncating.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes `contents` the next file and the current one, at once and durably: after a crash at any point the current file
    /// is either the old one or the complete new one. [`ABORT_RESERVE`] bytes are reserved behind it before it appears.
    ///
    /// # Errors
    /// See the contract above.
    fn start_next(&mut self, contents: &[u8]) -> io::Result<()>;

    /// Removes all files but the newest `keep`, never the current one.
    ///
    /// # Errors
    /// Any error of removing; what was removed until then stays removed.
    fn prune(&mut self, keep: u32) -> io::Result<()>;
}

/// Says whether an error means that there was no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

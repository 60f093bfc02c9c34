//! An append-only, checksummed, synced record file.
//!
//! The journal is the memory of a session: the engine writes what it is about to do, and what came of it, and after a crash
//! it believes nothing else but the machine itself. So the journal promises four things.
//!
//! * **What [`Journal::append`] acknowledged is on the disk**, and stays readable, or the journal refuses to open. It is never
//!   replaced by something else: every line carries a checksum, a sequence number and the checksum of the line before it.
//! * **A power cut can spoil only an append that was never acknowledged.** One append is one line and one `fdatasync`, and
//!   nothing is written after an append that failed. So a crash spoils the last line and no other: it is dropped at the next
//!   opening and reported. A spoilt line with anything after it is damage, which is refused and left exactly as it was found.
//!   (A last line that rots on the disk later looks the same and is dropped too: [`DroppedTail::complete`] tells that the
//!   line had been written to its end.)
//! * **The first failed write or sync is the last thing the journal does.** After a failed `fdatasync` the kernel may have
//!   thrown away what it could not write and call it clean, so a second try that succeeds proves nothing. The journal is then
//!   *poisoned*: each later call is refused, and the server ends and starts again from what the disk really holds.
//! * **A full disk is noticed before the write, and leaves room for an Abort.** Space is reserved ahead;
//!   [`Journal::append`] never touches the last [`ABORT_RESERVE`] bytes of it, [`Journal::append_reserved`] may.
//!
//! # Format, version 1
//!
//! Text, one line per append, made to be read with `grep`:
//!
//! ```text
//! flipside-journal 1 generation=1 first=1 chain=00000000 crc=7433d319
//! e0da8e83 1 7433d319 {"kind":"opened","system":"web"}
//! 5ba145e6 2 e0da8e83 {"kind":"intent","step":"SX.s1"}
//! 2aa53e6f 3-4 5ba145e6 [{"kind":"outcome","step":"SX.s1"},{"kind":"intent","step":"SX.s2"}]
//! ```
//!
//! A record line is the CRC-32C of the rest of the line, the sequence number, the CRC-32C of the line before, and the record
//! as JSON. A batch ([`Journal::append_all`]) is one line with a range of sequence numbers and a JSON array, so that a power
//! cut leaves all of it or nothing. The header names the format's version, the file's place in the row of files, the sequence
//! number of its first record, and the checksum on which the file before it ended.
//!
//! # Files
//!
//! [`FileStorage`] keeps `journal.0001`, `journal.0002`, … in one directory; the highest number is the current file.
//! [`Journal::rotate`] starts the next one with a snapshot that the caller supplies; older files stay until
//! [`Journal::prune`] removes them. `journal.lock` is held while the journal is open and names the process that holds it.
//!
//! What the journal cannot see by itself is an older copy of the whole directory that somebody has put back: that is a
//! perfectly good journal. Who must notice it keeps [`Journal::position`] somewhere else and compares.

mod error;
mod file;
mod format;
mod journal;
mod memory;
mod storage;

pub use error::{Damage, FileError, JournalError};
pub use file::FileStorage;
pub use format::{Decoded, DroppedTail, Entry, FORMAT_VERSION, MAX_LINE_BYTES, decode};
pub use journal::{Journal, Opened, Position};
pub use memory::{Fault, MemoryDisk, MemoryStorage};
pub use storage::{ABORT_RESERVE, Storage};

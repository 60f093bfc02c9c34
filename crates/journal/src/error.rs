//! What can go wrong, one variant per failed operation.

use std::io;
use std::path::PathBuf;

/// Why a line of a journal is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The first line is missing, incomplete or fails its checksum.
    #[error("the header is not a journal's header")]
    Header,
    /// The header belongs to another file of the row: a file was renamed or copied over this one.
    #[error("the header says generation {found}, the file's name says {expected}")]
    Generation {
        /// The generation in the file's name.
        expected: u32,
        /// The generation in the header.
        found: u32,
    },
    /// A line fails its checksum, and it is not the torn end of the last append.
    #[error("the checksum does not match and it is not merely a torn last line")]
    Checksum,
    /// A good line has the wrong sequence number: lines were lost, doubled or moved.
    #[error("sequence number {found} where {expected} must follow")]
    Sequence {
        /// The number that had to follow.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// A good line does not continue the line before it: it comes from another journal.
    #[error("the line continues {found:08x}, but the line before it is {expected:08x}")]
    Chain {
        /// The checksum of the line before.
        expected: u32,
        /// The checksum that this line names as the one before.
        found: u32,
    },
    /// A good batch line does not hold as many records as its range of sequence numbers says.
    #[error("the line holds {found} records, its sequence numbers say {expected}")]
    Batch {
        /// The number of records that the sequence numbers promise.
        expected: u64,
        /// The number of records in the line.
        found: u64,
    },
}

/// Says why a journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no journal to open. A caller that expected one must not create another: state was lost.
    #[error("there is no journal `{file}`")]
    Missing {
        /// The file that was looked for.
        file: String,
    },
    /// There is a journal already, so none was created.
    #[error("there is a journal already, `{file}`")]
    AlreadyExists {
        /// The current file of the journal that exists.
        file: String,
    },
    /// The journal is damaged before its last line. Nothing was changed.
    #[error(
        "the journal `{file}` is damaged in line {line} (byte {offset}): {why}; nothing was changed"
    )]
    Damaged {
        /// The damaged file.
        file: String,
        /// The line, counted from 1.
        line: u64,
        /// The first byte of that line, counted from 0.
        offset: u64,
        /// What is wrong with it.
        why: Damage,
    },
    /// The journal was written by a newer flipside. Nothing was changed.
    #[error(
        "the journal `{file}` has format {found}, this program knows formats up to {known}; nothing was changed"
    )]
    NewerVersion {
        /// The refused file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version that is known here.
        known: u32,
    },
    /// A line is intact, but its record means nothing to this program; probably a newer one wrote it. Nothing was changed.
    #[error(
        "record {seq} in line {line} of the journal `{file}` is intact but not understood; nothing was changed"
    )]
    NotUnderstood {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: u64,
        /// The first sequence number of the line.
        seq: u64,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// An operation other than appending failed: opening or pruning. A journal that was open stays usable.
    #[error("cannot {operation} the journal `{file}`")]
    Io {
        /// What was being done: `sync`, `read`, `truncate` or `prune`.
        operation: &'static str,
        /// The file.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A record cannot be written so that it could be read again. The journal is unharmed.
    #[error("a record cannot be written as JSON and read again")]
    Encode {
        /// What the encoder or decoder says.
        source: serde_json::Error,
    },
    /// A line would be longer than [`MAX_LINE_BYTES`](crate::MAX_LINE_BYTES). The journal is unharmed.
    #[error("a record of {bytes} bytes is too large, a line may have {limit}")]
    TooLarge {
        /// The length of the line.
        bytes: usize,
        /// The length a line may have.
        limit: usize,
    },
    /// There is no space for the record. Nothing was written and the journal is unharmed: free some space and repeat.
    #[error("there is no space left for the journal `{file}`; nothing was written")]
    Full {
        /// The file.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A write or a sync failed. Whether the record is on the disk is unknown, and the journal is poisoned from here on.
    #[error(
        "cannot {operation} the journal `{file}`: it takes no more records until it is opened again"
    )]
    Failed {
        /// What was being done: `reserve`, `append`, `sync` or `rotate`.
        operation: &'static str,
        /// The file.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// An earlier write or sync failed, so nothing was tried.
    #[error("the journal `{file}` takes no more records because of an earlier failure: {cause}")]
    Poisoned {
        /// The file.
        file: String,
        /// The first failure.
        cause: String,
    },
}

/// Says why the files of a journal could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Another process has the journal open.
    #[error("the journal in `{}` is in use by {}; end that process first", dir.display(), holder(*pid))]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
        /// The process that holds it, where it is known.
        pid: Option<u32>,
    },
    /// A file or directory is not safe to trust or to write to.
    #[error("`{}` is refused: {why}", path.display())]
    Unsafe {
        /// The refused path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An operation of the operating system failed.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

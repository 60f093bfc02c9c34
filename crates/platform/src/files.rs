//! How a small file is replaced so that a power cut leaves the old or the new one: the same code on a real directory and
//! on the simulated one, which loses whatever was not synced.

use flipside_model::planted;
use std::io;

/// A directory of small files.
pub trait SmallFiles {
    /// A file that is being written.
    type File;
    /// Removes a name; one that is not there is removed.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes a new file that only its owner can read; fails if the name is taken.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Writes bytes at the end of a file.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written to a file durable.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Gives a file another name, in place of whatever has it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the names in the directory durable.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// Replaces a file: a temporary one is written, synced and renamed, and the directory synced. When it returns, the new
/// one survives a power cut; until then a power cut leaves either (invariants 9 and 10 of the leg book rest on it).
pub fn replace<F: SmallFiles>(files: &mut F, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.new");
    files.remove(&fresh)?;
    if let Err(error) = write_and_rename(files, &fresh, name, bytes) {
        // Nothing is left behind; the error that counts is the first one.
        let _ = files.remove(&fresh);
        return Err(error);
    }
    if planted::is("book-directory-not-synced") {
        return Ok(());
    }
    files.sync_names()
}

fn write_and_rename<F: SmallFiles>(
    files: &mut F,
    fresh: &str,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = files.create(fresh)?;
    files.write(&mut file, bytes)?;
    if !planted::is("book-file-not-synced") {
        files.sync(&mut file)?;
    }
    files.rename(fresh, name)
}

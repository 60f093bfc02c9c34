//! The directory of the leg book: what was written and not synced is lost in a power cut, or torn, or survives.

use crate::state::Part;
use flipside_model::LegBook;
use flipside_platform::files::{SmallFiles, replace};
use flipside_platform::{PortError, PortResult};
use std::collections::BTreeMap;
use std::io;

/// The name of the book.
const BOOK: &str = "legs.json";

/// What a power cut leaves of what was not synced. A disk is obliged to nothing: names and contents are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum BookCut {
    /// Nothing: neither a name nor a byte.
    #[default]
    Lost,
    /// The names, and half of the bytes.
    Torn,
    /// The names, and no byte.
    Empty,
    /// Everything.
    Kept,
}

impl BookCut {
    /// All of them.
    pub const ALL: [BookCut; 4] = [BookCut::Lost, BookCut::Torn, BookCut::Empty, BookCut::Kept];
}

#[derive(Debug, Clone, Default)]
struct Inode {
    written: Vec<u8>,
    synced: Vec<u8>,
}

/// The files, as programs see them and as the disk has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
}

impl Files {
    /// Puts a book there, durably and at once: for whoever is no server.
    pub(crate) fn put(&mut self, book: &LegBook) {
        let bytes = serde_json::to_vec(book).unwrap_or_default();
        self.inodes = vec![Inode {
            written: bytes.clone(),
            synced: bytes,
        }];
        self.names = BTreeMap::from([(BOOK.to_owned(), 0)]);
        self.durable = self.names.clone();
    }

    /// Replaces the book by the product's own code, part by part; says besides whether programs see the new one now.
    pub(crate) fn store(&mut self, book: &LegBook, part: &mut Part) -> (PortResult<()>, bool) {
        let before = self.names.get(BOOK).copied();
        let bytes = serde_json::to_vec(book).unwrap_or_default();
        let mut files = Gated { files: self, part };
        let stored = replace(&mut files, BOOK, &bytes);
        let stored =
            stored.map_err(|e| PortError::failed("The leg book cannot be written.").because(&e));
        (stored, self.names.get(BOOK).copied() != before)
    }

    /// Loses the power; returns the book that is there afterwards.
    pub(crate) fn power_cut(&mut self, cut: BookCut) -> Result<LegBook, String> {
        let names = match cut {
            BookCut::Lost => self.durable.clone(),
            BookCut::Torn | BookCut::Empty | BookCut::Kept => self.names.clone(),
        };
        for inode in &mut self.inodes {
            let kept = match cut {
                BookCut::Lost | BookCut::Empty => inode.synced.len(),
                BookCut::Torn => inode.synced.len().midpoint(inode.written.len()),
                BookCut::Kept => inode.written.len(),
            };
            inode.written.truncate(kept);
            inode.synced.clone_from(&inode.written);
        }
        self.names = names;
        self.durable = self.names.clone();
        let book = self.names.get(BOOK).and_then(|at| self.inodes.get(*at));
        let book = book.ok_or("there is no leg book")?;
        serde_json::from_slice(&book.written).map_err(|e| format!("the leg book is damaged: {e}"))
    }
}

/// The files behind the gate of a call: each operation is a part of it, a write is two.
struct Gated<'a> {
    files: &'a mut Files,
    part: &'a mut Part,
}

impl Gated<'_> {
    fn step(&mut self) -> io::Result<()> {
        self.part.step().map_err(|e| io::Error::other(e.message))
    }

    fn inode(&mut self, at: usize) -> io::Result<&mut Inode> {
        let inode = self.files.inodes.get_mut(at);
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SmallFiles for Gated<'_> {
    type File = usize;

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.files.names.contains_key(name) {
            self.step()?;
            self.files.names.remove(name);
        }
        Ok(())
    }

    fn create(&mut self, name: &str) -> io::Result<usize> {
        self.step()?;
        let at = self.files.inodes.len();
        self.files.inodes.push(Inode::default());
        self.files.names.insert(name.to_owned(), at);
        Ok(at)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        for half in [first, rest] {
            self.step()?;
            self.inode(*file)?.written.extend(half);
        }
        Ok(())
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(*file)?;
        inode.synced.clone_from(&inode.written);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let at = self.files.names.remove(from);
        let at = at.ok_or(io::ErrorKind::NotFound)?;
        self.files.names.insert(to.to_owned(), at);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.step()?;
        self.files.durable.clone_from(&self.files.names);
        Ok(())
    }
}

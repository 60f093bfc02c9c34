//! The journal itself: appends, fail-stop and rotation, over any storage.

use std::io;
use std::marker::PhantomData;

use flipside_model::planted;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Damage, JournalError};
use crate::format::{DroppedTail, Entry, MAX_LINE_BYTES, decode, header, line};
use crate::storage::{ABORT_RESERVE, Storage, is_full};

/// A journal of records of the type `R`, open for appending.
///
/// Each call blocks until the disk has answered, some milliseconds. One value is one writer; there is nothing to share.
#[derive(Debug)]
pub struct Journal<R> {
    storage: Box<dyn Storage>,
    next_seq: u64,
    chain: u32,
    len: u64,
    poison: Option<String>,
    payload: PhantomData<fn(R) -> R>,
}

/// What was found when a journal was opened.
#[derive(Debug)]
pub struct Opened<R> {
    /// The records of the current file, oldest first; in a rotated journal the first of them is the snapshot.
    pub records: Vec<Entry<R>>,
    /// The spoilt last line that was cut off, if there was one. The caller should log it.
    pub dropped_tail: Option<DroppedTail>,
}

/// Where a journal ends: equal positions mean equal histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the current file, counted from 1.
    pub generation: u32,
    /// The sequence number of the last record; 0 while there is none.
    pub seq: u64,
    /// The checksum of the last line.
    pub chain: u32,
}

/// Which space an append may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Ordinary,
    AbortReserve,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Creates an empty journal where there is none.
    ///
    /// # Errors
    /// [`JournalError::AlreadyExists`], [`JournalError::Full`] or [`JournalError::Failed`].
    pub fn create(storage: impl Storage + 'static) -> Result<Self, JournalError> {
        if storage.generation() != 0 {
            return Err(JournalError::AlreadyExists {
                file: storage.name(),
            });
        }
        let mut journal = Self {
            storage: Box::new(storage),
            next_seq: 1,
            chain: 0,
            len: 0,
            poison: None,
            payload: PhantomData,
        };
        let (text, crc) = header(1, 1, 0);
        journal.start_file(&text, crc)?;
        Ok(journal)
    }

    /// Opens a journal, and cuts off a spoilt last line.
    ///
    /// Everything is read and checked before anything is changed.
    ///
    /// # Errors
    /// [`JournalError::Missing`]; [`JournalError::Damaged`], [`JournalError::NewerVersion`] and
    /// [`JournalError::NotUnderstood`], after which the file is as it was; [`JournalError::Io`].
    pub fn open(storage: impl Storage + 'static) -> Result<(Self, Opened<R>), JournalError> {
        let mut storage: Box<dyn Storage> = Box::new(storage);
        let file = storage.name();
        if storage.generation() == 0 {
            return Err(JournalError::Missing { file });
        }
        let failed = |operation, source| JournalError::Io {
            operation,
            file: file.clone(),
            source,
        };
        // A server that was killed between a write and its sync leaves a record that can be read and is not yet durable.
        // Nobody may act on it before it is.
        storage.sync().map_err(|source| failed("sync", source))?;
        let bytes = storage
            .read_all()
            .map_err(|source| failed("read", source))?;
        let decoded = decode::<R>(&file, &bytes)?;
        if decoded.generation != storage.generation() {
            let why = Damage::Generation {
                expected: storage.generation(),
                found: decoded.generation,
            };
            return Err(JournalError::Damaged {
                file,
                line: 1,
                offset: 0,
                why,
            });
        }
        if decoded.tail.is_some() {
            storage
                .truncate(decoded.intact)
                .map_err(|source| failed("truncate", source))?;
            storage.sync().map_err(|source| failed("sync", source))?;
        }
        let journal = Self {
            storage,
            next_seq: decoded.next_seq,
            chain: decoded.chain,
            len: decoded.intact,
            poison: None,
            payload: PhantomData,
        };
        Ok((
            journal,
            Opened {
                records: decoded.entries,
                dropped_tail: decoded.tail,
            },
        ))
    }

    /// Appends one record and returns its sequence number when it is durable. Leaves [`ABORT_RESERVE`] bytes free.
    ///
    /// # Errors
    /// [`JournalError::Encode`], [`JournalError::TooLarge`] and [`JournalError::Full`] leave the journal as it was;
    /// [`JournalError::Failed`] poisons it, and [`JournalError::Poisoned`] is the answer ever after.
    pub fn append(&mut self, record: &R) -> Result<u64, JournalError> {
        self.write(std::slice::from_ref(record), Room::Ordinary)
    }

    /// Appends one record like [`append`](Self::append), but may use the last [`ABORT_RESERVE`] bytes.
    ///
    /// For the records that end a session or take it back: they must be written even when the disk is full.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_reserved(&mut self, record: &R) -> Result<u64, JournalError> {
        self.write(std::slice::from_ref(record), Room::AbortReserve)
    }

    /// Appends several records as one: after a crash there are all of them or none. Returns the last sequence number.
    ///
    /// An empty slice writes nothing.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_all(&mut self, records: &[R]) -> Result<u64, JournalError> {
        self.write(records, Room::Ordinary)
    }

    /// Closes the current file and starts the next one with a record that stands for everything before it.
    ///
    /// After a crash at any point the journal is either as it was or complete in the new file. Returns the snapshot's
    /// sequence number.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn rotate(&mut self, snapshot: &R) -> Result<u64, JournalError> {
        self.refuse_if_poisoned()?;
        let json = encode(snapshot)?;
        let (head, crc) = header(self.storage.generation() + 1, self.next_seq, self.chain);
        let (text, crc) = line(self.next_seq, crc, &[json]);
        refuse_if_too_large(&text)?;
        self.start_file(&(head + &text), crc)?;
        self.next_seq += 1;
        Ok(self.next_seq - 1)
    }

    /// Removes all files but the newest `keep`; the current file always stays.
    ///
    /// # Errors
    /// [`JournalError::Io`]: some old files may remain, the journal is unharmed.
    pub fn prune(&mut self, keep: u32) -> Result<(), JournalError> {
        let file = self.storage.name();
        self.storage.prune(keep).map_err(|source| JournalError::Io {
            operation: "prune",
            file,
            source,
        })
    }

    /// Returns where the journal ends.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            generation: self.storage.generation(),
            seq: self.next_seq - 1,
            chain: self.chain,
        }
    }

    /// Returns the length of the current file in bytes, by which a caller decides when to [rotate](Self::rotate).
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Returns the first failure, after which the journal takes no more records.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    fn write(&mut self, records: &[R], room: Room) -> Result<u64, JournalError> {
        self.refuse_if_poisoned()?;
        if records.is_empty() {
            return Ok(self.next_seq - 1);
        }
        let encoded = records.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let (text, crc) = line(self.next_seq, self.chain, &encoded);
        refuse_if_too_large(&text)?;

        let len = text.len() as u64;
        let room_behind = if room == Room::Ordinary {
            ABORT_RESERVE
        } else {
            0
        };
        match self.storage.reserve(len + room_behind) {
            Err(source) if is_full(&source) => return Err(self.full(source)),
            result => result.map_err(|source| self.fail("reserve", source))?,
        }
        match self.storage.append(text.as_bytes()) {
            Err(source) if is_full(&source) => return Err(self.full(source)),
            result => result.map_err(|source| self.fail("append", source))?,
        }
        // Here even a full disk is a failure: the bytes are written, and whether they stay is unknown.
        let synced = if planted::is("journal-not-synced") {
            Ok(())
        } else {
            self.storage.sync()
        };
        match synced {
            Err(_) if planted::is("sync-failure-ignored") => {}
            result => result.map_err(|source| self.fail("sync", source))?,
        }
        self.len += len;
        self.chain = crc;
        self.next_seq += records.len() as u64;
        Ok(self.next_seq - 1)
    }

    fn start_file(&mut self, contents: &str, chain: u32) -> Result<(), JournalError> {
        match self.storage.start_next(contents.as_bytes()) {
            Err(source) if is_full(&source) => return Err(self.full(source)),
            result => result.map_err(|source| self.fail("rotate", source))?,
        }
        self.len = contents.len() as u64;
        self.chain = chain;
        Ok(())
    }

    fn refuse_if_poisoned(&self) -> Result<(), JournalError> {
        match &self.poison {
            Some(cause) => Err(JournalError::Poisoned {
                file: self.storage.name(),
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    fn full(&self, source: io::Error) -> JournalError {
        JournalError::Full {
            file: self.storage.name(),
            source,
        }
    }

    fn fail(&mut self, operation: &'static str, source: io::Error) -> JournalError {
        self.poison = Some(format!("{operation}: {source}"));
        JournalError::Failed {
            operation,
            file: self.storage.name(),
            source,
        }
    }
}

/// Encodes a record, and makes sure that it can be read again: a record that cannot would make the journal unreadable.
fn encode<R: Serialize + DeserializeOwned>(record: &R) -> Result<String, JournalError> {
    let json = serde_json::to_string(record).map_err(|source| JournalError::Encode { source })?;
    serde_json::from_str::<R>(&json).map_err(|source| JournalError::Encode { source })?;
    Ok(json)
}

fn refuse_if_too_large(text: &str) -> Result<(), JournalError> {
    if text.len() > MAX_LINE_BYTES {
        return Err(JournalError::TooLarge {
            bytes: text.len(),
            limit: MAX_LINE_BYTES,
        });
    }
    Ok(())
}

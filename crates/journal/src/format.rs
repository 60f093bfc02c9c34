//! The bytes of a journal file: pure functions, total on every input.

use flipside_model::planted;
use serde::de::DeserializeOwned;

use crate::error::{Damage, JournalError};

/// The version of the format that is written here, and the newest that is understood.
pub const FORMAT_VERSION: u32 = 1;

/// The longest line that is written, in bytes: a record is a fact about a session, not a container for its data.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The highest first number of a file that is believed: nobody has written so many records, and counting on from there
/// cannot overflow. (The numbers of the lines follow from it, one by one.)
const LAST_FIRST: u64 = 1 << 53;

const MAGIC: &str = "flipside-journal";

/// One record with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<R> {
    /// The sequence number: 1 for the first record of a journal, one more for each that follows, across all its files.
    pub seq: u64,
    /// What the caller wrote.
    pub record: R,
}

/// The spoilt end of a journal: an append that was never acknowledged, or a last line that has rotted since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTail {
    /// The line, counted from 1.
    pub line: u64,
    /// The first dropped byte, counted from 0.
    pub offset: u64,
    /// The number of dropped bytes.
    pub bytes: u64,
    /// Whether the line had its end: then it was written completely, and a checksum fails.
    pub complete: bool,
}

/// What one journal file says.
#[derive(Debug, Clone)]
pub struct Decoded<R> {
    /// The file's number in the row of files.
    pub generation: u32,
    /// Its intact records.
    pub entries: Vec<Entry<R>>,
    /// The checksum on which the next line has to build.
    pub chain: u32,
    /// The sequence number that the next record has to carry.
    pub next_seq: u64,
    /// The length of the intact part, in bytes.
    pub intact: u64,
    /// What follows the intact part, if anything does.
    pub tail: Option<DroppedTail>,
}

/// Renders a header; returns it with its checksum, on which the first line builds.
pub(crate) fn header(generation: u32, first: u64, chain: u32) -> (String, u32) {
    let text =
        format!("{MAGIC} {FORMAT_VERSION} generation={generation} first={first} chain={chain:08x}");
    let crc = crc32c::crc32c(text.as_bytes());
    (format!("{text} crc={crc:08x}\n"), crc)
}

/// Renders the line of one append: a record as it is, several as an array. Returns it with its checksum.
pub(crate) fn line(first: u64, chain: u32, records: &[String]) -> (String, u32) {
    let body = match records {
        [one] => format!("{first} {chain:08x} {one}"),
        many => format!(
            "{first}-{} {chain:08x} [{}]",
            first + many.len() as u64 - 1,
            many.join(",")
        ),
    };
    let crc = crc32c::crc32c(body.as_bytes());
    (format!("{crc:08x} {body}\n"), crc)
}

/// Reads a whole journal file; `file` names it in errors.
///
/// Never panics, whatever the bytes are, and changes nothing: what to do about a [tail](Decoded::tail) is the caller's matter.
///
/// # Errors
/// [`JournalError::Damaged`], [`JournalError::NewerVersion`] or [`JournalError::NotUnderstood`].
pub fn decode<R: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<Decoded<R>, JournalError> {
    let damaged = |line: u64, offset: usize, why: Damage| JournalError::Damaged {
        file: file.to_owned(),
        line,
        offset: offset as u64,
        why,
    };
    let head = parse_header(file, bytes)?;
    let mut decoded = Decoded {
        generation: head.generation,
        entries: Vec::new(),
        chain: head.crc,
        next_seq: head.first,
        intact: head.len as u64,
        tail: None,
    };
    let mut at = head.len;
    let mut number = 2;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = rest.iter().position(|b| *b == b'\n');
        let Some((text, found)) =
            end.and_then(|end| parse_line(&rest[..end]).map(|found| (end, found)))
        else {
            if !is_torn_append(rest) {
                return Err(damaged(number, at, Damage::Checksum));
            }
            decoded.tail = Some(DroppedTail {
                line: number,
                offset: at as u64,
                bytes: rest.len() as u64,
                complete: end.is_some(),
            });
            break;
        };
        if found.first != decoded.next_seq && !planted::is("sequence-gap-accepted") {
            let why = Damage::Sequence {
                expected: decoded.next_seq,
                found: found.first,
            };
            return Err(damaged(number, at, why));
        }
        if found.chain != decoded.chain && !planted::is("foreign-record-accepted") {
            let why = Damage::Chain {
                expected: decoded.chain,
                found: found.chain,
            };
            return Err(damaged(number, at, why));
        }
        let records = found
            .records::<R>()
            .map_err(|source| JournalError::NotUnderstood {
                file: file.to_owned(),
                line: number,
                seq: found.first,
                source,
            })?;
        let expected = found.last - found.first + 1;
        if records.len() as u64 != expected {
            let why = Damage::Batch {
                expected,
                found: records.len() as u64,
            };
            return Err(damaged(number, at, why));
        }
        decoded.entries.extend(
            (found.first..)
                .zip(records)
                .map(|(seq, record)| Entry { seq, record }),
        );
        decoded.next_seq = found.last + 1;
        decoded.chain = found.crc;
        at += text + 1;
        decoded.intact = at as u64;
        number += 1;
    }
    Ok(decoded)
}

struct Header {
    generation: u32,
    first: u64,
    crc: u32,
    len: usize,
}

fn parse_header(file: &str, bytes: &[u8]) -> Result<Header, JournalError> {
    let no_header = || JournalError::Damaged {
        file: file.to_owned(),
        line: 1,
        offset: 0,
        why: Damage::Header,
    };
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or_else(no_header)?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| no_header())?;
    let mut words = text.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(no_header());
    }
    let version: u32 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(no_header)?;
    if version > FORMAT_VERSION {
        // Nothing after the version is looked at: a newer format may have moved it, the checksum included.
        return Err(JournalError::NewerVersion {
            file: file.to_owned(),
            found: version,
            known: FORMAT_VERSION,
        });
    }
    let mut value = |key: &str| {
        words
            .next()
            .and_then(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let generation: u32 = value("generation")
        .and_then(|v| v.parse().ok())
        .ok_or_else(no_header)?;
    let first: u64 = value("first")
        .and_then(|v| v.parse().ok())
        .ok_or_else(no_header)?;
    let chain = value("chain")
        .and_then(|v| hex(v.as_bytes()))
        .ok_or_else(no_header)?;
    let (expected, crc) = header(generation, first, chain);
    // Comparing the whole line also refuses other spellings of the same values, and checks the checksum.
    if expected.as_bytes() != &bytes[..=end]
        || generation == 0
        || !(1..=LAST_FIRST).contains(&first)
    {
        return Err(no_header());
    }
    Ok(Header {
        generation,
        first,
        crc,
        len: end + 1,
    })
}

struct Line<'a> {
    crc: u32,
    first: u64,
    last: u64,
    chain: u32,
    batch: bool,
    json: &'a [u8],
}

impl Line<'_> {
    fn records<R: DeserializeOwned>(&self) -> Result<Vec<R>, serde_json::Error> {
        if self.batch {
            serde_json::from_slice(self.json)
        } else {
            serde_json::from_slice(self.json).map(|record| vec![record])
        }
    }
}

/// Reads one line without its end; `None` unless its checksum holds.
fn parse_line(text: &[u8]) -> Option<Line<'_>> {
    let (crc, body) = text.split_at_checked(8)?;
    let crc = hex(crc)?;
    let body = body.strip_prefix(b" ")?;
    // Looked at before the checksum, because `is_torn_append` asks about every offset of a line.
    let good = crc32c::crc32c(body) == crc || planted::is("checksum-not-compared");
    if !body.first()?.is_ascii_digit() || !good {
        return None;
    }
    let mut parts = body.splitn(3, |b| *b == b' ');
    let seq = std::str::from_utf8(parts.next()?).ok()?;
    let (first, last, batch) = match seq.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?, true),
        None => (seq.parse().ok()?, seq.parse().ok()?, false),
    };
    let chain = hex(parts.next()?)?;
    let json = parts.next()?;
    // The upper bound keeps `last + 1` from overflowing.
    (first <= last && last < u64::MAX).then_some(Line {
        crc,
        first,
        last,
        chain,
        batch,
        json,
    })
}

/// Reads eight hexadecimal digits as they are written here: a capital letter is a flipped bit.
fn hex(text: &[u8]) -> Option<u32> {
    let ours = text.len() == 8 && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u32::from_str_radix(std::str::from_utf8(text).ok().filter(|_| ours)?, 16).ok()
}

/// Says whether a bad end of a file can be the remains of one interrupted append.
///
/// One append is one line, so an end with a line break inside is damage to a line that had been acknowledged. So is a good
/// line at the end of a bad one: then only the break between them was lost.
fn is_torn_append(tail: &[u8]) -> bool {
    if planted::is("damage-taken-for-torn-tail") {
        return true;
    }
    match tail.iter().position(|b| *b == b'\n') {
        None => true,
        Some(end) if end + 1 < tail.len() => false,
        Some(end) => (1..end).all(|from| parse_line(&tail[from..end]).is_none()),
    }
}

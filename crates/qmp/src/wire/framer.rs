//! Cuts a stream of bytes into lines.

use super::Violation;

/// A buffer that grew beyond this for one large line is given back afterwards.
const KEEP_CAPACITY: usize = 1024 * 1024;

/// Collects bytes and hands out whole lines, never holding much more than one
/// line of the greatest length allowed.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the unread bytes begin.
    start: usize,
    /// Up to where the unread bytes are known to hold no line end, so that a
    /// long line arriving in small pieces is searched once, not once a piece.
    scanned: usize,
    limit: usize,
}

impl Framer {
    /// Makes an empty framer for lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            limit,
        }
    }

    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned = self.scanned.saturating_sub(self.start);
            self.start = 0;
            if self.buffer.capacity() > KEEP_CAPACITY {
                self.buffer.shrink_to(KEEP_CAPACITY);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Hands out the next whole line without its end, or `None` when more
    /// bytes are needed. Blank lines are passed over.
    ///
    /// # Errors
    /// [`Violation::LineTooLong`] as soon as a line exceeds the limit, whether
    /// or not its end has been seen.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, Violation> {
        loop {
            let from = self.scanned.max(self.start);
            let Some(offset) = self.buffer[from..].iter().position(|b| *b == b'\n') else {
                self.scanned = self.buffer.len();
                return if self.len() > self.limit {
                    Err(Violation::LineTooLong { limit: self.limit })
                } else {
                    Ok(None)
                };
            };
            let (begin, end) = (self.start, from + offset);
            self.start = end + 1;
            self.scanned = self.start;
            if end - begin > self.limit {
                return Err(Violation::LineTooLong { limit: self.limit });
            }
            if !self.buffer[begin..end].trim_ascii().is_empty() {
                return Ok(Some(self.buffer[begin..end].trim_ascii()));
            }
        }
    }

    /// Throws away everything up to and including the first `byte`, or
    /// everything when there is none, and tells whether it was found.
    pub fn skip_past(&mut self, byte: u8) -> bool {
        let found = self.buffer[self.start..].iter().position(|b| *b == byte);
        match found {
            Some(offset) => {
                self.start += offset + 1;
                self.scanned = self.start;
            }
            None => self.clear(),
        }
        found.is_some()
    }

    /// Throws away everything up to and including the last `byte`, if there
    /// is one.
    pub fn skip_past_last(&mut self, byte: u8) {
        let found = self.buffer[self.start..].iter().rposition(|b| *b == byte);
        if let Some(offset) = found {
            self.start += offset + 1;
            self.scanned = self.scanned.max(self.start);
        }
    }

    /// Throws away everything that was not handed out.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_CAPACITY);
        self.start = 0;
        self.scanned = 0;
    }

    /// Counts the bytes not yet handed out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Tells whether every byte was handed out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framer: &mut Framer) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(line) = framer.next_line().unwrap() {
            all.push(line.to_vec());
        }
        all
    }

    #[test]
    fn every_cut_of_a_stream_gives_the_same_lines() {
        let stream = b"one\r\n\r\n  \ntwo\nthree\nrest";
        for cut in 0..=stream.len() {
            let mut framer = Framer::new(16);
            framer.push(&stream[..cut]);
            let mut all = lines(&mut framer);
            framer.push(&stream[cut..]);
            all.extend(lines(&mut framer));
            assert_eq!(all, [&b"one"[..], b"two", b"three"], "cut at {cut}");
            assert_eq!(framer.len(), 4);
        }
    }

    #[test]
    fn the_limit_is_exact_with_and_without_an_end() {
        let mut framer = Framer::new(4);
        framer.push(b"1234\n");
        assert_eq!(framer.next_line().unwrap(), Some(&b"1234"[..]));
        framer.push(b"12345");
        assert!(framer.next_line().is_err());
        framer.clear();
        framer.push(b"12345\n");
        assert!(framer.next_line().is_err());
    }

    #[test]
    fn skipping_forgets_what_came_before() {
        let mut framer = Framer::new(64);
        framer.push(b"stale\nbytes");
        assert!(!framer.skip_past(0xFF));
        assert!(framer.is_empty());
        framer.push(b"more\n\xFFanswer\n");
        assert!(framer.skip_past(0xFF));
        assert_eq!(framer.next_line().unwrap(), Some(&b"answer"[..]));
    }
}

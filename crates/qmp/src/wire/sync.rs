//! Finds the answer to `guest-sync-delimited` in whatever a guest sends.

use serde_json::Value;

use super::{AgentReply, Framer, Limits};

/// Precedes the answer to `guest-sync-delimited`, and resets the agent's own
/// parser when it precedes the request. It never occurs in UTF-8.
pub const SENTINEL: u8 = 0xFF;

/// Bytes the answer to a synchronisation may have; the true one has about 40.
/// A longer line is junk and is not kept.
pub const SYNC_REPLY_BYTES: usize = 1024;

/// Skips stale bytes until the answer that bears its own number.
#[derive(Debug)]
pub struct SyncScanner {
    id: u64,
    after_sentinel: bool,
}

impl SyncScanner {
    /// Looks for the answer to the request with this number.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            after_sentinel: false,
        }
    }

    /// Consumes what `framer` holds and tells whether the answer was in it.
    ///
    /// Stale replies, answers to earlier requests and junk of any length are
    /// dropped without being collected.
    pub fn scan(&mut self, framer: &mut Framer) -> bool {
        loop {
            if !self.after_sentinel {
                if !framer.skip_past(SENTINEL) {
                    return false;
                }
                self.after_sentinel = true;
            }
            let answered = match framer.next_line() {
                Ok(line) => line.map(|line| answers(line, self.id)),
                // Too long to be the answer, as below.
                Err(_) => Some(false),
            };
            match answered {
                Some(true) => return true,
                // What is left may yet hold the next sentinel.
                Some(false) => self.after_sentinel = false,
                None => {
                    // No line ends in all that is left, so only what follows
                    // its last sentinel can become the answer. To try one
                    // sentinel after the other would search the same bytes
                    // once for each.
                    framer.skip_past_last(SENTINEL);
                    if framer.len() > SYNC_REPLY_BYTES {
                        framer.clear();
                        self.after_sentinel = false;
                    }
                    return false;
                }
            }
        }
    }
}

fn answers(line: &[u8], id: u64) -> bool {
    // A broken earlier answer may share the line: what counts follows the
    // last sentinel.
    let from = line.iter().rposition(|b| *b == SENTINEL);
    let line = &line[from.map_or(0, |at| at + 1)..];
    line.len() <= SYNC_REPLY_BYTES
        && AgentReply::read(line, Limits::default())
            .is_ok_and(|reply| reply.outcome.as_ref().ok().and_then(Value::as_u64) == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_in_pieces(stream: &[u8], piece: usize) -> bool {
        let mut framer = Framer::new(1024 * 1024);
        let mut scanner = SyncScanner::new(42);
        stream.chunks(piece).any(|bytes| {
            framer.push(bytes);
            let found = scanner.scan(&mut framer);
            assert!(framer.len() <= SYNC_REPLY_BYTES + piece);
            found
        })
    }

    #[test]
    fn the_answer_is_found_behind_anything() {
        let answer = b"\xFF{\"return\": 42}\n";
        let stale: [&[u8]; 7] = [
            b"",
            b"{\"return\": 42}\n",
            b"half a rep",
            b"\xFF{\"return\": 41}\n",
            b"\xFF{\"return\": 4",
            b"\xFF\xFF\n\xFF",
            &[b'x'; 5000],
        ];
        for before in stale {
            for piece in [1, 3, 4096] {
                let stream = [before, answer].concat();
                assert!(
                    scan_in_pieces(&stream, piece),
                    "{} / {piece}",
                    before.escape_ascii()
                );
            }
        }
    }

    // Fault 38: 16 MiB of sentinels took half an hour when each was tried by
    // itself.
    #[test]
    fn sentinels_without_end_are_searched_once() {
        let mut framer = Framer::new(1024 * 1024);
        let mut scanner = SyncScanner::new(42);
        let begun = std::time::Instant::now();
        for _ in 0..256 {
            framer.push(&[SENTINEL; 64 * 1024]);
            assert!(!scanner.scan(&mut framer));
            assert!(framer.len() <= SYNC_REPLY_BYTES);
        }
        framer.push(b"{\"return\": 42}\n");
        assert!(scanner.scan(&mut framer));
        // A second on a loaded machine; one chunk alone took ten.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn nothing_else_is_taken_for_the_answer() {
        let others: [&[u8]; 5] = [
            b"{\"return\": 42}\n",
            b"\xFF{\"return\": 43}\n",
            b"\xFF{\"return\": \"42\"}\n",
            b"\xFF{\"error\": {\"desc\": \"42\"}}\n",
            b"\xFF{\"return\": 42}",
        ];
        for other in others {
            assert!(!scan_in_pieces(other, 4096), "{}", other.escape_ascii());
        }
    }
}

//! The escape of an interactive shell: `~.` at the start of a line ends it, `~~` sends one `~`.

/// Where in a line the typed bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Tilde,
    Middle,
}

/// Looks for the escape in what is typed.
#[derive(Debug)]
pub(crate) struct Escape {
    at: At,
}

impl Escape {
    pub(crate) fn new() -> Self {
        Self { at: At::Start }
    }

    /// Returns what is to be sent, and whether the shell is to be ended.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            self.at = match (self.at, byte) {
                (At::Tilde, b'.') => return (out, true),
                (At::Start, b'~') => At::Tilde,
                (before, byte) => {
                    if before == At::Tilde && *byte != b'~' {
                        out.push(b'~');
                    }
                    out.push(*byte);
                    if matches!(byte, b'\r' | b'\n') {
                        At::Start
                    } else {
                        At::Middle
                    }
                }
            };
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> (String, bool) {
        let mut escape = Escape::new();
        let mut sent = String::new();
        for piece in pieces {
            let (out, end) = escape.feed(piece.as_bytes());
            sent.push_str(&String::from_utf8(out).expect("text"));
            if end {
                return (sent, true);
            }
        }
        (sent, false)
    }

    #[test]
    fn only_at_the_start_of_a_line() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r~", ".x"]), ("ls\r".to_owned(), true));
        assert_eq!(typed(&["a~."]), ("a~.".to_owned(), false));
        assert_eq!(typed(&["~~.\r"]), ("~.\r".to_owned(), false));
        assert_eq!(typed(&["~x~.", "\n~a"]), ("~x~.\n~a".to_owned(), false));
    }
}

//! What a program printed, as far as it is kept (CA-38; gap G.4.54).

use flipside_model::{Captured, MAX_ACTION_OUTPUT};
use flipside_platform::ExecOutput;

/// Both streams of a run.
#[derive(Debug, Default)]
pub(super) struct Output {
    out: Stream,
    err: Stream,
}

#[derive(Debug, Default)]
struct Stream {
    kept: Vec<u8>,
    truncated: bool,
}

impl Output {
    pub(super) fn add(&mut self, more: &ExecOutput) {
        self.out.add(&more.out);
        self.err.add(&more.err);
    }

    pub(super) fn captured(self) -> (Captured, Captured) {
        (self.out.captured(), self.err.captured())
    }
}

impl Stream {
    fn add(&mut self, more: &[u8]) {
        let room = MAX_ACTION_OUTPUT - self.kept.len();
        self.kept.extend(&more[..more.len().min(room)]);
        self.truncated |= more.len() > room;
    }

    fn captured(self) -> Captured {
        Captured {
            text: String::from_utf8_lossy(&self.kept).into_owned(),
            truncated: self.truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(bytes: &[u8]) -> ExecOutput {
        ExecOutput {
            out: bytes.to_vec(),
            ..ExecOutput::default()
        }
    }

    // Fault 57: however much is printed, and whatever it is, an end fits into a record of 1 MiB.
    #[test]
    fn the_worst_output_fits_into_a_record() {
        for byte in [0u8, 0x1b, b'"', b'\\', 0xff, b'x'] {
            let mut output = Output::default();
            for _ in 0..40 {
                output.add(&ExecOutput {
                    out: vec![byte; 32 << 10],
                    err: vec![byte; 32 << 10],
                    exit: None,
                });
            }
            let (out, err) = output.captured();
            assert!(out.truncated && err.truncated);
            let bytes = serde_json::to_vec(&(out, err)).expect("serialises").len();
            assert!(bytes < (1 << 20) - (16 << 10), "{byte:#x}: {bytes}");
        }
    }

    #[test]
    fn exactly_as_much_as_is_kept_is_not_truncated() {
        let mut output = Output::default();
        output.add(&printed(&vec![b'x'; MAX_ACTION_OUTPUT]));
        output.add(&printed(b""));
        assert!(!output.captured().0.truncated);
        let mut output = Output::default();
        output.add(&printed(&vec![b'x'; MAX_ACTION_OUTPUT]));
        output.add(&printed(b"y"));
        let (out, _) = output.captured();
        assert!(out.truncated && out.text.len() == MAX_ACTION_OUTPUT);
    }
}

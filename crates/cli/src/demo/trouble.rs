//! What went wrong in the story, with everything that is needed to look into it.

use crate::failure::{FAILED, Failure};

/// Why the story cannot go on.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) command: Option<String>,
    /// The end of its output, when that was not printed by the command itself.
    pub(super) tail: Vec<String>,
    pub(super) advice: Option<String>,
    pub(super) status: u8,
}

impl Trouble {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            command: None,
            tail: Vec::new(),
            advice: None,
            status: FAILED,
        }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(super) fn of(mut self, command: &str, tail: Vec<String>) -> Self {
        self.command = Some(command.to_owned());
        self.tail = tail;
        self
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let text = failure.text();
        Self {
            status: failure.status(),
            ..Self::new(text.trim_start_matches("error: ").trim_end())
        }
    }
}

/// Says what was attempted when an input or output error came.
pub(super) fn cannot(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Trouble {
    move |error| Trouble::new(format!("cannot {what}: {error}"))
}

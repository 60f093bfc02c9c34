//! What a port answers when it cannot do what was asked.

use flipside_model::{Problem, ProblemCode};

/// Result of a port call.
pub type PortResult<T> = Result<T, PortError>;

/// What kind of failure it was, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortErrorKind {
    /// No answer in time: the outcome is unknown, observe again.
    TimedOut,
    /// The machine, disk or service is not there.
    Absent,
    /// It answered and refused, or failed.
    Failed,
    /// Somebody else uses it: a mounted file system, a locked leg, a port.
    InUse,
    /// What is there is not what was meant (wrong uuid, another file, foreign block graph).
    Mismatch,
    /// No space left.
    NoSpace,
    /// This platform cannot do that.
    Unsupported,
}

/// A failed port call: what was tried, on what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// Kind.
    pub kind: PortErrorKind,
    /// One sentence.
    pub message: String,
    /// The disk, service, file or port it is about.
    pub component: Option<String>,
    /// What to do next.
    pub advice: Option<String>,
    /// Deeper causes, outermost first.
    pub causes: Vec<String>,
}

impl PortError {
    /// Makes an error of a kind.
    pub fn new(kind: PortErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            component: None,
            advice: None,
            causes: Vec::new(),
        }
    }

    /// Makes an error for something that answered and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(PortErrorKind::Failed, message)
    }

    /// Makes an error for a missing answer.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(PortErrorKind::TimedOut, message)
    }

    /// Makes an error for something that is not there.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::new(PortErrorKind::Absent, message)
    }

    /// Names the component.
    #[must_use]
    pub fn about(mut self, component: impl Into<String>) -> Self {
        self.component = Some(component.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds an error and everything below it as causes.
    #[must_use]
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            source = inner.source();
        }
        self
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Problem {
        let code = match error.kind {
            PortErrorKind::TimedOut => ProblemCode::TimedOut,
            PortErrorKind::Absent => ProblemCode::NotFound,
            PortErrorKind::Failed | PortErrorKind::Unsupported => ProblemCode::Failed,
            PortErrorKind::InUse => ProblemCode::InUse,
            PortErrorKind::Mismatch => ProblemCode::Mismatch,
            PortErrorKind::NoSpace => ProblemCode::NoSpace,
        };
        Problem {
            code,
            message: error.message,
            component: error.component,
            advice: error.advice,
            causes: error.causes,
        }
    }
}

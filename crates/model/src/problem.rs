//! The one error an administrator sees, the same in API, journal and pages.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of problem it is; decides the exit status of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request itself is wrong (exit status 2).
    Usage,
    /// Legal at another time, refused in this state (exit status 3).
    Refused,
    /// The thing named does not exist.
    NotFound,
    /// The thing named is in use by somebody else.
    InUse,
    /// Something was tried and failed.
    Failed,
    /// No answer within the deadline: the outcome is unknown and must be observed.
    TimedOut,
    /// What is there is not what the journal means; nothing was touched.
    Mismatch,
    /// A readiness check found an Error.
    NotReady,
    /// No space left where it is needed.
    NoSpace,
    /// A defect of flipside itself.
    Internal,
}

/// A problem told to a person: what, where, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem it is.
    pub code: ProblemCode,
    /// One sentence: what happened and why.
    pub message: String,
    /// The disk, service, file or port it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Deeper causes, outermost first, not repeated in the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

impl Problem {
    /// Makes a problem of a kind with its sentence.
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            component: None,
            advice: None,
            causes: Vec::new(),
        }
    }

    /// Names the disk, service, file or port it is about.
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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

//! The records of the journal: the one truth that survives a crash of the server.

use crate::{
    Command, Fact, OperationalState, Problem, SessionId, Severity, UpgradeConfig, UpgradeState,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The stable name of a step, such as `split.fork`; also the name of its crash points.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepName(pub Cow<'static, str>);

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// It acted, and observation proved it.
    Done,
    /// Observation showed that there was nothing to do.
    Already,
    /// It failed.
    Failed(Problem),
    /// It was taken back after a later step failed.
    Undone,
    /// It was interrupted at a safe point by an abort.
    Cancelled,
}

/// One record. The order of records is the order of their sequence numbers, never of their times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A server opened the journal.
    Opened {
        /// Product version of the server.
        version: String,
    },
    /// A configuration was chosen for the next session (the last checked one).
    Config {
        /// File name, none without one.
        name: Option<String>,
        /// The settings.
        config: Box<UpgradeConfig>,
    },
    /// A session began; its configuration is frozen here (CF-05).
    Session {
        /// Id of the session.
        id: SessionId,
        /// File name of the configuration, none without one.
        config_name: Option<String>,
        /// The frozen settings.
        config: Box<UpgradeConfig>,
    },
    /// A request was accepted.
    Accepted {
        /// What was asked.
        command: Command,
    },
    /// A stage was entered or left off.
    Entered {
        /// The stage.
        state: UpgradeState,
        /// Ready, Busy or Broken.
        operational: OperationalState,
        /// Why it is Broken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    },
    /// A step is about to be observed and, if needed, done.
    Intent {
        /// The step.
        step: StepName,
        /// What an administrator calls it.
        title: String,
        /// 1 for the first try.
        attempt: u32,
    },
    /// A step ended.
    Outcome {
        /// The step.
        step: StepName,
        /// How.
        result: StepResult,
    },
    /// A step established something.
    Fact(Fact),
    /// A line for the activity log.
    Log {
        /// Severity.
        severity: Severity,
        /// One sentence.
        text: String,
        /// Full text, such as the output of a program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The disk, service or file it is about (RC-51).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        component: Option<String>,
        /// What to do about it (RC-51).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advice: Option<String>,
    },
}

impl Record {
    /// Makes a plain log line.
    pub fn log(severity: Severity, text: impl Into<String>) -> Self {
        Record::Log {
            severity,
            text: text.into(),
            detail: None,
            component: None,
            advice: None,
        }
    }

    /// Makes a log line out of a problem.
    pub fn problem(severity: Severity, problem: &Problem) -> Self {
        Record::Log {
            severity,
            text: problem.message.clone(),
            detail: (!problem.causes.is_empty()).then(|| problem.causes.join("\n")),
            component: problem.component.clone(),
            advice: problem.advice.clone(),
        }
    }
}

/// A record with its place and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Sequence number within the system's journal, from 1.
    pub seq: u64,
    /// Wall-clock time in milliseconds since 1970; for people only.
    pub at_ms: i64,
    /// What happened.
    pub record: Record,
}

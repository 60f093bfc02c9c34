//! Records as a server would write them.
#![allow(dead_code, reason = "each test uses a part of it")]

use flipside_activity::{Style, Tree, render};
use flipside_model::{
    Command, Entry, OperationalState as O, Problem, ProblemCode, Record, SessionId, Severity,
    StepName, StepResult, UpgradeConfig, UpgradeState as S,
};

/// Records with numbers and times.
#[derive(Default)]
pub(crate) struct Tape(pub(crate) Vec<Entry>);

impl Tape {
    pub(crate) fn push(&mut self, record: Record) -> &mut Self {
        let seq = self.0.len() as u64 + 1;
        let at_ms = 1_700_000_000_000 + 500 * seq as i64;
        self.0.push(Entry { seq, at_ms, record });
        self
    }

    pub(crate) fn enter(&mut self, state: S, operational: O) -> &mut Self {
        self.push(Record::Entered {
            state,
            operational,
            problem: None,
        })
    }

    pub(crate) fn broken(&mut self, state: S, problem: &Problem) -> &mut Self {
        self.push(Record::Entered {
            state,
            operational: O::Broken,
            problem: Some(problem.clone()),
        })
    }

    pub(crate) fn begin(&mut self, name: &str, title: &str) -> &mut Self {
        self.push(Record::Intent {
            step: step(name),
            title: title.to_owned(),
            attempt: 1,
        })
    }

    pub(crate) fn end(&mut self, name: &str, result: StepResult) -> &mut Self {
        self.push(Record::Outcome {
            step: step(name),
            result,
        })
    }

    /// The log as text.
    pub(crate) fn text(&self) -> String {
        render(&Tree::fold(&self.0).lines(None), &Style::default())
    }

    /// The text without its times, which are noise in most tests.
    pub(crate) fn plain(&self) -> Vec<String> {
        self.text()
            .lines()
            .map(|l| l.chars().skip(21).collect::<String>())
            .collect()
    }

    /// Asks for a session with this configuration and begins it.
    pub(crate) fn open_session(&mut self, config: &str) -> &mut Self {
        let bytes = self.0.len() as u128;
        self.push(Record::Session {
            id: SessionId(uuid::Uuid::from_u128(bytes)),
            config_name: Some(config.to_owned()),
            config: Box::new(UpgradeConfig::none()),
        })
        .enter(S::PrepareSplit, O::Busy)
    }

    pub(crate) fn finish(&mut self) -> &mut Self {
        self.enter(S::Finish, O::Busy).enter(S::Idle, O::Ready)
    }
}

pub(crate) fn step(name: &str) -> StepName {
    StepName(name.to_owned().into())
}

pub(crate) fn problem(text: &str) -> Problem {
    Problem::new(ProblemCode::Failed, text)
        .about(text)
        .advise(text)
}

/// A session with a check, a failure, a retry and an abort.
pub(crate) fn sample() -> Tape {
    let mut tape = Tape::default();
    tape.push(Record::Opened {
        version: "0.1.0".to_owned(),
    })
    .push(Record::Config {
        name: Some("web.Config".to_owned()),
        config: Box::new(UpgradeConfig::none()),
    })
    .push(Record::Accepted {
        command: Command::Check,
    })
    .enter(S::Idle, O::Busy)
    .push(Record::log(Severity::Warning, "one physical device"))
    .enter(S::Idle, O::Ready)
    .open_session("web.Config")
    .begin("prepare_split.check", "Final readiness check")
    .end("prepare_split.check", StepResult::Done)
    .enter(S::Split, O::Busy)
    .begin("split.fork", "Fork the running system")
    .push(Record::log(Severity::Information, "paused for 74 ms"))
    .end("split.fork", StepResult::Failed(problem("no memory")))
    .broken(S::Split, &problem("no memory"))
    .push(Record::Accepted {
        command: Command::Retry,
    })
    .enter(S::Split, O::Busy)
    .begin("split.fork", "Fork the running system")
    .push(Record::Opened {
        version: "0.1.1".to_owned(),
    })
    .broken(S::Split, &problem("interrupted"))
    .push(Record::Accepted {
        command: Command::Abort,
    })
    .enter(S::Abort, O::Busy)
    .enter(S::Abort, O::Ready)
    .finish();
    tape
}

//! One entry of the log.

use crate::render::Line;
use flipside_model::{Entry, Problem, Severity, StepName};

/// One entry of the activity log, with the entries below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Sequence number of the record that opened it; identifies it.
    pub seq: u64,
    /// Wall-clock time of that record, in milliseconds since 1970.
    pub at_ms: i64,
    /// Wall-clock time of the record that settled it.
    pub ended_ms: Option<i64>,
    /// Its own severity; see [`Node::overall`].
    pub severity: Severity,
    /// One line, as recorded: not yet cleaned.
    pub text: String,
    /// Longer text, such as the output of a program.
    pub detail: Option<String>,
    /// The disk, service or file it is about.
    pub component: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
    /// Entries below it.
    pub children: Vec<Node>,
    /// Sequence numbers of the records that it shows, its own first.
    pub records: Vec<u64>,
    pub(crate) step: Option<(StepName, String)>,
}

impl Node {
    pub(crate) fn new(entry: &Entry, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            seq: entry.seq,
            at_ms: entry.at_ms,
            ended_ms: None,
            severity,
            text: text.into(),
            detail: None,
            component: None,
            advice: None,
            children: Vec::new(),
            records: Vec::new(),
            step: None,
        }
    }

    /// Returns the severity of the whole branch: Pending while it is open, else the worst in it.
    ///
    /// An Information below does not spoil a Success, since it needs no action (AL-05).
    pub fn overall(&self) -> Severity {
        if self.severity == Severity::Pending {
            return Severity::Pending;
        }
        self.children
            .iter()
            .map(Node::overall)
            .filter(|s| *s >= Severity::Warning)
            .fold(self.severity, Severity::max)
    }

    /// Returns how long it took, in milliseconds, once it is settled.
    pub fn took_ms(&self) -> Option<u64> {
        self.ended_ms
            .map(|end| u64::try_from(end.saturating_sub(self.at_ms)).unwrap_or(0))
    }

    /// Returns how many entries lie below it.
    pub fn below(&self) -> usize {
        self.children.iter().map(|child| 1 + child.below()).sum()
    }

    pub(crate) fn settle(&mut self, entry: &Entry, severity: Severity) {
        self.severity = severity;
        self.ended_ms = Some(entry.at_ms);
    }

    pub(crate) fn says(&self, text: &str) -> bool {
        self.text.contains(text) || self.children.iter().any(|c| c.says(text))
    }
}

/// Lists a branch as lines, parents first; what is milder than `least` is left out, but not the way to the rest.
///
/// What lies deeper than `depth` is counted and not listed (AL-10).
pub(crate) fn flatten(
    node: &Node,
    path: &mut Vec<String>,
    least: Option<Severity>,
    depth: usize,
    lines: &mut Vec<Line>,
) -> bool {
    let at = lines.len();
    lines.push(Line::of(node, path.clone()));
    let mut keep = least.is_none_or(|least| node.overall() >= least);
    if path.len() >= depth {
        lines[at].hidden = node.below();
    } else {
        path.push(node.text.clone());
        for child in &node.children {
            keep |= flatten(child, path, least, depth, lines);
        }
        path.pop();
    }
    if !keep {
        lines.truncate(at);
    }
    keep
}

/// Returns the causes of a problem as detail text.
pub(crate) fn detail(problem: &Problem) -> Option<String> {
    (!problem.causes.is_empty()).then(|| problem.causes.join("\n"))
}

/// Makes the entry of a problem.
pub(crate) fn problem_node(entry: &Entry, problem: &Problem) -> Node {
    let mut node = Node::new(entry, Severity::Error, problem.message.clone());
    node.detail = detail(problem);
    node.component.clone_from(&problem.component);
    node.advice.clone_from(&problem.advice);
    node
}

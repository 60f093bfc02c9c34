//! Walks through the log from one item to the next of the same severity (AL-11 to AL-13).

use crate::render::Line;
use flipside_model::Severity;
use flipside_model::api::LogItem;
use jiff::Timestamp;

/// All severities, mildest first.
pub const SEVERITIES: [Severity; 5] = [
    Severity::Success,
    Severity::Pending,
    Severity::Information,
    Severity::Warning,
    Severity::Error,
];

/// Where a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The item itself.
    Stay,
    /// The one before it of the severity.
    Previous,
    /// The one after it.
    Next,
}

/// Shows one item with its neighbours of a severity; without one, of its own.
///
/// None when there is no such item, or nothing of the severity in that direction. An item that is not in the log, such as
/// 0 or a very large number, is a place from which one may go on: so the first and the last of a severity are found.
pub fn item(lines: &[Line], from: u64, step: Step, severity: Option<Severity>) -> Option<LogItem> {
    let at = lines.iter().position(|line| line.node == from);
    let severity = severity.or_else(|| at.map(|at| lines[at].severity));
    let wanted = |line: &&Line| severity.is_none_or(|severity| line.severity == severity);
    let before = |place: usize| lines[..place].iter().rfind(wanted);
    let after = |place: usize| lines[place..].iter().find(wanted);
    // The tree is in the order in which its items were opened, but for items that were added to an older one later.
    let place = at.unwrap_or_else(|| lines.partition_point(|line| line.node < from));
    let beyond = at.map_or(place, |at| at + 1);
    let found = match step {
        Step::Stay => lines.get(at?)?,
        Step::Previous => before(place)?,
        Step::Next => after(beyond)?,
    };
    let place = lines.iter().position(|line| line.node == found.node)?;
    let severity = severity.unwrap_or(found.severity);
    let same = |line: &&Line| line.severity == severity;
    let count = |severity| lines.iter().filter(|l| l.severity == severity).count() as u64;
    let time = Timestamp::from_millisecond(found.at_ms).unwrap_or_default();
    Some(LogItem {
        id: found.node,
        time: format!("{time:.3}"),
        severity: found.severity,
        path: found.path.clone(),
        text: found.text.clone(),
        component: found.component.clone(),
        advice: found.advice.clone(),
        detail: found.detail.clone(),
        took_ms: found.took_ms,
        walked: severity,
        previous: lines[..place].iter().rfind(same).map(|line| line.node),
        next: lines[place + 1..].iter().find(same).map(|line| line.node),
        counts: SEVERITIES
            .map(|severity| (severity, count(severity)))
            .into(),
    })
}

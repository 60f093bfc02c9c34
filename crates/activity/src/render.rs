//! Lines of the log, as text or as JSON.

use crate::Node;
use crate::clean::{clean, clean_json, clean_lines};
use crate::units::duration_ms;
use flipside_model::Severity;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// A step or line shorter than this is shown without its duration, which would only be noise.
const SHORT_MS: u64 = 100;

/// One entry of the log, flattened: what `log --json` prints and `log --follow` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Sequence number of the record that made or last changed it.
    pub seq: u64,
    /// Sequence number of the record that opened the entry; two lines with the same one are the same entry.
    pub node: u64,
    /// Wall-clock time of record `seq`, in milliseconds since 1970.
    pub at_ms: i64,
    /// Severity of the entry and everything below it.
    pub severity: Severity,
    /// Texts of the entries above it, outermost first.
    pub path: Vec<String>,
    /// One sentence, not yet cleaned.
    pub text: String,
    /// Longer text.
    pub detail: Option<String>,
    /// What it is about.
    pub component: Option<String>,
    /// What to do.
    pub advice: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// How many entries below it are not listed, because only the upper ones were asked for.
    pub hidden: usize,
}

/// How text is shown.
#[derive(Debug, Clone)]
pub struct Style {
    /// Colour: Success green, Error red, all else the terminal's own (AL-03 to AL-07).
    pub color: bool,
    /// The time zone of the times.
    pub zone: TimeZone,
    /// Shows detail texts below their entry.
    pub detail: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            color: false,
            zone: TimeZone::UTC,
            detail: true,
        }
    }
}

/// Returns the icon of a severity (AL-08: three of them share their colour).
pub fn icon(severity: Severity) -> char {
    match severity {
        Severity::Success => '✔',
        Severity::Pending => '…',
        Severity::Information => 'i',
        Severity::Warning => '!',
        Severity::Error => '✘',
    }
}

impl Line {
    pub(crate) fn of(node: &Node, path: Vec<String>) -> Self {
        Self {
            seq: node.seq,
            node: node.seq,
            at_ms: node.at_ms,
            severity: node.overall(),
            path,
            text: node.text.clone(),
            detail: node.detail.clone(),
            component: node.component.clone(),
            advice: node.advice.clone(),
            took_ms: node.took_ms(),
            hidden: 0,
        }
    }

    /// Returns how deep it lies in the tree; 0 is a stage.
    pub fn depth(&self) -> usize {
        self.path.len()
    }

    /// Returns the entry as one line for a reader who follows, without a newline: the path instead of an indent.
    pub fn follow(&self, style: &Style) -> String {
        let mut text = String::new();
        for above in &self.path {
            let _ = write!(text, "{} › ", clean(above));
        }
        text.push_str(&self.body());
        if let Some(advice) = &self.advice {
            let _ = write!(text, " → {}", clean(advice));
        }
        format!(
            "{}  {}",
            self.time(style),
            paint(
                self.severity,
                &format!("{}  {text}", self.label()),
                style.color
            )
        )
    }

    /// Returns the entry without its time, for a reader who watches it happen; advice follows on its own line.
    pub fn brief(&self, color: bool) -> String {
        let indent = "  ".repeat(self.depth());
        let text = format!("{indent}{} {}", icon(self.severity), self.body());
        let mut out = paint(self.severity, &text, color);
        if let Some(advice) = &self.advice {
            let _ = write!(out, "\n{indent}  → {}", clean(advice));
        }
        out
    }

    /// Returns the entry as one JSON object without a newline; nothing in it can move a terminal's cursor.
    pub fn json(&self) -> String {
        let time = Timestamp::from_millisecond(self.at_ms).unwrap_or_default();
        let value = serde_json::json!({
            "seq": self.seq,
            "node": self.node,
            "time": format!("{time:.3}"),
            "severity": self.severity,
            "depth": self.depth(),
            "path": self.path,
            "text": self.text,
            "component": self.component,
            "advice": self.advice,
            "detail": self.detail,
            "took_ms": self.took_ms,
        });
        clean_json(&value.to_string())
    }

    fn body(&self) -> String {
        let mut text = clean(&self.text);
        if let Some(took) = self.took_ms.filter(|took| *took >= SHORT_MS) {
            let _ = write!(text, " ({})", duration_ms(took));
        }
        if let Some(component) = &self.component
            && !self.text.contains(component.as_str())
        {
            let _ = write!(text, " [{}]", clean(component));
        }
        if self.hidden > 0 {
            let _ = write!(text, "  + {} below", self.hidden);
        }
        text
    }

    fn label(&self) -> String {
        format!("{} {:<11}", icon(self.severity), self.severity.to_string())
    }

    fn time(&self, style: &Style) -> String {
        let time = Timestamp::from_millisecond(self.at_ms).unwrap_or_default();
        let zoned = time.to_zoned(style.zone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// Renders lines as an indented tree, advice and detail below their entry.
pub fn render(lines: &[Line], style: &Style) -> String {
    let mut out = String::new();
    for line in lines {
        let indent = "  ".repeat(line.depth());
        let text = format!("{}  {indent}{}", line.label(), line.body());
        let _ = writeln!(
            out,
            "{}  {}",
            line.time(style),
            paint(line.severity, text.trim_end(), style.color)
        );
        let margin = format!("{:36}{indent}  ", "");
        if let Some(detail) = line.detail.as_deref().filter(|_| style.detail) {
            for text in clean_lines(detail) {
                let _ = writeln!(out, "{margin}{text}");
            }
        }
        if let Some(advice) = &line.advice {
            let _ = writeln!(out, "{margin}→ {}", clean(advice));
        }
    }
    out
}

fn paint(severity: Severity, text: &str, color: bool) -> String {
    match severity {
        Severity::Success if color => format!("\x1b[32m{text}\x1b[0m"),
        Severity::Error if color => format!("\x1b[31m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

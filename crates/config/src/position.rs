//! Turns a place in a file into a problem that names it.

use flipside_model::{Problem, ProblemCode};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// Escapes control characters, because messages quote what stands in a file and are written to logs as single lines.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A value with the place at which a file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// Its bytes in the file.
    pub(crate) span: Range<usize>,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// A file being checked.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// Keeps a value with its place.
    pub(crate) fn at<T>(&self, span: Range<usize>, value: T) -> Given<T> {
        let (line, _) = self.line_and_column(span.start);
        Given { value, span, line }
    }

    /// Keeps a value as it was read with its place.
    pub(crate) fn given<T: Clone>(&self, value: &Spanned<T>) -> Given<T> {
        self.at(value.span(), value.get_ref().clone())
    }

    /// Makes the refusal of what stands at a place: `FILE:LINE:COLUMN: message`.
    pub(crate) fn refuse(&self, span: Range<usize>, message: impl AsRef<str>) -> Problem {
        let (line, column) = self.line_and_column(span.start);
        let path = self.shown_path();
        let message = printable(message.as_ref());
        let message = format!("{path}:{line}:{column}: {message}");
        Problem::new(ProblemCode::Usage, message).about(path)
    }

    /// The path as it stands in messages.
    pub(crate) fn shown_path(&self) -> String {
        printable(&self.path.to_string_lossy())
    }

    /// Counts from 1, columns in characters.
    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count())
            + 1;
        (line, column)
    }
}

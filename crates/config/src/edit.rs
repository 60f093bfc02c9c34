//! Changes `children` in the text of a file and leaves everything else, comments too, as it was written.

use crate::file::{Own, read_own};
use crate::position::Source;
use crate::resolve::{Child, listed};
use crate::values::child_name;
use flipside_model::{Problem, ProblemCode};
use std::path::Path;

/// What becomes of a child in the file that lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// It is called.
    Enabled,
    /// It is listed and left out (CF-36).
    Disabled,
    /// It is not listed any more; its own file stays as it is (CF-35, CF-37).
    Removed,
}

/// Returns the children that a text lists, disabled ones too.
pub fn children_of(path: &Path, text: &str) -> Result<Vec<Child>, Problem> {
    read_own(Source { path, text }).map(|own| listed(&own))
}

/// Returns the text with one child enabled, disabled or removed; a new one is put behind the others.
///
/// Only a child of the file itself can be removed: one that a child brings is removed in that child's file (CF-35).
pub fn set_child(
    path: &Path,
    text: &str,
    child: &str,
    state: ChildState,
) -> Result<String, Problem> {
    let source = Source { path, text };
    let own = read_own(source)?;
    child_name(source, 0..0, child)?;
    let at = own.children.iter().position(|c| c.value.file == child);
    let written = match state {
        ChildState::Enabled => quoted(child),
        ChildState::Disabled => format!("{{ file = {}, enabled = false }}", quoted(child)),
        ChildState::Removed => String::new(),
    };
    let changed = match (at, state) {
        (None, ChildState::Removed) => text.to_owned(),
        (Some(at), ChildState::Removed) => removed(text, &own, at),
        (Some(at), _) => spliced(text, own.children[at].span.clone(), &written),
        (None, _) => added(text, &own, &written),
    };
    let mut wanted = listed(&own);
    wanted.retain(|c| c.file != child || state != ChildState::Removed);
    let enabled = state == ChildState::Enabled;
    match wanted.iter_mut().find(|c| c.file == child) {
        Some(known) => known.enabled = enabled,
        None if state != ChildState::Removed => wanted.push(Child {
            file: child.to_owned(),
            enabled,
        }),
        None => {}
    }
    if children_of(path, &changed)? != wanted {
        let message = format!("`children` of `{}` cannot be changed", source.shown_path());
        return Err(Problem::new(ProblemCode::Internal, message).advise("edit the file"));
    }
    Ok(changed)
}

/// Writes a name as a string of TOML. Names of children have no control characters.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn spliced(text: &str, span: std::ops::Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..span.start], &text[span.end..])
}

fn removed(text: &str, own: &Own, at: usize) -> String {
    let children = &own.children;
    let span = match (at.checked_sub(1), children.get(at + 1)) {
        (_, Some(next)) => children[at].span.start..next.span.start,
        (Some(before), None) => children[before].span.end..children[at].span.end,
        (None, None) => {
            let all = own
                .children_span
                .clone()
                .unwrap_or(children[at].span.clone());
            return spliced(text, all, "[]");
        }
    };
    spliced(text, span, "")
}

fn added(text: &str, own: &Own, written: &str) -> String {
    if let Some(last) = own.children.last() {
        let end = last.span.end;
        return spliced(text, end..end, &format!(", {written}"));
    }
    if let Some(all) = &own.children_span {
        return spliced(text, all.clone(), &format!("[{written}]"));
    }
    // A key without a table stands before the first table, so the start of the file is always right; comments that
    // head the file stay where they are.
    let head: usize = text
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('#'))
        .map(str::len)
        .sum();
    let line_ends = head == 0 || text[..head].ends_with('\n');
    let before = if line_ends { "" } else { "\n" };
    spliced(
        text,
        head..head,
        &format!("{before}children = [{written}]\n"),
    )
}

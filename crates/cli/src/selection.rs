//! The guide's three-state check box of a service: not selected, selected here, selected in a child (SV-11, SV-12).

use crate::failure::Failure;
use flipside_config::{Origin, Resolved, resolve};
use flipside_model::ConfigFile;
use flipside_model::api::{ConfigText, StagedConfig};
use serde::Serialize;
use std::path::PathBuf;

/// Resolves the texts that the server keeps: the session's, or those checked last.
pub(crate) fn staged(staged: StagedConfig) -> Result<Resolved, Failure> {
    let mut files = staged.config.files.into_iter();
    let first = files.next().unwrap_or_else(|| ConfigFile {
        name: String::new(),
        text: "version = 1\n".to_owned(),
    });
    let text = ConfigText {
        path: PathBuf::from(&first.name),
        text: first.text,
        children: files.collect(),
    };
    Ok(resolve(&text)?)
}

/// A check box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Selection {
    /// Selected in the current file.
    Checked,
    /// Selected in a child file: it can be made a selection of this file, and cleared in the child only.
    Inherited,
    /// Not selected.
    Cleared,
}

impl Selection {
    /// The box as text, so that gray needs no colour.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Selection::Checked => "[x]",
            Selection::Inherited => "[-]",
            Selection::Cleared => "[ ]",
        }
    }
}

/// How a unit is selected, and in which file.
pub(crate) fn of<'a>(resolved: &'a Resolved, unit: &str) -> (Selection, Option<&'a str>) {
    let current = resolved.files.first().map(|f| f.name.as_str());
    let chosen = |o: &&Origin| o.key == "services" && o.value == unit;
    let mut from = resolved
        .origins
        .iter()
        .filter(chosen)
        .map(|o| o.file.as_deref());
    match from.next() {
        None => (Selection::Cleared, None),
        Some(file) if file.is_none() || file == current => (Selection::Checked, file),
        Some(file) => (Selection::Inherited, file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SV-11, SV-12, SV-14: the parent's own selection, a child's, and both: then it is the parent's.
    #[test]
    fn a_box_has_three_states() {
        let text = |services: &str| ConfigText {
            path: PathBuf::from("web.Config"),
            text: format!("version = 1\nchildren = [\"db.Config\"]\nservices = [{services}]\n"),
            children: vec![ConfigFile {
                name: "db.Config".to_owned(),
                text: "version = 1\nservices = [\"postgresql\"]\n".to_owned(),
            }],
        };
        let resolved = resolve(&text("\"nginx\"")).expect("valid");
        assert_eq!(
            of(&resolved, "nginx.service"),
            (Selection::Checked, Some("web.Config"))
        );
        assert_eq!(
            of(&resolved, "postgresql.service"),
            (Selection::Inherited, Some("db.Config"))
        );
        assert_eq!(of(&resolved, "cron.service"), (Selection::Cleared, None));
        let resolved = resolve(&text("\"nginx\", \"postgresql\"")).expect("valid");
        assert_eq!(of(&resolved, "postgresql.service").0, Selection::Checked);
        let marks =
            [Selection::Checked, Selection::Inherited, Selection::Cleared].map(Selection::mark);
        assert_eq!(marks, ["[x]", "[-]", "[ ]"]);
    }
}

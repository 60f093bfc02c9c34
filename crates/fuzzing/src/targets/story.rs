//! Records as they come out of a journal: replay, law, plan and activity log take any of them in any order.

use crate::oracle::{is_harmful, one_line, survives_json};
use flipside_activity::{Style, Tree, render};
use flipside_model::{Command, Entry, UpgradeState};
use flipside_session::{SessionState, deadline_seconds, law, plan, replay};

/// More than there are commands.
const COMMANDS: usize = 8;

/// Reads each line as a record with its place, leaves out what is none, and folds the rest.
pub fn story(data: &[u8]) {
    let entries: Vec<Entry> = data
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    entries.iter().for_each(survives_json);
    let mut state = SessionState::default();
    let mut taken = Vec::new();
    for entry in &entries {
        let before = state.clone();
        match state.apply(entry) {
            Ok(()) => {
                assert_eq!(state.last_seq, entry.seq);
                taken.push(entry);
            }
            Err(illegal) => {
                assert_eq!(state, before, "a refused record has changed the state");
                assert_eq!(illegal.seq, entry.seq);
            }
        }
        lawful(&state);
    }
    // The fold live is the fold in replay, of every prefix.
    assert_eq!(
        replay(taken.iter().copied()).expect("each was legal"),
        state
    );
    log(&entries);
}

fn lawful(state: &SessionState) {
    let allowed = law::allowed(state);
    assert!(allowed.len() <= COMMANDS, "{allowed:?}");
    for command in allowed {
        assert!(
            law::decide(state, command).is_ok(),
            "{command:?} is shown as legal and refused"
        );
    }
    if state.facts.committed && state.upgrade == UpgradeState::Commit {
        assert!(
            law::decide(state, Command::Abort).is_err(),
            "no way back after the decision"
        );
    }
    let steps = plan(state.upgrade, &state.facts);
    assert!(steps.iter().all(|step| !step.id().is_empty()));
    let _ = deadline_seconds(state.upgrade, &state.settings().timeouts);
}

/// The log shows any record, legal or not, and nothing in it reaches the terminal.
fn log(entries: &[Entry]) {
    let mut tree = Tree::default();
    let style = Style::default();
    for entry in entries {
        for line in tree.push(entry) {
            one_line(&line.follow(&style), "a followed line");
            let shown = line.brief(false);
            assert!(
                !shown.chars().any(|c| c != '\n' && is_harmful(c)),
                "{shown:?}"
            );
            one_line(&line.json(), "a line as JSON");
            let json: serde_json::Value = serde_json::from_str(&line.json()).expect("JSON");
            assert_eq!(json["text"], line.text, "the text is changed by its escape");
        }
    }
    let shown = render(&tree.lines(None), &style);
    assert!(
        !shown.chars().any(|c| c != '\n' && is_harmful(c)),
        "{shown:?}"
    );
    let _ = tree.overall();
}

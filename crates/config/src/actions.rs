//! The values of `[[action]]` and `[log_backup]` in one configuration file.

use crate::file::{Action, Backup};
use crate::position::{Given, Source};
use flipside_model::{
    ActionPlace, ControlType, CustomAction, LogSelection, MAX_TIMEOUT_SECONDS, OnFailure, Problem,
    Timing,
};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::fmt;
use toml::Spanned;

/// Arguments as they are written: one text that is divided into words, or a list of words.
#[derive(Debug, Clone)]
pub(crate) enum Arguments {
    Text(String),
    Words(Vec<String>),
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Arguments;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }
            fn visit_str<E>(self, text: &str) -> Result<Arguments, E> {
                Ok(Arguments::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Arguments, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(Arguments::Words(words))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Divides a text into words at white space; quotes of either kind group (gap G.4.53). No shell has a part in it.
fn divide(text: &str) -> Result<Vec<String>, char> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), Err)
}

/// Finds the value of a word, or lists those that there are.
fn word<T: Copy + fmt::Display>(
    source: Source<'_>,
    key: &str,
    given: &Spanned<String>,
    all: &[T],
) -> Result<T, Problem> {
    let text = given.get_ref();
    let found = all.iter().copied().find(|v| v.to_string() == *text);
    found.ok_or_else(|| {
        let known: Vec<String> = all.iter().map(|v| format!("\"{v}\"")).collect();
        let near = all
            .iter()
            .find(|v| v.to_string().eq_ignore_ascii_case(text))
            .map(|v| format!("did you mean \"{v}\"? Case counts"));
        source
            .refuse(
                given.span(),
                format!("`{key} = \"{}\"` is unknown", text.escape_debug()),
            )
            .advise(near.unwrap_or_else(|| format!("one of {}", known.join(", "))))
    })
}

pub(crate) fn actions(
    source: Source<'_>,
    given: &[Action],
) -> Result<Vec<Given<CustomAction>>, Problem> {
    let mut actions: Vec<Given<CustomAction>> = Vec::new();
    for action in given {
        let one = one_action(source, action)?;
        if actions.iter().any(|a| a.value == one.value) {
            return Err(source.refuse(
                one.span,
                format!("the action `{}` is listed twice", one.value.shown()),
            ));
        }
        actions.push(one);
    }
    Ok(actions)
}

fn one_action(source: Source<'_>, given: &Action) -> Result<Given<CustomAction>, Problem> {
    let file = given.file.get_ref();
    let refuse = |message: String| source.refuse(given.file.span(), message);
    let shown = file.escape_debug();
    if !file.starts_with('/') {
        return Err(refuse(format!(
            "the file `{shown}` of an action is not an absolute path"
        ))
        .advise("it runs without a shell and without a search path"));
    }
    if file.contains(char::is_control) || file.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(refuse(format!(
            "the file `{shown}` of an action has `.`, `..` or a control character in it"
        )));
    }
    let control_type = word(
        source,
        "control_type",
        &given.control_type,
        ControlType::ALL,
    )?;
    let timing = match &given.timing {
        None => Timing::Default,
        // CA-17: other types have no timing.
        Some(timing) if control_type != ControlType::Advanced => {
            return Err(source
                .refuse(
                    timing.span(),
                    format!("an action of type \"{control_type}\" has no timing"),
                )
                .advise("only \"Advanced\" actions have one; take the key `timing` out"));
        }
        Some(timing) => word(source, "timing", timing, Timing::ALL)?,
    };
    let place = match &given.place {
        None => ActionPlace::Guest,
        Some(place) => word(source, "where", place, ActionPlace::ALL)?,
    };
    let on_failure = match &given.on_failure {
        None => OnFailure::Stop,
        Some(what) => word(source, "on_failure", what, OnFailure::ALL)?,
    };
    let action = CustomAction {
        file: file.clone(),
        arguments: arguments(source, given.arguments.as_ref())?,
        control_type,
        timing,
        limit: limit(source, given.limit.as_ref())?,
        place,
        on_failure,
    };
    Ok(source.at(given.file.span(), action))
}

fn arguments(
    source: Source<'_>,
    given: Option<&Spanned<Arguments>>,
) -> Result<Vec<String>, Problem> {
    let Some(given) = given else {
        return Ok(Vec::new());
    };
    let words = match given.get_ref() {
        Arguments::Words(words) => words.clone(),
        Arguments::Text(text) => divide(text).map_err(|quote| {
            source
                .refuse(given.span(), format!("the quote {quote} is not closed"))
                .advise("quotes group words; to pass one, give the arguments as a list")
        })?,
    };
    if words.iter().any(|w| w.contains('\0')) {
        return Err(source.refuse(
            given.span(),
            "a NUL character cannot be passed to a program",
        ));
    }
    Ok(words)
}

fn limit(source: Source<'_>, given: Option<&Spanned<i64>>) -> Result<Option<u32>, Problem> {
    let Some(given) = given else { return Ok(None) };
    u32::try_from(*given.get_ref())
        .ok()
        .filter(|v| (1..=MAX_TIMEOUT_SECONDS).contains(v))
        .map(Some)
        .ok_or_else(|| {
            let message = format!(
                "`limit = {}` is out of range: 1 to {MAX_TIMEOUT_SECONDS} seconds",
                given.get_ref()
            );
            source.refuse(given.span(), message)
        })
}

/// What one file says about log backup.
#[derive(Default)]
pub(crate) struct OwnBackup {
    pub(crate) directory: Option<Given<String>>,
    pub(crate) logs: Vec<Given<LogSelection>>,
}

pub(crate) fn log_backup(source: Source<'_>, given: &Backup) -> Result<OwnBackup, Problem> {
    let mut own = OwnBackup::default();
    if let Some(directory) = &given.directory {
        let path = crate::values::path(source, "log_backup.directory", directory)?;
        own.directory = Some(source.at(directory.span(), path));
    }
    for log in &given.logs {
        let selection = match LogSelection::from(log.get_ref().clone()) {
            LogSelection::Path(text) if !text.starts_with('/') => {
                return Err(source
                    .refuse(
                        log.span(),
                        format!("`{}` in `log_backup.logs` is no log", text.escape_debug()),
                    )
                    .advise(
                        "\"system journal\", \"user journals\", or an absolute path such as \"/var/log/nginx\"; `flipside logs` lists what a guest has",
                    ));
            }
            LogSelection::Path(_) => {
                LogSelection::Path(crate::values::path(source, "log_backup.logs", log)?)
            }
            journal => journal,
        };
        if own.logs.iter().any(|l| l.value == selection) {
            return Err(source.refuse(log.span(), format!("the log `{selection}` is listed twice")));
        }
        own.logs.push(source.at(log.span(), selection));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Gap G.4.53.
    #[test]
    fn quotes_group_words_and_nothing_else_is_special() {
        for (text, words) in [
            ("", vec![]),
            ("  \t ", vec![]),
            ("a  b\tc", vec!["a", "b", "c"]),
            ("\"a b\" 'c \"d'", vec!["a b", "c \"d"]),
            ("a\"b c\"d", vec!["ab cd"]),
            ("\"\" ''", vec!["", ""]),
            (
                "$HOME * \\n `x` %A%",
                vec!["$HOME", "*", "\\n", "`x`", "%A%"],
            ),
        ] {
            assert_eq!(divide(text).expect("divides"), words, "{text}");
        }
        assert_eq!(divide("a 'b"), Err('\''));
        assert_eq!(divide("\""), Err('"'));
    }
}

//! Judgements that several targets share, written without the code they judge.

use flipside_model::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

/// Says whether a terminal could obey a character or hide it: an own list, not the product's.
pub(crate) fn is_harmful(c: char) -> bool {
    let code = u32::from(c);
    code < 0x20
        || (0x7f..=0x9f).contains(&code)
        || (0x200b..=0x200f).contains(&code)
        || (0x202a..=0x202e).contains(&code)
        || (0x2066..=0x2069).contains(&code)
        || code == 0xfeff
}

/// Asserts that a text can be shown as one line.
pub(crate) fn one_line(text: &str, what: &str) {
    let bad = text.chars().find(|c| is_harmful(*c));
    assert!(bad.is_none(), "{what} holds {bad:?}: {text:?}");
}

/// Asserts that a problem is fit to be logged: its sentence is one line, whatever it quotes.
pub(crate) fn fit_to_show(problem: &Problem) {
    assert!(!problem.message.is_empty(), "a problem without a sentence");
    let control = problem.message.chars().find(|c| c.is_control());
    assert!(
        control.is_none(),
        "a problem's sentence holds {control:?}: {:?}",
        problem.message
    );
}

/// Asserts that what was read is read again from what is written of it.
pub(crate) fn survives_json<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_vec(value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&json).expect("what was written can be read");
    assert_eq!(&again, value);
}

/// Counts the levels of nesting.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Says whether a number in it may change its last bit when it is written and read again.
pub(crate) fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

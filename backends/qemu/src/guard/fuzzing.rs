//! What the guard reads, opened to `crates/fuzzing`.

use super::events::GuardEvent;
use super::files::GuardConfig;
use super::signals::{self, Signal};
use super::wire::{Reply, Request, Started, line, port_error};
use flipside_model::Problem;
use flipside_qmp::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

/// Reads bytes as each kind of message; what is read is read again from the line that is made of it.
pub(crate) fn read(bytes: &[u8]) -> Option<Problem> {
    again::<Request>(bytes);
    again::<GuardEvent>(bytes);
    again::<GuardConfig>(bytes);
    let told = match again::<Started>(bytes) {
        Some(Started::Failed(problem)) => Some(problem),
        _ => None,
    };
    // A value in a reply may hold a fraction, whose last digit JSON does not keep.
    let reply: Option<Reply> = serde_json::from_slice(bytes).ok();
    let told = told.or(reply.and_then(|reply| reply.error))?;
    let error = port_error(told.clone());
    assert_eq!(error.message, told.message, "the words get lost on the way");
    Some(told)
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(bytes).ok()?;
    let text = line(&message);
    let (end, body) = text.split_last().expect("a line has an end");
    assert!(
        *end == b'\n' && !body.contains(&b'\n'),
        "a message is one line"
    );
    let read: T = serde_json::from_slice(body).expect("what was read can be written");
    assert_eq!(read, message);
    Some(message)
}

/// Reads an event's data under every name that means something.
pub(crate) fn event(data: Value) {
    let mut event = Event {
        name: String::new(),
        data,
        seconds: 0,
        microseconds: 0,
    };
    for name in [
        "QUORUM_REPORT_BAD",
        "QUORUM_FAILURE",
        "BLOCK_IO_ERROR",
        "STOP",
        "X",
    ] {
        event.name = name.to_owned();
        if let Some(Signal::Suspect(suspect)) = signals::read(&event) {
            assert_eq!(name, "QUORUM_REPORT_BAD");
            assert!(!suspect.error.chars().any(char::is_control), "{suspect:?}");
        }
    }
}

//! Tells the kinds of messages apart.

use serde_json::{Map, Value};

use super::{Limits, Violation, parse};

/// Is an error a peer reports, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error class, mostly `GenericError`.
    pub class: String,
    /// A text for people; from an agent these are the guest's words.
    pub desc: String,
}

impl Failure {
    fn take(mut error: Value) -> Self {
        let mut text = |key: &str| match error.get_mut(key).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::from("unspecified"),
        };
        Self {
            class: text("class"),
            desc: text("desc"),
        }
    }
}

/// Is one line from a QMP server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum QmpMessage {
    /// The first line of a connection.
    Greeting {
        /// The `version` member.
        version: Value,
    },
    /// Something happened.
    Event {
        /// The event's name, such as `STOP`.
        name: String,
        /// Its data, `Null` without any.
        data: Value,
        /// Seconds since 1970 on the host's clock, -1 if unknown.
        seconds: i64,
        /// Microseconds within that second, -1 if unknown.
        microseconds: i64,
    },
    /// The answer to a command.
    Reply {
        /// The `id` of the command, if the reply bears one.
        id: Option<Value>,
        /// What the command returned, or why it failed.
        outcome: Result<Value, Failure>,
    },
}

impl QmpMessage {
    /// Reads one line.
    ///
    /// # Errors
    /// A [`Violation`]; [`Violation::NotAMessage`] if it is JSON of another form.
    pub fn read(line: &[u8], limits: Limits) -> Result<Self, Violation> {
        let mut object = object(line, limits)?;
        if let Some(Value::String(name)) = object.get_mut("event").map(Value::take) {
            let stamp = |key: &str| {
                let stamp = object.get("timestamp").and_then(|t| t.get(key));
                stamp.and_then(Value::as_i64).unwrap_or(-1)
            };
            let (seconds, microseconds) = (stamp("seconds"), stamp("microseconds"));
            return Ok(Self::Event {
                name,
                data: object.remove("data").unwrap_or_default(),
                seconds,
                microseconds,
            });
        }
        if let Some(outcome) = outcome(&mut object) {
            return Ok(Self::Reply {
                id: object.remove("id"),
                outcome,
            });
        }
        match object.get_mut("QMP").and_then(|g| g.get_mut("version")) {
            Some(version) => Ok(Self::Greeting {
                version: version.take(),
            }),
            None => Err(Violation::NotAMessage),
        }
    }
}

/// Is one line from a guest agent, which has no greeting and no events.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentReply {
    /// What the command returned, or why it failed.
    pub outcome: Result<Value, Failure>,
}

impl AgentReply {
    /// Reads one line.
    ///
    /// # Errors
    /// A [`Violation`]; [`Violation::NotAMessage`] if it is JSON of another form.
    pub fn read(line: &[u8], limits: Limits) -> Result<Self, Violation> {
        let outcome = outcome(&mut object(line, limits)?).ok_or(Violation::NotAMessage)?;
        Ok(Self { outcome })
    }
}

fn object(line: &[u8], limits: Limits) -> Result<Map<String, Value>, Violation> {
    match parse(line, limits)? {
        Value::Object(object) => Ok(object),
        _ => Err(Violation::NotAMessage),
    }
}

/// Takes the outcome out of a reply. An error counts more than a value beside
/// it, so that a confused peer is not believed to have succeeded.
fn outcome(object: &mut Map<String, Value>) -> Option<Result<Value, Failure>> {
    if let Some(error) = object.remove("error") {
        return Some(Err(Failure::take(error)));
    }
    object.remove("return").map(Ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<QmpMessage, Violation> {
        QmpMessage::read(value.to_string().as_bytes(), Limits::default())
    }

    #[test]
    fn an_event_without_time_or_data_is_still_an_event() {
        let QmpMessage::Event {
            name,
            data,
            seconds,
            ..
        } = read(&json!({"event": "STOP"})).unwrap()
        else {
            panic!("not an event");
        };
        assert_eq!((name.as_str(), data, seconds), ("STOP", Value::Null, -1));
    }

    #[test]
    fn an_error_beside_a_value_is_an_error() {
        let message = read(&json!({"return": {}, "error": 3, "id": 7})).unwrap();
        let QmpMessage::Reply {
            id,
            outcome: Err(failure),
        } = message
        else {
            panic!("not an error");
        };
        assert_eq!(id, Some(json!(7)));
        assert_eq!(failure.class, "unspecified");
    }

    #[test]
    fn other_forms_are_refused() {
        for value in [json!({}), json!([]), json!(1), json!({"event": 1})] {
            assert!(
                matches!(read(&value), Err(Violation::NotAMessage)),
                "{value}"
            );
        }
    }
}

//! What is said on the control socket: one JSON object a line, each way.

use flipside_model::{MachineId, Problem, ProblemCode};
use flipside_platform::{PortError, PortErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::OwnedReadHalf;

/// What the guard is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub(crate) enum Command {
    View,
    Hold,
    Drain { bound_ms: u64 },
    Cut,
    Open { machine: MachineId },
    Events { after: u64 },
    Shut,
}

/// A request; the reply bears its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) command: Command,
}

/// The answer: what came of it, or why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Problem>,
}

/// What a guard tells whoever started it, on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Started {
    Ready,
    Failed(Problem),
}

/// Makes one line of a message.
pub(crate) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    // Our own types hold nothing that JSON cannot say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads one line of at most `max` bytes; none at the end of the stream.
pub(crate) async fn read_line(
    reader: &mut BufReader<OwnedReadHalf>,
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    reader.take(limit).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= max => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the line is too long",
        )),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Turns a problem that came over the socket back into the error of a port.
pub(crate) fn port_error(problem: Problem) -> PortError {
    let kind = match problem.code {
        ProblemCode::TimedOut => PortErrorKind::TimedOut,
        ProblemCode::NotFound => PortErrorKind::Absent,
        ProblemCode::InUse => PortErrorKind::InUse,
        ProblemCode::Mismatch => PortErrorKind::Mismatch,
        ProblemCode::NoSpace => PortErrorKind::NoSpace,
        _ => PortErrorKind::Failed,
    };
    let mut error = PortError::new(kind, problem.message);
    error.component = problem.component;
    error.advice = problem.advice;
    error.causes = problem.causes;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_on_the_socket_are_fixed() {
        for (command, text) in [
            (Command::View, r#"{"id":7,"cmd":"view"}"#),
            (
                Command::Drain { bound_ms: 5 },
                r#"{"id":7,"cmd":"drain","bound_ms":5}"#,
            ),
            (
                Command::Open {
                    machine: MachineId(3),
                },
                r#"{"id":7,"cmd":"open","machine":3}"#,
            ),
            (
                Command::Events { after: 9 },
                r#"{"id":7,"cmd":"events","after":9}"#,
            ),
            (Command::Shut, r#"{"id":7,"cmd":"shut"}"#),
        ] {
            let request = Request { id: 7, command };
            assert_eq!(line(&request), format!("{text}\n").into_bytes());
            assert_eq!(
                serde_json::from_str::<Request>(text).expect("read"),
                request
            );
        }
    }

    #[test]
    fn an_error_keeps_its_kind_over_the_socket() {
        for kind in [
            PortErrorKind::TimedOut,
            PortErrorKind::Absent,
            PortErrorKind::Failed,
            PortErrorKind::InUse,
            PortErrorKind::Mismatch,
            PortErrorKind::NoSpace,
        ] {
            let error = PortError::new(kind, "x").about("y").advise("z");
            assert_eq!(port_error(Problem::from(error.clone())), error);
        }
    }
}

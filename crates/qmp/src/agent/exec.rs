//! Programs in the guest.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{AgentClient, AgentError};
use crate::deadline::Deadline;

/// The first pause between two looks at a program: most programs run here end
/// within some milliseconds.
const FIRST_POLL: Duration = Duration::from_millis(5);

/// The longest pause: a long-running script costs ten looks a second.
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// What the last look gets even if less is left: the agent forgets a process as
/// soon as it has said that it ended, so a look cut short could lose the exit
/// status for good. A living agent answers well within it.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Describes a program to run in the guest. There is no shell in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program; the agent searches its own `PATH` for a plain name.
    pub path: String,
    /// The arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment; empty means that the agent's own is inherited.
    pub env: Vec<(String, String)>,
    /// Bytes for its standard input; `None` means an empty one.
    pub input: Option<Vec<u8>>,
    /// Whether its output is kept. The agent cuts each stream at 16 MiB.
    pub capture: bool,
}

impl Exec {
    /// Describes a program whose output is kept.
    pub fn new<A: Into<String>>(
        path: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            path: path.into(),
            args: args.into_iter().map(Into::into).collect(),
            capture: true,
            ..Self::default()
        }
    }
}

/// Is what the agent says of a program. Output is the guest's own bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecStatus {
    /// Whether it has ended. Once the agent has said so it forgets the process.
    pub exited: bool,
    /// The exit status, if it ended by itself.
    pub exitcode: Option<i64>,
    /// The signal that ended it, if one did.
    pub signal: Option<i64>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: Vec<u8>,
    /// Whether the agent cut the output.
    pub out_truncated: bool,
    /// Whether the agent cut the standard error.
    pub err_truncated: bool,
}

impl ExecStatus {
    /// Tells whether it ended with exit status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exited && self.exitcode == Some(0) && self.signal.is_none()
    }
}

#[derive(Debug, Deserialize)]
struct Pid {
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct StatusReply {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    out_data: String,
    err_data: String,
    out_truncated: bool,
    err_truncated: bool,
}

impl AgentClient {
    /// Starts a program and returns its process number (`guest-exec`).
    ///
    /// # Errors
    /// As for [`AgentClient::execute_as`].
    pub async fn exec(&self, exec: &Exec) -> Result<i64, AgentError> {
        self.exec_within(exec, self.call_timeout()).await
    }

    async fn exec_within(&self, exec: &Exec, timeout: Duration) -> Result<i64, AgentError> {
        let mut arguments = json!({
            "path": exec.path,
            "arg": exec.args,
            "capture-output": exec.capture,
        });
        if !exec.env.is_empty() {
            let env = exec
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            arguments["env"] = env.collect();
        }
        if let Some(input) = &exec.input {
            arguments["input-data"] = STANDARD.encode(input).into();
        }
        let reply: Pid = self
            .execute_as_within("guest-exec", arguments, timeout)
            .await?;
        Ok(reply.pid)
    }

    /// Asks how a program is doing (`guest-exec-status`).
    ///
    /// # Errors
    /// As for [`AgentClient::execute_as`], and [`AgentError::NotBase64`]. If
    /// the reply that says "ended" is lost, the next call fails with
    /// [`AgentError::Command`]: the agent knows the process no more.
    pub async fn exec_status(&self, pid: i64) -> Result<ExecStatus, AgentError> {
        self.exec_status_within(pid, self.call_timeout()).await
    }

    async fn exec_status_within(
        &self,
        pid: i64,
        timeout: Duration,
    ) -> Result<ExecStatus, AgentError> {
        const COMMAND: &str = "guest-exec-status";
        let reply: StatusReply = self
            .execute_as_within(COMMAND, json!({ "pid": pid }), timeout)
            .await?;
        let decode = |member, text: String| decode(COMMAND, member, &text);
        Ok(ExecStatus {
            exited: reply.exited,
            exitcode: reply.exitcode,
            signal: reply.signal,
            out: decode("out-data", reply.out_data)?,
            err: decode("err-data", reply.err_data)?,
            out_truncated: reply.out_truncated,
            err_truncated: reply.err_truncated,
        })
    }

    /// Starts a program and waits for its end.
    ///
    /// A look that finds no answer in time is repeated as long as the whole
    /// time-out lasts; the last one may take up to a second more.
    ///
    /// # Errors
    /// As for [`AgentClient::exec`] while starting (a time-out means that the
    /// program may have been started); as for [`AgentClient::exec_status`]
    /// afterwards; [`AgentError::StillRunning`] when `timeout` has passed.
    pub async fn exec_wait(
        &self,
        exec: &Exec,
        timeout: Duration,
    ) -> Result<ExecStatus, AgentError> {
        let deadline = Deadline::after(timeout);
        let pid = self
            .exec_within(exec, self.call_timeout().min(timeout))
            .await?;
        let mut pause = FIRST_POLL;
        loop {
            let look = self.call_timeout().min(deadline.remaining().max(LAST_LOOK));
            match self.exec_status_within(pid, look).await {
                Ok(status) if status.exited => return Ok(status),
                Ok(_) => {}
                Err(
                    error @ (AgentError::TimedOut { .. }
                    | AgentError::NoAnswer { .. }
                    | AgentError::Busy { .. }),
                ) => {
                    tracing::debug!(pid, %error, "no news of a guest's process");
                }
                Err(error) => return Err(error),
            }
            if deadline.remaining().is_zero() {
                return Err(AgentError::StillRunning {
                    pid,
                    after: timeout,
                });
            }
            sleep_until(deadline.at.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(LONGEST_POLL);
        }
    }
}

pub(super) fn decode(
    command: &str,
    member: &'static str,
    text: &str,
) -> Result<Vec<u8>, AgentError> {
    STANDARD
        .decode(text)
        .map_err(|source| AgentError::NotBase64 {
            command: command.to_owned(),
            member,
            source,
        })
}

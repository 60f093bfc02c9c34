//! The way to the agents: one connection per machine, kept, and fixed scripts run over it.

use super::escape::words;
use super::limits;
use flipside_model::MachineId;
use flipside_platform::{PortError, PortErrorKind, PortResult};
use flipside_qmp::{AgentClient, AgentError, Exec, ExecStatus};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Says where the agent's socket of a machine is; `None` when there is no such machine.
pub(super) type Resolve = Box<dyn Fn(MachineId) -> Option<PathBuf> + Send + Sync>;

/// A script that comes with flipside; only its arguments vary.
pub(super) struct Script {
    /// What it does, for errors: "hold the services".
    pub(super) what: &'static str,
    pub(super) text: &'static str,
}

struct Connection {
    path: PathBuf,
    client: AgentClient,
}

pub(super) struct Link {
    resolve: Resolve,
    connections: Mutex<HashMap<MachineId, Connection>>,
}

impl Link {
    pub(super) fn new(resolve: Resolve) -> Self {
        Self {
            resolve,
            connections: Mutex::new(HashMap::new()),
        }
    }

    /// Returns a connection that answered just now, within the time given.
    pub(super) async fn reach(&self, id: MachineId, within: Duration) -> PortResult<AgentClient> {
        let path = (self.resolve)(id).ok_or_else(|| {
            PortError::absent(format!("machine {id} has no guest agent socket"))
                .about(id.to_string())
                .advise("check that the machine runs")
        })?;
        // The second time with a fresh connection: the kept one may have ended with an earlier process.
        for attempt in [false, true] {
            let client = self.connect(id, &path, attempt).await?;
            match client.execute("guest-ping", Value::Null, within).await {
                Ok(_) => return Ok(client),
                Err(AgentError::Closed) if !attempt => {}
                Err(error) => {
                    self.forget(id);
                    return Err(silent(id, &error));
                }
            }
        }
        Err(silent(id, &AgentError::Closed))
    }

    async fn connect(&self, id: MachineId, path: &PathBuf, fresh: bool) -> PortResult<AgentClient> {
        if fresh {
            self.forget(id);
        }
        let kept = self.lock().get(&id).and_then(|c| {
            let same = c.path == *path;
            same.then(|| c.client.clone())
        });
        if let Some(client) = kept {
            return Ok(client);
        }
        let client = AgentClient::connect(path)
            .await
            .map_err(|error| silent(id, &error))?;
        self.lock().insert(
            id,
            Connection {
                path: path.clone(),
                client: client.clone(),
            },
        );
        Ok(client)
    }

    /// Drops the kept connection, so that the socket is free and the next call connects anew.
    pub(super) fn forget(&self, id: MachineId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MachineId, Connection>> {
        // A map is whole after every operation on it.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls any command of the agent.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        id: MachineId,
        client: &AgentClient,
        command: &str,
        arguments: Value,
    ) -> PortResult<T> {
        client
            .execute_as(command, arguments)
            .await
            .map_err(|error| self.error(id, command, &error))
    }

    /// Runs a program and returns what it printed and how it ended.
    pub(super) async fn run(
        &self,
        id: MachineId,
        what: &str,
        exec: &Exec,
        deadline: Duration,
    ) -> PortResult<ExecStatus> {
        let client = self.reach(id, limits::REACH.min(deadline)).await?;
        let status = client
            .exec_wait(exec, deadline)
            .await
            .map_err(|error| self.error(id, what, &error))?;
        if status.out_truncated || status.err_truncated {
            return Err(PortError::failed(format!(
                "cannot {what}: the guest's answer is too long to be true"
            ))
            .about(id.to_string()));
        }
        tracing::trace!(%id, what, exit = status.exitcode, "guest");
        Ok(status)
    }

    /// Runs a script; its exit status is the caller's to judge.
    pub(super) async fn attempt(
        &self,
        id: MachineId,
        script: &Script,
        arguments: &[String],
        deadline: Duration,
    ) -> PortResult<ExecStatus> {
        let fixed = ["-c", script.text, "flipside"].map(str::to_owned);
        let exec = Exec::new("/bin/sh", fixed.iter().chain(arguments).cloned());
        self.run(id, script.what, &exec, deadline).await
    }

    /// Runs a script that must succeed, and returns its output.
    pub(super) async fn script(
        &self,
        id: MachineId,
        script: &Script,
        arguments: &[String],
        deadline: Duration,
    ) -> PortResult<Vec<u8>> {
        let status = self.attempt(id, script, arguments, deadline).await?;
        if status.success() {
            return Ok(status.out);
        }
        Err(refused(id, script.what, &status))
    }

    /// Makes a port error of an agent's, and drops a connection that is of no more use.
    pub(super) fn error(&self, id: MachineId, what: &str, error: &AgentError) -> PortError {
        if matches!(error, AgentError::Closed) {
            self.forget(id);
        }
        let kind = match error {
            AgentError::Connect { .. } => PortErrorKind::Absent,
            AgentError::Command { .. }
            | AgentError::FileTooLarge { .. }
            | AgentError::Permissions { .. }
            | AgentError::Contradiction { .. }
            | AgentError::NotBase64 { .. } => PortErrorKind::Failed,
            // Nobody knows whether it took effect.
            _ => PortErrorKind::TimedOut,
        };
        let advice = match kind {
            PortErrorKind::TimedOut => "look at the guest's state before trying again",
            PortErrorKind::Absent => "check that the machine runs",
            _ => "see the guest's words below",
        };
        let mut made = PortError::new(kind, format!("cannot {what} in the guest of {id}"))
            .about(id.to_string())
            .advise(advice)
            .because(error);
        for cause in &mut made.causes {
            *cause = words(cause.as_bytes());
        }
        made
    }
}

/// The error for an agent that does not answer.
fn silent(id: MachineId, error: &AgentError) -> PortError {
    let kind = match error {
        AgentError::Connect { .. } => PortErrorKind::Absent,
        _ => PortErrorKind::TimedOut,
    };
    PortError::new(kind, format!("the guest of {id} does not answer"))
        .about(id.to_string())
        .advise("check that it has started and that qemu-guest-agent runs in it")
        .because(error)
}

/// The error for a program that failed.
pub(super) fn refused(id: MachineId, what: &str, status: &ExecStatus) -> PortError {
    let said = words(if status.err.is_empty() {
        &status.out
    } else {
        &status.err
    });
    let kind = if said.contains("No space left on device") {
        PortErrorKind::NoSpace
    } else if status.exitcode == Some(75) {
        PortErrorKind::InUse
    } else {
        PortErrorKind::Failed
    };
    let mut error = PortError::new(kind, format!("cannot {what} in the guest of {id}"))
        .about(id.to_string())
        .advise("see the guest's words below and its journal");
    error.causes.push(match (status.exitcode, status.signal) {
        (_, Some(signal)) => format!("ended by signal {signal}"),
        (Some(code), None) => format!("exit status {code}"),
        (None, None) => "it ended without an exit status".to_owned(),
    });
    if !said.is_empty() {
        error.causes.push(said);
    }
    error
}

/// Arguments of `guest-file-open`, for modes that the client has no name for.
pub(super) fn open_arguments(path: &str, mode: &str) -> Value {
    json!({ "path": path, "mode": mode })
}

//! The handle by which the agent is called.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout_at;

use super::AgentError;
use super::channel::Channel;
use super::types::{AgentInfo, HostName, NetworkInterface, OsInfo, ShutdownMode};
use crate::deadline::Deadline;

/// How long a call waits unless [`AgentClient::with_call_timeout`] says
/// otherwise. A guest just restored under TCG answers after 1 to 2 s; a guest
/// that is starting up takes longer, but there the caller asks again anyway.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refusal of `guest-shutdown` is waited for. The agent runs
/// `shutdown` and reports its failure; success has no reply at all.
const SHUTDOWN_REFUSAL_WAIT: Duration = Duration::from_secs(3);

/// Calls the guest agent on its Unix socket.
///
/// Clones share the connection and take turns. The socket serves one client at
/// a time: drop all clones to make room for another. A connection that has
/// ended stays ended; connect again, so that a new machine behind the same
/// path is never mistaken for the old one.
#[derive(Debug, Clone)]
pub struct AgentClient {
    channel: Arc<Mutex<Channel>>,
    call_timeout: Duration,
}

impl AgentClient {
    /// Connects to the socket. Whether an agent answers shows with the first
    /// call.
    ///
    /// # Errors
    /// [`AgentError::Connect`]; it never waits.
    pub async fn connect(path: &Path) -> Result<AgentClient, AgentError> {
        // A Unix socket connects at once or not at all, also when the queue of
        // its listener is full.
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| AgentError::Connect {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            channel: Arc::new(Mutex::new(Channel::new(stream))),
            call_timeout: DEFAULT_CALL_TIMEOUT,
        })
    }

    /// Returns a handle on the same connection with another time-out for each
    /// call.
    #[must_use]
    pub fn with_call_timeout(&self, call_timeout: Duration) -> AgentClient {
        Self {
            channel: Arc::clone(&self.channel),
            call_timeout,
        }
    }

    /// Returns the time-out of each call.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Executes any command. The time-out covers the wait for other calls, a
    /// synchronisation if one is due, and the command.
    ///
    /// # Errors
    /// [`AgentError::Busy`] and [`AgentError::NoAnswer`] when the command was
    /// not sent; [`AgentError::TimedOut`], [`AgentError::Closed`] and
    /// [`AgentError::Protocol`] leave its outcome unknown;
    /// [`AgentError::Command`] when the agent refuses.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, AgentError> {
        let deadline = Deadline::after(timeout);
        let mut channel = self.turn(command, deadline).await?;
        channel.call(command, arguments, deadline).await
    }

    async fn turn(
        &self,
        command: &str,
        deadline: Deadline,
    ) -> Result<MutexGuard<'_, Channel>, AgentError> {
        timeout_at(deadline.at, self.channel.lock())
            .await
            .map_err(|_| AgentError::Busy {
                command: command.to_owned(),
                after: deadline.after,
            })
    }

    /// Executes any command within the handle's time-out and reads the reply
    /// as a `T`.
    ///
    /// # Errors
    /// As for [`Self::execute`], and [`AgentError::UnexpectedReply`].
    pub async fn execute_as<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T, AgentError> {
        self.execute_as_within(command, arguments, self.call_timeout)
            .await
    }

    pub(super) async fn execute_as_within<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<T, AgentError> {
        let deadline = Deadline::after(timeout);
        let mut channel = self.turn(command, deadline).await?;
        let value = channel.call(command, arguments, deadline).await?;
        serde_json::from_value(value).map_err(|source| {
            // It may be the reply to something else.
            channel.distrust();
            AgentError::UnexpectedReply {
                command: command.to_owned(),
                source,
            }
        })
    }

    /// Executes a command whose value says nothing.
    pub(super) async fn perform(&self, command: &str, arguments: Value) -> Result<(), AgentError> {
        self.execute(command, arguments, self.call_timeout).await?;
        Ok(())
    }

    /// Asks whether the agent is there (`guest-ping`).
    ///
    /// # Errors
    /// As for [`Self::execute`].
    pub async fn ping(&self) -> Result<(), AgentError> {
        self.perform("guest-ping", Value::Null).await
    }

    /// Asks for the agent's version and commands (`guest-info`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn info(&self) -> Result<AgentInfo, AgentError> {
        self.execute_as("guest-info", Value::Null).await
    }

    /// Sets the guest's clock to nanoseconds since 1970, or with `None` to its
    /// hardware clock (`guest-set-time`).
    ///
    /// # Errors
    /// As for [`Self::execute`].
    pub async fn set_time(&self, nanoseconds: Option<i64>) -> Result<(), AgentError> {
        let arguments = nanoseconds.map_or(Value::Null, |time| json!({ "time": time }));
        self.perform("guest-set-time", arguments).await
    }

    /// Asks for the guest's host name (`guest-get-host-name`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn host_name(&self) -> Result<String, AgentError> {
        let reply: HostName = self.execute_as("guest-get-host-name", Value::Null).await?;
        Ok(reply.host_name)
    }

    /// Asks which operating system the guest runs (`guest-get-osinfo`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn os_info(&self) -> Result<OsInfo, AgentError> {
        self.execute_as("guest-get-osinfo", Value::Null).await
    }

    /// Asks for the guest's network interfaces and addresses
    /// (`guest-network-get-interfaces`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn network_interfaces(&self) -> Result<Vec<NetworkInterface>, AgentError> {
        self.execute_as("guest-network-get-interfaces", Value::Null)
            .await
    }

    /// Asks the guest to shut down (`guest-shutdown`).
    ///
    /// The agent answers only a refusal, so `Ok` means: a living agent was
    /// asked and none was heard. Watch the machine for what follows.
    ///
    /// # Errors
    /// As for [`Self::execute`], except that silence and a closed connection
    /// after the request are `Ok`.
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<(), AgentError> {
        const COMMAND: &str = "guest-shutdown";
        let deadline = Deadline::after(self.call_timeout);
        let mut channel = self.turn(COMMAND, deadline).await?;
        // Silence is the good answer: prove first that somebody listens.
        channel.distrust();
        channel.ready(COMMAND, deadline).await?;
        let refusal = Deadline::after(deadline.remaining().min(SHUTDOWN_REFUSAL_WAIT));
        let arguments = json!({ "mode": mode.name() });
        match channel.call(COMMAND, arguments, refusal).await {
            Ok(_) | Err(AgentError::TimedOut { .. } | AgentError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

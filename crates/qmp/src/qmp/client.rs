//! The handle by which commands are executed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::connect::connect;
use super::error::QmpError;
use super::events::EventStream;
use super::schema::Schema;
use super::shared::Shared;
use super::task::Job;
use super::types::{CommandName, RunState, Status, Uuid, Version, VersionReply};
use crate::deadline::Deadline;
use crate::wire::Failure;

/// How long the helpers here wait for a plain query. QEMU answers within
/// milliseconds; the rest is room for a loaded host under TCG and for a main
/// loop held up by slow storage.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Executes commands on one QMP connection.
///
/// Clones share the connection; commands of several clones may overlap. When
/// the last clone is dropped the socket closes.
#[derive(Debug, Clone)]
pub struct QmpClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
    task: AbortHandle,
    greeting: Version,
    /// The names `query-commands` gave; they do not change in a QEMU's life.
    commands: OnceCell<BTreeSet<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It would notice by itself, unless it is stuck in a write.
        self.task.abort();
    }
}

impl QmpClient {
    /// Connects to a QMP socket, hears the greeting and negotiates, all within
    /// `timeout`.
    ///
    /// The stream holds every event from the very first on.
    ///
    /// # Errors
    /// [`QmpError::Connect`], [`QmpError::NoGreeting`] when the socket stays
    /// silent, [`QmpError::NotQmp`], or an error of the negotiation.
    pub async fn connect(
        path: &Path,
        timeout: Duration,
    ) -> Result<(QmpClient, EventStream), QmpError> {
        connect(path, timeout).await
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Sender<Job>,
        task: AbortHandle,
        greeting: Version,
    ) -> Self {
        let inner = Inner {
            shared,
            queue,
            task,
            greeting,
            commands: OnceCell::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Executes a command and returns what it returned. `Null` arguments are
    /// left out.
    ///
    /// Dropping the future gives the command up: if it is still unsent, it is
    /// never sent.
    ///
    /// # Errors
    /// [`QmpError::Command`] when QEMU refuses; [`QmpError::TimedOut`],
    /// [`QmpError::Closed`] and [`QmpError::Protocol`] leave the outcome
    /// unknown.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, QmpError> {
        let deadline = Deadline::after(timeout);
        let started = Instant::now();
        let mut waiter = self.inner.shared.register()?;
        let job = Job {
            line: encode(command, arguments, &waiter.id),
            id: waiter.id.clone(),
        };
        // Arguments are not traced: they may hold secrets.
        tracing::trace!(command, id = waiter.id, "a QMP command");
        let exchange = async {
            // It fails only at the end of the connection, which the wait for
            // the reply will report with its reason.
            let _ = self.inner.queue.send(job).await;
            waiter.reply().await
        };
        match timeout_at(deadline.at, exchange).await {
            Ok(Ok(Ok(value))) => {
                tracing::trace!(command, elapsed = ?started.elapsed(), "a QMP reply");
                Ok(value)
            }
            Ok(Ok(Err(Failure { class, desc }))) => Err(QmpError::Command {
                command: command.to_owned(),
                class,
                desc,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QmpError::TimedOut {
                command: command.to_owned(),
                after: deadline.after,
            }),
        }
    }

    /// Executes a command and reads what it returned as a `T`.
    ///
    /// # Errors
    /// As for [`Self::execute`], and [`QmpError::UnexpectedReply`] if the value
    /// does not fit; the command has succeeded then.
    pub async fn execute_as<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<T, QmpError> {
        let value = self.execute(command, arguments, timeout).await?;
        serde_json::from_value(value).map_err(|source| unexpected(command, source))
    }

    async fn query<T: DeserializeOwned>(&self, command: &str) -> Result<T, QmpError> {
        self.execute_as(command, json!({}), QUERY_TIMEOUT).await
    }

    /// Listens to the events that come from now on.
    #[must_use]
    pub fn subscribe(&self) -> EventStream {
        self.inner.shared.events.subscribe()
    }

    /// Counts the replies dropped because nobody waited for them: late,
    /// repeated, or with an `id` that is not ours.
    #[must_use]
    pub fn dropped_replies(&self) -> u64 {
        self.inner.shared.dropped()
    }

    /// Returns the version QEMU gave in its greeting.
    #[must_use]
    pub fn greeting_version(&self) -> Version {
        self.inner.greeting
    }

    /// Asks for the state the machine is in (`query-status`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn query_status(&self) -> Result<RunState, QmpError> {
        let status: Status = self.query("query-status").await?;
        Ok(status.status)
    }

    /// Asks for QEMU's version (`query-version`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn query_version(&self) -> Result<Version, QmpError> {
        let reply: VersionReply = self.query("query-version").await?;
        Ok(reply.qemu)
    }

    /// Asks for the machine's UUID in its written form (`query-uuid`).
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn query_uuid(&self) -> Result<String, QmpError> {
        let reply: Uuid = self.query("query-uuid").await?;
        Ok(reply.uuid)
    }

    /// Asks which commands this QEMU has (`query-commands`), once a connection.
    ///
    /// # Errors
    /// As for [`Self::execute_as`]; a failure is not remembered.
    pub async fn query_commands(&self) -> Result<&BTreeSet<String>, QmpError> {
        let ask = || async {
            let names: Vec<CommandName> = self.query("query-commands").await?;
            Ok(names.into_iter().map(|n| n.name).collect())
        };
        self.inner.commands.get_or_try_init(ask).await
    }

    /// Tells whether this QEMU has a command.
    ///
    /// # Errors
    /// As for [`Self::query_commands`].
    pub async fn has_command(&self, name: &str) -> Result<bool, QmpError> {
        Ok(self.query_commands().await?.contains(name))
    }

    /// Asks what this QEMU's commands accept (`query-qmp-schema`): whether a
    /// build has the `quorum` driver, for example.
    ///
    /// # Errors
    /// As for [`Self::execute_as`].
    pub async fn query_schema(&self) -> Result<Schema, QmpError> {
        self.query("query-qmp-schema").await
    }
}

fn encode(command: &str, arguments: Value, id: &str) -> Vec<u8> {
    let mut request = json!({ "execute": command, "id": id });
    if !arguments.is_null() {
        request["arguments"] = arguments;
    }
    format!("{request}\r\n").into_bytes()
}

fn unexpected(command: &str, source: serde_json::Error) -> QmpError {
    QmpError::UnexpectedReply {
        command: command.to_owned(),
        source,
    }
}

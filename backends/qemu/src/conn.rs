//! One QMP connection to one machine, opened only after the peer has proved who it is.

use crate::blocks::Graph;
use crate::error;
use crate::nodes;
use crate::paths::MachinePaths;
use crate::process::{Identity, Launch};
use flipside_platform::{PortError, PortErrorKind, PortResult};
use flipside_qmp::{EventStream, QmpClient, RecvError, RunState};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a command that changes something may take. It waits for requests in flight on the disk concerned;
/// storage that needs longer is treated as hung.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a query may take before the process counts as unresponsive. Queries touch no disk; under TCG on a
/// host with ten runnable processes a core they were seen to take three seconds.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(6);

/// How long greeting and negotiation may take; as for a query.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// The pause between two looks at something that changes within milliseconds.
pub(crate) const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Waits between looks at something that mostly happens at once and must not be noticed late: at first the
/// queries themselves are pause enough, later it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Pace(u32);

impl Pace {
    /// Looks without a pause: some 50 ms of queries.
    const EAGER: u32 = 150;

    pub(crate) async fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 > Self::EAGER {
            sleep(SHORT_PAUSE).await;
        }
    }
}

/// Which of a machine's two QMP sockets is ours. QEMU serves one client a socket, so the server and the guard
/// each have their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The server's.
    Server,
    /// The guard's.
    Guard,
}

impl Voice {
    pub(crate) fn socket(self, paths: &MachinePaths) -> PathBuf {
        match self {
            Voice::Server => paths.qmp(),
            Voice::Guard => paths.guard(),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) client: QmpClient,
    pub(crate) launch: Launch,
    pub(crate) identity: Identity,
}

impl Conn {
    /// Connects and checks that the machine behind the socket is the one that was started: its uuid, and its
    /// name with the token (fault 36).
    pub(crate) async fn open(
        paths: &MachinePaths,
        launch: Launch,
        identity: Identity,
        voice: Voice,
    ) -> PortResult<Self> {
        let socket = voice.socket(paths);
        let what = format!("talking to machine {}", launch.machine);
        let (client, _) = QmpClient::connect(&socket, CONNECT_TIMEOUT)
            .await
            .map_err(|e| error::qmp(&e, &what))?;
        let conn = Self {
            client,
            launch,
            identity,
        };
        let uuid = conn.query("query-uuid").await?;
        let name = conn.query("query-name").await?;
        let uuid = uuid.get("UUID").and_then(Value::as_str).unwrap_or("");
        let name = name.get("name").and_then(Value::as_str).unwrap_or("");
        if uuid != conn.launch.uuid.to_string() || name != conn.launch.name {
            return Err(error::mismatch(format!(
                "the machine behind `{}` is not {} of this system",
                socket.display(),
                conn.launch.machine
            ))
            .about(socket.display().to_string())
            .advise(
                "Somebody replaced the socket or started another QEMU on it; end that process",
            ));
        }
        Ok(conn)
    }

    /// Executes a command that changes something.
    pub(crate) async fn run(&self, command: &str, arguments: Value) -> PortResult<Value> {
        self.run_for(command, arguments, COMMAND_TIMEOUT).await
    }

    /// Executes a command with a deadline of its own.
    pub(crate) async fn run_for(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> PortResult<Value> {
        let done = self.client.execute(command, arguments, timeout).await;
        done.map_err(|e| {
            error::qmp(
                &e,
                &format!("`{command}` on machine {}", self.launch.machine),
            )
        })
    }

    /// Asks something that takes no arguments.
    pub(crate) async fn query(&self, command: &str) -> PortResult<Value> {
        self.run_for(command, json!({}), QUERY_TIMEOUT).await
    }

    /// Returns the state the machine is in.
    pub(crate) async fn status(&self) -> PortResult<RunState> {
        let status = self.client.query_status().await;
        status.map_err(|e| error::qmp(&e, &format!("observing machine {}", self.launch.machine)))
    }

    /// Reads the block graph.
    pub(crate) async fn graph(&self) -> PortResult<Graph> {
        let named = json!({ "flat": true });
        let (block, named) = tokio::join!(
            self.query("query-block"),
            self.run_for("query-named-block-nodes", named, QUERY_TIMEOUT),
        );
        Graph::read(&block?, &named?).map_err(error::mismatch)
    }

    /// Listens to events from now on.
    pub(crate) fn listen(&self) -> EventStream {
        self.client.subscribe()
    }

    /// Says whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.listen().try_recv() == Err(RecvError::Closed)
    }

    /// Adds a node.
    pub(crate) async fn add_node(&self, node: &Value) -> PortResult<()> {
        self.run("blockdev-add", node.clone()).await.map(drop)
    }

    /// Removes a node if it is there.
    pub(crate) async fn remove_node(&self, graph: &Graph, node: &str) -> PortResult<()> {
        if graph.has(node) {
            self.run("blockdev-del", json!({ "node-name": node }))
                .await?;
        }
        Ok(())
    }

    /// Adds one of our bitmaps to a node.
    pub(crate) async fn add_bitmap(&self, node: &str, name: &str) -> PortResult<()> {
        let bitmap = json!({ "node": node, "name": name, "granularity": nodes::GRANULARITY });
        self.run("block-dirty-bitmap-add", bitmap).await.map(drop)
    }

    /// Removes a bitmap if it is there.
    pub(crate) async fn remove_bitmap(
        &self,
        graph: &Graph,
        node: &str,
        name: &str,
    ) -> PortResult<()> {
        if graph.on(node, name).is_some() {
            let bitmap = json!({ "node": node, "name": name });
            self.run("block-dirty-bitmap-remove", bitmap).await?;
        }
        Ok(())
    }

    /// Waits until the machine is in one of these states; polled state wins over events.
    pub(crate) async fn wait_status(
        &self,
        wanted: &[RunState],
        timeout: Duration,
    ) -> PortResult<RunState> {
        let deadline = Instant::now() + timeout;
        let mut pace = Pace::default();
        loop {
            let status = self.status().await?;
            if wanted.contains(&status) {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(PortError::new(
                    PortErrorKind::TimedOut,
                    format!(
                        "machine {} is `{status:?}` and did not become {wanted:?} within {timeout:?}",
                        self.launch.machine
                    ),
                ));
            }
            pace.wait().await;
        }
    }
}

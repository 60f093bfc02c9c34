//! What travels between a client and the server: JSON over HTTP on the Unix socket, version 1.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/version` | – | [`Version`] |
//! | `GET /v1/systems` | – | list of [`crate::Status`] |
//! | `POST /v1/systems` | [`CreateRequest`] | lines of [`CreateEvent`] |
//! | `GET /v1/systems/NAME` | – | [`crate::Status`] |
//! | `GET /v1/systems/NAME/config` | – | [`StagedConfig`] |
//! | `GET /v1/systems/NAME/spec` | – | [`crate::SystemSpec`] |
//! | `DELETE /v1/systems/NAME` | – | 204 |
//! | `POST /v1/systems/NAME/power` | [`PowerRequest`] | [`crate::Status`] |
//! | `POST /v1/systems/NAME/session` | [`SessionRequest`] | [`Accepted`] |
//! | `GET /v1/systems/NAME/status?watch=true` | – | lines of [`crate::Status`], one on every change |
//! | `GET /v1/systems/NAME/log?after=SEQ&until=SEQ&follow=true` | – | lines of [`crate::Entry`] |
//! | `GET /v1/systems/NAME/log.xml?session=N` | – | the log as XML (`docs/manual`: saving the log) |
//! | `GET /v1/systems/NAME/log/ID?go=next&severity=S&session=N` | – | [`LogItem`] |
//! | `GET /v1/events?system=NAME` | – | server-sent events: [`SystemsEvent`], [`crate::Status`], [`LogEvent`] |
//! | `GET /v1/console/users` | – | list of [`ConsoleUser`] (on the Unix socket only) |
//! | `PUT /v1/console/users/USER` | [`ConsoleUserRequest`] | 204 (on the Unix socket only) |
//! | `DELETE /v1/console/users/USER` | – | 204 (on the Unix socket only) |
//! | `GET /v1/systems/NAME/sessions` | – | list of [`SessionLog`] |
//! | `POST /v1/systems/NAME/run` | [`RunRequest`] | lines of [`RunEvent`] |
//! | `POST /v1/systems/NAME/disks/DISK/verify` | [`VerifyRequest`] | lines of [`VerifyEvent`] |
//! | `GET /v1/systems/NAME/services?side=…` | – | list of [`ServiceStatus`] |
//! | `GET /v1/systems/NAME/services/all?side=…` | – | list of [`ServiceListing`] |
//! | `GET /v1/systems/NAME/disks` | – | [`crate::DiskMap`] |
//! | `GET /v1/systems/NAME/logs?side=…` | – | list of [`crate::LogSource`] |
//! | `POST /v1/systems/NAME/actions/accept` | – | list of [`crate::PinnedFile`]: those that were changed |
//! | `GET /v1/systems/NAME/packages?side=…` | – | list of [`crate::Package`] |
//! | `GET /v1/systems/NAME/packages/changes` | – | list of [`PackageChange`] |
//! | `GET /v1/systems/NAME/packages/verify?side=…` | – | list of [`crate::PackageFault`] |
//! | `GET /v1/systems/NAME/condition?side=…` | – | [`crate::Condition`] |
//! | `GET /v1/systems/NAME/access?side=…` | – | [`SideAccess`] |
//! | `POST /v1/systems/NAME/keys` | [`KeysRequest`] | [`crate::Status`] |
//! | `GET /v1/systems/NAME/media?side=…` | – | [`MediumStatus`] |
//! | `POST /v1/systems/NAME/media` | [`MediaRequest`] | [`MediumStatus`] |
//! | `GET /v1/systems/NAME/rehearsal` | – | [`RehearsalStatus`] |
//! | `POST /v1/systems/NAME/rehearsal` | [`RehearsalRequest`] | [`RehearsalStatus`] |
//! | `GET /v1/systems/NAME/dumps` | – | list of [`crate::Dump`] |
//! | `POST /v1/systems/NAME/dumps` | – | [`crate::Dump`], the Upgrade Side's memory as of now |
//! | `GET /v1/systems/NAME/console/tail?side=…&bytes=…` | – | what the serial console printed last |
//! | `GET /v1/systems/NAME/console?side=…` | upgrade to `flipside-console` | raw bytes both ways |
//! | `GET /v1/systems/NAME/changes?after=PATH&limit=N` | – | [`crate::ChangeList`] |
//! | `PUT /v1/systems/NAME/file?side=…&path=…` | the file's bytes | [`Copied`] |
//! | `POST /v1/systems/NAME/restart` | [`RestartRequest`] | [`crate::Status`] |
//! | `GET /v1/systems/NAME/package-proxy?allow=HOST,…` | upgrade to `flipside-proxy` | a connection of an HTTP proxy that reaches these hosts only |
//! | `GET /v1/systems/NAME/shell?side=…` | upgrade to `flipside-shell` | raw bytes both ways |
//!
//! Every refusal and failure is a [`crate::Problem`] with status 400 (usage), 404, 409 (refused in this state,
//! in use), 422 (not ready) or 500.

use crate::{Command, Firmware, KeySequence, Problem, Side, SystemName};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Says which server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Product version.
    pub version: String,
    /// Version of this API.
    pub api: u32,
    /// Process id of the server.
    pub pid: u32,
}

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSourceSpec {
    /// A raw or qcow2 image, copied.
    Image(PathBuf),
    /// An empty disk of this many bytes.
    Size(u64),
}

/// Asks for a new system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Name.
    pub name: SystemName,
    /// System disks.
    pub system_disks: Vec<PathBuf>,
    /// Data disks.
    pub data_disks: Vec<DiskSourceSpec>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Two directories, or none for the default ones.
    pub enclosures: Option<[PathBuf; 2]>,
    /// `user` or `bridge=BR`.
    pub network: String,
    /// MAC address, or a random one.
    pub mac: Option<String>,
    /// `[ADDR:]HOSTPORT:GUESTPORT`, checked by the server.
    pub publish: Vec<String>,
    /// Firmware.
    pub firmware: Firmware,
}

/// Progress of a creation, then its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateEvent {
    /// How far it is.
    Progress(crate::Progress),
    /// It is there.
    Done(Box<crate::Status>),
    /// It failed, and nothing was left behind.
    Failed(Problem),
}

/// Starts or stops the applications of a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearsalRequest {
    /// Start them (true) or stop them.
    pub start: bool,
}

/// What runs in a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalStatus {
    /// The controlled units.
    pub units: Vec<String>,
    /// Those that run on the copies of the data.
    pub running: Vec<String>,
}

/// A controlled service on one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Unit name.
    pub unit: String,
    /// Whether the guest knows it.
    pub exists: bool,
    /// Whether it runs.
    pub active: bool,
    /// Its startup type.
    pub startup: String,
    /// Whether flipside keeps it from starting.
    pub held: bool,
}

/// A service in the list of all services of a side (SV-01).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceListing {
    /// Unit name.
    pub unit: String,
    /// What it says of itself.
    pub description: String,
    /// Whether it runs.
    pub active: bool,
    /// Its startup type.
    pub startup: String,
}

/// A package whose version differs between the sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version on the Production Side before the split, or none: it is new.
    pub before: Option<String>,
    /// Its version on the Upgrade Side, or none: it was removed.
    pub after: Option<String>,
}

/// Asks for a comparison of both legs of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Take the leg that differs out, so that it is rewritten from the one that decides.
    #[serde(default)]
    pub repair: bool,
}

/// What a comparison of both legs found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyOutcome {
    /// The disk.
    pub disk: crate::DiskName,
    /// Bytes compared.
    pub compared_bytes: u64,
    /// Bytes of blocks of 4 KiB that rest and differ; 0 when both legs hold the same.
    pub different_bytes: u64,
    /// Where the first of them begins, in bytes.
    pub first_difference: Option<u64>,
    /// The leg that is rewritten now, if that was asked for and needed.
    pub repairing: Option<crate::Leg>,
}

/// Progress of a comparison, then its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyEvent {
    /// How far it is.
    Progress(crate::Progress),
    /// It is done.
    Done(VerifyOutcome),
    /// It could not be done.
    Failed(Problem),
}

/// What to do with the power of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Start it.
    Start,
    /// Shut the guest down, then end its machine.
    Stop,
    /// End its machine at once; what the guest had not written is lost.
    Kill,
}

/// Asks to start or stop a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub action: PowerAction,
}

/// A configuration file as the client read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The files it calls, and those they call. They lie in its directory; the server opens none of them (CF-05).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<crate::ConfigFile>,
}

/// The configuration in force: the session's staging copy, or without a session the one checked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedConfig {
    /// The session that it was frozen for, none without a session.
    pub session: Option<crate::SessionId>,
    /// File name, none without one.
    pub name: Option<String>,
    /// The settings, with the text of every file they were read from.
    pub config: crate::UpgradeConfig,
}

/// Asks for the next step of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The command.
    pub command: Command,
    /// The configuration file to use (check and split).
    #[serde(default)]
    pub config: Option<ConfigText>,
    /// Use none, instead of the last checked one (check and split).
    #[serde(default)]
    pub no_config: bool,
    /// The last record that whoever asks has seen (`last_seq` of a status). If the session was moved since, the request
    /// is refused: it was meant for another state, or is the same one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// Take the data back to the checkpoint of the merge (abort).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard_data: bool,
}

/// Says that a request was accepted; its progress is in status and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The last record before it: follow the log after this one.
    pub after: u64,
    /// File name of the configuration in force.
    pub config: Option<String>,
}

/// Asks to run a program on a side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The side, or none: the Upgrade Side, and only in Split.
    pub side: Option<Side>,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// Output of a program, then its end. Bytes travel in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    /// Standard output.
    Out(String),
    /// Standard error.
    Err(String),
    /// It ended with this status.
    Exit(i32),
    /// It could not be run or followed.
    Failed(Problem),
}

/// The private way to a side (US-09).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideAccess {
    /// The side.
    pub side: Side,
    /// An address on the host; a connection to it is one to the guest's SSH.
    pub address: std::net::SocketAddr,
    /// Its public host keys, as the guest itself named them over the VTM path; empty when it did not answer.
    pub host_keys: Vec<String>,
}

/// What is in the CD drive of a side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediumStatus {
    /// The side.
    pub side: Side,
    /// The image, none when the drive is empty.
    pub image: Option<PathBuf>,
    /// The guest uses it.
    pub locked: bool,
}

/// Asks to put an image into a CD drive, or to empty it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaRequest {
    /// The side; in Idle there is one, in Split it is the Upgrade Side.
    #[serde(default)]
    pub side: Option<Side>,
    /// The image's absolute path; none empties the drive.
    #[serde(default)]
    pub image: Option<PathBuf>,
    /// Pull it out although the guest uses it.
    #[serde(default)]
    pub force: bool,
}

/// Asks to press keys on a side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysRequest {
    /// The side; in Idle there is one, in Split it is the Upgrade Side.
    #[serde(default)]
    pub side: Option<Side>,
    /// The keys.
    pub keys: KeySequence,
}

/// Asks to restart a side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// The side; Production is refused.
    pub side: Side,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// It has not ended.
    Open,
    /// The upgrade was made permanent.
    Committed,
    /// It was taken back.
    Aborted,
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        })
    }
}

/// The log of one session: which records it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLog {
    /// Its number, from 1 for the first session of the system.
    pub number: u32,
    /// Its id.
    pub id: crate::SessionId,
    /// File name of its configuration, none without one.
    pub config: Option<String>,
    /// Its first record: the checks before a session belong to it.
    pub first: u64,
    /// Its last record until now.
    pub last: u64,
    /// When it began, in milliseconds since 1970.
    pub began_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// How it ended.
    pub outcome: SessionEnd,
}

/// One item of the activity log with everything it says, and its neighbours of a severity (AL-11 to AL-14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogItem {
    /// Number of the record that opened it.
    pub id: u64,
    /// Its time.
    pub time: String,
    /// Its severity and that of everything below it.
    pub severity: crate::Severity,
    /// Texts of the items above it, outermost first.
    pub path: Vec<String>,
    /// One sentence.
    pub text: String,
    /// What it is about.
    pub component: Option<String>,
    /// What to do.
    pub advice: Option<String>,
    /// The full text, such as the output of a program.
    pub detail: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// The severity that `previous` and `next` are of.
    pub walked: crate::Severity,
    /// The item before it of that severity.
    pub previous: Option<u64>,
    /// The item after it.
    pub next: Option<u64>,
    /// How many items of each severity the log has; one without any cannot be chosen (AL-13).
    pub counts: std::collections::BTreeMap<crate::Severity, u64>,
}

/// Says how much was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes written.
    pub bytes: u64,
}

/// A user of the web console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleUser {
    /// Name.
    pub name: String,
    /// Whether the user may change things, and not only look.
    pub operator: bool,
}

/// Adds a user of the web console, or gives one another password and role.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleUserRequest {
    /// Whether the user may change things, and not only look.
    pub operator: bool,
    /// The password: 12 to 256 bytes in one line.
    pub password: String,
}

/// Never shows the password.
impl std::fmt::Debug for ConsoleUserRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleUserRequest")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

/// Which systems there are (event `systems`); sent first, and whenever one was added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemsEvent {
    /// Their names, sorted.
    pub systems: Vec<SystemName>,
}

/// What changed in the current log of a system (event `log`); the event's id is the cursor from which to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// The system.
    pub system: SystemName,
    /// Forget what is known of the log: these lines are all of it.
    pub reset: bool,
    /// New and changed lines, parents first.
    pub lines: Vec<LogLine>,
}

/// One line of the log tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogLine {
    /// Number of the record that opened it; identifies it.
    pub node: u64,
    /// The line above it, none for a stage.
    pub parent: Option<u64>,
    /// Its time, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its severity and that of everything below it.
    pub severity: crate::Severity,
    /// One sentence, not cleaned.
    pub text: String,
    /// What it is about.
    pub component: Option<String>,
    /// What to do.
    pub advice: Option<String>,
    /// It has a longer text, such as the output of a program.
    pub detail: bool,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
}

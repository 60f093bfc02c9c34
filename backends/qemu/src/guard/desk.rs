//! Carries out what the server asks for: the front door's commands.

use super::events::EventLog;
use super::files::{GuardFiles, Told};
use super::limits::DRAIN_MAX;
use super::wire::Command;
use crate::door::{Door, RouteStatus, Targets};
use crate::paths::SystemPaths;
use crate::process::Launch;
use flipside_model::{MachineId, Severity};
use flipside_platform::{PortError, PortResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How the guard describes its door on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoorView {
    pub(crate) open_to: Option<MachineId>,
    pub(crate) held: u64,
    pub(crate) active: u64,
    pub(crate) held_ms: u64,
}

/// How a drain ended, on the control socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drained {
    pub(crate) quiet: u64,
    pub(crate) busy: u64,
    pub(crate) took_ms: u64,
}

/// The door and everything its commands touch.
pub(crate) struct Desk {
    pub(crate) door: Door,
    paths: SystemPaths,
    files: GuardFiles,
    pub(crate) events: Arc<EventLog>,
    /// The owner's machine was paused when this guard took over: the door opens when it runs again, unless the
    /// server says something first.
    waiting: AtomicBool,
    stop: watch::Sender<bool>,
}

impl Desk {
    pub(crate) fn new(
        door: Door,
        paths: SystemPaths,
        events: Arc<EventLog>,
        stop: watch::Sender<bool>,
    ) -> Self {
        Self {
            door,
            files: GuardFiles::new(&paths),
            paths,
            events,
            waiting: AtomicBool::new(false),
            stop,
        }
    }

    /// Answers one command.
    pub(crate) async fn answer(&self, command: Command) -> PortResult<Value> {
        match command {
            Command::View => Ok(json!(self.view())),
            Command::Hold => {
                self.waiting.store(false, Ordering::SeqCst);
                // Noted first: a guard that takes over must not let anybody in by itself.
                self.files.note_door(Told::Hold)?;
                self.door.hold();
                Ok(Value::Null)
            }
            Command::Drain { bound_ms } => self.drain(bound_ms).await,
            Command::Cut => Ok(json!(self.door.cut())),
            Command::Open { machine } => {
                self.waiting.store(false, Ordering::SeqCst);
                self.open(machine).map(|held_ms| json!(held_ms))
            }
            Command::Events { after } => Ok(json!(self.events.after(after))),
            Command::Shut => {
                self.door.shutdown().await;
                self.files.forget_door()?;
                self.stop.send_replace(true);
                Ok(Value::Null)
            }
        }
    }

    pub(crate) fn view(&self) -> DoorView {
        let status = self.door.status();
        let last = status.last_outage().map_or(0, |outage| outage.held_ms);
        let (open_to, held_ms) = match &status.route {
            RouteStatus::Open { label, .. } => (machine_of(label), last),
            RouteStatus::Hold { for_ms, .. } => (None, *for_ms),
            RouteStatus::Closed | RouteStatus::Ended => (None, last),
        };
        DoorView {
            open_to,
            held: count(status.held),
            active: count(status.active),
            held_ms,
        }
    }

    async fn drain(&self, bound_ms: u64) -> PortResult<Value> {
        let bound = Duration::from_millis(bound_ms).min(DRAIN_MAX);
        let report = self.door.drain(bound).await;
        if report.interrupted {
            return Err(PortError::failed(
                "the front door does not hold connections, so nothing was drained",
            )
            .advise("Hold new connections first"));
        }
        Ok(json!(Drained {
            quiet: count(report.quiescent),
            busy: count(report.busy),
            took_ms: report.waited_ms,
        }))
    }

    /// Opens the door to a machine; returns for how long connections were held.
    pub(crate) fn open(&self, machine: MachineId) -> PortResult<u64> {
        let targets = self.forwards(machine)?;
        let dialled = targets.iter().map(|(guest, dial)| (*guest, *dial));
        let same = match self.door.status().route {
            RouteStatus::Open { label, targets, .. } => {
                machine_of(&label) == Some(machine)
                    && targets.iter().map(|t| (t.guest_port, t.dial)).eq(dialled)
            }
            _ => false,
        };
        if !same {
            self.door.open(targets, machine.to_string());
        }
        // Without the note the next guard would hold, which is safe.
        if let Err(error) = self.files.note_door(Told::Open) {
            tracing::warn!(%error, "not noted that the door is open");
        }
        Ok(self.view().held_ms)
    }

    /// Reads where a living machine offers its guest's ports.
    fn forwards(&self, machine: MachineId) -> PortResult<Targets> {
        let absent = || {
            PortError::absent(format!("machine {machine} does not run")).about(machine.to_string())
        };
        let launch = Launch::read(&self.paths.machine(machine))?.ok_or_else(absent)?;
        launch.find().ok_or_else(absent)?;
        let dial = |host: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, host));
        Ok(launch
            .forwards
            .iter()
            .map(|(guest, host)| (*guest, dial(*host)))
            .collect())
    }

    /// Says whether a guard that was not told to end had the door open.
    pub(crate) fn was_open(&self) -> bool {
        self.files.door_was() == Some(Told::Open)
    }

    /// Takes over an open door: it opens to the owner if it runs, and otherwise as soon as it does.
    pub(crate) fn take_over(&self, owner: MachineId, running: bool) {
        if running {
            self.open_to_owner(
                owner,
                "the guard before ended, and the leg book names this owner",
            );
        } else {
            self.waiting.store(true, Ordering::SeqCst);
        }
    }

    /// Says whether the door waits for the owner to run again.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The owner runs again.
    pub(crate) fn owner_runs(&self, owner: MachineId) {
        if self.waiting.swap(false, Ordering::SeqCst) {
            self.open_to_owner(owner, "the owner runs again");
        }
    }

    fn open_to_owner(&self, owner: MachineId, why: &str) {
        match self.open(owner) {
            Ok(_) => self.events.add(
                Severity::Information,
                Some(owner),
                "Opened the front door",
                why,
            ),
            Err(e) => {
                self.events.add(
                    Severity::Warning,
                    Some(owner),
                    "The front door stays held",
                    e.message,
                );
            }
        }
    }
}

fn machine_of(label: &str) -> Option<MachineId> {
    label.strip_prefix('m')?.parse().ok().map(MachineId)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

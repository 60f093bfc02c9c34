//! The network port: the front door, which the guard holds.

use crate::call::{Class, SimPorts};
use crate::state::{Part, State};
use async_trait::async_trait;
use flipside_model::{BridgeFacts, MachineId, planted};
use flipside_platform::{DrainReport, NetworkPort, NetworkView, PortError, PortResult};
use std::time::Duration;
use tokio::time::Instant;

/// How long a guard may take to answer, as in the product.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the door is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DoorCommand {
    /// Hold new connections.
    Hold,
    /// Let connections through to a machine.
    Open(MachineId),
    /// End idle connections.
    Cut,
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl State {
    /// Says whether the door answers. A command for one that hangs waits in its socket, and is done when it goes on.
    fn door_answers(&mut self, part: &mut Part, command: Option<DoorCommand>) -> PortResult<()> {
        if !self.door.up {
            return Err(PortError::absent("The front door is not there."));
        }
        if self.guard_hangs() {
            if let Some(command) = command {
                self.queue_command(command);
            }
            return Err(part.silent(CALL_TIMEOUT, "The guard does not answer."));
        }
        Ok(())
    }

    /// Does what the door is told.
    pub(crate) fn door_command(&mut self, command: &DoorCommand) {
        if *command != DoorCommand::Cut {
            self.door_is_told();
        }
        match command {
            DoorCommand::Hold => {
                self.guards.note = Some(false);
                let busy = self.options.busy_connections;
                if self.door.open_to.take().is_some() || self.door.held_since.is_none() {
                    self.door.held_since = Some(Instant::now());
                    self.door.busy = busy;
                }
            }
            DoorCommand::Open(to) => {
                if self.book.owner.is_some_and(|o| o != *to) {
                    self.violate(format!("the door was opened to {to} but another owns it"));
                }
                self.guards.note = Some(true);
                if let Some(since) = self.door.held_since.take() {
                    self.door.held_ms = elapsed_ms(since);
                }
                self.door.open_to = Some(*to);
            }
            DoorCommand::Cut => self.door.busy = 0,
        }
    }
}

#[async_trait]
impl NetworkPort for SimPorts {
    async fn ensure(&self) -> PortResult<()> {
        if self.world.with(State::guard_hangs) {
            // It is asked first, and does not answer.
            tokio::time::sleep(CALL_TIMEOUT).await;
        }
        let name = "network.ensure".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            // One that has the place and does not answer is ended.
            if s.guard_hangs()
                && !planted::is("hung-guard-left")
                && let Some(id) = s.guards.main
            {
                s.end_guard(id);
            }
            s.start_guard();
            Ok(())
        })
        .await
    }

    async fn shut(&self) -> PortResult<()> {
        let name = "network.shut".to_owned();
        self.call(Class::Act, None, name, |s, p| {
            if s.guard_hangs() {
                p.delay = CALL_TIMEOUT;
            }
            s.forget_guards();
            Ok(())
        })
        .await
    }

    async fn view(&self) -> PortResult<NetworkView> {
        let name = "network.view".to_owned();
        self.call(Class::Look, None, name, |s, p| {
            s.door_answers(p, None)?;
            Ok(NetworkView {
                open_to: s.door.open_to,
                held: 0,
                active: s.door.busy,
                held_ms: s.door.held_since.map_or(s.door.held_ms, elapsed_ms),
            })
        })
        .await
    }

    async fn hold(&self) -> PortResult<()> {
        let name = "network.hold".to_owned();
        self.call(Class::Act, None, name, |s, p| {
            s.door_answers(p, Some(DoorCommand::Hold))?;
            s.door_command(&DoorCommand::Hold);
            Ok(())
        })
        .await
    }

    async fn drain(&self, bound_ms: u64) -> PortResult<DrainReport> {
        let name = "network.drain".to_owned();
        self.call(Class::Act, None, name, |s, p| {
            if s.door.up {
                s.door_answers(p, None)?;
            }
            let busy = s.door.busy;
            let took_ms = if busy > 0 { bound_ms } else { 0 };
            p.delay = Duration::from_millis(took_ms);
            Ok(DrainReport {
                quiet: 0,
                busy,
                took_ms,
            })
        })
        .await
    }

    async fn cut(&self) -> PortResult<u64> {
        let name = "network.cut".to_owned();
        self.call(Class::Act, None, name, |s, p| {
            // The connections of a guard that has ended are gone.
            if !s.door.up {
                return Ok(0);
            }
            s.door_answers(p, Some(DoorCommand::Cut))?;
            let busy = s.door.busy;
            s.door_command(&DoorCommand::Cut);
            Ok(busy)
        })
        .await
    }

    async fn answers(&self, id: MachineId) -> PortResult<bool> {
        let name = format!("network.answers.{id}");
        self.call(Class::Look, Some(id), name, |s, _| {
            Ok(s.options.private_path)
        })
        .await
    }

    async fn bridge(&self) -> PortResult<Option<BridgeFacts>> {
        self.call(Class::Look, None, "network.bridge".to_owned(), |s, _| {
            Ok(s.options.bridge.clone())
        })
        .await
    }

    async fn open(&self, to: MachineId) -> PortResult<u64> {
        let name = format!("network.open.{to}");
        self.call(Class::Act, None, name, |s, p| {
            s.door_answers(p, Some(DoorCommand::Open(to)))?;
            s.door_command(&DoorCommand::Open(to));
            Ok(s.door.held_ms)
        })
        .await
    }
}

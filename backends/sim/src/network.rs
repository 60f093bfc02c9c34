//! The network port: the front door.

use crate::call::{Class, SimPorts};
use crate::state::{Door, State};
use async_trait::async_trait;
use flipside_model::MachineId;
use flipside_platform::{DrainReport, NetworkPort, NetworkView, PortError, PortResult};
use tokio::time::Instant;

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl State {
    fn door(&mut self) -> PortResult<&mut Door> {
        if !self.door.up {
            return Err(PortError::absent("The front door is not there."));
        }
        Ok(&mut self.door)
    }
}

#[async_trait]
impl NetworkPort for SimPorts {
    async fn ensure(&self) -> PortResult<()> {
        let name = "network.ensure".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            if !s.door.up {
                s.door = Door {
                    up: true,
                    held_since: Some(Instant::now()),
                    ..Door::default()
                };
            }
            Ok(())
        })
        .await
    }

    async fn shut(&self) -> PortResult<()> {
        let name = "network.shut".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            s.door = Door::default();
            Ok(())
        })
        .await
    }

    async fn view(&self) -> PortResult<NetworkView> {
        let name = "network.view".to_owned();
        self.call(Class::Look, None, name, |s, _| {
            let door = s.door()?;
            Ok(NetworkView {
                open_to: door.open_to,
                held: 0,
                active: door.busy,
                held_ms: door.held_since.map_or(door.held_ms, elapsed_ms),
            })
        })
        .await
    }

    async fn hold(&self) -> PortResult<()> {
        let name = "network.hold".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            let busy = s.options.busy_connections;
            let door = s.door()?;
            if door.open_to.take().is_some() || door.held_since.is_none() {
                door.held_since = Some(Instant::now());
                door.busy = busy;
            }
            Ok(())
        })
        .await
    }

    async fn drain(&self, bound_ms: u64) -> PortResult<DrainReport> {
        let name = "network.drain".to_owned();
        self.call(Class::Act, None, name, |s, p| {
            let busy = s.door()?.busy;
            let took_ms = if busy > 0 { bound_ms } else { 0 };
            p.delay = std::time::Duration::from_millis(took_ms);
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
        self.call(Class::Act, None, name, |s, _| {
            Ok(std::mem::take(&mut s.door()?.busy))
        })
        .await
    }

    async fn open(&self, to: MachineId) -> PortResult<u64> {
        let name = format!("network.open.{to}");
        self.call(Class::Act, None, name, |s, _| {
            s.door()?;
            if s.book.owner.is_some_and(|o| o != to) {
                s.violate(format!("the door was opened to {to} but another owns it"));
            }
            let door = s.door()?;
            if let Some(since) = door.held_since.take() {
                door.held_ms = elapsed_ms(since);
            }
            door.open_to = Some(to);
            Ok(door.held_ms)
        })
        .await
    }
}

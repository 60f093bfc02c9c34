//! The client that writes through the front door and remembers what was acknowledged.

use crate::GuestConfig;
use crate::state::State;
use crate::world::SimWorld;
use crate::write::Written;
use flipside_model::{DiskName, DiskRole, MachineId};
use flipside_platform::RunState;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// How a client's write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientWrite {
    /// Acknowledged: it must never be lost.
    Acknowledged {
        /// Block of the first data disk.
        block: usize,
        /// The value written.
        value: u64,
        /// The machine that answered.
        by: MachineId,
    },
    /// The service did not take it, with the reason.
    Refused(String),
    /// No answer: it may be there or not.
    Unknown,
}

impl ClientWrite {
    /// Says whether it was acknowledged.
    pub fn acknowledged(&self) -> bool {
        matches!(self, ClientWrite::Acknowledged { .. })
    }
}

impl SimWorld {
    /// Lets a client write one block of the first data disk through the front door.
    pub fn client_write(&self) -> ClientWrite {
        self.with(|s| {
            s.watch_pause();
            let (id, disk) = match s.serving() {
                Ok(serving) => serving,
                Err(why) => return ClientWrite::Refused(why),
            };
            let ill = |c: &GuestConfig| s.options.unhealthy_versions.contains(&c.version);
            if s.config(id).is_some_and(|config| ill(&config)) {
                s.violate(format!(
                    "{id} serves clients with software that is not healthy"
                ));
            }
            let block = s.next_block();
            match s.guest_write(id, &disk, block, None) {
                Ok((value, Written::Acknowledged)) => ClientWrite::Acknowledged {
                    block,
                    value,
                    by: id,
                },
                Ok((_, Written::ThrownAway)) => {
                    s.violate(format!("{id} serves clients from throw-away data"));
                    ClientWrite::Unknown
                }
                Ok((_, Written::Stopped)) => ClientWrite::Unknown,
                Err(error) => ClientWrite::Refused(error.message),
            }
        })
    }

    /// Says whether a client's write would be taken now.
    pub fn client_ok(&self) -> bool {
        self.with(|s| s.serving().is_ok())
    }

    /// Returns the machine that serves clients now, or why none does.
    pub fn serving(&self) -> Result<MachineId, String> {
        self.with(|s| s.serving().map(|(id, _)| id))
    }

    /// Returns how many blocks hold an acknowledged write.
    pub fn acknowledged(&self) -> usize {
        self.with(|s| s.truth.acked.values().map(BTreeMap::len).sum())
    }

    /// Returns the version of the software on a machine's system disk.
    pub fn version(&self, id: MachineId) -> Option<String> {
        self.with(|s| s.config(id).map(|c| c.version.clone()))
    }

    /// Says whether the guest's clock is late because it was paused and not set.
    pub fn clock_late(&self, id: MachineId) -> bool {
        self.with(|s| {
            let guest = s.machines.get(&id).and_then(|m| m.guest.as_ref());
            guest.is_some_and(|g| g.clock_late)
        })
    }
}

impl State {
    pub(crate) fn serving(&mut self) -> Result<(MachineId, DiskName), String> {
        if !self.door.up {
            return Err("the front door is not there".to_owned());
        }
        if self.guard_hangs() {
            return Err("the front door hangs".to_owned());
        }
        let id = self.door.open_to.ok_or("connections are held")?;
        let machine = self
            .machines
            .get(&id)
            .ok_or_else(|| format!("{id} is not there"))?;
        if machine.run != RunState::Running || machine.hung {
            return Err(format!("{id} does not run: {:?}", machine.run));
        }
        if !machine.link_up {
            return Err(format!("the link of {id} is down"));
        }
        let guest = machine.guest.as_ref().ok_or("no operating system")?;
        if guest.emergency || Instant::now() < guest.up_at {
            return Err(format!("the guest of {id} is not up"));
        }
        for mount in &self.options.mounts {
            if !machine.disks.contains_key(&mount.disk) {
                return Err(format!("{} is not plugged into {id}", mount.disk));
            }
            if !guest.mounts.contains_key(&mount.target) {
                return Err(format!("{} is not mounted in {id}", mount.target));
            }
        }
        for service in self.options.services.iter().filter(|s| s.controlled) {
            if !guest.active.contains(&service.unit) {
                return Err(format!("{} does not run in {id}", service.unit));
            }
        }
        let mut disks = self.spec.disks.iter();
        let disk = disks.find(|d| self.role(&d.name) == DiskRole::Data);
        let disk = disk.ok_or("the system has no data disk")?;
        Ok((id, disk.name.clone()))
    }
}

//! The side port, and what surrounds a machine in the simulation: its console, drive, resets and dump files.

use crate::GuestFault;
use crate::call::{Class, SimPorts};
use crate::state::{Part, State};
use crate::world::SimWorld;
use async_trait::async_trait;
use flipside_model::{Dump, KeySequence, MachineId};
use flipside_platform::{
    Medium, PortError, PortErrorKind, PortResult, RunState, ShellStream, SidePort, Signs,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead as _, DuplexStream, ReadBuf};
use tokio::time::Instant;

/// What a boot loader and a kernel have read at least.
const BOOTED: u64 = 64 << 20;

/// A port that nobody has to listen on.
const SSH_PORT: u16 = 20_022;

/// What surrounds one machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    resets: u64,
    reset_at: Option<Instant>,
    printed: Vec<u8>,
    pub(crate) medium: Option<PathBuf>,
}

/// What the host keeps of crashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dumps {
    kept: Vec<Dump>,
    part: Option<Vec<u8>>,
}

impl Around {
    /// A guest begins anew. The reset that comes before the first instruction counts too, as QEMU's does.
    pub(crate) fn booted(&mut self) {
        self.resets += 1;
        self.reset_at = Some(Instant::now());
    }
}

impl State {
    fn signs(&mut self, id: MachineId) -> PortResult<Signs> {
        let stuck = self.faulty(id, &GuestFault::StuckInFirmware);
        let firmware = self.options.firmware;
        let around = &self.machine(id)?.around;
        let past = |at: Instant| Instant::now() >= at + firmware;
        let booted = around.reset_at.is_none_or(past) && !stuck;
        Ok(Signs {
            resets: around.resets,
            read_bytes: if booted { BOOTED } else { 0 },
            printed: around.printed.len() as u64,
        })
    }

    pub(crate) fn print(&mut self, id: MachineId, text: &str) {
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.around.printed.extend_from_slice(text.as_bytes());
        }
    }

    fn keep_dump(&mut self, name: Option<&str>, bytes: u64) -> Dump {
        let at_ms = self.now_ms();
        let taken = |wanted: &str| self.dumps.kept.iter().any(|d| d.name == wanted);
        let named = |n: u32| match name {
            None => format!("Memory{n}.dmp"),
            Some(name) => format!("Crash{n}-{}", name.rsplit('/').next().unwrap_or_default()),
        };
        let name = (1..)
            .map(named)
            .find(|name| !taken(name))
            .unwrap_or_default();
        let dump = Dump {
            path: PathBuf::from("/sim/sradumps").join(&name),
            name,
            bytes,
            at_ms,
        };
        self.dumps.kept.push(dump.clone());
        dump
    }

    fn dump_memory(&mut self, id: MachineId, part: &mut Part) -> PortResult<Dump> {
        let bytes = u64::from(self.spec.memory_mib) << 20;
        self.machine(id)?;
        if self.options.facts.state_free_bytes < bytes {
            let text = "A dump would leave too little space.";
            return Err(PortError::new(PortErrorKind::NoSpace, text));
        }
        part.step()?;
        part.delay = self.options.dumping;
        Ok(self.keep_dump(None, bytes))
    }

    fn insert(&mut self, id: MachineId, image: &Path) -> PortResult<()> {
        check(image)?;
        let locked = self.faulty(id, &GuestFault::CdInUse);
        let around = &mut self.machine(id)?.around;
        if around.medium.as_deref() == Some(image) {
            return Ok(());
        }
        if around.medium.is_some() && locked {
            return Err(in_use(id));
        }
        around.medium = Some(image.to_owned());
        Ok(())
    }

    fn eject(&mut self, id: MachineId, force: bool) -> PortResult<()> {
        let locked = self.faulty(id, &GuestFault::CdInUse) && !force;
        let around = &mut self.machine(id)?.around;
        if around.medium.is_some() && locked {
            return Err(in_use(id));
        }
        around.medium = None;
        Ok(())
    }
}

fn in_use(id: MachineId) -> PortError {
    PortError::new(
        PortErrorKind::InUse,
        format!("The guest of {id} has locked the drive."),
    )
}

/// An image is a file whose name ends so.
fn check(image: &Path) -> PortResult<u64> {
    if image.is_absolute() && image.extension().is_some_and(|e| e == "iso") {
        return Ok(BOOTED);
    }
    let text = format!("`{}` is no image.", image.display());
    Err(PortError::new(PortErrorKind::Mismatch, text))
}

impl SimWorld {
    /// The guest prints on its serial console.
    pub fn guest_prints(&self, id: MachineId, text: &str) {
        self.with(|s| s.print(id, text));
    }

    /// The guest says that it goes down (`restart` or `shut down`), and its agent is silent from then on.
    pub fn guest_goes_down(&self, id: MachineId, way: &str) {
        self.with(|s| {
            let text = format!("\nflipside: this Upgrade Side is told to {way}\n");
            s.print(id, &text);
            s.guest_faults.insert((Some(id), GuestFault::AgentSilent));
        });
    }

    /// What is in the drive of a machine.
    pub fn medium(&self, id: MachineId) -> Option<PathBuf> {
        self.with(|s| s.machines.get(&id)?.around.medium.clone())
    }

    /// What is shown in the guest of a machine.
    pub fn notice(&self, id: MachineId) -> Option<flipside_platform::Notice> {
        self.with(|s| s.machines.get(&id)?.guest.as_ref()?.notice.clone())
    }
}

#[async_trait]
impl SidePort for SimPorts {
    async fn access(&self, id: MachineId) -> PortResult<SocketAddr> {
        let name = format!("side.access.{id}");
        self.call(Class::Look, Some(id), name, |s, _| {
            s.machine(id)?;
            Ok((Ipv4Addr::LOCALHOST, SSH_PORT).into())
        })
        .await
    }

    async fn signs(&self, id: MachineId) -> PortResult<Signs> {
        let name = format!("side.signs.{id}");
        self.call(Class::Look, Some(id), name, |s, _| s.signs(id))
            .await
    }

    async fn printed(&self, id: MachineId, after: u64, most: usize) -> PortResult<Vec<u8>> {
        let name = format!("side.printed.{id}");
        self.call(Class::Look, Some(id), name, |s, _| {
            let printed = &s.machine(id)?.around.printed;
            let from = usize::try_from(after).unwrap_or(usize::MAX);
            let from = from.max(printed.len().saturating_sub(most));
            Ok(printed.get(from..).unwrap_or_default().to_vec())
        })
        .await
    }

    async fn console(&self, id: MachineId) -> PortResult<Box<dyn ShellStream>> {
        let name = format!("side.console.{id}");
        let guest = self
            .call(Class::Look, Some(id), name, |s, _| {
                s.machine(id)?;
                let busy = s.consoles.get_mut(&id).is_some_and(|old| !left(old));
                if busy {
                    let text = format!("The console of {id} is open already.");
                    return Err(PortError::new(PortErrorKind::InUse, text));
                }
                let (client, guest) = tokio::io::duplex(1024);
                s.consoles.insert(id, guest);
                Ok(client)
            })
            .await?;
        Ok(Box::new(guest))
    }

    async fn send_keys(&self, id: MachineId, keys: KeySequence) -> PortResult<()> {
        let name = format!("side.send_keys.{id}");
        self.call(Class::Act, Some(id), name, |s, _| {
            let running = s.machine(id)?.run == RunState::Running;
            if keys == KeySequence::CtrlAltDel && running {
                s.boot(id);
            }
            Ok(())
        })
        .await
    }

    async fn check_image(&self, image: &Path) -> PortResult<u64> {
        let name = "side.check_image".to_owned();
        self.call(Class::Look, None, name, |_, _| check(image))
            .await
    }

    async fn medium(&self, id: MachineId) -> PortResult<Medium> {
        let name = format!("side.medium.{id}");
        self.call(Class::Look, Some(id), name, |s, _| {
            let image = s.machine(id)?.around.medium.clone();
            let locked = image.is_some() && s.faulty(id, &GuestFault::CdInUse);
            Ok(Medium { image, locked })
        })
        .await
    }

    async fn insert(&self, id: MachineId, image: &Path) -> PortResult<()> {
        let name = format!("side.insert.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| s.insert(id, image))
            .await
    }

    async fn eject(&self, id: MachineId, force: bool) -> PortResult<()> {
        let name = format!("side.eject.{id}");
        self.call(Class::Leased, Some(id), name, |s, _| s.eject(id, force))
            .await
    }

    async fn dumps(&self) -> PortResult<Vec<Dump>> {
        let name = "side.dumps".to_owned();
        self.call(Class::Look, None, name, |s, _| Ok(s.dumps.kept.clone()))
            .await
    }

    async fn dump_memory(&self, id: MachineId) -> PortResult<Dump> {
        let name = format!("side.dump_memory.{id}");
        self.call(Class::Act, Some(id), name, |s, p| s.dump_memory(id, p))
            .await
    }

    async fn dump_part(&self, offset: u64, bytes: &[u8]) -> PortResult<()> {
        let name = "side.dump_part".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            let part = s.dumps.part.get_or_insert_default();
            part.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
            part.extend_from_slice(bytes);
            Ok(())
        })
        .await
    }

    async fn dump_keep(&self, name: Option<&str>) -> PortResult<Dump> {
        let call = "side.dump_keep".to_owned();
        self.call(Class::Act, None, call, |s, _| {
            let Some(part) = s.dumps.part.take() else {
                return Err(PortError::absent("Nothing was collected."));
            };
            Ok(s.keep_dump(name, part.len() as u64))
        })
        .await
    }
}

/// Says whether the client of a console has left: its end of the stream is over.
fn left(guest: &mut DuplexStream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    let read = Pin::new(guest).poll_read(&mut cx, &mut buffer);
    read.is_ready() && buffer.filled().is_empty()
}

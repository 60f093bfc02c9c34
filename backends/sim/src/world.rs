//! The handle of a simulated world.

use crate::call::{Class, SimPorts};
use crate::fault::{Call, Fault};
use crate::state::{GuestDisk, State};
use crate::{SimOptions, options::BLOCK_BYTES};
use flipside_model::{DiskName, Leg, LegBook, MachineId, SystemSpec};
use flipside_platform::{MachineView, Ports};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// One simulated system with its host, guests, clients and faults. Clones are the same world.
///
/// **Call names** are `port.method`, then the machine, then the disk or the like: `machine.observe.m1`,
/// `machine.fork_switch.m1`, `machine.set_link.m2.up`, `disk.unplug.m2.data0`, `guest.stop.m1`, `network.open.m2`,
/// `legs.store`, `host.facts`.
///
/// **Parts** that [`crate::FaultKind::Torn`] counts, in order:
///
/// | call | parts |
/// | --- | --- |
/// | `machine.start` | process there (booting: paused and not booted; incoming: not listening) · running or listening |
/// | `machine.end` | process gone · what it left removed |
/// | `machine.fork_switch` | for each disk of `keep`: placeholder in · new root · leg closed; then memory sent (source `PostMigrate`, other `Paused`) · other one's bitmaps · source continued |
/// | `machine.fork_cancel` | fork given up, paused · interrupted swaps taken back · continued |
/// | `disk.set_legs` | placeholder in · new root · other legs closed |
/// | `disk.unplug` | device gone · nodes closed |
/// | `disk.plug` | nodes open · device there |
/// | `disk.carry_out` | an incomplete carrier · complete |
/// | `disk.resync_start` | target open · job running |
/// | `disk.resync_finish` | guest paused · rest copied · placeholder in · new root · guest continued (a mere failure is taken back) |
/// | `disk.resync_cancel` | job gone · target closed |
/// | `guest.stop`, `guest.start`, `guest.close_data`, `guest.open_data` | one for each unit or mount |
/// | `guest.hold`, `guest.prepare_release` | startup types · gates or mount tables |
/// | `legs.store` | new file · half written · written · synced · renamed · directory synced |
#[derive(Clone)]
pub struct SimWorld {
    state: Arc<Mutex<State>>,
    crashes: Arc<watch::Sender<bool>>,
    watcher: Arc<Mutex<Option<Watcher>>>,
}

/// Is told every changing call before it is done; says why it must not be.
type Watcher = Box<dyn FnMut(&str) -> Option<String> + Send>;

impl SimWorld {
    /// Makes the world of a system that is defined, duplexed and off.
    pub fn new(spec: &SystemSpec, options: SimOptions) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(spec, options))),
            crashes: Arc::new(watch::channel(false).0),
            watcher: Arc::default(),
        }
    }

    /// Lets a test judge every changing call before it is done; what it answers is noted as a violation.
    pub fn watch_effects(&self, watcher: impl FnMut(&str) -> Option<String> + Send + 'static) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watcher));
    }

    pub(crate) fn ask_watcher(&self, class: Class, name: &str) {
        if class == Class::Look {
            return;
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = watcher.as_mut().and_then(|judge| judge(name)) {
            self.with(|s| s.violate(why));
        }
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut state)
    }

    /// Returns the ports for one life of the server: after a crash and [`SimWorld::restart_server`] take them
    /// again, calls through the old ones never answer.
    pub fn ports(&self) -> Ports {
        let epoch = self.with(|s| s.epoch);
        let ports = Arc::new(SimPorts {
            world: self.clone(),
            epoch,
        });
        Ports {
            machine: ports.clone(),
            disk: ports.clone(),
            guest: ports.clone(),
            network: ports.clone(),
            legs: ports.clone(),
            host: ports.clone(),
            side: ports.clone(),
            clock: ports,
        }
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        self.with(|s| s.plan.push(fault));
    }

    /// Forgets the planned faults that have not happened; returns how many.
    pub fn clear_plan(&self) -> usize {
        self.with(|s| std::mem::take(&mut s.plan).len())
    }

    /// Returns the names of all calls so far, in order.
    pub fn trace(&self) -> Vec<String> {
        self.with(|s| s.calls.iter().map(|c| c.name.clone()).collect())
    }

    /// Returns all calls so far, with their faults and ends.
    pub fn calls(&self) -> Vec<Call> {
        self.with(|s| s.calls.clone())
    }

    /// Returns how many calls were made so far.
    pub fn called(&self) -> usize {
        self.with(|s| s.calls.len())
    }

    /// Says whether a call whose name matches the pattern was made after the first `seen` ones.
    pub fn called_since(&self, seen: usize, pattern: &str) -> bool {
        self.with(|s| {
            let mut calls = s.calls.iter().skip(seen);
            calls.any(|c| crate::glob(pattern, &c.name))
        })
    }

    /// Returns all calls so far and forgets them: for the end of a run.
    pub fn take_calls(&self) -> Vec<Call> {
        self.with(|s| std::mem::take(&mut s.calls))
    }

    /// Forgets the calls so far, so that numbers begin at 1 again. No call may be open.
    pub fn clear_trace(&self) {
        self.with(|s| {
            s.calls.clear();
            s.effects = 0;
        });
    }

    /// Lets the server die now: its calls never answer and its lease is free; machines live on.
    pub fn crash_server(&self) {
        self.with(|s| {
            s.crashed = true;
            s.free_server_lease();
        });
        self.announce_crash();
    }

    pub(crate) fn announce_crash(&self) {
        self.crashes.send_replace(true);
    }

    /// Says whether the server is dead.
    pub fn crashed(&self) -> bool {
        self.with(|s| s.crashed)
    }

    /// Waits until the server dies.
    pub async fn await_crash(&self) {
        let mut crashes = self.crashes.subscribe();
        // The sender lives as long as this world.
        let _ = crashes.wait_for(|crashed| *crashed).await;
    }

    /// Begins a new life of the server, dead before or not: take [`SimWorld::ports`] again. A full compare is the
    /// server's own work and ends with it; copying rounds go on.
    pub fn restart_server(&self) {
        self.with(|s| {
            s.crashed = false;
            s.powerless = false;
            s.epoch += 1;
            s.free_server_lease();
            s.drop_compares();
        });
        self.crashes.send_replace(false);
    }

    /// Returns the book as stored.
    pub fn book(&self) -> LegBook {
        self.with(|s| s.book.clone())
    }

    /// Changes the stored book behind everybody's back, one generation further.
    pub fn change_book(&self, change: impl FnOnce(&mut LegBook)) {
        self.with(|s| {
            change(&mut s.book);
            s.book.generation += 1;
            s.put_book();
        });
    }

    /// Returns a machine as `observe` would, without a call.
    pub fn view(&self, id: MachineId) -> MachineView {
        self.with(|s| s.view(id))
    }

    /// Lists the machines that exist.
    pub fn machines(&self) -> Vec<MachineId> {
        self.with(|s| s.machines.keys().copied().collect())
    }

    /// Returns what a leg holds.
    pub fn leg(&self, disk: &DiskName, leg: Leg) -> Option<GuestDisk> {
        self.with(|s| s.legs.get(&(disk.clone(), leg)).cloned())
    }

    /// Says whether both legs of a disk are equal, byte for byte.
    pub fn legs_equal(&self, disk: &DiskName) -> bool {
        self.leg(disk, Leg::A) == self.leg(disk, Leg::B)
    }

    /// Flips a bit in a leg, silently.
    pub fn flip(&self, disk: &DiskName, leg: Leg, block: usize) {
        self.with(|s| {
            if let Some(value) = s
                .legs
                .get_mut(&(disk.clone(), leg))
                .and_then(|l| l.blocks.get_mut(block))
            {
                *value ^= 1 << 63;
            }
        });
    }

    /// Returns the bytes that differ between the legs of a disk.
    pub fn differing_bytes(&self, disk: &DiskName) -> u64 {
        self.with(|s| s.differing_blocks(disk).len()) as u64 * BLOCK_BYTES
    }

    /// Says whether somebody holds the lease.
    pub fn leased(&self) -> bool {
        self.with(|s| s.lease.is_some())
    }

    /// Lists the stored bitmaps: of which disk, from which machine, how many bytes.
    pub fn carried(&self) -> Vec<(DiskName, MachineId, u64)> {
        self.with(|s| {
            let all = s.carriers.iter().flat_map(|(disk, by)| {
                by.iter()
                    .map(|(id, c)| (disk.clone(), *id, c.bits.len() as u64 * BLOCK_BYTES))
            });
            all.collect()
        })
    }

    /// Lets the wall clock jump.
    pub fn jump_clock(&self, milliseconds: i64) {
        self.with(|s| s.clock_jump_ms += milliseconds);
    }
}

impl std::fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|s| {
            f.debug_struct("SimWorld")
                .field("book", &s.book)
                .field("machines", &s.machines)
                .finish_non_exhaustive()
        })
    }
}

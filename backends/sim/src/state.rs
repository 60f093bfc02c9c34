//! Everything that is true in a simulated world at one moment.

use crate::actions::{SimAction, SimLogs};
use crate::carry::Scratch;
use crate::checkpoint::Kept;
use crate::fault::{Call, Fault};
use crate::files::Files;
use crate::guard::Guards;
use crate::guest_model::{Exec, Guest, GuestConfig};
use crate::pause::PauseWatch;
use crate::resync::Resync;
use crate::side::{Around, Dumps};
use crate::{GuestFault, LegFault, SimOptions};
use flipside_model::{
    DiskName, DiskRole, ForkFigures, Leg, LegBook, LegEntry, LegPair, LegRole, MachineId,
    ResyncFigures, SystemSpec,
};
use flipside_platform::{DiskSource, PortError, PortErrorKind, PortResult, RunState, StartPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a leg holds: its blocks and, on the first system disk, what the guest keeps in `/etc`. Block 0 stands for
/// the latter: whoever copies block 0 copies it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    /// One value for every 64 KiB.
    pub blocks: Vec<u64>,
    /// Persistent state of the operating system, shared between the legs that have the same.
    pub config: Option<Arc<GuestConfig>>,
}

/// What one block holds.
type Block = (u64, Option<Arc<GuestConfig>>);

impl GuestDisk {
    pub(crate) fn copy_block(&mut self, from: &GuestDisk, block: usize) {
        self.put_block(block, from.block(block));
    }

    /// Returns what a block holds; block 0 has the configuration with it.
    pub(crate) fn block(&self, block: usize) -> Block {
        let config = self.config.as_ref().filter(|_| block == 0);
        (self.blocks[block], config.cloned())
    }

    /// Overwrites a block.
    pub(crate) fn put_block(&mut self, block: usize, (value, config): Block) {
        self.blocks[block] = value;
        if block == 0 {
            self.config = config;
        }
    }

    pub(crate) fn same_block(&self, other: &GuestDisk, block: usize) -> bool {
        self.blocks[block] == other.blocks[block] && (block != 0 || self.config == other.config)
    }
}

/// A disk plugged into a machine.
#[derive(Debug, Clone)]
pub(crate) struct Plugged {
    pub(crate) source: DiskSource,
    /// Legs whose nodes are open, whether or not they are in the root.
    pub(crate) held: Vec<Leg>,
    /// Blocks written to the overlay.
    pub(crate) overlay: BTreeMap<usize, u64>,
}

impl Plugged {
    pub(crate) fn new(source: DiskSource) -> Self {
        let held = match &source {
            DiskSource::Legs(legs) => legs.clone(),
            DiskSource::Overlay(_) | DiskSource::Placeholder => Vec::new(),
        };
        Self {
            source,
            held,
            overlay: BTreeMap::new(),
        }
    }

    pub(crate) fn legs(&self) -> &[Leg] {
        match &self.source {
            DiskSource::Legs(legs) => legs,
            DiskSource::Overlay(_) | DiskSource::Placeholder => &[],
        }
    }
}

/// A fork in progress or completed, kept by its source.
#[derive(Debug, Clone)]
pub(crate) struct Fork {
    pub(crate) to: MachineId,
    pub(crate) polls: u32,
    pub(crate) begun: Instant,
    pub(crate) before: BTreeMap<DiskName, Vec<Leg>>,
    pub(crate) done: Option<ForkFigures>,
}

/// A write that stopped its machine; repeated when the guest is continued.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) disk: DiskName,
    pub(crate) block: usize,
    pub(crate) value: u64,
    pub(crate) config: Option<Arc<GuestConfig>>,
}

/// A machine process.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) run: RunState,
    pub(crate) plan: StartPlan,
    /// Its start was interrupted.
    pub(crate) half: bool,
    pub(crate) hung: bool,
    pub(crate) disks: BTreeMap<DiskName, Plugged>,
    /// Nodes that are open without a device: an interrupted plug or unplug.
    pub(crate) leftover: BTreeMap<DiskName, Plugged>,
    pub(crate) bitmaps: BTreeMap<(DiskName, Leg), BTreeSet<usize>>,
    pub(crate) link_up: bool,
    pub(crate) fork: Option<Fork>,
    pub(crate) resyncs: BTreeMap<DiskName, Resync>,
    /// Targets of resynchronisations, open for writing.
    pub(crate) targets: BTreeMap<DiskName, Leg>,
    pub(crate) resynced: BTreeMap<DiskName, ResyncFigures>,
    pub(crate) guest: Option<Guest>,
    pub(crate) pending: Option<Write>,
    pub(crate) failed: Option<(DiskName, Leg)>,
    pub(crate) around: Around,
    /// The line of system disks it belongs to; a fork begins a new one.
    pub(crate) line: MachineId,
}

impl Machine {
    pub(crate) fn new(run: RunState, plan: StartPlan, line: MachineId) -> Self {
        Self {
            run,
            disks: BTreeMap::new(),
            plan,
            half: false,
            hung: false,
            leftover: BTreeMap::new(),
            bitmaps: BTreeMap::new(),
            link_up: false,
            fork: None,
            resyncs: BTreeMap::new(),
            targets: BTreeMap::new(),
            resynced: BTreeMap::new(),
            guest: None,
            pending: None,
            failed: None,
            around: Around::default(),
            line,
        }
    }

    /// Says whether its block nodes are active: it holds locks and can write.
    pub(crate) fn active(&self) -> bool {
        !matches!(self.run, RunState::Incoming | RunState::PostMigrate)
    }

    /// Lists the legs it has open: the disk, the leg, and whether for writing.
    pub(crate) fn opens(&self) -> Vec<(DiskName, Leg, bool)> {
        if !self.active() {
            return Vec::new();
        }
        let mut open = Vec::new();
        for (name, disk) in self.disks.iter().chain(&self.leftover) {
            for leg in &disk.held {
                open.push((name.clone(), *leg, true));
            }
            if let DiskSource::Overlay(leg) = &disk.source {
                open.push((name.clone(), *leg, false));
            }
        }
        for (name, leg) in &self.targets {
            open.push((name.clone(), *leg, true));
        }
        open
    }
}

/// The front door.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door {
    pub(crate) up: bool,
    pub(crate) open_to: Option<MachineId>,
    pub(crate) held_since: Option<Instant>,
    pub(crate) held_ms: u64,
    pub(crate) busy: u64,
}

/// A bitmap stored outside the machines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carrier {
    pub(crate) complete: bool,
    pub(crate) bits: BTreeSet<usize>,
}

/// What must be true of the disks, kept beside them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    /// The last acknowledged value of every data block that was written.
    pub(crate) acked: BTreeMap<DiskName, BTreeMap<usize, u64>>,
    /// Values of writes that were never acknowledged but may be there, with the line that made them.
    pub(crate) maybe: BTreeMap<(DiskName, usize), BTreeMap<u64, MachineId>>,
    /// What every line of machines wrote to its system disks.
    pub(crate) shadow: BTreeMap<(MachineId, DiskName), GuestDisk>,
    /// The line that each system leg belongs to.
    pub(crate) line: BTreeMap<(DiskName, Leg), MachineId>,
    /// Grows with every write to a data disk.
    pub(crate) stamps: BTreeMap<DiskName, u64>,
    /// The checkpoints of data disks.
    pub(crate) kept: BTreeMap<DiskName, Kept>,
    /// Every value that was written to a throw-away copy of a data disk.
    pub(crate) thrown_away: BTreeSet<(DiskName, u64)>,
    /// Somebody asked for data to be taken back.
    pub(crate) may_discard: bool,
    /// What was done that must never be done.
    pub(crate) violations: Vec<String>,
}

/// The whole world.
pub(crate) struct State {
    pub(crate) spec: SystemSpec,
    pub(crate) options: SimOptions,
    /// The leg book as programs see it.
    pub(crate) book: LegBook,
    /// The files in which it lies.
    pub(crate) files: Files,
    /// The generation that was promised to be durable.
    pub(crate) promised: u64,
    /// A power cut left no book that can be read.
    pub(crate) book_damaged: Option<String>,
    pub(crate) guards: Guards,
    pub(crate) pause: PauseWatch,
    pub(crate) legs: BTreeMap<(DiskName, Leg), GuestDisk>,
    pub(crate) machines: BTreeMap<MachineId, Machine>,
    pub(crate) lines: BTreeMap<MachineId, MachineId>,
    pub(crate) carriers: BTreeMap<DiskName, BTreeMap<MachineId, Carrier>>,
    pub(crate) scratch: Scratch,
    pub(crate) door: Door,
    pub(crate) leg_faults: BTreeMap<(DiskName, Leg), LegFault>,
    pub(crate) guest_faults: BTreeSet<(Option<MachineId>, GuestFault)>,
    /// Legs that somebody replaced, cut or linked elsewhere, and what can be seen of it. A machine that has one open keeps
    /// the old file; who opens it now gets the wrong one.
    pub(crate) changed_legs: BTreeMap<(DiskName, Leg), String>,
    /// Legs that change when a label comes: label, leg, and what can be seen of it.
    pub(crate) coming_changes: Vec<(String, (DiskName, Leg), String)>,
    pub(crate) lease: Option<u64>,
    pub(crate) tokens: u64,
    pub(crate) epoch: u64,
    pub(crate) crashed: bool,
    /// The power was lost, and the server has not been started since.
    pub(crate) powerless: bool,
    pub(crate) calls: Vec<Call>,
    pub(crate) label: Arc<str>,
    pub(crate) bells: Vec<(u64, Arc<Notify>)>,
    pub(crate) effects: u64,
    pub(crate) plan: Vec<Fault>,
    pub(crate) truth: Truth,
    pub(crate) values: u64,
    pub(crate) boots: u64,
    pub(crate) started: Option<Instant>,
    /// Files of the host, and actions that run there; they outlive the server.
    pub(crate) host_files: BTreeMap<String, Vec<u8>>,
    pub(crate) host_execs: BTreeMap<u64, Exec>,
    /// Every custom action that was started, and every log backup.
    pub(crate) actions: Vec<SimAction>,
    pub(crate) saved_logs: Vec<SimLogs>,
    pub(crate) clock_jump_ms: i64,
    pub(crate) dumps: Dumps,
    /// The guests' ends of open consoles.
    pub(crate) consoles: BTreeMap<MachineId, DuplexStream>,
}

impl State {
    pub(crate) fn new(spec: &SystemSpec, options: SimOptions) -> Self {
        let options = options.complete(spec);
        let config = Arc::new(GuestConfig::installed(&options));
        let first = spec.disks_of(DiskRole::System).next().map(|d| &d.name);
        let mut legs = BTreeMap::new();
        let mut disks = BTreeMap::new();
        let mut inode = 1000;
        for (index, disk) in spec.disks.iter().enumerate() {
            let base = (index as u64 + 1) << 48;
            let content = GuestDisk {
                blocks: (0..options.blocks as u64).map(|b| base | b).collect(),
                config: (first == Some(&disk.name)).then(|| config.clone()),
            };
            let mut entry = |leg| {
                inode += 1;
                legs.insert((disk.name.clone(), leg), content.clone());
                LegEntry {
                    path: disk.legs.get(leg).clone(),
                    inode,
                    role: LegRole::Live,
                }
            };
            let (a, b) = (entry(Leg::A), entry(Leg::B));
            let authority = Leg::A;
            disks.insert(disk.name.clone(), LegPair { a, b, authority });
        }
        let mut state = Self {
            spec: spec.clone(),
            book: LegBook::new(disks),
            files: Files::default(),
            promised: 0,
            book_damaged: None,
            guards: Guards::default(),
            pause: PauseWatch::default(),
            legs,
            options,
            machines: BTreeMap::new(),
            lines: BTreeMap::new(),
            carriers: BTreeMap::new(),
            scratch: Scratch::default(),
            door: Door::default(),
            leg_faults: BTreeMap::new(),
            guest_faults: BTreeSet::new(),
            changed_legs: BTreeMap::new(),
            coming_changes: Vec::new(),
            lease: None,
            tokens: 0,
            epoch: 0,
            crashed: false,
            powerless: false,
            calls: Vec::new(),
            label: Arc::from("-"),
            bells: Vec::new(),
            effects: 0,
            plan: Vec::new(),
            truth: Truth::default(),
            values: 0,
            boots: 0,
            started: None,
            host_files: BTreeMap::new(),
            host_execs: BTreeMap::new(),
            actions: Vec::new(),
            saved_logs: Vec::new(),
            clock_jump_ms: 0,
            dumps: Dumps::default(),
            consoles: BTreeMap::new(),
        };
        state.put_book();
        state
    }

    /// Returns the disk that holds the guest's `/etc`.
    pub(crate) fn root_disk(&self) -> Option<DiskName> {
        let disk = self.spec.disks_of(DiskRole::System).next();
        disk.map(|d| d.name.clone())
    }

    pub(crate) fn role(&self, disk: &DiskName) -> DiskRole {
        let defined = || self.spec.disk(disk).map_or(DiskRole::Data, |d| d.role);
        self.options
            .roles
            .get(disk)
            .copied()
            .unwrap_or_else(defined)
    }

    pub(crate) fn machine(&mut self, id: MachineId) -> PortResult<&mut Machine> {
        self.machines
            .get_mut(&id)
            .ok_or_else(|| PortError::absent(format!("There is no machine {id}.")))
    }

    pub(crate) fn plugged(&mut self, id: MachineId, disk: &DiskName) -> PortResult<&mut Plugged> {
        self.machine(id)?.disks.get_mut(disk).ok_or_else(|| {
            PortError::absent(format!("Machine {id} has no disk {disk}.")).about(disk.as_str())
        })
    }

    /// Checks that a leg may be opened by a machine, as image locks do.
    pub(crate) fn lock(
        &self,
        id: MachineId,
        disk: &DiskName,
        leg: Leg,
        write: bool,
    ) -> PortResult<()> {
        if !self.options.image_locks {
            return Ok(());
        }
        for (other, machine) in self.machines.iter().filter(|(m, _)| **m != id) {
            for (name, held, writes) in machine.opens() {
                if &name == disk && held == leg && (write || writes) {
                    let text = format!("Leg {leg} of {disk} is in use by machine {other}.");
                    return Err(
                        PortError::new(PortErrorKind::InUse, text).about(disk.as_str().to_owned())
                    );
                }
            }
        }
        Ok(())
    }

    /// Checks everything that a machine has or is about to have open.
    pub(crate) fn lock_all(
        &self,
        id: MachineId,
        opens: &[(DiskName, Leg, bool)],
    ) -> PortResult<()> {
        opens
            .iter()
            .try_for_each(|(disk, leg, write)| self.lock(id, disk, *leg, *write))
    }

    /// Fault 22: a leg that was changed behind our back is never opened, and never counts as what was written.
    pub(crate) fn opened(&mut self, id: MachineId, disk: &DiskName, leg: Leg) {
        if let Some(what) = self.changed_legs.get(&(disk.clone(), leg)).cloned() {
            self.violate(format!("{id} opened leg {leg} of {disk}, which {what}"));
        }
    }

    pub(crate) fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.truth.violations.contains(&what) {
            self.truth.violations.push(what);
        }
    }

    pub(crate) fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    pub(crate) fn faulty(&self, id: MachineId, fault: &GuestFault) -> bool {
        self.guest_faults.contains(&(None, fault.clone()))
            || self.guest_faults.contains(&(Some(id), fault.clone()))
    }

    pub(crate) fn now_ms(&mut self) -> i64 {
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let past = now.saturating_duration_since(started);
        self.options.epoch_ms + self.clock_jump_ms + i64::try_from(past.as_millis()).unwrap_or(0)
    }
}

/// How much of a call is to be done, and how long it takes.
pub(crate) struct Part {
    pub(crate) left: Option<u32>,
    /// Parts begun so far.
    pub(crate) begun: u32,
    pub(crate) delay: Duration,
    /// The server dies with this call: nobody clears up after it.
    pub(crate) dies: bool,
}

impl Part {
    pub(crate) fn whole() -> Self {
        Self {
            left: None,
            begun: 0,
            delay: Duration::ZERO,
            dies: false,
        }
    }

    /// Begins the next part of a call; fails where the call is torn.
    pub(crate) fn step(&mut self) -> PortResult<()> {
        self.begun += 1;
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(PortError::failed(
                "The simulation stopped this call half-way.",
            )),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Makes the answer of something that did not answer.
    pub(crate) fn silent(&mut self, after: Duration, what: impl Into<String>) -> PortError {
        self.delay = after;
        PortError::timed_out(what)
    }
}

//! What steps find out and later steps need: facts, recorded in the journal.

use crate::{
    ActionEnd, ActionRun, CarriedFiles, ChangeList, DiskName, DiskRole, Leg, LogsSaved, MachineId,
    PinnedFile, Side,
};
use serde::{Deserialize, Serialize};

/// Whether a unit starts at boot, as `systemctl is-enabled` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartupType(pub String);

/// The startup type of a unit before the split, restored at merge (SV-02, SV-03).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStartup {
    /// Unit name.
    pub unit: String,
    /// Its startup type before it was disabled.
    pub startup: StartupType,
    /// Whether it ran.
    pub active: bool,
}

/// A file system on a data disk, mounted in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// The disk it lies on.
    pub disk: DiskName,
    /// Where it is mounted.
    pub target: String,
    /// What it is mounted from, such as `LABEL=data`, kept for the message.
    pub source: String,
}

/// The figures of a live fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkFigures {
    /// How long the Production Side was paused, in microseconds.
    pub pause_us: u64,
    /// How long memory was copied while it ran on, in milliseconds.
    pub precopy_ms: u64,
    /// Memory copied, in bytes.
    pub memory_bytes: u64,
}

/// The outage of one move of the users, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// From the moment the front door held new connections to the moment it released them.
    pub door_ms: u64,
    /// From the stop of the first application to the pass of the health checks.
    pub inside_ms: u64,
}

/// The dirty bitmap of one disk, carried from one machine to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The disk.
    pub disk: DiskName,
    /// Bytes marked dirty when it was carried, compared on both ends.
    pub dirty_bytes: u64,
}

/// The figures of one finished resynchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncFigures {
    /// The disk.
    pub disk: DiskName,
    /// Bytes that differed at most when it began: the union of both sides' changes.
    pub union_bytes: u64,
    /// Bytes copied in all rounds.
    pub copied_bytes: u64,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// True when the whole disk had to be compared.
    pub compared: bool,
    /// Length of the last pause in microseconds.
    pub pause_us: u64,
    /// Duration in milliseconds.
    pub took_ms: u64,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Name, with the architecture where the guest gives one.
    pub name: String,
    /// Version.
    pub version: String,
}

/// Something a step established; the session's memory is the fold of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The process that plays a side.
    Machine {
        /// The side.
        side: Side,
        /// The process, or none when it was ended.
        machine: Option<MachineId>,
    },
    /// The disks whose role in this session is not the one of the definition (DK-03, DK-15), each with its role.
    Roles(Vec<(DiskName, DiskRole)>),
    /// The data file systems and where they belong.
    Mounts(Vec<MountPoint>),
    /// Startup types of the controlled services, saved on the Upgrade Side.
    Startup(Vec<SavedStartup>),
    /// Units that act by themselves, saved on the Upgrade Side.
    Quiesced(Vec<SavedStartup>),
    /// What was installed on the Production Side before the split.
    Packages(Vec<Package>),
    /// Figures of the fork.
    Forked(ForkFigures),
    /// The system is divided (true), or whole again (false).
    Divided(bool),
    /// Applications were told to stop on this side (true) or run there again (false).
    Stopped {
        /// The side.
        side: Side,
        /// Stopped or started.
        stopped: bool,
    },
    /// The outage began now; inside clock.
    OutageBegan,
    /// An outage ended, with its length.
    OutageEnded(Outage),
    /// A dirty bitmap was carried out of the machine that ends.
    Carried(Carried),
    /// A resynchronisation begins, always from the authority leg to the stale one (invariant 11).
    Resyncing {
        /// The disk.
        disk: DiskName,
        /// The authority leg.
        from: Leg,
        /// The stale leg.
        to: Leg,
        /// The whole disk is compared, because no bitmap can be trusted.
        compare: bool,
    },
    /// A resynchronisation was completed.
    Resynced(ResyncFigures),
    /// What the Production Side changed on its system disks since the split.
    Changes(ChangeList),
    /// Files of the Production Side were carried over to the Upgrade Side.
    CarriedFiles(CarriedFiles),
    /// The data are kept as they are at this moment: nobody writes to this leg until the session has decided.
    Checkpoint {
        /// The disk.
        disk: DiskName,
        /// The leg that keeps them.
        leg: Leg,
    },
    /// An abort is to take the data back to the checkpoint (true), or to keep what was written (false).
    DiscardData(bool),
    /// The checkpoint becomes the data: recorded before the leg book is changed (invariant 11).
    Discarding {
        /// The disk.
        disk: DiskName,
        /// The leg that keeps the checkpoint.
        from: Leg,
        /// The leg that is given up, and rewritten later.
        to: Leg,
    },
    /// The commit was decided: from here only forward (SM-14).
    Committed,
    /// The notes of the platform up to this number are in the log.
    Heard(u64),
    /// The data disks and the network belong to this side.
    Owner(Side),
    /// What is in the CD drive of a side; none when it was emptied.
    Media {
        /// The side.
        side: Side,
        /// The image.
        image: Option<std::path::PathBuf>,
    },
    /// What the Production Side ran when it was looked at last in this session (US-26).
    ProductionIs {
        /// Its boot.
        boot_id: String,
        /// What its package database looks like from outside.
        stamp: String,
    },
    /// The files of the custom actions, as they are now; later entries for the same file count (fault 60).
    Pinned(Vec<PinnedFile>),
    /// A custom action is about to be started.
    ActionStarted(Box<ActionRun>),
    /// A custom action has ended.
    ActionEnded(Box<ActionEnd>),
    /// Stop Application actions ran on Production (true), or Start Application actions after them (false).
    ActionsStopped(bool),
    /// Logs of the Production Side were saved, or could not be.
    LogsSaved(LogsSaved),
}

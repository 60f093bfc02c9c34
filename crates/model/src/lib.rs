//! The words of flipside as types: no I/O, no clock, serde only.
//!
//! Every other crate speaks in these types. Spellings that an administrator sees (states, severities,
//! mirror status) are produced here and nowhere else, exactly as the requirements quote them.
#![forbid(unsafe_code)]

mod action;
pub mod api;
mod changes;
mod command;
mod config;
mod disk;
mod inventory;
mod legbook;
mod logs;
mod names;
mod network;
mod outcome;
pub mod planted;
mod problem;
mod record;
mod severity;
mod side;
mod state;
mod status;
mod surroundings;
mod system;
mod volume;

pub use action::{
    ACTION_PATH, ActionContext, ActionEnd, ActionPlace, ActionResult, ActionRun, Captured,
    ControlType, CustomAction, EXECUTE_CUSTOM_ACTIONS, FileKind, FileView, MAX_ACTION_OUTPUT,
    OnFailure, PinnedFile, Timing, UpgradeRequest, action_key, in_order,
};
pub use changes::{CarriedFiles, ChangeList, ChangedFile, ChangedKind, KEPT_CHANGES};
pub use command::Command;
pub use config::{
    AcceptLoss, CARRY_PATHS, ConfigFile, DATA_PATHS, HealthCheck, MAX_TIMEOUT_SECONDS,
    QUIESCE_UNITS, Timeouts, UpgradeConfig,
};
pub use disk::{DiskName, DiskRole, Leg, MirrorStatus};
pub use inventory::{
    DeviceKind, GuestDevice, GuestMount, GuestSwap, Inventory, MAX_DEVICES, MAX_MOUNTS,
};
pub use legbook::{LegBook, LegEntry, LegPair, LegRole, StaleReason};
pub use logs::{LogBackup, LogCopy, LogSelection, LogSource, LogsSaved};
pub use names::{InvalidName, MachineId, ServiceName, SessionId, SystemName};
pub use network::{BridgeFacts, Uplink};
pub use outcome::{
    Carried, Fact, ForkFigures, MountPoint, Outage, Package, ResyncFigures, SavedStartup,
    StartupType,
};
pub use problem::{Problem, ProblemCode};
pub use record::{Entry, Record, StepName, StepResult};
pub use severity::Severity;
pub use side::{Condition, Dump, KeySequence, PackageFault};
pub use state::{HardwareState, OperationalState, PartnerState, Side, UpgradeState};
pub use status::{DiskStatus, LegStatus, Progress, Status};
pub use surroundings::{GuestCard, RemoteStorage, Renewal, Surroundings};
pub use system::{DiskSpec, Firmware, LegPaths, NetworkSpec, Publish, SystemSpec};
pub use volume::{DiskKind, DiskMap, MapDisk, Segment, Volume, VolumeColour};

//! The ports in memory, with faults that can be switched on.
//!
//! [`SimWorld`] is one system: disks of a few dozen blocks, machines, the guest in each, the front door, the leg
//! book, a guard and a client. [`SimWorld::ports`] gives the ports that the engine uses; everything else on it
//! is for tests: to plan faults ([`Fault`]), to play the guest, the client and the guard, and to ask after every
//! event whether an invariant of the product is broken ([`SimWorld::check_invariants`]).
//!
//! No real time, no randomness, no I/O: the same calls give the same world. Delays use `tokio::time`, so that
//! `tokio::time::pause` makes them free.
#![forbid(unsafe_code)]

mod actions;
mod book;
mod call;
mod carry;
mod checkpoint;
mod client;
mod disk;
mod events;
mod fault;
mod files;
mod fork;
mod guard;
mod guard_acts;
mod guest;
mod guest_model;
mod guest_ops;
mod invariants;
mod life;
mod machine;
mod network;
mod options;
mod pause;
mod resync;
mod side;
mod state;
mod volumes;
mod world;
mod write;

pub use actions::{SimAction, SimLogs};
pub use client::ClientWrite;
pub use events::{GuestFault, LegFault};
pub use fault::{At, Call, CallEnd, Fault, FaultKind, glob};
pub use files::BookCut;
pub use guard::{GuardAt, GuardCall, GuardFault, GuardFaultKind};
pub use guest_model::{GuestConfig, HoldOnDisk, UnitFile};
pub use life::Passage;
pub use options::{BLOCK_BYTES, SimOptions, SimService, SimVolume, example_spec};
pub use state::GuestDisk;
pub use world::SimWorld;

//! The engine: one driver per system, one file per step, and recovery.
//!
//! A step has `observe` (read-only), `act` (safe to repeat) and, where it makes sense, `undo`. The driver writes an
//! intent, syncs it, observes, acts only if needed, observes again as proof, writes the outcome, syncs it
//! ([`operate`]). After a crash a step with an intent and no outcome is observed, never blindly repeated.
#![forbid(unsafe_code)]

mod actions;
mod context;
mod crash;
mod devices;
mod driver;
mod inspect;
mod ledger;
mod legs;
mod media;
mod mirrors;
mod monitor;
mod neighbour;
mod observe;
mod operate;
mod partner;
mod power;
mod rehearsal;
mod rollback;
mod side;
mod status;
mod steps;
mod tell;
mod verify;

pub use context::CrashHook;
pub use driver::{Request, System, SystemOptions};
pub use ledger::{Ledger, Stamped};

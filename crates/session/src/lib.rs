//! The pure heart of flipside: what may happen when, and what follows.
//!
//! Nothing here waits, reads or writes. The transition law ([`law`]) is data; the plan of a stage ([`plan`]) is
//! known before it starts; readiness ([`readiness`]) is judged over observed facts; and the state of a session is
//! nothing but the fold of its journal ([`SessionState::apply`]), by one function that is used live, in replay
//! and in tests.
#![forbid(unsafe_code)]

pub mod actions;
pub mod disk_map;
pub mod disks;
pub mod law;
mod plan;
pub mod readiness;
mod state;
mod step;

pub use plan::{Undo, deadline_seconds, plan};
pub use state::{Facts, IllegalRecord, SessionState, replay};
pub use step::Step;

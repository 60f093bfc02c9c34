//! What a guard does, apart from the machines: the same pure code on every platform, so that what the simulation proves
//! of it is true of the product.
//!
//! A guard is a small process beside each system that outlives the server. It looks at the machines, [`decide`]s the
//! next step, takes the lease, looks and decides again under it, records, and acts. [`record_drops`] and
//! [`record_swaps`] say what the leg book must hold before the machine goes on.

mod decide;
mod record;

pub use decide::{Action, DropLeg, Facts, FaultKind, Suspect, decide, pause_is_overdue};
pub use record::{record_drops, record_swaps};

use std::time::Duration;

/// The longest that anything flipside does may leave a running production paused, whoever of server and guard is dead or
/// hangs, as long as one of them is well (invariant 23). Clients and clusters take a machine for dead after about this.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long the guard believes in a recorded pause of a machine that it sees standing still, by its own clock: the
/// longest one that is ever recorded lasts 3 s. A wall clock that was set back does not make a pause longer (fault 68).
pub const STILL_MAX: Duration = Duration::from_secs(5);

/// How long whoever holds the lease of a machine whose pause is overdue is waited for, before its process is ended: the
/// longest pause that was measured is 0.2 s, and with [`STILL_MAX`] before it [`PAUSE_MAX`] is kept.
pub const FENCE_AFTER: Duration = Duration::from_secs(4);

/// A pause intent that passed so many milliseconds ago without the machine being paused was forgotten by whoever set it.
pub const STALE_INTENT_MS: i64 = 10_000;

/// How long the guard's own pause for dropping a leg of a running guest may last, in milliseconds: the swap takes 5 ms.
/// After it the next guard may continue the guest, should this one be killed; while this one lives nobody else does.
pub const OWN_PAUSE_MS: i64 = 3_000;

/// Most steps about one machine in one go: cancelling, swapping, continuing and two repetitions of a leg's failure need
/// eight.
pub const STEPS_MAX: usize = 12;

//! How long each wait of the demo may take. Far above what is normal without KVM: a deadline is for what hangs.

use std::time::Duration;

/// A deadline and what it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) what: &'static str,
    pub(super) after: Duration,
}

const fn minutes(what: &'static str, minutes: u64) -> Limit {
    Limit {
        what,
        after: Duration::from_secs(minutes * 60),
    }
}

pub(super) const SERVER: Limit = minutes("start of the server", 1);
pub(super) const CREATE: Limit = minutes("creation of the system", 20);
pub(super) const START: Limit = minutes("start of the system", 10);
pub(super) const PAGE: Limit = minutes("first answer of the page", 5);
pub(super) const SHORT: Limit = minutes("short command", 2);
pub(super) const COPY: Limit = minutes("copy into the guest", 15);
pub(super) const UNPACK: Limit = minutes("unpacking in the guest", 10);
pub(super) const CHECK: Limit = minutes("readiness check", 10);
pub(super) const SPLIT: Limit = minutes("split", 15);
pub(super) const INSTALL: Limit = minutes("installation on the Upgrade Side", 40);
pub(super) const RESTART: Limit = minutes("restart of the Upgrade Side", 10);
pub(super) const OS_UP: Limit = minutes("start of the new kernel", 10);
pub(super) const MERGE: Limit = minutes("merge", 15);
pub(super) const COMMIT: Limit = minutes("commit", 15);
pub(super) const ABORT: Limit = minutes("abort", 20);
pub(super) const FINISH: Limit = minutes("finish", 10);
pub(super) const DUPLEX: Limit = minutes("resync of the mirrors", 60);
pub(super) const STOP: Limit = minutes("stop of the system", 10);
pub(super) const COMPARE: Limit = minutes("comparison of the legs", 20);

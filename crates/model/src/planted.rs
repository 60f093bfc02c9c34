//! Mistakes that can be planted, to prove that the tests would notice them.
//!
//! Each is a classic of this trade: a direction swapped, a flush forgotten, a failure called success. One line at the place
//! where somebody could make it asks [`is`], which without the feature `planted` is a constant `false`, so that nothing of
//! it is left in the product. `crates/prove/tests/planted.rs` makes them one by one; `docs/planted-bugs.md` says what
//! notices each.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` builds mistakes in: it is for tests and never for a release");

/// Whether mistakes can be planted in this build. A product refuses to be built with it.
pub const ENABLED: bool = cfg!(feature = "planted");

/// Says whether this mistake is to be made. Without the feature `planted`: never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switch::{ALL, Bug, is, with};

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        /// A thread's own, so that tests beside each other do not see it; simulated worlds live on one thread each.
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Says whether this mistake is to be made, on this thread.
    pub fn is(name: &str) -> bool {
        PLANTED.get() == Some(name)
    }

    /// Runs something while a mistake is planted on this thread; it is taken out again even if that panics.
    pub fn with<T>(name: &'static str, run: impl FnOnce() -> T) -> T {
        struct TakeOut;
        impl Drop for TakeOut {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        let _after = TakeOut;
        PLANTED.set(Some(name));
        run()
    }

    /// A mistake that can be planted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Bug {
        /// Its name, as the place that makes it spells it.
        pub name: &'static str,
        /// What is done wrong.
        pub mistake: &'static str,
    }

    const fn bug(name: &'static str, mistake: &'static str) -> Bug {
        Bug { name, mistake }
    }

    /// Every mistake, in the order of a session.
    pub const ALL: &[Bug] = &[
        // The journal.
        bug(
            "journal-not-synced",
            "a record is acknowledged before it is durable",
        ),
        bug(
            "sync-failure-ignored",
            "a failed sync of the journal is taken for a good one",
        ),
        bug(
            "believed-before-written",
            "a record is believed although it could not be written",
        ),
        bug(
            "intent-after-effect",
            "a step acts before its intent is recorded",
        ),
        bug(
            "checksum-not-compared",
            "a record with a bad checksum is read",
        ),
        bug(
            "damage-taken-for-torn-tail",
            "damage inside the journal is cut off as if nobody had relied on it",
        ),
        bug(
            "sequence-gap-accepted",
            "a record with a wrong sequence number is read",
        ),
        bug(
            "foreign-record-accepted",
            "a record that continues another journal is read",
        ),
        // The driver.
        bug(
            "lease-given-back-early",
            "the machine is changed without the lease",
        ),
        bug(
            "old-book-accepted",
            "a leg book of an old generation is stored over a newer one",
        ),
        bug(
            "failed-step-is-success",
            "a step that failed counts as done",
        ),
        bug(
            "time-out-is-success",
            "no answer counts as done, without another look",
        ),
        bug(
            "crash-loop-never-ends",
            "a step that kills the server is tried again for ever",
        ),
        bug(
            "production-woken-in-merge",
            "a restarted server continues the old Production Side",
        ),
        bug(
            "abort-after-commit",
            "an abort is accepted after the decision",
        ),
        // The split.
        bug(
            "simplex-passes-readiness",
            "a disk with one leg passes the readiness check",
        ),
        bug(
            "simplex-disk-forked",
            "a leg that failed during the copying is given to the Upgrade Side",
        ),
        bug(
            "marked-disks-forgotten",
            "a disk that is marked System is treated as what it was made",
        ),
        bug(
            "spanned-volume-torn",
            "one disk of a volume that spans two is upgraded and the other is not",
        ),
        bug(
            "mandatory-disk-may-be-data",
            "a disk that the running system needs is taken for data",
        ),
        bug(
            "mount-point-hosts-forgotten",
            "the volume that holds the mount point of a system volume is taken for data",
        ),
        bug(
            "machine-id-used-twice",
            "the Upgrade Side gets the id of a machine that exists",
        ),
        bug(
            "machine-left-behind",
            "a retry forgets the machine of the try before",
        ),
        bug(
            "pause-not-announced",
            "nobody is told how long Production may be paused",
        ),
        bug(
            "legs-recorded-apart-too-late",
            "the stale mark is written after the legs were taken apart",
        ),
        bug(
            "record-not-corrected",
            "a leg that was never dropped stays recorded as left behind",
        ),
        bug(
            "upgrade-side-on-the-wire",
            "the link of the Upgrade Side is up when it wakes",
        ),
        bug(
            "copies-unplugged-in-use",
            "the copies of the data are unplugged while they are mounted",
        ),
        bug(
            "copies-kept",
            "the Upgrade Side keeps its copies of the data",
        ),
        // The merge, and back.
        bug(
            "rehearsed-leg-taken-for-equal",
            "a leg that was frozen below a copy is recorded as equal when the copy is gone",
        ),
        bug(
            "rehearsal-on-the-legs",
            "the Upgrade Side rehearses on the second leg of the data itself, not on a copy of it",
        ),
        bug(
            "startup-types-lost",
            "startup types are not put back before the merge",
        ),
        bug(
            "triggers-left-armed",
            "the sockets and timers of a stopped service start it again",
        ),
        bug(
            "door-not-held",
            "clients meet stopped applications instead of waiting at the door",
        ),
        bug(
            "data-not-unmounted",
            "data is unplugged while it is mounted",
        ),
        bug(
            "unmount-failure-ignored",
            "the merge goes on although the unmount failed",
        ),
        bug(
            "owner-kept-while-disks-move",
            "the book still names the old owner after it gave the disks up",
        ),
        bug("link-left-up", "the network of the old side stays up"),
        bug(
            "attach-before-release",
            "the new side gets the disks before the old one gave them up",
        ),
        bug("gates-not-lifted", "the gates are not lifted at the merge"),
        bug(
            "applications-before-mount",
            "applications are started before their data is mounted",
        ),
        bug(
            "door-before-health",
            "the users are let in before the health check",
        ),
        bug(
            "failed-merge-not-taken-back",
            "the users wait on while the administrator looks at a failed merge",
        ),
        bug(
            "old-side-asked-again",
            "a retry asks the side that gave everything up to stop once more",
        ),
        bug(
            "carried-bitmap-outlives-its-machine",
            "a bitmap that was carried into a machine is believed after that has written and died",
        ),
        bug(
            "clock-not-set",
            "Production is continued with the time of its pause",
        ),
        bug(
            "carried-files-left-packed",
            "files are packed on the Production Side and never put on the Upgrade Side",
        ),
        bug(
            "checkpoint-not-frozen",
            "the Upgrade Side writes to the leg that keeps the data as they were at the merge",
        ),
        bug(
            "checkpoint-direction-swapped",
            "an abort that discards data copies them over the checkpoint instead",
        ),
        bug(
            "data-discarded-unasked",
            "every abort of a merge with a checkpoint discards what was written since",
        ),
        // The commit.
        bug(
            "commit-not-recorded",
            "the decision is acted on and not recorded",
        ),
        bug(
            "authority-not-moved",
            "the old system disk stays the authority after a commit",
        ),
        bug(
            "production-ended-before-decision",
            "the old side is ended before the decision",
        ),
        bug(
            "bitmap-carried-while-running",
            "the bitmap is taken from a side that still writes",
        ),
        bug(
            "uncarried-bitmap-trusted",
            "the union is called complete although one half is missing",
        ),
        bug(
            "one-bitmap-at-commit",
            "only the Upgrade Side's bitmap is copied by",
        ),
        bug(
            "one-bitmap-at-abort",
            "only the Production Side's bitmap is copied by",
        ),
        bug(
            "gates-left-behind",
            "gates and saved state stay in the guest after the session",
        ),
        bug(
            "changed-leg-used",
            "a leg that was replaced behind our back is opened",
        ),
        bug(
            "older-copy-accepted",
            "an older copy of the journal or the leg book is gone on with",
        ),
        // The mirrors.
        bug(
            "resync-direction-swapped",
            "the stale leg is copied over the authority",
        ),
        bug(
            "live-before-proved",
            "a leg is recorded in sync before the last round",
        ),
        bug(
            "failed-finish-is-success",
            "a leg is recorded in sync although the last round failed",
        ),
        bug(
            "failed-job-is-success",
            "a leg is recorded in sync although its job failed",
        ),
        bug(
            "owner-left-paused",
            "a machine that was paused for the last round is not continued",
        ),
        bug(
            "bitmap-trusted-after-failure",
            "the bitmap is trusted after its job failed",
        ),
        bug(
            "round-lost-by-force-cancel",
            "what a cancelled job had taken from the bitmap is forgotten",
        ),
        // Power.
        bug(
            "unclean-end-trusted",
            "both legs are trusted after a loss of power",
        ),
        bug(
            "every-end-is-clean",
            "a machine that was killed counts as shut down",
        ),
        bug(
            "dead-bitmap-trusted",
            "a bitmap that died with its machine is trusted",
        ),
        // The guard.
        bug(
            "overdue-pause-left",
            "nobody continues a machine whose recorded pause is over",
        ),
        bug(
            "wall-clock-believed",
            "a wall clock that was set back makes a pause longer",
        ),
        bug(
            "intent-cleared-while-copying",
            "the guard forgets a recorded pause that has not begun",
        ),
        bug(
            "failed-leg-left-while-copying",
            "the guard leaves a failed leg alone as long as memory is copied",
        ),
        bug(
            "guard-continues-a-stranger",
            "the guard continues a machine that does not own network and data",
        ),
        bug(
            "guard-acts-without-its-lease",
            "the guard changes a machine while the server does",
        ),
        bug(
            "guard-decides-before-the-lease",
            "the guard does what it decided before it waited for the lease",
        ),
        bug(
            "hung-server-not-fenced",
            "a server that hangs keeps the lease of a paused machine",
        ),
        bug(
            "hung-guard-left",
            "a guard that hangs keeps its place, and nobody opens the door",
        ),
        // The leg book's file.
        bug(
            "book-file-not-synced",
            "the leg book is renamed before its bytes are durable",
        ),
        bug(
            "book-directory-not-synced",
            "the leg book is called stored before its name is durable",
        ),
    ];
}

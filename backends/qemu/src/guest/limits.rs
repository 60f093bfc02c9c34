//! Every deadline and bound of this module, and why.

use std::time::Duration;

/// A sign of life: the contract says a second or two, and a guest that takes longer is not usable.
pub(super) const PING: Duration = Duration::from_millis(1500);
/// Until the agent answers at all before an act: an agent that was restarted by an upgrade is back within this.
pub(super) const REACH: Duration = Duration::from_secs(10);
/// A script that only looks; 0.1 to 1 s were measured under TCG, more on a host that is busy.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// Looking at files includes reading the programs among them: megabytes for a binary, on a disk that may be slow.
pub(super) const LOOK_AT: Duration = Duration::from_secs(60);
/// Listing a few thousand packages from a database that is not in memory, under TCG: 0.5 s were measured for 300.
pub(super) const PACKAGES: Duration = Duration::from_secs(60);
/// Comparing every installed file with its package: a gigabyte is read and hashed, under TCG at some 20 MB a second.
pub(super) const VERIFY: Duration = Duration::from_secs(1200);
/// Showing log and help: files in memory, and one transient unit.
pub(super) const PUBLISH: Duration = Duration::from_secs(60);
/// Bytes of the log that the guest is given: it lies in the guest's memory.
pub(super) const LOG: usize = 256 * 1024;
/// Crash files that are listed, and the bytes of a piece that is read: a fork of `dd` costs tens of milliseconds.
pub(super) const CRASHES: usize = 32;
pub(super) const PIECE: usize = 4 << 20;
/// Walking over every inode of the system disks: a million take 10 s when they are in memory, many times that otherwise.
pub(super) const WALK: Duration = Duration::from_secs(120);
/// Packing or putting a gigabyte of files: 100 MB/s and less under TCG.
pub(super) const CARRY: Duration = Duration::from_secs(240);
/// Creating or removing a flag file, with its fsync on a disk that may be slow.
pub(super) const FLAG: Duration = Duration::from_secs(30);
/// A script with `daemon-reload` in it: 4 to 18 s each were measured under TCG, and a stop of what acts by itself
/// may take its 60 s twice.
pub(super) const CHANGE: Duration = Duration::from_secs(180);
/// Closing the stacks on the data disks: writing back dirty pages takes the longest.
pub(super) const CLOSE: Duration = Duration::from_secs(120);
/// One mount: replaying a journal; systemd's own limit for a mount job is 90 s.
pub(super) const MOUNT: Duration = Duration::from_secs(90);
/// Until a disk that was plugged in shows in the guest: 25 ms were measured.
pub(super) const DEVICE: Duration = Duration::from_secs(10);
/// Between two looks for such a disk.
pub(super) const DEVICE_PAUSE: Duration = Duration::from_millis(100);
/// `sync`: bounded so that a hanging network file system cannot hold an upgrade.
pub(super) const SYNC: Duration = Duration::from_secs(60);
/// One health check; the engine repeats it.
pub(super) const HEALTH: Duration = Duration::from_secs(30);
/// What a script gets beyond the deadline that it keeps itself, to say how it went.
pub(super) const MARGIN: Duration = Duration::from_secs(45);
/// Asking the guest to go down: it may be gone before it says so, and the caller watches for that anyway.
pub(super) const POWER: Duration = Duration::from_secs(10);
/// How long a DHCP server may take to renew a lease: it answers at once, or the request is sent again after some seconds.
pub(super) const RENEW: Duration = Duration::from_secs(8);
/// How far the guest's clock may be off after it was set.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Bytes of a guest's text that an error repeats.
pub(super) const WORDS: usize = 4000;
/// The largest mount table that is edited: an argument may have 128 KiB, a third of which base64 takes.
pub(super) const FSTAB: usize = 64 * 1024;
/// Units in one call: keeps the command line far below the kernel's limit.
pub(super) const UNITS: usize = 500;
/// Services in a list: a server has a few hundred.
pub(super) const LISTED: usize = 4096;
/// Bytes of a program's output read at a time.
pub(super) const OUTPUT: usize = 256 * 1024;
/// Bytes written to a file by one call of the agent.
pub(super) const UPLOAD: usize = 256 * 1024;
/// How often an edit is repeated when an administrator changes the mount table at the same moment.
pub(super) const EDITS: usize = 3;

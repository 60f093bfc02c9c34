//! Every bound of the guard, each with the reason for its value.

use std::time::Duration;

/// How often a machine's state is asked for: a missed event costs a guest at most this pause, and four questions a second
/// cost QEMU nothing that can be measured.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// How long a machine may take to say its state before it counts as unresponsive for this round.
pub(crate) const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a machine that is not there is looked for: it has no guest that could suffer.
pub(crate) const RECONNECT: Duration = Duration::from_millis(500);
/// How often new machines, and the end of the system, are looked for.
pub(crate) const SCAN: Duration = Duration::from_millis(500);
/// How long a guest must have run before an earlier failure counts as over.
pub(crate) const CALM: Duration = Duration::from_secs(10);
/// How often the book of a running machine is looked at, for a pause intent that nobody cleared.
pub(crate) const BOOK_LOOK: Duration = Duration::from_secs(10);
/// Longest pause between two attempts of what failed; it begins with [`POLL`] and doubles.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);
/// After a guest was continued, how long a repeated failure is waited for before all is called well: TCG needs some
/// milliseconds to send the request again.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// Longest request line of the control socket; the longest real one has 60 bytes.
pub(crate) const LINE_MAX: usize = 4096;
/// Longest reply line: two thousand events.
pub(crate) const REPLY_MAX: usize = 1024 * 1024;
/// How long a client of the control socket may take to send its request or take its reply.
pub(crate) const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most clients of the control socket at once: one server with a few calls at a time.
pub(crate) const PEERS_MAX: usize = 16;
/// Longest drain that may be asked for: beyond it every client has given up.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(600);
/// How long cancelling a copy may take: it waits for its requests in flight.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at a job that is being cancelled.
pub(crate) const CANCEL_PAUSE: Duration = Duration::from_millis(5);
/// How long an answer of the guard may take: nothing it is asked for waits for a disk.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new guard may take to be ready: it binds ports and reads small files, on a host that may be booting.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a guard may take to end: it has to finish what it holds the lease for.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How long ending the guard's own tasks may take before the process ends all the same.
pub(crate) const SHUT_TIMEOUT: Duration = Duration::from_secs(5);
/// Size at which the event file becomes the old one, which is then lost: with two files a few thousand acts are kept.
pub(crate) const EVENTS_MAX_BYTES: u64 = 256 * 1024;
/// Events handed out at once.
pub(crate) const EVENTS_BATCH: usize = 500;
/// Size at which the log of a guard is begun anew when a guard starts.
pub(crate) const LOG_MAX_BYTES: u64 = 1024 * 1024;
/// Descriptors asked for: two per connection of the door ([`crate::door::limits::CONNECTIONS_MAX`]), and some to spare.
pub(crate) const DESCRIPTORS: u64 = 10_000;

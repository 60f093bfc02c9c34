//! What happens in a seed: each one switches some kinds of faults on and leaves others out, so that rare mixtures occur.

use flipside_backend_sim::{FaultKind, GuestFault, LegFault, SimOptions};
use flipside_model::{Command, Leg};
use std::time::Duration;

/// How many events a seed has; each is followed by hundreds of calls.
const EVENTS: usize = 60;

/// The random numbers of a seed (splitmix64): small, and the same everywhere and for ever.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins the numbers of a seed, for a purpose of their own.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// After how long.
    pub delay: Duration,
    /// What.
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum What {
    /// An administrator asks for one of the commands that are allowed.
    Likely(usize),
    /// An administrator asks for whatever comes to mind.
    Ask(Command),
    /// Software is installed on the Upgrade Side.
    Install,
    /// The service manager starts the server, if it is dead.
    StartServer,
    /// The system is started, if it is off.
    StartSystem,
    /// The Upgrade Side is restarted.
    RestartUpgrade,
    /// The server is killed.
    CrashServer,
    /// The host loses power.
    PowerCut,
    /// The nth next call like this meets a fault.
    Fault(&'static str, u64, FaultKind),
    /// A machine process is killed.
    Kill(usize),
    /// A machine process hangs, or goes on.
    Hang(usize, bool),
    /// Guests do not do as asked.
    Guest(GuestFault),
    /// They do again.
    GuestsWell,
    /// A guest's kernel panics.
    Panic(usize),
    /// A guest restarts by itself.
    Reboot(usize),
    /// A guest shuts itself down.
    ShutDown(usize),
    /// A leg fails.
    FailLeg(usize, Leg, LegFault),
    /// Failed legs work again.
    HealLegs,
    /// The wall clock jumps.
    Clock(i64),
    /// A guest writes to its system disk.
    Write(usize),
}

/// The kinds that a swarm switches on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Crashes,
    Calls,
    Guests,
    Machines,
    Hangs,
    Legs,
    Clock,
    Power,
    Confusion,
}

const GROUPS: [Group; 9] = [
    Group::Crashes,
    Group::Calls,
    Group::Guests,
    Group::Machines,
    Group::Hangs,
    Group::Legs,
    Group::Clock,
    Group::Power,
    Group::Confusion,
];

/// Returns a seed's kind of world: system disks, data disks, timings.
pub fn options(seed: u64) -> (usize, usize, SimOptions) {
    let mut r = Random::new(seed, 1);
    let options = SimOptions {
        latency: Duration::from_micros(r.one(&[0, 100, 1_000, 7_000])),
        boot: Duration::from_millis(r.one(&[500, 3_000, 12_000])),
        precopy_polls: r.one(&[1, 2, 10]),
        // Faster than the client writes, or a resynchronisation would never come to its last round.
        resync_blocks_per_poll: r.one(&[16, 24, 64]),
        nearly_blocks: r.one(&[4, 12]),
        nofail: r.below(2) == 0,
        busy_connections: r.one(&[0, 3]),
        deadline: Duration::from_secs(r.one(&[1, 10, 30])),
        check_every_call: true,
        ..SimOptions::default()
    };
    (1 + r.below(2), 1 + r.below(2), options)
}

/// Returns the events of a seed.
pub fn events(seed: u64) -> Vec<Event> {
    let mut r = Random::new(seed, 2);
    let on: Vec<Group> = GROUPS.into_iter().filter(|_| r.below(3) == 0).collect();
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        let delay = match r.below(4) {
            0 => Duration::from_millis(r.below(20) as u64),
            1 => Duration::from_millis(r.below(500) as u64),
            2 => Duration::from_millis(r.below(4_000) as u64),
            _ => Duration::from_millis(r.below(15_000) as u64),
        };
        let what = match r.below(10) {
            0..=3 => What::Likely(r.below(1 << 16)),
            4 => r.one(&[What::Install, What::Write(r.clone().below(8))]),
            5 => r.one(&[What::StartServer, What::StartSystem]),
            _ if on.is_empty() => What::Likely(r.below(1 << 16)),
            _ => {
                let group = r.one(&on);
                fault(group, &mut r)
            }
        };
        events.push(Event { delay, what });
    }
    events
}

fn fault(group: Group, r: &mut Random) -> What {
    let n = r.below(8);
    match group {
        Group::Crashes => match r.below(3) {
            0 => What::CrashServer,
            _ => {
                let kind = r.one(&[
                    FaultKind::CrashBefore,
                    FaultKind::CrashAfter,
                    FaultKind::TornCrash(1),
                    FaultKind::TornCrash(2),
                    FaultKind::TornCrash(3),
                ]);
                let pattern = r.one(&["*", "disk.*", "legs.store", "journal.*", "machine.*"]);
                What::Fault(pattern, 1 + r.below(40) as u64, kind)
            }
        },
        Group::Calls => {
            let kind = r.one(&[
                FaultKind::FailBefore,
                FaultKind::LostReply,
                FaultKind::Hang { done: false },
                FaultKind::Hang { done: true },
                FaultKind::Twice,
                FaultKind::Torn(1),
                FaultKind::Torn(2),
                FaultKind::TornLost(1),
            ]);
            let pattern = r.one(&["machine.*", "disk.*", "guest.*", "network.*", "legs.*"]);
            What::Fault(pattern, 1 + r.below(20) as u64, kind)
        }
        Group::Guests => r.one(&[
            What::Guest(GuestFault::AgentSilent),
            What::Guest(GuestFault::WillNotStop("db.service".to_owned())),
            What::Guest(GuestFault::WillNotStart("web.service".to_owned())),
            What::Guest(GuestFault::MountBusy("/srv/data0".to_owned())),
            What::Guest(GuestFault::Unhealthy),
            What::Guest(GuestFault::IgnoresPowerButton),
            What::GuestsWell,
            What::GuestsWell,
            What::GuestsWell,
        ]),
        Group::Machines => r.one(&[
            What::Kill(n),
            What::Panic(n),
            What::Reboot(n),
            What::ShutDown(n),
            What::RestartUpgrade,
        ]),
        Group::Hangs => r.one(&[What::Hang(n, true), What::Hang(n, false)]),
        Group::Legs => {
            let (disk, leg) = (r.below(4), r.one(&[Leg::A, Leg::B]));
            r.one(&[
                What::FailLeg(disk, leg, LegFault::Write),
                What::FailLeg(disk, leg, LegFault::Read),
                What::HealLegs,
            ])
        }
        Group::Clock => {
            What::Clock(r.one(&[-315_360_000_000, -3_600_000, 3_600_000, 315_360_000_000]))
        }
        Group::Power => r.one(&[What::PowerCut, What::StartServer, What::StartSystem]),
        Group::Confusion => What::Ask(r.one(&Command::ALL)),
    }
}

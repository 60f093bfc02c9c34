//! Every case of [`decide`], as a table, and its safety over all combinations.

use super::*;
use crate::DiskView;
use flipside_model::{LegEntry, StaleReason};

const NOW: i64 = 1_000_000_000;
const ME: MachineId = MachineId(2);
const A: Leg = Leg::A;
const B: Leg = Leg::B;

fn data0() -> DiskName {
    DiskName::new("data0").expect("valid")
}

fn stale() -> LegRole {
    LegRole::Stale(StaleReason::Session)
}

/// A machine with one disk.
#[derive(Clone)]
struct Case {
    owner: Option<MachineId>,
    pause_until_ms: Option<i64>,
    run: RunState,
    roles: (LegRole, LegRole),
    authority: Leg,
    root: DiskSource,
    open: Vec<Leg>,
    jobs: Vec<String>,
    suspects: Vec<(Leg, FaultKind)>,
    probed: bool,
    forking: bool,
    still: Duration,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            owner: Some(ME),
            pause_until_ms: None,
            run: RunState::Running,
            roles: (LegRole::Live, LegRole::Live),
            authority: A,
            root: DiskSource::Legs(vec![A, B]),
            open: vec![A, B],
            jobs: Vec::new(),
            suspects: Vec::new(),
            probed: false,
            forking: false,
            still: Duration::ZERO,
        }
    }
}

impl Case {
    fn decide(&self) -> Action {
        let leg = |role: &LegRole| LegEntry {
            path: "/x".into(),
            inode: 1,
            role: role.clone(),
        };
        let pair = LegPair {
            a: leg(&self.roles.0),
            b: leg(&self.roles.1),
            authority: self.authority,
        };
        let book = LegBook {
            version: 1,
            generation: 1,
            clean: false,
            owner: self.owner,
            last_machine: MachineId(3),
            pause_until_ms: self.pause_until_ms,
            disks: BTreeMap::from([(data0(), pair)]),
        };
        let disk = DiskView {
            source: self.root.clone(),
            dirty_bytes: None,
        };
        let view = MachineView {
            run: self.run,
            disks: BTreeMap::from([(data0(), disk)]),
            ..MachineView::absent()
        };
        let suspect = |(leg, kind): &(Leg, FaultKind)| Suspect {
            disk: data0(),
            leg: *leg,
            kind: *kind,
            error: "bad".to_owned(),
        };
        let facts = Facts {
            machine: ME,
            book: &book,
            view: &view,
            open_legs: &BTreeMap::from([(data0(), self.open.clone())]),
            jobs: &self.jobs,
            suspects: &self.suspects.iter().map(suspect).collect::<Vec<_>>(),
            probed: self.probed,
            forking: self.forking,
            still: self.still,
        };
        decide(&facts, NOW)
    }

    fn with(mut self, change: impl FnOnce(&mut Case)) -> Self {
        change(&mut self);
        self
    }

    /// Paused for longer than was intended.
    fn overdue() -> Self {
        Self {
            run: RunState::Paused,
            pause_until_ms: Some(NOW),
            ..Self::default()
        }
    }

    /// Paused by a write to leg B that failed.
    fn failed() -> Self {
        Self {
            run: RunState::IoError,
            suspects: vec![(B, FaultKind::Write)],
            ..Self::default()
        }
    }
}

fn drop_leg(bad: Leg, kind: &str) -> Action {
    Action::DropLegs(vec![DropLeg {
        disk: data0(),
        bad,
        survivor: bad.other(),
        why: format!("{kind} failed: bad"),
    }])
}

fn finish(leg: Leg) -> Action {
    Action::FinishSwaps(vec![(data0(), leg)])
}

fn stays(action: &Action, word: &str) -> bool {
    matches!(action, Action::Stay(why) if why.contains(word))
}

#[test]
fn a_pause_is_ended_only_for_the_owner_and_only_when_it_is_overdue() {
    let overdue = Case::overdue;
    for (what, case, expected) in [
        ("overdue", overdue(), Action::Continue),
        (
            "not yet",
            overdue().with(|c| c.pause_until_ms = Some(NOW + 1)),
            Action::Nothing,
        ),
        (
            "no intent",
            overdue().with(|c| c.pause_until_ms = None),
            Action::Nothing,
        ),
        (
            "no owner",
            overdue().with(|c| c.owner = None),
            Action::Nothing,
        ),
        // The old Production Side in Merge, and an Upgrade Side before it.
        (
            "a later owner",
            overdue().with(|c| c.owner = Some(MachineId(3))),
            Action::Nothing,
        ),
        (
            "an earlier owner",
            overdue().with(|c| c.owner = Some(MachineId(1))),
            Action::Nothing,
        ),
        (
            "in a fork",
            overdue().with(|c| c.run = RunState::PreSwitchover),
            Action::CancelFork,
        ),
        (
            "after a fork",
            overdue().with(|c| c.run = RunState::PostMigrate),
            Action::Continue,
        ),
        (
            "runs",
            overdue().with(|c| c.run = RunState::Running),
            Action::Nothing,
        ),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
    for run in [
        RunState::Absent,
        RunState::Incoming,
        RunState::Shutdown,
        RunState::Panicked,
        RunState::Unresponsive,
    ] {
        assert_eq!(
            overdue().with(|c| c.run = run).decide(),
            Action::Nothing,
            "{run:?}"
        );
    }
}

#[test]
fn before_a_guest_is_continued_its_roots_are_what_the_book_says() {
    let overdue = Case::overdue;
    let one = |leg| DiskSource::Legs(vec![leg]);
    let hole = overdue().with(|c| c.root = DiskSource::Placeholder);
    let divided = (LegRole::Original, LegRole::Upgraded);
    for (what, case, expected) in [
        ("a hole", hole.clone(), finish(A)),
        (
            "a hole in a fork",
            hole.clone().with(|c| c.run = RunState::PreSwitchover),
            finish(A),
        ),
        (
            "a hole, other authority",
            hole.clone().with(|c| c.authority = B),
            finish(B),
        ),
        (
            "a hole, divided",
            hole.clone().with(|c| c.roles = divided.clone()),
            finish(A),
        ),
        (
            "the authority alone",
            overdue().with(|c| {
                c.root = one(A);
                c.roles = (LegRole::Live, stale());
            }),
            Action::Continue,
        ),
        (
            "its own side's leg",
            overdue().with(|c| {
                c.root = one(B);
                c.roles = divided.clone();
            }),
            Action::Continue,
        ),
        (
            "a live leg first",
            overdue().with(|c| c.authority = B),
            Action::Continue,
        ),
        (
            "a fork that was recorded and not carried out, the other leg first",
            overdue().with(|c| {
                c.roles = (LegRole::Upgraded, LegRole::Original);
                c.authority = B;
            }),
            Action::Continue,
        ),
        (
            "the same of a data disk",
            overdue().with(|c| {
                c.roles = (LegRole::Frozen, LegRole::Live);
                c.authority = B;
            }),
            Action::Continue,
        ),
        (
            "a leg taken in that is not recorded yet",
            overdue().with(|c| c.roles = (LegRole::Live, stale())),
            Action::Continue,
        ),
        (
            "a leg given up and not yet dropped",
            overdue().with(|c| {
                c.roles = (stale(), LegRole::Live);
                c.authority = B;
            }),
            finish(B),
        ),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
    for (what, case, word) in [
        (
            "the authority is not open",
            hole.clone().with(|c| c.open = vec![B]),
            "not open",
        ),
        (
            "the book names no good leg",
            hole.clone().with(|c| c.roles = (stale(), stale())),
            "no leg",
        ),
        (
            "a frozen authority",
            hole.clone().with(|c| c.roles = (LegRole::Frozen, stale())),
            "no leg",
        ),
        (
            "another leg alone",
            overdue().with(|c| {
                c.root = one(B);
                c.roles = (LegRole::Live, stale());
            }),
            "vouch",
        ),
        (
            "a live leg without the authority",
            overdue().with(|c| c.root = one(B)),
            "vouch",
        ),
        (
            "an overlay",
            overdue().with(|c| c.root = DiskSource::Overlay(A)),
            "quorum",
        ),
    ] {
        let action = case.decide();
        assert!(stays(&action, word), "{what}: {action:?}");
    }
}

#[test]
fn an_intent_is_forgotten_only_long_after_it_passed() {
    let at = |ago: i64| Case::default().with(|c| c.pause_until_ms = Some(NOW - ago));
    assert_eq!(at(STALE_INTENT_MS).decide(), Action::ClearIntent);
    assert_eq!(at(STALE_INTENT_MS - 1).decide(), Action::Nothing);
    assert_eq!(
        at(STALE_INTENT_MS).with(|c| c.owner = None).decide(),
        Action::Nothing
    );
    assert_eq!(
        at(STALE_INTENT_MS)
            .with(|c| c.owner = Some(MachineId(3)))
            .decide(),
        Action::Nothing
    );
}

// Fault 68: a wall clock that was set back by an hour does not make a pause longer.
#[test]
fn a_pause_is_measured_by_the_guards_own_clock_as_well() {
    let set_back = |still| {
        Case::overdue().with(|c| {
            c.pause_until_ms = Some(NOW + 3_600_000);
            c.still = still;
        })
    };
    let little = STILL_MAX - Duration::from_millis(1);
    assert_eq!(set_back(little).decide(), Action::Nothing);
    assert_eq!(set_back(STILL_MAX).decide(), Action::Continue);
    let other = set_back(STILL_MAX).with(|c| c.owner = Some(MachineId(3)));
    assert_eq!(other.decide(), Action::Nothing);
}

// A server died while memory was copied: the pause comes at the end of that, and its intent must still be there.
#[test]
fn an_intent_is_kept_while_memory_is_copied() {
    let copying = Case::default().with(|c| {
        c.pause_until_ms = Some(NOW - 10 * STALE_INTENT_MS);
        c.forking = true;
    });
    assert_eq!(copying.decide(), Action::Nothing);
    let paused = copying.with(|c| c.run = RunState::PreSwitchover);
    assert_eq!(paused.decide(), Action::CancelFork);
}

#[path = "decide_legs_tests.rs"]
mod legs;
#[path = "decide_rules_tests.rs"]
mod rules;

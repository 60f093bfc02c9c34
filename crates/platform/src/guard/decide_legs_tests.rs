//! What is done about a failing leg, case by case.

use super::*;

#[test]
fn a_failing_leg_is_dropped_only_if_the_other_one_is_live() {
    let failed = Case::failed;
    let read = |leg| vec![(leg, FaultKind::Read)];
    for (what, case, expected) in [
        ("a write", failed(), drop_leg(B, "write")),
        (
            "the authority",
            failed().with(|c| c.suspects = vec![(A, FaultKind::Flush)]),
            drop_leg(A, "flush"),
        ),
        (
            "a hidden read",
            failed().with(|c| {
                c.run = RunState::Running;
                c.suspects = read(A);
            }),
            drop_leg(A, "read"),
        ),
        (
            "twice the same",
            failed().with(|c| c.suspects = [read(B), read(B)].concat()),
            drop_leg(B, "read"),
        ),
        (
            "no owner yet, two legs",
            failed().with(|c| c.owner = None),
            drop_leg(B, "write"),
        ),
        (
            "ahead of the book in a merge",
            failed().with(|c| c.owner = Some(MachineId(1))),
            drop_leg(B, "write"),
        ),
        (
            "the old Production Side",
            failed().with(|c| c.owner = Some(MachineId(3))),
            Action::Nothing,
        ),
        (
            "within a pause",
            failed().with(|c| c.pause_until_ms = Some(NOW + 1)),
            Action::Nothing,
        ),
        (
            "while memory is copied, before the pause",
            failed().with(|c| {
                c.pause_until_ms = Some(NOW + 1);
                c.forking = true;
            }),
            drop_leg(B, "write"),
        ),
        (
            "after a pause",
            failed().with(|c| c.pause_until_ms = Some(NOW)),
            drop_leg(B, "write"),
        ),
        (
            "nobody named",
            failed().with(|c| c.suspects = vec![]),
            Action::Probe,
        ),
        (
            "a leg that was dropped",
            failed().with(|c| c.root = DiskSource::Legs(vec![A])),
            Action::Probe,
        ),
        (
            "a hole",
            failed().with(|c| {
                c.root = DiskSource::Placeholder;
                c.suspects = vec![];
            }),
            finish(A),
        ),
        (
            "recorded, and not yet dropped",
            failed().with(|c| {
                c.roles = (stale(), LegRole::Live);
                c.authority = B;
                c.suspects = vec![];
            }),
            finish(B),
        ),
        (
            "the Upgrade Side on its own leg",
            failed().with(|c| {
                c.owner = Some(MachineId(1));
                c.root = DiskSource::Legs(vec![B]);
                c.roles = (LegRole::Original, LegRole::Upgraded);
            }),
            Action::Nothing,
        ),
        (
            "a hidden read of a paused guest",
            failed().with(|c| {
                c.run = RunState::Paused;
                c.suspects = read(A);
            }),
            Action::Nothing,
        ),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
    let both = vec![(A, FaultKind::Read), (B, FaultKind::Write)];
    for (what, case, word) in [
        (
            "both",
            failed().with(|c| c.suspects = both.clone()),
            "both legs",
        ),
        (
            "both, still running",
            failed().with(|c| {
                c.run = RunState::Running;
                c.suspects = both;
            }),
            "both legs",
        ),
        (
            "the only leg",
            failed().with(|c| {
                c.root = DiskSource::Legs(vec![A]);
                c.suspects = read(A);
            }),
            "only leg",
        ),
        (
            "the other is being rewritten",
            failed().with(|c| {
                c.roles = (LegRole::Live, stale());
                c.suspects = read(A);
            }),
            "does not hold all",
        ),
        (
            "the other is the original",
            failed().with(|c| c.roles = (LegRole::Original, LegRole::Upgraded)),
            "does not hold all",
        ),
        (
            "probed in vain",
            failed().with(|c| {
                c.suspects = vec![];
                c.probed = true;
            }),
            "named no leg",
        ),
    ] {
        let action = case.decide();
        assert!(stays(&action, word), "{what}: {action:?}");
    }
}

#[test]
fn a_copy_is_cancelled_before_a_leg_is_suspected() {
    let copying = Case::failed().with(|c| c.jobs = vec!["resync-data0".to_owned()]);
    assert_eq!(
        copying.decide(),
        Action::CancelJobs(vec!["resync-data0".to_owned()])
    );
    // A failure that the guest did not notice leaves the copy alone.
    assert_eq!(
        copying
            .clone()
            .with(|c| {
                c.run = RunState::Running;
                c.suspects = vec![];
            })
            .decide(),
        Action::Nothing
    );
    assert_eq!(
        copying
            .clone()
            .with(|c| c.owner = Some(MachineId(3)))
            .decide(),
        Action::Nothing
    );
}

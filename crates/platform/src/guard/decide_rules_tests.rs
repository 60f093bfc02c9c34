//! The rules that no combination of facts may break.

use super::*;

/// What must hold whatever comes together: it is checked for every combination.
fn check_is_safe(case: &Case, action: &Action) {
    let owner = case.owner == Some(ME);
    let still = matches!(
        case.run,
        RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
    );
    let overdue = case.pause_until_ms.is_some_and(|until| until <= NOW);
    let acts = !matches!(action, Action::Nothing | Action::Stay(_));
    if acts && still {
        assert!(
            owner && overdue,
            "a paused guest is touched only if it owns and is overdue"
        );
    }
    if acts && case.owner.is_some_and(|o| o > ME) {
        panic!("the old Production Side is never touched");
    }
    if acts && owner && case.pause_until_ms.is_some() && !overdue {
        panic!("a pause that lasts is not disturbed");
    }
    let pair = |leg: Leg| {
        if leg == A {
            &case.roles.0
        } else {
            &case.roles.1
        }
    };
    match action {
        Action::Continue | Action::CancelFork | Action::Probe => {
            let DiskSource::Legs(legs) = &case.root else {
                panic!("not on a quorum")
            };
            let divided =
                legs.len() == 1 && matches!(pair(legs[0]), LegRole::Original | LegRole::Upgraded);
            assert!(
                legs.contains(&case.authority) || divided,
                "an unrecorded leg is run on"
            );
        }
        Action::DropLegs(drops) => {
            for drop in drops {
                assert_eq!(
                    *pair(drop.survivor),
                    LegRole::Live,
                    "the survivor lacks data"
                );
                assert!(case.jobs.is_empty() || case.run == RunState::Running);
            }
        }
        Action::FinishSwaps(swaps) => {
            for (_, leg) in swaps {
                assert_eq!(*leg, case.authority, "not the authority");
                assert!(carries_the_guest(pair(*leg)) && case.open.contains(leg));
            }
        }
        _ => {}
    }
}

fn roots() -> Vec<DiskSource> {
    let mut roots = vec![
        DiskSource::Placeholder,
        DiskSource::Overlay(A),
        DiskSource::Overlay(B),
    ];
    for legs in [vec![A], vec![B], vec![A, B], vec![B, A]] {
        roots.push(DiskSource::Legs(legs));
    }
    roots
}

// The planted bug "continue a machine that is not the owner" is caught here, and in the table above.
#[test]
fn no_combination_breaks_a_rule() {
    let roles = [LegRole::Live, stale(), LegRole::Upgraded, LegRole::Frozen];
    let runs = [
        RunState::Incoming,
        RunState::Running,
        RunState::Paused,
        RunState::PreSwitchover,
        RunState::IoError,
    ];
    let suspects: [&[(Leg, FaultKind)]; 4] = [
        &[],
        &[(A, FaultKind::Read)],
        &[(B, FaultKind::Write)],
        &[(A, FaultKind::Flush), (B, FaultKind::Write)],
    ];
    let mut count = 0;
    for owner in [None, Some(MachineId(1)), Some(ME), Some(MachineId(3))] {
        for pause_until_ms in [None, Some(NOW + 1), Some(0)] {
            for run in runs {
                for a in &roles {
                    for b in &roles {
                        for root in roots() {
                            for suspects in suspects {
                                for bits in 0..16u8 {
                                    let case = Case {
                                        owner,
                                        pause_until_ms,
                                        run,
                                        roles: (a.clone(), b.clone()),
                                        authority: if bits & 1 == 0 { A } else { B },
                                        root: root.clone(),
                                        open: if bits & 2 == 0 { vec![A, B] } else { vec![B] },
                                        jobs: if bits & 4 == 0 {
                                            vec![]
                                        } else {
                                            vec!["resync-data0".to_owned()]
                                        },
                                        suspects: suspects.to_vec(),
                                        probed: bits & 8 != 0,
                                        forking: false,
                                        still: Duration::ZERO,
                                    };
                                    check_is_safe(&case, &case.decide());
                                    count += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 4 * 3 * 5 * 16 * 7 * 4 * 16);
}

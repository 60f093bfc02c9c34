use super::*;

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

fn running(view: Option<(u64, u64)>) -> Running {
    Running {
        view: view.map(|(done_bytes, total_bytes)| ResyncView {
            phase: ResyncPhase::Copying,
            done_bytes,
            total_bytes,
        }),
        since: Instant::now(),
        retry_at: None,
    }
}

// RS-01: what is being copied is shown with its figures; a target that waits for the next try is not being copied.
#[tokio::test(start_paused = true)]
async fn only_what_is_being_copied_is_progress() {
    let mirrors = Mirrors::default();
    assert!(mirrors.idle() && mirrors.progress().is_empty());
    mirrors.with(|all| all.insert(disk("data0"), running(None)));
    assert!(mirrors.idle() && mirrors.progress().is_empty(), "it waits");
    mirrors.with(|all| all.insert(disk("system0"), running(Some((3, 10)))));
    assert!(!mirrors.idle());
    tokio::time::advance(Duration::from_secs(2)).await;
    let progress = mirrors.progress();
    assert_eq!(progress, BTreeMap::from([(disk("system0"), (3, 10, 2.0))]));
}

// Invariant 11, design 3.8: the keeper works where no operation moves the disks, and nowhere else.
#[test]
fn the_keeper_works_only_where_nothing_moves_the_disks() {
    for upgrade in S::ALL {
        for operational in O::ALL {
            let state = SessionState {
                upgrade,
                operational,
                ..SessionState::default()
            };
            let expected = match upgrade {
                S::Idle | S::Finish => true,
                S::PrepareSplit | S::PrepareMerge => false,
                S::Split | S::Merge | S::Commit | S::Abort => operational == O::Ready,
            };
            assert_eq!(allowed(&state), expected, "{upgrade} {operational}");
        }
    }
}

//! Readiness in a whole session: what is checked when, and what follows from it (area RC).

use super::*;
use flipside_backend_sim::LegFault;
use flipside_model::Severity;

fn data0() -> DiskName {
    DiskName::numbered(DiskRole::Data, 0)
}

/// How often the whole list of tests was gone through since an entry, by the records of one of them.
fn checks_since(bench: &Bench, after: u64) -> usize {
    let text = "Every disk is duplexed";
    let entries = bench.system().entries_after(after);
    let told = entries.iter().filter(|e| {
        matches!(&e.record, Record::Log { severity: Severity::Success, text: t, .. } if t == text)
    });
    told.count()
}

// RC-01, RC-10, PR-05, PR-15: no split without a passed check, and nothing is touched by one that failed. RC-04, RC-12: when
// the cause is mended, Retry finds it so, without a restart of anything or a configuration that is loaded again.
#[test]
fn no_split_begins_before_a_check_has_passed() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        stop_mirrors(&bench);
        bench.world.fail_leg(&data0(), Leg::B, LegFault::Read);
        bench
            .until(Duration::from_secs(60), |b| !b.world.book().duplexed())
            .await;
        for command in [
            Command::Check,
            Command::Split,
            Command::Retry,
            Command::Split,
        ] {
            breaks(&mut bench, command, S::Idle).await;
            assert_eq!(bench.status().session, None);
            assert_eq!(bench.world.machines(), [production]);
        }
        bench.world.heal_leg(&data0(), Leg::B);
        let_mirrors_go_on(&bench);
        bench.duplex().await.expect("whole again");
        expect(bench.command(Command::Retry).await, S::Idle);
        // What is shown of the mirrors follows them with the next look at the machine.
        bench
            .until(Duration::from_secs(60), |b| {
                b.status().line() == "Fault Tolerant | Idle | Ready"
            })
            .await;
        expect(bench.command(Command::Split).await, S::Split);
    });
}

// RC-13: what has nothing to do with the mirrors leaves the system Fault Tolerant, and Broken until it is mended.
#[test]
fn a_failed_check_of_a_whole_system_says_so() {
    run(|| async {
        let mut bench = duplexed().await;
        let silent = flipside_backend_sim::GuestFault::AgentSilent;
        bench.world.guest_fault(None, silent);
        breaks(&mut bench, Command::Check, S::Idle).await;
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Broken");
        bench.world.clear_guest_faults();
        expect(bench.command(Command::Retry).await, S::Idle);
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
    });
}

// RC-07: the check is made once more inside PrepareSplit, whoever has just made it.
#[test]
fn the_last_check_is_made_inside_the_session() {
    run(|| async {
        let mut bench = duplexed().await;
        expect(bench.command(Command::Check).await, S::Idle);
        let before = bench.status().last_seq;
        expect(bench.command(Command::Split).await, S::Split);
        assert_eq!(
            checks_since(&bench, before),
            2,
            "before the session and in it"
        );
        let entries = bench.system().entries_after(before);
        let at = |wanted: &dyn Fn(&Record) -> bool| entries.iter().rposition(|e| wanted(&e.record));
        let opened = at(&|r| matches!(r, Record::Session { .. })).expect("a session");
        let last =
            at(&|r| matches!(r, Record::Log { text, .. } if text == "Every disk is duplexed"));
        assert!(last > Some(opened), "the last check is not in the session");
    });
}

// RC-45: the merge has tests of its own, which tell of the Upgrade Side; the tests of the split are not made again.
#[test]
fn the_merge_has_tests_of_its_own() {
    run(|| async {
        let mut bench = duplexed().await;
        expect(bench.command(Command::Split).await, S::Split);
        let before = bench.status().last_seq;
        let upgrade = upgrade_side(&bench);
        bench
            .world
            .guest_fault(Some(upgrade), flipside_backend_sim::GuestFault::AgentSilent);
        let problem = breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        assert!(problem.contains(&upgrade.to_string()), "{problem}");
        assert_eq!(checks_since(&bench, before), 0);
        bench.world.clear_guest_faults();
        expect(bench.command(Command::Retry).await, S::Merge);
    });
}

// SV-04, SV-17: a controlled service never runs on both sides with the data in reach: it stops on the Upgrade Side before that
// side loses the data, and each move stops it on one side before the other gets the data and starts it.
#[test]
fn a_service_runs_where_the_data_is_and_nowhere_else() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        bench.world.clear_trace();
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        in_order(
            &bench,
            &[
                format!("guest.stop.{upgrade}"),
                format!("guest.close_data.{upgrade}"),
            ],
        );
        for (command, state, from, to) in [
            (Command::Merge, S::Merge, production, upgrade),
            (Command::Abort, S::Abort, upgrade, production),
        ] {
            bench.world.clear_trace();
            expect(bench.command(command).await, state);
            in_order(
                &bench,
                &[
                    format!("guest.stop.{from}"),
                    format!("guest.close_data.{from}"),
                    format!("guest.open_data.{to}"),
                    format!("guest.start.{to}"),
                ],
            );
        }
    });
}

/// Fails unless all of these calls were made, each after the one before it.
#[track_caller]
fn in_order(bench: &Bench, calls: &[String]) {
    let trace = bench.world.trace();
    let mut rest = trace.iter();
    for call in calls {
        assert!(
            rest.any(|c| c == call),
            "`{call}` was not made in its turn: {trace:#?}"
        );
    }
}

//! Rehearsal: the applications of the Upgrade Side on throw-away copies of the data (design 3.5).

use super::*;
use flipside_backend_sim::BLOCK_BYTES;
use flipside_model::{LegRole, ProblemCode};
use flipside_session::readiness::REHEARSAL_COPY_BYTES;

async fn rehearsing() -> (Bench, MachineId) {
    let mut bench = duplexed().await;
    bench.config.rehearsal = true;
    expect(bench.command(Command::Split).await, S::Split);
    let upgrade = upgrade_side(&bench);
    (bench, upgrade)
}

fn data0() -> DiskName {
    DiskName::numbered(DiskRole::Data, 0)
}

fn frozen(bench: &Bench) -> bool {
    let book = bench.world.book();
    let pair = &book.disks[&data0()];
    pair.get(pair.authority.other()).role == LegRole::Frozen
}

// The copies stay after the split, held like everything else there; the leg below is frozen, so the mirror rests.
#[test]
fn the_copies_stay_and_nothing_runs_on_them_by_itself() {
    run(|| async {
        let (bench, upgrade) = rehearsing().await;
        assert!(bench.world.on_overlays(upgrade) && frozen(&bench));
        let bound = bench.world.copy_limit(upgrade);
        assert_eq!(bound, Some(REHEARSAL_COPY_BYTES));
        let status = bench.system().rehearsal().await.expect("a rehearsal");
        assert_eq!(status.units, ["db.service", "web.service"]);
        assert!(status.running.is_empty(), "{status:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(frozen(&bench), "the keeper leaves it alone");
        assert_eq!(bench.status().line(), "Production Side | Split | Ready");
    });
}

// What the applications write goes to the copy: the users' data go on meanwhile, and after the merge there is nothing of it.
#[test]
fn what_a_rehearsal_writes_ends_with_it() {
    run(|| async {
        let (mut bench, upgrade) = rehearsing().await;
        let production = bench.world.serving().expect("serves");
        let status = bench.system().rehearse(true).await.expect("starts");
        assert_eq!(status.running, ["db.service", "web.service"]);
        for _ in 0..100 {
            assert!(bench.world.guest_write(upgrade, &data0()));
        }
        assert_eq!(bench.world.serving(), Ok(production));
        let status = bench.system().rehearse(false).await.expect("stops");
        assert!(status.running.is_empty(), "{status:?}");
        assert!(
            bench.world.on_overlays(upgrade),
            "stopping keeps the copies"
        );
        bench.system().rehearse(true).await.expect("starts again");
        bench.world.clear_trace();
        expect(bench.command(Command::Merge).await, S::Merge);
        let trace = bench.world.trace();
        let at = |call: &str| {
            let call = format!("{call}.{upgrade}");
            let found = trace.iter().position(|c| c.starts_with(&call));
            found.unwrap_or_else(|| panic!("{call}"))
        };
        assert!(at("guest.lower") < at("guest.stop") && at("guest.stop") < at("guest.close_data"));
        assert!(at("guest.close_data") < at("disk.unplug"));
        assert_eq!(bench.world.serving(), Ok(upgrade));
        assert!(!bench.world.on_overlays(upgrade) && !frozen(&bench));
        bench.check().expect("every invariant");
        expect(bench.command(Command::Commit).await, S::Commit);
        bench.duplex().await.expect("in sync");
        bench.check().expect("every invariant");
    });
}

// A copy has a bound, and a full one is the guest's trouble only.
#[test]
fn a_full_copy_harms_nobody_else() {
    run(|| async {
        let mut bench = duplexed().await;
        bench.config.rehearsal = true;
        bench
            .world
            .set_options(|o| o.copy_room = Some(3 * BLOCK_BYTES));
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        let production = bench.world.serving().expect("serves");
        bench.system().rehearse(true).await.expect("starts");
        let taken = (0..50).filter(|_| bench.world.guest_write(upgrade, &data0()));
        assert!(taken.count() < 50, "it was never full");
        assert_eq!(bench.world.serving(), Ok(production));
        bench.check().expect("every invariant");
        expect(bench.command(Command::Abort).await, S::Abort);
        bench.duplex().await.expect("in sync");
    });
}

// Only in Split, only in a session that says so, only while nothing else is done.
#[test]
fn elsewhere_a_rehearsal_is_refused() {
    run(|| async {
        let refused = |result: Result<_, flipside_model::Problem>| {
            let result: Result<flipside_model::api::RehearsalStatus, _> = result;
            assert_eq!(result.expect_err("refused").code, ProblemCode::Refused);
        };
        let mut bench = duplexed().await;
        refused(bench.system().rehearse(true).await);
        expect(bench.command(Command::Split).await, S::Split);
        refused(bench.system().rehearse(true).await);
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        bench.duplex().await.expect("in sync");
        bench.config.rehearsal = true;
        expect(bench.command(Command::Split).await, S::Split);
        bench.system().rehearse(true).await.expect("here it is");
        expect(bench.command(Command::Merge).await, S::Merge);
        refused(bench.system().rehearse(true).await);
        refused(bench.system().rehearsal().await);
    });
}

// The readiness check says what it costs, and asks for the room.
#[test]
fn what_a_rehearsal_costs_is_said_before_it() {
    run(|| async {
        let mut bench = duplexed().await;
        bench.config.rehearsal = true;
        expect(bench.command(Command::Check).await, S::Idle);
        let warned = bench.system().entries_after(0).iter().any(|e| {
            matches!(&e.record, Record::Log { text, .. } if text.contains("in a rehearsal each data disk has one leg"))
        });
        assert!(warned);
        bench
            .world
            .set_facts(|facts| facts.state_free_bytes = 1 << 30);
        let problem = breaks(&mut bench, Command::Check, S::Idle).await;
        assert!(problem.contains("1 error"), "{problem}");
    });
}

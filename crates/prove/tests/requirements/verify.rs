//! Comparing both legs of a disk on line.

use super::{duplexed, expect};
use flipside_model::{Command, DiskName, Leg, ProblemCode, UpgradeState as S};
use flipside_prove::{Bench, run};

fn data() -> DiskName {
    DiskName::new("data0").expect("a name")
}

async fn verify(bench: &Bench, repair: bool) -> (u64, Option<Leg>) {
    let system = bench.system().clone();
    let found = system.verify(&data(), repair, &|_| {}).await;
    let found = found.expect("compared");
    (found.different_bytes, found.repairing)
}

// Fault 20: a flipped bit is found on either leg, is not touched without being asked to, and is repaired from the leg that
// decides; no write is lost on the way.
#[test]
fn a_silent_flip_is_found_and_repaired() {
    run(|| async {
        let mut bench = duplexed().await;
        let authority = bench.world.book().disks[&data()].authority;
        assert_eq!(verify(&bench, true).await, (0, None));
        bench.world.flip(&data(), authority.other(), 3);
        let (different, repairing) = verify(&bench, false).await;
        assert!(different > 0 && repairing.is_none());
        assert!(
            bench.world.differing_bytes(&data()) > 0,
            "it was only looked at"
        );
        let (_, repairing) = verify(&bench, true).await;
        assert_eq!(repairing, Some(authority.other()));
        assert!(!bench.world.book().disks[&data()].duplexed());
        bench.duplex().await.expect("duplexed");
        assert_eq!(verify(&bench, false).await, (0, None));
        bench.check().expect("invariants");
        assert!(bench.world.client_ok());
    });
}

// While the legs are apart there is nothing to compare, and a disk that is not there is named.
#[test]
fn what_cannot_be_compared_is_refused() {
    run(|| async {
        let mut bench = duplexed().await;
        let system = bench.system().clone();
        let unknown = DiskName::new("data7").expect("a name");
        let problem = system.verify(&unknown, false, &|_| {}).await;
        let problem = problem.expect_err("no such disk");
        assert_eq!(problem.code, ProblemCode::NotFound);
        assert!(problem.advice.unwrap_or_default().contains("data0"));
        expect(bench.command(Command::Split).await, S::Split);
        let apart = DiskName::new("system0").expect("a name");
        let problem = system.verify(&apart, true, &|_| {}).await;
        assert_eq!(problem.expect_err("apart").code, ProblemCode::Refused);
        bench.check().expect("invariants");
    });
}

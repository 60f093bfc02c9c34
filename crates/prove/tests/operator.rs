//! What administrators, time and old backups do to a session, on the simulated backend.

use flipside_engine::Request;
use flipside_model::api::PowerAction;
use flipside_model::{
    Command, OperationalState as O, Problem, ProblemCode, ServiceName, UpgradeConfig,
    UpgradeState as S,
};
use flipside_prove::ways::{Way, all_is_well, story};
use flipside_prove::{Bench, End, run};
use std::time::Duration;
use tokio::time::Instant;

/// Ten years.
const DECADE_MS: i64 = 10 * 365 * 24 * 3_600 * 1_000;

async fn at_work() -> Bench {
    let mut bench = Bench::new(1, 1).await;
    bench.power_on().await;
    bench
}

#[track_caller]
fn ends(end: Result<End, Problem>, state: S) {
    assert_eq!(end, Ok(End::State(state, O::Ready, None)));
}

fn asks(bench: &Bench, command: Command) -> Request {
    Request {
        command,
        config: Some(Some(("test.Config".to_owned(), bench.config.clone()))),
    }
}

// Faults 5 and 64: two administrators at once.
#[test]
fn of_two_administrators_one_splits() {
    run(|| async {
        let mut bench = at_work().await;
        let system = bench.system().clone();
        let (one, two) = tokio::join!(
            system.request(asks(&bench, Command::Split)),
            system.request(asks(&bench, Command::Split)),
        );
        let refused = [&one, &two].into_iter().filter_map(|r| r.as_ref().err());
        let codes: Vec<ProblemCode> = refused.map(|p| p.code).collect();
        assert_eq!(codes, [ProblemCode::Refused], "{one:?} {two:?}");
        bench.settled().await;
        assert_eq!(bench.world.machines().len(), 2, "it was split once");
        ends(bench.command(Command::Abort).await, S::Abort);
    });
}

// Fault 64: a request that comes again finds another state than the one it was made for, also in a later session.
#[test]
fn a_request_that_comes_again_is_refused() {
    run(|| async {
        let mut bench = at_work().await;
        let system = bench.system().clone();
        let mut seen = Vec::new();
        for (command, state) in [
            (Command::Split, S::Split),
            (Command::Abort, S::Abort),
            (Command::Finish, S::Idle),
        ] {
            let before = bench.status().last_seq;
            seen.push((command, before));
            let accepted = system
                .request_seen(asks(&bench, command), Some(before))
                .await;
            accepted.expect("nobody moved it");
            assert_eq!(bench.settled().await, End::State(state, O::Ready, None));
        }
        bench.duplex().await.expect("duplexed");
        ends(bench.command(Command::Split).await, S::Split);
        let now = bench.status().last_seq;
        for (command, before) in seen {
            let again = system
                .request_seen(asks(&bench, command), Some(before))
                .await;
            let problem = again.expect_err("an old request");
            assert_eq!(problem.code, ProblemCode::Refused, "{command}: {problem}");
        }
        assert_eq!(bench.status().last_seq, now, "nothing was even recorded");
        // One that knows the session aborts it, whatever has happened in it meanwhile.
        let session = system
            .request_seen(asks(&bench, Command::Abort), Some(now))
            .await;
        session.expect("it is meant");
        assert_eq!(bench.settled().await, End::State(S::Abort, O::Ready, None));
    });
}

// Fault 65, invariant 20: a session keeps the configuration it began with.
#[test]
fn a_session_uses_the_configuration_it_began_with() {
    run(|| async {
        let mut bench = at_work().await;
        ends(bench.command(Command::Split).await, S::Split);
        let upgrade = bench.system().machine_for(None).expect("the Upgrade Side");
        bench.world.install(upgrade, "2.0").expect("installs");
        bench.world.clear_trace();
        // Somebody edits the file and sends it along.
        let edited = UpgradeConfig {
            services: vec![ServiceName::new("other.service").expect("valid")],
            ..UpgradeConfig::none()
        };
        let request = Request {
            command: Command::Merge,
            config: Some(Some(("edited.Config".to_owned(), edited))),
        };
        bench
            .system()
            .clone()
            .request(request)
            .await
            .expect("accepted");
        assert_eq!(bench.settled().await, End::State(S::Merge, O::Ready, None));
        assert_eq!(bench.status().config.as_deref(), Some("test.Config"));
        assert_eq!(bench.version().as_deref(), Some("2.0"));
        assert!(
            bench.world.client_ok(),
            "the services of the first file were started"
        );
        ends(bench.command(Command::Commit).await, S::Commit);
        ends(bench.command(Command::Finish).await, S::Idle);
    });
}

// Fault 68: the wall clock jumps ten years at any changing call; the way ends as always, in the same order of records.
#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    for (way, jump) in [
        (Way::Commit, DECADE_MS),
        (Way::Commit, -DECADE_MS),
        (Way::AbortInMerge, -DECADE_MS),
    ] {
        let effects = told(way, None).expect("without a jump");
        for at in (1..=effects).step_by(3) {
            if let Err(why) = told(way, Some((at, Disturbance::Jump(jump)))) {
                panic!("{way:?}, {jump} ms at call {at}: {why}");
            }
        }
    }
}

// Fault 4: nobody on the host gets any time for a minute, at any changing call.
#[test]
fn a_minute_without_time_harms_nobody() {
    for way in Way::CORE {
        let effects = told(way, None).expect("without a pause");
        for at in (1..=effects).step_by(2) {
            if let Err(why) = told(way, Some((at, Disturbance::Starve))) {
                panic!("{way:?}, starved at call {at}: {why}");
            }
        }
    }
}

/// What disturbs a way at a call.
#[derive(Clone, Copy)]
enum Disturbance {
    Jump(i64),
    Starve,
}

/// Tells a way; returns the number of its changing calls.
fn told(way: Way, disturbed: Option<(u64, Disturbance)>) -> Result<u64, String> {
    run(|| async {
        let mut bench = at_work().await;
        bench.world.clear_trace();
        if let Some((at, what)) = disturbed {
            let (bell, world) = (bench.world.ring_at(at), bench.world.clone());
            tokio::spawn(async move {
                bell.notified().await;
                match what {
                    Disturbance::Jump(ms) => world.jump_clock(ms),
                    Disturbance::Starve => {
                        let long = Duration::from_secs(60);
                        world.starve_until(Instant::now() + long);
                        tokio::time::advance(long).await;
                    }
                }
            });
        }
        story(&mut bench, way).await?;
        let entries = bench.system().entries_after(0);
        let ordered = entries.windows(2).all(|two| two[0].seq + 1 == two[1].seq);
        if !ordered {
            return Err("the records are not in order".to_owned());
        }
        let effects = bench.world.calls().iter().filter_map(|c| c.effect).max();
        Ok(effects.unwrap_or(0))
    })
}

// Power is nobody's business while an operation starts and ends machines itself.
#[test]
fn power_is_refused_while_an_operation_runs() {
    run(|| async {
        let mut bench = at_work().await;
        for (command, state) in [
            (Command::Split, S::Split),
            (Command::Merge, S::Merge),
            (Command::Abort, S::Abort),
            (Command::Finish, S::Idle),
        ] {
            assert!(bench.send(command).await.expect("accepted"));
            assert_eq!(bench.status().operational_state, O::Busy);
            for action in [PowerAction::Start, PowerAction::Stop, PowerAction::Kill] {
                let refused = bench.system().power(action).await.expect_err("refused");
                assert_eq!(refused.code, ProblemCode::Refused);
                let said = refused.to_string();
                assert!(
                    said.contains("an operation runs") && refused.advice.is_some(),
                    "{said}"
                );
            }
            assert_eq!(bench.settled().await, End::State(state, O::Ready, None));
        }
        all_is_well(&mut bench, "1.0")
            .await
            .expect("as if nothing was asked");
    });
}

/// Starts the server on what is there now; it must refuse, and nobody may notice.
async fn refuses_an_older_copy(bench: &mut Bench, of: &str) {
    bench.bury();
    let machines = bench.world.machines();
    bench.world.clear_trace();
    let problem = match bench.start_server().await {
        Err(problem) => problem,
        Ok(()) => panic!("an older {of} was accepted"),
    };
    assert_eq!(problem.code, ProblemCode::Mismatch, "{problem}");
    assert!(
        problem
            .to_string()
            .contains(&format!("the {of} is an older copy")),
        "{problem}"
    );
    let effects = bench
        .world
        .calls()
        .into_iter()
        .filter(|c| c.effect.is_some());
    // Reading a journal makes durable what it reads; nothing is written to it.
    let changed: Vec<String> = effects
        .map(|c| c.name)
        .filter(|name| name != "journal.sync")
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(bench.world.machines(), machines);
    assert!(bench.world.client_ok(), "production goes on");
}

// Fault 14: a backup of the journal or of the leg book is restored while the system has gone on.
#[test]
fn an_older_journal_or_leg_book_is_refused() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        let mut journals = vec![bench.disk.contents()];
        let mut books = vec![bench.world.book()];
        bench.power_on().await;
        for command in [
            Command::Split,
            Command::Merge,
            Command::Commit,
            Command::Finish,
        ] {
            let new = (bench.disk.contents(), bench.world.book());
            for old in &journals {
                bench.disk.set_contents(old);
                refuses_an_older_copy(&mut bench, "journal").await;
            }
            bench.disk.set_contents(&new.0);
            for old in &books {
                bench.world.restore_book(old.clone());
                refuses_an_older_copy(&mut bench, "leg book").await;
            }
            bench.world.restore_book(new.1.clone());
            bench
                .start_server()
                .await
                .expect("the newest files are back");
            if command == Command::Split {
                // From before this session, with the machine that serves now.
                journals.push(new.0);
                books.push(new.1);
            }
            let end = bench.command(command).await;
            assert!(matches!(end, Ok(End::State(_, O::Ready, None))), "{end:?}");
            if command == Command::Split {
                let upgrade = bench.system().machine_for(None).expect("the Upgrade Side");
                bench.world.install(upgrade, "2.0").expect("installs");
            }
        }
        all_is_well(&mut bench, "2.0").await.expect("whole again");
    });
}

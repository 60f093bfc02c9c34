//! Which states a session takes, and what it touches when nothing goes wrong.

use super::*;

// SM-06, SM-07, SM-10, SM-11, SM-12: one command each, and PrepareSplit and PrepareMerge go on by themselves.
// SB-08, SB-09, SB-10, SB-11, SB-12, SB-13, SB-15, SB-16, SB-17: a stage is named when it begins (Busy), not when it is reached (Ready).
#[test]
fn a_committed_session_enters_these_states() {
    run(|| async {
        let (mut bench, _) = merged().await;
        expect(bench.command(Command::Commit).await, S::Commit);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(
            entered(&bench),
            [
                (S::Idle, O::Busy),
                (S::Idle, O::Ready),
                (S::PrepareSplit, O::Busy),
                (S::Split, O::Busy),
                (S::Split, O::Ready),
                (S::PrepareMerge, O::Busy),
                (S::Merge, O::Busy),
                (S::Merge, O::Ready),
                (S::Commit, O::Busy),
                (S::Commit, O::Ready),
                (S::Finish, O::Busy),
                (S::Idle, O::Ready),
            ]
        );
    });
}

// SM-15, SB-14, AB-13, FN-01: Abort, then Finish, as after Commit.
#[test]
fn an_aborted_session_enters_these_states() {
    run(|| async {
        let (mut bench, _) = merged().await;
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(bench.status().line(), "Fault Tolerant | Abort | Ready");
        assert_eq!(bench.status().allowed, [Command::Finish]);
        expect(bench.command(Command::Finish).await, S::Idle);
        let states = entered(&bench);
        assert_eq!(
            states[states.len() - 5..],
            [
                (S::Merge, O::Ready),
                (S::Abort, O::Busy),
                (S::Abort, O::Ready),
                (S::Finish, O::Busy),
                (S::Idle, O::Ready),
            ]
        );
    });
}

// SM-05, SM-22: any number of checks; no session, no lock, nothing touched.
#[test]
fn a_check_is_not_a_session_and_changes_nothing() {
    run(|| async {
        let mut bench = duplexed().await;
        let production = bench.world.serving().expect("serves");
        bench.world.clear_trace();
        for _ in 0..3 {
            expect(bench.command(Command::Check).await, S::Idle);
            assert_eq!(bench.status().session, None);
            assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
        }
        let changing = [
            "machine.",
            "disk.",
            "guest.st",
            "guest.hold",
            "network.hold",
        ];
        let looks = ["machine.observe", "guest.startup"];
        let mut touched = touched(&bench, &changing, production);
        touched.retain(|name| !looks.iter().any(|l| name.starts_with(l)));
        assert!(touched.is_empty(), "{touched:?}");
        assert!(bench.world.book().duplexed());
        expect(bench.command(Command::Split).await, S::Split);
    });
}

// SP-20, SM-24, MG-08: the Upgrade Side is a running copy, and is not restarted by the merge either.
// MG-09: the outage is measured, from outside and from inside. SM-26, SP-02, SP-06, MG-18: who has the live data and
// the network. SB-05, SB-06, SB-20.
#[test]
fn neither_split_nor_merge_boots_anything() {
    run(|| async {
        let mut bench = duplexed().await;
        assert_eq!(bench.status().line(), "Fault Tolerant | Idle | Ready");
        let production = bench.world.serving().expect("serves");
        let guest = bench.system().ports().guest.clone();
        let first = guest.ping(production).await.expect("answers").boot_id;
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        let forked = guest.ping(upgrade).await.expect("answers").boot_id;
        assert_eq!(forked, first, "a fork, not a boot");
        assert_eq!(bench.world.serving(), Ok(production));
        assert_eq!(data_leg(&bench, production), Some(Leg::A));
        assert_eq!(data_leg(&bench, upgrade), None);
        assert!(bench.world.view(production).link_up && !bench.world.view(upgrade).link_up);
        let status = bench.system().fresh_status().await;
        assert_eq!(status.line(), "Production Side | Split | Ready");
        assert_eq!(
            status.partner_state.map(|p| p.to_string()).as_deref(),
            Some("OS Up")
        );
        assert!(status.pause_ms.is_some());
        expect(bench.command(Command::Merge).await, S::Merge);
        assert_eq!(bench.world.serving(), Ok(upgrade));
        assert_eq!(data_leg(&bench, upgrade), Some(Leg::A));
        let after = guest.ping(upgrade).await.expect("answers").boot_id;
        assert_eq!(after, first, "no restart at merge");
        let status = bench.system().fresh_status().await;
        assert!(status.outage_ms.is_some() && status.outage_inside_ms.is_some());
        assert_eq!(status.partner_state, None);
    });
}

// SM-27, SM-28: the session outlives whoever watches it, in every state that waits for a command.
#[test]
fn a_session_survives_the_end_of_its_server() {
    run(|| async {
        let mut bench = duplexed().await;
        for (command, state) in [
            (Command::Split, S::Split),
            (Command::Merge, S::Merge),
            (Command::Commit, S::Commit),
        ] {
            expect(bench.command(command).await, state);
            let before = bench.system().fresh_status().await;
            let log = bench.system().entries_after(0);
            bench.world.crash_server();
            bench.revive().await.expect("starts");
            let after = bench.system().fresh_status().await;
            assert_eq!(after.line(), before.line());
            assert!(after.session.is_some());
            assert_eq!(after.session, before.session);
            assert_eq!(after.config.as_deref(), Some("test.Config"));
            assert_eq!(after.allowed, before.allowed);
            assert_eq!(bench.system().entries_after(0)[..log.len()], log);
        }
    });
}

// FN-06: the next session uses the same configuration; FN-10: nothing of the last one is left but the log.
#[test]
fn after_finish_the_next_session_has_the_same_configuration() {
    run(|| async {
        let mut bench = duplexed().await;
        expect(bench.command(Command::Split).await, S::Split);
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(bench.status().session, None);
        assert_eq!(bench.world.machines().len(), 1);
        assert_eq!(bench.world.carried(), []);
        bench.duplex().await.expect("duplexed");
        let system = bench.system().clone();
        let request = Request {
            command: Command::Split,
            config: None,
        };
        let accepted = system.request(request).await.expect("accepted");
        assert_eq!(accepted.config.as_deref(), Some("test.Config"));
        assert_eq!(bench.settled().await, ready(S::Split));
    });
}

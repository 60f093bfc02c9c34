//! What goes on while the system is divided: the users on the one side, an administrator on the other.

use super::sides::{LONG, divided, partner_is};
use super::*;
use flipside_backend_sim::GuestFault;
use flipside_platform::ExecRequest;

fn program(words: &[&str]) -> ExecRequest {
    ExecRequest {
        argv: words.iter().map(|w| (*w).to_owned()).collect(),
        env: Vec::new(),
        timeout: None,
    }
}

// US-28, US-02: whatever the administrator does on the Upgrade Side, the users' writes are taken, and Abort is allowed; one
// that is asked for in the middle is done.
#[test]
fn the_users_are_served_and_an_abort_is_open_whatever_is_done_on_the_upgrade_side() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let production = bench.world.serving().expect("serves");
        let open = |bench: &Bench| {
            assert_eq!(bench.world.serving(), Ok(production));
            assert!(bench.status().allowed.contains(&Command::Abort));
        };
        open(&bench);
        bench.world.install(upgrade, "2.0").expect("installs");
        open(&bench);
        let guest = bench.system().ports().guest.clone();
        let installer = program(&["sleep", "1000"]);
        guest.exec_start(upgrade, &installer).await.expect("starts");
        open(&bench);
        let before = bench.world.acknowledged();
        bench.world.set_options(|o| {
            o.firmware = Duration::from_secs(2);
            o.boot = Duration::from_secs(6);
        });
        bench.world.guest_reboot(upgrade);
        for state in ["BIOS POST", "OS Booting"] {
            bench
                .until(LONG, |b| {
                    open(b);
                    b.status()
                        .partner_state
                        .is_some_and(|p| p.to_string() == state)
                })
                .await;
        }
        assert!(bench.world.acknowledged() >= before);
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(bench.world.serving(), Ok(production));
    });
}

// US-25: a side that has booted may refuse a connection for a while; that is nobody's error, and the next one works.
#[test]
fn a_connection_that_fails_after_a_restart_is_no_error() {
    run(|| async {
        let (bench, upgrade) = divided().await;
        let errors = |bench: &Bench| bench.status().problem.clone();
        let after = bench.status().last_seq;
        let silent = GuestFault::AgentSilent;
        bench.world.guest_fault(Some(upgrade), silent);
        let guest = bench.system().ports().guest.clone();
        let login = program(&["true"]);
        assert!(guest.exec_start(upgrade, &login).await.is_err());
        assert_eq!(bench.status().line(), "Production Side | Split | Ready");
        assert_eq!(errors(&bench), None);
        bench.world.clear_guest_faults();
        assert!(guest.exec_start(upgrade, &login).await.is_ok());
        partner_is(&bench, "OS Up").await;
        let told = bench.system().entries_after(after);
        let severe = |record: &Record| matches!(record, Record::Log { severity, .. } if *severity > flipside_model::Severity::Information);
        assert!(!told.iter().any(|e| severe(&e.record)), "{told:?}");
    });
}

// US-11: who is logged on to the Upgrade Side stays so through the merge: what runs there runs on, where the users are now.
#[test]
fn what_runs_on_the_upgrade_side_runs_on_through_the_merge() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let guest = bench.system().ports().guest.clone();
        let session = program(&["sleep", "100000"]);
        let handle = guest.exec_start(upgrade, &session).await.expect("starts");
        expect(bench.command(Command::Merge).await, S::Merge);
        assert_eq!(bench.world.serving(), Ok(upgrade));
        let output = guest.exec_poll(upgrade, handle).await.expect("is there");
        assert_eq!(output.exit, None);
        expect(bench.command(Command::Commit).await, S::Commit);
        let output = guest.exec_poll(upgrade, handle).await.expect("is there");
        assert_eq!(output.exit, None);
    });
}

// AL-19: the log on the Upgrade Side has the entries that the log on the host has of this session.
#[test]
fn the_log_on_the_upgrade_side_has_the_same_entries() {
    run(|| async {
        let (bench, upgrade) = divided().await;
        let entries = bench.system().entries_after(0);
        let opened = |record: &Record| matches!(record, Record::Session { .. });
        let from = entries.iter().rposition(|e| opened(&e.record));
        let texts: Vec<String> = entries[from.expect("a session")..]
            .iter()
            .filter_map(|e| match &e.record {
                Record::Log { text, .. } => Some(text.clone()),
                Record::Intent { title, .. } => Some(title.clone()),
                _ => None,
            })
            .collect();
        assert!(texts.len() > 5, "{texts:?}");
        let all = |b: &Bench| {
            let notice = b.world.notice(upgrade);
            notice.is_some_and(|n| texts.iter().all(|text| n.log.contains(text.as_str())))
        };
        bench.until(LONG, all).await;
    });
}

// SB-04, RS-06: the Hardware State speaks of the running system, and not of disks that are brought back into sync; the
// departure from lockstep is told in docs/departures.md.
#[test]
fn the_hardware_state_is_not_about_mirrors() {
    run(|| async {
        let (mut bench, _) = divided().await;
        assert_eq!(bench.status().line(), "Production Side | Split | Ready");
        stop_mirrors(&bench);
        expect(bench.command(Command::Abort).await, S::Abort);
        let status = bench.status();
        assert_eq!(status.line(), "Fault Tolerant | Abort | Ready");
        let open = |m: &MirrorStatus| *m != MirrorStatus::None;
        assert!(
            status.disks.iter().all(|d| open(&d.mirror)),
            "{:?}",
            status.disks
        );
        let_mirrors_go_on(&bench);
        bench.duplex().await.expect("in sync");
        assert_eq!(bench.status().line(), "Fault Tolerant | Abort | Ready");
    });
}

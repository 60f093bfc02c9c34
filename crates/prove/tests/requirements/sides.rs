//! What is seen of the Upgrade Side and done with it: its partner states, its crashes, its drive, what it shows; and what
//! must not be done on the other side.

use super::*;
use flipside_backend_sim::GuestFault;
use flipside_model::{KeySequence, ProblemCode, Severity};
use flipside_platform::RunState;
use std::path::Path;

/// Longer than any limit of a phase.
pub(super) const LONG: Duration = Duration::from_secs(700);

pub(super) async fn divided() -> (Bench, MachineId) {
    let mut bench = duplexed().await;
    expect(bench.command(Command::Split).await, S::Split);
    let upgrade = upgrade_side(&bench);
    partner_is(&bench, "OS Up").await;
    (bench, upgrade)
}

#[track_caller]
fn partner(bench: &Bench) -> String {
    let state = bench.status().partner_state;
    state.map_or_else(|| "none".to_owned(), |state| state.to_string())
}

pub(super) async fn partner_is(bench: &Bench, state: &str) {
    bench.until(LONG, |b| partner(b) == state).await;
}

/// Waits until a restart that has begun is over.
async fn partner_is_back(bench: &Bench) {
    bench.until(LONG, |b| partner(b) != "OS Up").await;
    partner_is(bench, "OS Up").await;
}

/// Every partner state that the log has told since, in order.
fn told(bench: &Bench, after: u64) -> Vec<String> {
    let entries = bench.system().entries_after(after).into_iter();
    let states = entries.filter_map(|entry| match entry.record {
        Record::Log { text, .. } => text.strip_prefix("Partner: ").map(str::to_owned),
        _ => None,
    });
    states.collect()
}

/// Warnings of the log whose text contains this, with their advice.
fn warnings(bench: &Bench, part: &str) -> Vec<(String, String)> {
    let entries = bench.system().entries_after(0).into_iter();
    let found = entries.filter_map(|entry| match entry.record {
        Record::Log {
            severity: Severity::Warning,
            text,
            detail,
            advice,
            ..
        } if text.contains(part) => Some((
            format!("{text}\n{}", detail.unwrap_or_default()),
            advice.unwrap_or_default(),
        )),
        _ => None,
    });
    found.collect()
}

// PS-04, PS-06, PS-08, PS-10, US-17, US-24, AL-22: a restart from inside is followed in status and log, and the session stays Split | Ready.
#[test]
fn a_restart_of_the_upgrade_side_is_followed() {
    run(|| async {
        let (bench, upgrade) = divided().await;
        let after = bench.status().last_seq;
        bench.world.set_options(|o| {
            o.firmware = Duration::from_secs(2);
            o.boot = Duration::from_secs(6);
        });
        bench.world.guest_goes_down(upgrade, "restart");
        partner_is(&bench, "OS Rebooting").await;
        bench.world.clear_guest_faults();
        bench.world.guest_reboot(upgrade);
        partner_is(&bench, "OS Up").await;
        assert_eq!(
            told(&bench, after),
            ["OS Rebooting", "BIOS POST", "OS Booting", "OS Up"]
        );
        assert_eq!(bench.status().line(), "Production Side | Split | Ready");
    });
}

// PS-05, PS-07, PS-09, PS-11, fault 41: whatever does not go on is `Hung: `, told with what its console showed last; and a
// merge is refused (PS-16).
#[test]
fn an_upgrade_side_that_is_stuck_is_told() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let boot = bench.world.clone();
        let stuck = |fault| bench.world.guest_fault(Some(upgrade), fault);
        stuck(GuestFault::AgentSilent);
        partner_is(&bench, "Hung: OS Up").await;
        bench.world.clear_guest_faults();
        partner_is(&bench, "OS Up").await;
        bench.world.guest_goes_down(upgrade, "restart");
        partner_is(&bench, "Hung: OS Rebooting").await;
        bench
            .world
            .guest_prints(upgrade, "Kernel panic - not syncing: no init");
        stuck(GuestFault::StuckInFirmware);
        boot.guest_reboot(upgrade);
        partner_is(&bench, "BIOS POST").await;
        partner_is(&bench, "Hung: BIOS POST").await;
        bench.world.clear_guest_faults();
        bench
            .world
            .guest_fault(Some(upgrade), GuestFault::AgentSilent);
        boot.guest_reboot(upgrade);
        partner_is(&bench, "OS Booting").await;
        partner_is(&bench, "Hung: OS Booting").await;
        let told = warnings(&bench, "Partner: Hung: OS Booting");
        assert!(told[0].0.contains("no init"), "{told:?}");
        assert!(told[0].1.contains("flipside console --tail"), "{told:?}");
        breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        expect(bench.command(Command::Abort).await, S::Abort);
    });
}

// PS-02, PS-03, PS-12, PS-13, US-20, AB-20: a shutdown is seen and told, merge and restart are refused, only the abort is left.
#[test]
fn a_shutdown_of_the_upgrade_side_leaves_the_abort_only() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        bench.world.guest_goes_down(upgrade, "shut down");
        partner_is(&bench, "OS Shutting Down").await;
        partner_is(&bench, "Hung: OS Shutting Down").await;
        bench.world.guest_shut_down(upgrade);
        partner_is(&bench, "DC On").await;
        let told = warnings(&bench, "Partner: DC On");
        assert!(told[0].1.contains("does not come back online"), "{told:?}");
        assert!(told[0].1.contains("flipside abort"), "{told:?}");
        let refused = bench.system().restart(Side::Upgrade).await;
        assert!(refused.is_err(), "it does not come back");
        bench.world.kill_machine(upgrade);
        partner_is(&bench, "DC Off").await;
        breaks(&mut bench, Command::Merge, S::PrepareMerge).await;
        expect(bench.command(Command::Abort).await, S::Abort);
    });
}

// PS-14, PS-15, PS-17, AB-11: a crash is answered by a dump and a reset; nobody of the users notices.
#[test]
fn a_crash_of_the_upgrade_side_is_saved_and_reset() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let after = bench.status().last_seq;
        bench
            .world
            .guest_prints(upgrade, "Kernel panic - not syncing: sysrq");
        bench.world.guest_panic(upgrade);
        partner_is(&bench, "State Sensitive Recovery: NMI issued").await;
        partner_is(&bench, "OS Up").await;
        let told = told(&bench, after);
        assert_eq!(told[0], "State Sensitive Recovery: NMI issued", "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some("OS Up"), "{told:?}");
        let dumps = bench.system().dumps().await.expect("listed");
        assert_eq!(dumps.len(), 1);
        assert_eq!(dumps[0].name, "Memory1.dmp");
        let crash = warnings(&bench, "has crashed");
        assert!(crash[0].0.contains("not syncing: sysrq"), "{crash:?}");
        assert!(bench.world.client_ok(), "the users are served");
        // It is well again: the session goes on, and the abort has nothing more to collect.
        expect(bench.command(Command::Abort).await, S::Abort);
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(bench.system().dumps().await, Ok(dumps), "FN-10: they stay");
    });
}

// PS-15: a reset does not help one that crashes again and again. AB-11, AB-12: it is left as it is; the abort saves its
// memory, numbered after the others, before its leg is written over.
#[test]
fn an_abort_saves_the_memory_of_a_crashed_upgrade_side() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        bench
            .world
            .guest_fault(Some(upgrade), GuestFault::AgentSilent);
        for crash in 1..=3 {
            bench.world.guest_panic(upgrade);
            bench
                .until(LONG, |b| b.world.view(upgrade).run == RunState::Running)
                .await;
            let dumps = bench.system().dumps().await.expect("listed");
            assert_eq!(dumps.len(), crash);
        }
        bench.world.guest_panic(upgrade);
        partner_is(&bench, "State Sensitive Recovery: NMI issued").await;
        tokio::time::sleep(LONG).await;
        assert_eq!(bench.world.view(upgrade).run, RunState::Panicked);
        bench.world.clear_trace();
        expect(bench.command(Command::Abort).await, S::Abort);
        let dumps = bench.system().dumps().await.expect("listed");
        assert_eq!(dumps.last().map(|d| d.name.as_str()), Some("Memory4.dmp"));
        let trace = bench.world.trace();
        let place = |call: &str| trace.iter().position(|name| name.starts_with(call));
        assert!(
            place("side.dump_memory") < place("machine.end"),
            "{trace:?}"
        );
        assert!(place("side.dump_memory").is_some());
    });
}

// AB-12: what cannot be saved is logged, and blocks nothing.
#[test]
fn a_dump_that_cannot_be_written_blocks_no_abort() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        bench.world.set_facts(|facts| facts.state_free_bytes = 0);
        bench.world.guest_panic(upgrade);
        bench
            .until(LONG, |b| !warnings(b, "too little space").is_empty())
            .await;
        partner_is(&bench, "OS Up").await;
        bench.world.plan(Fault::next(
            "side.dump_memory.*",
            FaultKind::Hang { done: false },
        ));
        bench.world.plan(Fault {
            call: At::Every("guest.crash_files.*".to_owned()),
            kind: FaultKind::FailBefore,
        });
        expect(bench.command(Command::Abort).await, S::Abort);
        assert_eq!(bench.system().dumps().await, Ok(Vec::new()));
        assert!(!warnings(&bench, "refused this call").is_empty());
    });
}

// AB-11, AB-12: the guest's own crash files are copied in Split, where nobody waits, each under the lowest free number.
#[test]
fn crash_files_of_the_guest_are_collected() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let guest = bench.system().ports().guest.clone();
        let big = vec![7; 5 << 20];
        for (path, bytes) in [
            ("/var/crash/2026/vmcore", big.as_slice()),
            ("/var/crash/app.core", b"core".as_slice()),
            ("/var/tmp/other", b"x".as_slice()),
        ] {
            let written = guest.write_file(upgrade, path, 0, bytes).await;
            written.expect("written");
        }
        expect(bench.command(Command::Abort).await, S::Abort);
        let dumps = bench.system().dumps().await.expect("listed");
        let mut kept: Vec<(&str, u64)> = dumps.iter().map(|d| (d.name.as_str(), d.bytes)).collect();
        kept.sort_unstable();
        assert_eq!(kept, [("Crash1-app.core", 4), ("Memory1.dmp", 5 << 20)]);
    });
}

// Fault 25, AB-12: while nobody serves the users, nothing is collected, though there is something.
#[test]
fn nothing_is_collected_while_users_wait() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let production = bench.world.serving().expect("serves");
        let guest = bench.system().ports().guest.clone();
        let written = guest
            .write_file(upgrade, "/var/crash/core", 0, b"core")
            .await;
        written.expect("written");
        bench.world.kill_machine(production);
        bench.world.clear_trace();
        expect(bench.command(Command::Abort).await, S::Abort);
        assert!(!bench.world.called_since(0, "guest.crash_files.*"));
        assert_eq!(bench.system().dumps().await, Ok(Vec::new()));
    });
}

// US-13, US-31, AL-20, AL-24: log and help are shown there, again after a restart and when the session moves; they are gone
// when the session is finished (FN-10).
#[test]
fn the_upgrade_side_shows_log_and_help() {
    run(|| async {
        let (mut bench, upgrade) = divided().await;
        let shows = |word: &'static str| {
            move |b: &Bench| {
                let notice = b.world.notice(upgrade);
                notice.is_some_and(|n| n.log.contains(word) || n.help.contains(word))
            }
        };
        bench.until(LONG, shows("Do not shut this side down")).await;
        bench.until(LONG, shows("Fork the running system")).await;
        let production = bench.world.serving().expect("serves");
        assert_eq!(bench.world.notice(production), None);
        bench.world.guest_reboot(upgrade);
        bench
            .until(LONG, |b| b.world.notice(upgrade).is_none())
            .await;
        bench.until(LONG, shows("Do not shut this side down")).await;
        expect(bench.command(Command::Merge).await, S::Merge);
        bench.until(LONG, shows("it is live")).await;
        bench.until(LONG, shows("Let the users in")).await;
        expect(bench.command(Command::Commit).await, S::Commit);
        bench.until(LONG, shows("only forward")).await;
        expect(bench.command(Command::Finish).await, S::Idle);
        assert_eq!(bench.world.notice(upgrade), None);
        tokio::time::sleep(LONG).await;
        assert_eq!(bench.world.notice(upgrade), None, "and it stays so");
    });
}

// US-21, US-26, US-27: an installation and a restart on the Production Side are told, each once, and nothing is prevented.
#[test]
fn what_must_not_be_done_on_production_is_told_once() {
    run(|| async {
        let (mut bench, _) = divided().await;
        let production = bench.world.serving().expect("serves");
        let looked = |b: &Bench| b.world.called_since(0, "guest.software_stamp.*");
        bench.until(LONG, looked).await;
        tokio::time::sleep(LONG).await;
        assert_eq!(warnings(&bench, "Production Side"), [], "nothing was done");
        bench.world.install(production, "1.1").expect("installs");
        let told = |part: &'static str| move |b: &Bench| !warnings(b, part).is_empty();
        bench
            .until(LONG, told("was installed on the Production Side"))
            .await;
        bench.world.guest_reboot(production);
        bench
            .until(LONG, told("of the Production Side was restarted"))
            .await;
        // Also a server that starts anew says it once only.
        bench.world.crash_server();
        bench.revive().await.expect("starts");
        tokio::time::sleep(LONG).await;
        let installed = warnings(&bench, "was installed on the Production Side");
        assert_eq!(installed.len(), 1, "{installed:?}");
        assert!(installed[0].0.contains("software"), "{installed:?}");
        assert!(
            installed[0].1.contains("is lost at the commit"),
            "{installed:?}"
        );
        assert_eq!(warnings(&bench, "was restarted").len(), 1);
    });
}

// US-23, US-21, PR-12: Ctrl-Alt-Del restarts the Upgrade Side; on the Production Side it is refused while the system is divided.
#[test]
fn keys_reach_the_upgrade_side_only() {
    run(|| async {
        let (bench, upgrade) = divided().await;
        let system = bench.system().clone();
        let guest = system.ports().guest.clone();
        let first = guest.ping(upgrade).await.expect("answers").boot_id;
        let keys = KeySequence::CtrlAltDel;
        let refused = system.send_keys(Some(Side::Production), keys).await;
        assert_eq!(refused.map_err(|p| p.code), Err(ProblemCode::Refused));
        assert_eq!(system.send_keys(None, keys).await, Ok(Side::Upgrade));
        partner_is_back(&bench).await;
        let again = guest.ping(upgrade).await.expect("answers").boot_id;
        assert_ne!(again, first, "it was restarted");
    });
}

// The CD drive: in Idle and, in Split, on the Upgrade Side; the Upgrade Side begins with an empty one; what
// is recorded is put in again by a start.
#[test]
fn each_side_has_its_own_medium() {
    run(|| async {
        let mut bench = duplexed().await;
        let system = bench.system().clone();
        let production = bench.world.serving().expect("serves");
        let iso = |name: &str| Path::new("/sim").join(name);
        let wrong = system.insert_medium(None, &iso("x.txt")).await;
        assert!(wrong.is_err(), "not an image");
        let one = system.insert_medium(None, &iso("one.iso")).await;
        assert_eq!(one.expect("inserted").side, Side::Production);
        expect(bench.command(Command::Split).await, S::Split);
        let upgrade = upgrade_side(&bench);
        assert_eq!(bench.world.medium(upgrade), None, "it begins empty");
        system
            .insert_medium(None, &iso("two.iso"))
            .await
            .expect("inserted");
        assert_eq!(bench.world.medium(upgrade), Some(iso("two.iso")));
        assert_eq!(bench.world.medium(production), Some(iso("one.iso")));
        let refused = system.eject_medium(Some(Side::Production), false).await;
        assert_eq!(refused.map_err(|p| p.code), Err(ProblemCode::Refused));
        bench.world.guest_fault(Some(upgrade), GuestFault::CdInUse);
        let used = system.eject_medium(None, false).await;
        assert_eq!(used.map_err(|p| p.code), Err(ProblemCode::InUse));
        bench.world.guest_reboot(upgrade);
        assert_eq!(bench.world.medium(upgrade), Some(iso("two.iso")));
        bench.world.clear_guest_faults();
        partner_is_back(&bench).await;
        expect(bench.command(Command::Merge).await, S::Merge);
        let refused = system.eject_medium(Some(Side::Upgrade), false).await;
        assert_eq!(refused.map_err(|p| p.code), Err(ProblemCode::Refused));
        expect(bench.command(Command::Commit).await, S::Commit);
        expect(bench.command(Command::Finish).await, S::Idle);
        // The upgraded side is the system now, and its medium is in the drive, also after a cold start.
        use flipside_model::api::PowerAction;
        system.power(PowerAction::Stop).await.expect("stops");
        system.power(PowerAction::Start).await.expect("starts");
        bench.until(LONG, |b| b.world.client_ok()).await;
        let serving = bench.world.serving().expect("serves");
        assert_eq!(bench.world.medium(serving), Some(iso("two.iso")));
        let empty = system.eject_medium(None, false).await.expect("ejected");
        assert_eq!(empty.image, None);
        system.power(PowerAction::Stop).await.expect("stops");
        system.power(PowerAction::Start).await.expect("starts");
        bench.until(LONG, |b| b.world.client_ok()).await;
        let serving = bench.world.serving().expect("serves");
        assert_eq!(bench.world.medium(serving), None);
    });
}

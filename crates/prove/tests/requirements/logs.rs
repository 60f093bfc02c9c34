//! Log backup (area LB, RC-37, MG-06).

use super::actions::bench;
use super::*;
use flipside_model::{LogBackup, LogSelection, LogSource, Severity};

fn log(path: &str, kind: &str) -> LogSource {
    LogSource {
        log: LogSelection::from(path.to_owned()),
        kind: kind.to_owned(),
        bytes: 4096,
    }
}

async fn with_logs(directory: Option<&str>, logs: &[LogSource]) -> Bench {
    let mut bench = bench(&[], Vec::new()).await;
    bench.world.set_options(|o| o.logs = logs.to_vec());
    bench.config.log_backup = LogBackup {
        directory: directory.map(str::to_owned),
        logs: logs.iter().map(|l| l.log.clone()).collect(),
    };
    bench
}

// LB-02, LB-10, MG-06: from the Production Side, after its applications stopped and before its data was unmounted; what
// was logged since the split. A session that splits nothing saves nothing.
#[test]
fn logs_are_saved_from_production_in_the_merge() {
    run(|| async {
        let logs = [
            log("system journal", "journal"),
            log("/var/log/shop", "directory"),
        ];
        let mut bench = with_logs(Some("/srv/data0"), &logs).await;
        let production = bench.world.serving().expect("serves");
        expect(bench.command(Command::Split).await, S::Split);
        assert!(bench.world.saved_logs().is_empty());
        bench.world.clear_trace();
        expect(bench.command(Command::Merge).await, S::Merge);
        let saved = bench.world.saved_logs();
        assert_eq!(saved.len(), 1);
        assert_eq!(saved[0].machine, production);
        assert!(saved[0].marked, "since the split");
        assert_eq!(saved[0].logs.len(), 2);
        let session = bench.status().session.expect("open").to_string();
        assert_eq!(saved[0].target, format!("/srv/data0/flipside-{session}"));
        let trace = bench.world.trace();
        let at = |call: &str| {
            let call = format!("{call}.{production}");
            trace
                .iter()
                .position(|c| *c == call)
                .unwrap_or_else(|| panic!("{call}"))
        };
        assert!(at("guest.stop") < at("guest.back_up_logs"));
        assert!(at("guest.back_up_logs") < at("guest.close_data"));
        assert!(bench.status().not_saved.is_empty());
    });
}

// LB-11: a log that could not be saved keeps nobody from service, and nobody can overlook it before Commit.
#[test]
fn a_failed_copy_is_seen_before_commit() {
    run(|| async {
        let logs = [
            log("system journal", "journal"),
            log("/var/log/shop", "broken"),
        ];
        let mut bench = with_logs(Some("/srv/data0"), &logs).await;
        expect(bench.command(Command::Split).await, S::Split);
        assert!(bench.status().not_saved.is_empty());
        expect(bench.command(Command::Merge).await, S::Merge);
        assert_eq!(
            bench.status().not_saved,
            ["/var/log/shop: input/output error"]
        );
        let warned = bench.system().entries_after(0).iter().any(|e| {
            matches!(&e.record, Record::Log { severity: Severity::Warning, text, .. }
                if text.contains("`/var/log/shop` was not saved"))
        });
        assert!(warned);
        assert!(bench.world.client_ok(), "the users are served");
        expect(bench.command(Command::Commit).await, S::Commit);
        assert!(bench.status().not_saved.is_empty(), "lost by now");
    });
}

// LB-11: the same when the guest does not answer at all; every selected log is told.
#[test]
pub(super) fn a_guest_that_saves_nothing_is_told_log_by_log() {
    run(|| async {
        let logs = [
            log("system journal", "journal"),
            log("/var/log/shop", "file"),
        ];
        let mut bench = with_logs(Some("/srv/data0"), &logs).await;
        expect(bench.command(Command::Split).await, S::Split);
        bench
            .world
            .plan(Fault::next("guest.back_up_logs.*", FaultKind::FailBefore));
        expect(bench.command(Command::Merge).await, S::Merge);
        assert_eq!(bench.status().not_saved.len(), 2);
    });
}

// LB-03: without a directory nothing is saved; a Warning, and told before Commit again.
#[test]
fn without_a_directory_nothing_is_saved_and_that_is_told() {
    run(|| async {
        let mut bench = with_logs(None, &[log("system journal", "journal")]).await;
        expect(bench.command(Command::Split).await, S::Split);
        assert_eq!(bench.status().warnings, 1);
        expect(bench.command(Command::Merge).await, S::Merge);
        assert!(bench.world.saved_logs().is_empty());
        assert_eq!(
            bench.status().not_saved,
            ["system journal: no directory was given"]
        );
    });
}

// RC-37, LB-04: a directory on a system disk, or one that is not there, is an Error.
#[test]
fn an_unusable_directory_is_an_error_of_the_check() {
    run(|| async {
        let logs = [
            log("system journal", "journal"),
            log("/var/log/shop", "file"),
        ];
        for directory in ["/var/log/shop", "/var/backups"] {
            let mut bench = with_logs(Some(directory), &logs).await;
            let problem = breaks(&mut bench, Command::Split, S::Idle).await;
            assert_eq!(
                problem, "the readiness check found 1 error(s)",
                "{directory}"
            );
        }
    });
}

// CA-36 in the spirit of it: a merge that was taken back saves the logs again, since they have grown.
#[test]
fn a_retried_merge_saves_the_logs_again() {
    run(|| async {
        let mut bench = with_logs(Some("/srv/data0"), &[log("system journal", "journal")]).await;
        expect(bench.command(Command::Split).await, S::Split);
        bench
            .world
            .plan(Fault::next("guest.close_data.*", FaultKind::FailBefore));
        breaks(&mut bench, Command::Merge, S::Merge).await;
        expect(bench.command(Command::Retry).await, S::Merge);
        let saved = bench.world.saved_logs();
        assert_eq!(saved.len(), 2);
        assert_eq!(
            saved[0].target, saved[1].target,
            "the later copy replaces the earlier one"
        );
    });
}

//! The activity log on the command line: sessions, one item, and saving it (against a server of the test's own).

mod fake;

use fake::{Fake, ends, entered, err, out};
use flipside_model::{
    OperationalState as O, Record, SessionId, Severity, UpgradeConfig, UpgradeState as S,
};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

/// A first session that was aborted, and a second that is open.
fn two_sessions() -> Fake {
    let fake = Fake::start();
    let mut world = fake.world();
    let error = Record::Log {
        severity: Severity::Error,
        text: "web.service did not stop".to_owned(),
        detail: Some("output \u{1b}[2J\u{202e} line 1\nline 2".to_owned()),
        component: Some("web.service".to_owned()),
        advice: Some("stop it by hand".to_owned()),
    };
    for (number, records) in [
        (
            1,
            vec![
                entered(S::Split, O::Busy),
                error,
                entered(S::Split, O::Broken),
                entered(S::Abort, O::Busy),
                entered(S::Finish, O::Busy),
                entered(S::Idle, O::Ready),
            ],
        ),
        (
            2,
            vec![entered(S::Split, O::Busy), entered(S::Split, O::Ready)],
        ),
    ] {
        world.record(entered(S::Idle, O::Busy));
        world.record(entered(S::Idle, O::Ready));
        world.record(Record::Session {
            id: SessionId(uuid::Uuid::from_u128(number)),
            config_name: Some(format!("number-{number}.Config")),
            config: Box::new(UpgradeConfig::none()),
        });
        world.record(entered(S::PrepareSplit, O::Busy));
        for record in records {
            world.record(record);
        }
    }
    drop(world);
    fake
}

// AL-21, AL-24: the log of the open session; earlier ones are kept, listed and shown.
#[test]
fn one_log_a_session_and_earlier_ones_are_kept() {
    let fake = two_sessions();
    let listed = out(&fake.run(&["log", "web", "--sessions"]));
    let rows: Vec<&str> = listed.lines().collect();
    assert_eq!(rows.len(), 3, "{listed}");
    assert!(
        rows[1].contains("aborted") && rows[1].contains("number-1.Config"),
        "{listed}"
    );
    assert!(rows[2].contains("open"), "{listed}");
    let now = out(&fake.run(&["log", "web"]));
    assert!(
        now.contains("number-2.Config") && !now.contains("number-1.Config"),
        "{now}"
    );
    let id = uuid::Uuid::from_u128(1).to_string();
    for id in ["1", &id] {
        let first = out(&fake.run(&["log", "web", "--session", id]));
        assert!(
            first.contains("number-1.Config") && !first.contains("number-2.Config"),
            "{first}"
        );
    }
    let all = out(&fake.run(&["log", "web", "--all"]));
    assert!(
        all.contains("number-1.Config") && all.contains("number-2.Config"),
        "{all}"
    );
    let none = fake.run(&["log", "web", "--session", "3"]);
    ends(&none, 2);
    assert!(
        err(&none).contains("there was no session `3`"),
        "{}",
        err(&none)
    );
    let json = out(&fake.run(&["log", "web", "--sessions", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["outcome"], "aborted");
}

// AL-11 to AL-14, security 13: the detail with the full text, defused; from one Error to the next.
#[test]
fn an_item_is_shown_with_everything_it_says() {
    let fake = two_sessions();
    let shown = out(&fake.run(&[
        "log",
        "web",
        "--item",
        "0",
        "--go",
        "next",
        "--severity",
        "Error",
    ]));
    // The first Error is the stage that broke; the item within it is the next one.
    assert!(shown.contains("✘ Split"), "{shown}");
    let id: u64 = shown
        .split("next ")
        .nth(1)
        .and_then(|t| t.lines().next())
        .and_then(|t| t.parse().ok())
        .expect("a next one");
    let shown = out(&fake.run(&["log", "web", "--item", &id.to_string()]));
    for text in [
        "Component  web.service",
        "Advice     stop it by hand",
        "    output \\u{1b}[2J\\u{202e} line 1\n    line 2",
        "Of severity Error",
        "2 Error",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let missing = fake.run(&["log", "web", "--item", "999"]);
    ends(&missing, 2);
}

// AL-16, AL-17, CA-40: saved under the name with `.xml`, for the owner and the group; nothing is replaced or followed.
#[test]
fn the_log_is_saved_and_no_file_is_replaced() {
    let fake = two_sessions();
    let path = fake.dir.path().join("saved");
    let given = path.to_str().expect("text");
    let said = out(&fake.run(&["log", "web", "--session", "1", "--export", given]));
    let file = path.with_extension("xml");
    assert!(said.contains(file.to_str().expect("text")), "{said}");
    let xml = std::fs::read_to_string(&file).expect("saved");
    let document = roxmltree::Document::parse(&xml).expect("well-formed");
    let session = document
        .descendants()
        .find(|n| n.tag_name().name() == "session");
    let session = session.expect("the session");
    assert_eq!(session.attribute("configuration"), Some("number-1.Config"));
    assert!(
        document
            .descendants()
            .any(|n| n.text() == Some("output \\u{1b}[2J\\u{202e} line 1\nline 2"))
    );
    let mode = std::fs::metadata(&file)
        .expect("saved")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777 & !0o640, 0, "{mode:o}");
    let again = fake.run(&["log", "web", "--export", given]);
    ends(&again, 2);
    assert!(err(&again).contains("exists already"), "{}", err(&again));
    assert_eq!(std::fs::read_to_string(&file).expect("kept"), xml);
    // A link to nowhere is not followed either.
    let (link, target) = (
        fake.dir.path().join("link.xml"),
        fake.dir.path().join("target"),
    );
    symlink(&target, &link).expect("a link");
    ends(
        &fake.run(&["log", "web", "--export", link.to_str().expect("text")]),
        2,
    );
    assert!(!target.exists());
    let schema = out(&fake.run(&["log", "--schema"]));
    assert!(roxmltree::Document::parse(&schema).is_ok(), "{schema}");
}

// Fault 15: a directory that is full or read-only, or is not there: told as what it is, nothing left behind, and the
// upgrade does not notice.
#[test]
fn a_log_that_cannot_be_saved_harms_nothing() {
    let fake = two_sessions();
    let directory = fake.dir.path().join("there");
    std::fs::create_dir(&directory).expect("a directory");
    let missing = fake.dir.path().join("not-there/log");
    let said = fake.run(&["log", "web", "--export", missing.to_str().expect("text")]);
    ends(&said, 1);
    assert!(err(&said).contains("cannot be saved"), "{}", err(&said));
    let permitted = Command::new("unshare").args(["--mount", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: no mount namespace is permitted here (not root); a full disk was not tested"
        );
        return;
    }
    for (options, why) in [
        ("size=4k", "No space left"),
        ("ro", "Read-only file system"),
    ] {
        // Afterwards the directory is listed, in the namespace in which alone it is mounted.
        let script = format!(
            "mount -t tmpfs -o {options} small \"$1\" && d=$1 && shift; \"$@\"; status=$?; ls -A \"$d\"; exit $status"
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&directory);
        command
            .arg(env!("CARGO_BIN_EXE_flipside"))
            .args(["log", "web", "--socket"]);
        command
            .arg(fake.socket())
            .arg("--export")
            .arg(directory.join("log"));
        let output = command.output().expect("run");
        ends(&output, 1);
        let said = err(&output);
        assert!(
            said.contains("cannot be saved") && said.contains(why),
            "{options}: {said}"
        );
        assert!(said.contains("the upgrade is not affected"), "{said}");
        assert_eq!(out(&output), "", "something was left behind");
    }
    let world = fake.world();
    let asked: Vec<&str> = world
        .asked
        .iter()
        .map(|(method, _, _)| method.as_str())
        .collect();
    assert!(asked.iter().all(|method| *method == "GET"), "{asked:?}");
}

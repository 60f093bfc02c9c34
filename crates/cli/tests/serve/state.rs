//! The state directory: other versions, lost and foreign files, no space (faults 8, 11, 14).

use crate::server::{Answer, NAME, Server, until};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files without which nothing can be trusted.
const FILES: [&str; 3] = ["system.json", "legs.json", "journal/journal.0001"];

/// A server that has a system, stopped.
fn at_rest() -> Server {
    let mut server = Server::start();
    server.create();
    server.kill();
    server
}

/// Starts the server on a damaged state; returns what it says of the system.
#[track_caller]
fn refusal(server: &mut Server, what: &str) -> String {
    server.again();
    let answer = server.ask("GET", &format!("/v1/systems/{NAME}"), "");
    assert_eq!(answer.status, 500, "{what}: {answer:?}");
    // A refused system is neither moved nor forgotten.
    let moved = server.session("check", None);
    assert_eq!(moved.status, 500, "{what}: {moved:?}");
    server.kill();
    answer.body
}

#[track_caller]
fn is_well(server: &mut Server, what: &str) {
    server.again();
    assert_eq!(server.status()["upgrade_state"], "Idle", "{what}");
    server.kill();
}

// Fault 8: an older server refuses what a newer one wrote, says so, and leaves it as it is.
#[test]
fn files_of_a_newer_flipside_are_refused_and_left() {
    let mut server = at_rest();
    for (name, ours, newer) in [
        (
            "system.json",
            "\"version\": 1",
            "\"version\": 99, \"new\": {}",
        ),
        (
            "legs.json",
            "\"version\": 1",
            "\"version\": 99, \"new\": {}",
        ),
        (
            "journal/journal.0001",
            "flipside-journal 1 ",
            "flipside-journal 99 ",
        ),
    ] {
        let path = server.file(name);
        let good = std::fs::read_to_string(&path).unwrap();
        assert!(good.contains(ours), "{name}: {good}");
        std::fs::write(&path, good.replacen(ours, newer, 1)).unwrap();
        let bad = std::fs::read(&path).unwrap();
        let said = refusal(&mut server, name);
        assert!(said.contains("99"), "{name}: {said}");
        assert_eq!(std::fs::read(&path).unwrap(), bad, "{name} was changed");
        std::fs::write(&path, good).unwrap();
        is_well(&mut server, name);
    }
}

// Fault 14: what is missing is not made anew, because that would forget a session.
#[test]
fn lost_files_are_refused() {
    let mut server = at_rest();
    for name in ["legs.json", "journal/journal.0001", "journal"] {
        let path = server.file(name);
        let kept = server.dir.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        let said = refusal(&mut server, name);
        assert!(said.contains(path.to_str().unwrap()), "{name}: {said}");
        assert!(name == "journal" || !path.exists(), "{name} was made anew");
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::rename(&kept, &path).unwrap();
        is_well(&mut server, name);
    }
}

// Fault 14, security 17: links, second names, and what others may write to.
#[test]
fn foreign_files_are_refused() {
    let mut server = at_rest();
    let kept = server.dir.path().join("kept");
    for name in FILES {
        let path = server.file(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::rename(&path, &kept).unwrap();
        symlink(&kept, &path).unwrap();
        refusal(&mut server, &format!("{name} is a link"));
        assert_eq!(
            std::fs::read(&kept).unwrap(),
            good,
            "it was written through a link"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&kept, &path).unwrap();
        refusal(&mut server, &format!("{name} has a second name"));
        std::fs::remove_file(&kept).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
        refusal(&mut server, &format!("{name} is open to others"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), good, "{name} was changed");
    }
    is_well(&mut server, "all is back");
}

// Security 20: the lock is no way to empty somebody's file.
#[test]
fn a_lock_behind_a_link_is_refused() {
    let server = at_rest();
    let victim = server.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let lock = server.state().join("server.lock");
    std::fs::remove_file(&lock).unwrap();
    symlink(&victim, &lock).unwrap();
    let output = server.command(&server.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

/// Serves on a file system of one megabyte, in a mount namespace of its own; none when this host does not permit that.
fn on_a_small_disk() -> Option<(Server, PathBuf)> {
    let mut server = Server::prepare();
    std::fs::create_dir(server.state()).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=1m,mode=700 small \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    let permitted = Command::new("unshare").args(["--mount", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: no mount namespace is permitted here (not root); fault 11 was not tested on a real disk"
        );
        return None;
    }
    command
        .arg(server.state())
        .arg(env!("CARGO_BIN_EXE_flipside"));
    command.args(server.arguments(&server.socket()));
    server.run(command, PathBuf::new());
    let inside = PathBuf::from(format!("/proc/{}/root", server.pid()));
    let state = inside.join(server.state().strip_prefix("/").unwrap());
    Some((server, state))
}

/// Leaves no byte free.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut size = 1 << 20;
    let mut content = Vec::new();
    while size > 0 {
        content.resize(content.len() + size, 1);
        if std::fs::write(&path, &content).is_err() {
            content.truncate(content.len() - size);
            size /= 2;
        }
    }
    // What was written last may have been cut short: the disk is full then, which is what was wanted.
    let _ = std::fs::write(&path, vec![1; content.len() + 4096]);
    path
}

/// A check with a configuration of some 30 KiB, which goes into the journal.
fn large_check(server: &Server) -> Answer {
    let names = (0..700).map(|n| format!("\"s{n:040}\""));
    let services = names.collect::<Vec<_>>().join(", ");
    let text = format!("version = 1\nservices = [{services}]\n");
    let config = serde_json::json!({ "path": "large.Config", "text": text });
    let body = serde_json::json!({ "command": "check", "config": config });
    server.ask(
        "POST",
        &format!("/v1/systems/{NAME}/session"),
        &body.to_string(),
    )
}

// Fault 11: refused before anything is done, told as what it is, and over when there is space again.
#[test]
fn a_full_state_directory_refuses_work_and_harms_nothing() {
    let Some((server, state)) = on_a_small_disk() else {
        return;
    };
    server.create();
    assert_eq!(server.session("check", None).status, 200);
    server.settled();
    let filler = fill(&state);
    // What is reserved already is used up first, by records of some size; then it is refused.
    let refused = until("a full disk is told", || {
        server.settled();
        Some(large_check(&server)).filter(|answer| answer.status != 200)
    });
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.body.contains("no space") && refused.body.contains("nothing was changed"),
        "{refused:?}"
    );
    let before = server.settled();
    let book = std::fs::read(state.join("systems").join(NAME).join("legs.json")).unwrap();
    assert_ne!(
        server
            .ask(
                "POST",
                &format!("/v1/systems/{NAME}/power"),
                "{\"action\":\"start\"}"
            )
            .status,
        200
    );
    assert_eq!(
        std::fs::read(state.join("systems").join(NAME).join("legs.json")).unwrap(),
        book
    );
    assert_eq!(server.status()["running"], false);
    std::fs::remove_file(filler).unwrap();
    let again = server.session("check", before["last_seq"].as_u64());
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(server.settled()["upgrade_state"], "Idle");
}

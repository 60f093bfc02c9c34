//! The commands about one side: SSH, console, keys, the CD drive, dump files, verification; against a server that says what
//! the test wants.

mod fake;

use fake::{Fake, ends, err, out};
use flipside_model::{PartnerState, Problem, ProblemCode, UpgradeState as S};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

/// A server whose system is divided, with these answers.
fn divided(canned: &[(&str, &str)]) -> Fake {
    let fake = Fake::start();
    {
        let mut world = fake.world();
        world.systems[0].upgrade_state = S::Split;
        world.systems[0].partner_state = Some(PartnerState::OsUp);
        for (path, answer) in canned {
            world
                .canned
                .insert((*path).to_owned(), (*answer).to_owned());
        }
    }
    fake
}

const ACCESS: &str =
    r#"{"side":"Upgrade","address":"127.0.0.1:4022","host_keys":["ssh-ed25519 AAAAkey"]}"#;

// US-09: the client gets port, account and the keys that the guest itself named; its exit status is ours.
#[test]
fn ssh_runs_the_hosts_client_with_known_keys() {
    let fake = divided(&[("GET access", ACCESS)]);
    let dir = fake.dir.path();
    let client = dir.join("ssh");
    std::fs::write(&client, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n").expect("written");
    std::fs::set_permissions(&client, Permissions::from_mode(0o755)).expect("made");
    let ssh = |args: &[&str]| {
        let mut command = fake.command(args);
        command
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .env("XDG_STATE_HOME", dir.join("state"));
        fake::run(command)
    };
    let output = ssh(&["ssh", "web", "--user", "me", "--", "-v", "uname", "-r"]);
    ends(&output, 7);
    let words: Vec<String> = out(&output).lines().map(str::to_owned).collect();
    assert_eq!(words[..2], ["-p", "4022"]);
    let end = ["-l", "me", "-v", "127.0.0.1", "uname", "-r"];
    assert_eq!(words[words.len() - end.len()..], end);
    assert!(
        words.contains(&"StrictHostKeyChecking=yes".to_owned()),
        "{words:?}"
    );
    assert!(words.contains(&"HostKeyAlias=web.upgrade.flipside".to_owned()));
    let known = dir.join("state/flipside/known_hosts/web.upgrade.flipside");
    let text = std::fs::read_to_string(&known).expect("kept");
    assert_eq!(text, "web.upgrade.flipside ssh-ed25519 AAAAkey\n");
    let mode = std::fs::metadata(&known)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "for its owner only");
    // A guest that does not answer now has the keys of the last time.
    fake.world().canned.insert(
        "GET access".into(),
        ACCESS.replace("\"ssh-ed25519 AAAAkey\"", ""),
    );
    let output = ssh(&["ssh", "web"]);
    assert!(out(&output).contains("StrictHostKeyChecking=yes"));
    let printed = out(&ssh(&["ssh", "web", "--print"]));
    assert!(
        printed.starts_with("Upgrade Side: SSH at 127.0.0.1 port 4022\nssh -p 4022 "),
        "{printed}"
    );
    ends(&ssh(&["ssh", "web", "--user", "-oProxyCommand=x"]), 2);
}

// Design section 7: the guest gets a port of its own loopback, on a socket of ours that is gone with the connection; what the
// server refuses is told before anybody connects.
#[test]
fn packages_are_fetched_through_a_socket_that_ends_with_the_connection() {
    let fake = divided(&[("GET access", ACCESS)]);
    let dir = fake.dir.path();
    let client = dir.join("ssh");
    let script = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nls -ld $XDG_RUNTIME_DIR/flipside-packages-*\n";
    std::fs::write(&client, script).expect("written");
    std::fs::set_permissions(&client, Permissions::from_mode(0o755)).expect("made");
    let ssh = |args: &[&str]| {
        let mut command = fake.command(args);
        command
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .env("XDG_STATE_HOME", dir.join("state"))
            .env("XDG_RUNTIME_DIR", dir);
        fake::run(command)
    };
    let output = ssh(&["ssh", "web", "--packages", "packages.example.org"]);
    ends(&output, 0);
    let printed = out(&output);
    let words: Vec<&str> = printed.lines().collect();
    let at = words.iter().position(|w| *w == "-R").expect("forwarded");
    let socket = words[at + 1]
        .strip_prefix("127.0.0.1:3128:")
        .expect("our socket");
    assert_eq!(words[at - 1], "ExitOnForwardFailure=yes");
    assert!(
        words.iter().any(|w| w.starts_with("drwx------")),
        "{words:?}"
    );
    assert!(!std::path::Path::new(socket).exists());
    assert!(
        !std::path::Path::new(socket)
            .parent()
            .expect("a folder")
            .exists()
    );
    fake.world().refuse = Some(Problem::new(ProblemCode::Refused, "fetched in Split"));
    let refused = ssh(&["ssh", "web", "--packages", "packages.example.org"]);
    ends(&refused, 3);
    assert!(!out(&refused).contains("-R"));
}

#[test]
fn the_console_is_carried_and_its_end_is_printed() {
    let fake = divided(&[("GET console/tail", "Kernel panic\r\nevil \u{1b}[2J\n")]);
    let output = fake.feed(&["console", "web", "--side", "upgrade"], "root\n");
    ends(&output, 0);
    assert_eq!(out(&output), "root\n");
    let output = fake.run(&["console", "web", "--tail"]);
    ends(&output, 0);
    assert_eq!(out(&output), "Kernel panic\nevil \\u{1b}[2J\n");
    let asked = |part: &str| {
        fake.world()
            .asked
            .iter()
            .any(|(_, path, _)| path.contains(part))
    };
    assert!(asked("console?side=Upgrade") && asked("console/tail?bytes=16384"));
}

// US-23.
#[test]
fn keys_are_named_and_nothing_else_is_sent() {
    let status = serde_json::to_string(&fake::idle("web")).expect("json");
    let fake = divided(&[("POST keys", &status)]);
    ends(&fake.run(&["keys", "ctrl-alt-del", "web"]), 0);
    assert_eq!(
        fake.world().bodies("POST"),
        [r#"{"side":null,"keys":"ctrl-alt-del"}"#]
    );
    ends(&fake.run(&["keys", "ctrl-c", "web"]), 2);
    fake.world().refuse = Some(Problem::new(ProblemCode::Refused, "never restarted"));
    ends(
        &fake.run(&["keys", "ctrl-alt-del", "web", "--side", "production"]),
        3,
    );
}

#[test]
fn media_are_named_by_their_whole_path() {
    let medium = r#"{"side":"Upgrade","image":"/x/a.iso","locked":true}"#;
    let fake = divided(&[("POST media", medium), ("GET media", medium)]);
    std::fs::write(fake.dir.path().join("a.iso"), "x").expect("written");
    let output = fake.run(&["media", "insert", "a.iso", "web"]);
    ends(&output, 0);
    assert_eq!(
        out(&output),
        "CD drive of the Upgrade Side: /x/a.iso (in use by the guest)\n"
    );
    ends(&fake.run(&["media", "eject", "web", "--force"]), 0);
    let sent: Vec<serde_json::Value> = fake
        .world()
        .bodies("POST")
        .iter()
        .map(|body| serde_json::from_str(body).expect("JSON"))
        .collect();
    let image = sent[0]["image"].as_str().expect("a path");
    assert!(
        image.starts_with('/') && image.ends_with("/a.iso"),
        "{image}"
    );
    assert_eq!(
        (&sent[1]["image"], &sent[1]["force"]),
        (&serde_json::Value::Null, &true.into())
    );
    let gone = fake.run(&["media", "insert", "gone.iso", "web"]);
    ends(&gone, 2);
    assert!(err(&gone).contains("gone.iso") && fake.world().bodies("POST").len() == 2);
}

// Design 3.5: what runs on the copies is told, and that is all that is sent.
#[test]
fn a_rehearsal_is_started_stopped_and_shown() {
    let running = r#"{"units":["db.service","web.service"],"running":["db.service"]}"#;
    let fake = divided(&[("POST rehearsal", running), ("GET rehearsal", running)]);
    let shown = "Rehearsal, on copies of the data:\n  db.service runs\n  web.service is stopped\n";
    assert_eq!(out(&fake.run(&["rehearse", "show", "web"])), shown);
    assert!(fake.world().bodies("POST").is_empty());
    assert_eq!(out(&fake.run(&["rehearse", "start", "web"])), shown);
    ends(&fake.run(&["rehearse", "stop", "web"]), 0);
    let sent = [r#"{"start":true}"#, r#"{"start":false}"#];
    assert_eq!(fake.world().bodies("POST"), sent);
    let json: serde_json::Value =
        serde_json::from_str(&out(&fake.run(&["rehearse", "show", "web", "--json"])))
            .expect("JSON");
    assert_eq!(json["running"][0], "db.service");
    fake.world().refuse = Some(Problem::new(ProblemCode::Refused, "no rehearsal"));
    ends(&fake.run(&["rehearse", "start", "web"]), 3);
}

// AB-11, VC-03 to VC-08, US-29.
#[test]
fn dumps_faults_and_the_list_are_printed() {
    let fake = divided(&[
        (
            "GET dumps",
            r#"[{"name":"Memory1.dmp","path":"/s/Memory1.dmp","bytes":1048576,"at_ms":0}]"#,
        ),
        (
            "GET packages/verify",
            r#"[{"path":"/etc/x","what":"changed","configuration":true}]"#,
        ),
        ("GET services", "[]"),
        ("GET packages/changes", "[]"),
        (
            "GET condition",
            r#"{"system":"Debian","state":"degraded","kernel":"1","newest_kernel":"2",
                "failed_units":["x.service"],"restart_needed":["kernel 2 is installed, 1 runs"]}"#,
        ),
    ]);
    let dumps = out(&fake.run(&["dumps", "web"]));
    assert_eq!(dumps, "1970-01-01 00:00:00  1.0 MiB  /s/Memory1.dmp\n");
    let faults = out(&fake.run(&["packages", "web", "--verify"]));
    assert_eq!(faults, "changed  /etc/x  configuration\n");
    let status = out(&fake.run(&["status", "web", "--side", "upgrade"]));
    assert!(
        status.contains("  failed units     x.service\n"),
        "{status}"
    );
    let list = fake.run(&["verify-list", "web"]);
    ends(&list, 0);
    let text = out(&list);
    assert!(
        text.contains("failed: x.service") && text.contains("kernel 2 is installed"),
        "{text}"
    );
    fake.world().systems[0].upgrade_state = S::Idle;
    ends(&fake.run(&["verify-list", "web"]), 3);
}

//! Commands on sides, mirrors, log and systems, against a server that says what the test wants.

mod fake;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fake::{Fake, ends, entered, err, idle, out};
use flipside_model::{
    MirrorStatus, OperationalState as O, Problem, ProblemCode, Record, UpgradeState as S,
};
use std::process::Stdio;

// Design section 6: the program's status, 125 ours, 126 not executable, 127 not found.
#[test]
fn run_passes_output_and_status_through() {
    let fake = Fake::start();
    let data = |kind: &str, text: &str| format!(r#"{{"{kind}":"{}"}}"#, STANDARD.encode(text));
    let with = |events: Vec<String>| {
        fake.world().events = events;
        fake.run(&[
            "run",
            "web",
            "--side",
            "production",
            "--",
            "prog",
            "-x",
            "a b",
        ])
    };
    let output = with(vec![
        data("out", "to out\n"),
        data("err", "to err\n"),
        r#"{"exit":7}"#.to_owned(),
    ]);
    ends(&output, 7);
    assert_eq!(
        (out(&output).as_str(), err(&output).as_str()),
        ("to out\n", "to err\n")
    );
    let asked = fake.world().bodies("POST");
    assert_eq!(
        asked[0],
        r#"{"side":"Production","argv":["prog","-x","a b"]}"#
    );
    for status in [0, 126, 127] {
        ends(&with(vec![format!(r#"{{"exit":{status}}}"#)]), status);
    }
    ends(
        &with(vec![
            r#"{"failed":{"code":"not_found","message":"no machine"}}"#.to_owned(),
        ]),
        125,
    );
    ends(
        &with(vec![
            r#"{"failed":{"code":"timed_out","message":"?"}}"#.to_owned(),
        ]),
        125,
    );
    ends(&with(Vec::new()), 125);
    fake.world().refuse = Some(Problem::new(ProblemCode::Refused, "only in Split"));
    ends(&fake.run(&["run", "web", "--", "true"]), 125);
}

#[test]
fn shell_copies_both_ways_and_names_side_and_path() {
    let fake = Fake::start();
    let output = fake.feed(&["shell", "web", "--side", "upgrade"], "uname\n~.\n");
    ends(&output, 0);
    assert_eq!(
        out(&output),
        "uname\n~.\n",
        "the escape is for terminals only"
    );
    assert!(
        fake.world()
            .asked
            .iter()
            .any(|(_, path, _)| path.contains("shell?side=Upgrade"))
    );
    let output = fake.feed(&["copy", "-", "web:/tmp/a b"], "content");
    ends(&output, 0);
    std::fs::write(fake.dir.path().join("x.deb"), vec![b'x'; 700_000]).expect("written");
    let output = fake.run(&["copy", "x.deb", "web:/var/tmp/", "--side", "upgrade"]);
    ends(&output, 0);
    let world = fake.world();
    let puts: Vec<&str> = world
        .asked
        .iter()
        .filter(|a| a.0 == "PUT")
        .map(|a| a.1.as_str())
        .collect();
    assert_eq!(
        puts,
        [
            "/v1/systems/web/file?path=/tmp/a%20b",
            "/v1/systems/web/file?side=Upgrade&path=/var/tmp/x.deb"
        ]
    );
    assert_eq!(world.bodies("PUT")[0], "content");
    assert_eq!(world.bodies("PUT")[1].len(), 700_000);
}

#[test]
fn systems_are_created_with_whole_paths() {
    let fake = Fake::start();
    std::fs::write(fake.dir.path().join("i.raw"), "x").expect("written");
    let status = serde_json::to_string(&idle("db")).expect("json");
    fake.world().events = vec![
        r#"{"progress":{"what":"copy","done_bytes":1,"total_bytes":2,"rate":1,"left_seconds":1}}"#
            .to_owned(),
        format!(r#"{{"done":{status}}}"#),
    ];
    let args = [
        "system",
        "create",
        "db",
        "--system-disk",
        "i.raw",
        "--data-disk",
        "1G",
        "--publish",
        "8080:80",
    ];
    let output = fake.run(&args);
    ends(&output, 0);
    let body: serde_json::Value =
        serde_json::from_str(&fake.world().bodies("POST")[0]).expect("JSON");
    assert_eq!(body["data_disks"][0]["size"], 1 << 30);
    assert_eq!(body["memory_mib"], 1024);
    let image = body["system_disks"][0].as_str().expect("a path");
    assert!(
        image.starts_with('/') && image.ends_with("/i.raw"),
        "{image}"
    );
    fake.world().events =
        vec![r#"{"failed":{"code":"usage","message":"not an image"}}"#.to_owned()];
    ends(&fake.run(&args), 2);
    ends(&fake.run(&["system", "stop", "web", "--yes"]), 0);
    ends(&fake.run(&["system", "delete", "web", "--yes"]), 0);
    assert!(out(&fake.run(&["system", "list"])).contains("web  running"));
}

#[test]
fn wait_ends_when_every_mirror_is_none() {
    let fake = Fake::start();
    fake.world().systems[0].disks[0].mirror = MirrorStatus::Resync(42);
    let late = fake.run(&["wait", "web", "--duplex", "--timeout", "1"]);
    ends(&late, 1);
    assert!(out(&late).contains("system0 Resync 42%"), "{}", out(&late));
    let child = fake
        .command(&["wait", "web", "--duplex"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    fake.world().asked.clear();
    fake.wait_asked("status?watch");
    fake.world().systems[0].disks[0].mirror = MirrorStatus::None;
    let output = child.wait_with_output().expect("ended");
    ends(&output, 0);
    assert!(
        out(&output).contains("every mirror is in sync"),
        "{}",
        out(&output)
    );
    fake.world().systems[0].running = false;
    ends(&fake.run(&["wait", "web", "--duplex"]), 1);
}

#[test]
fn monitoring_has_its_own_statuses() {
    let fake = Fake::start();
    let check = |status: i32, said: &str| {
        let output = fake.run(&["status", "web", "--check"]);
        ends(&output, status);
        assert!(out(&output).starts_with(said), "{}", out(&output));
    };
    check(0, "FLIPSIDE OK - web: Fault Tolerant, Idle, Ready");
    fake.world().systems[0].disks[0].mirror = MirrorStatus::Resync(3);
    check(1, "FLIPSIDE WARNING - web");
    fake.world().systems[0].operational_state = O::Broken;
    check(2, "FLIPSIDE CRITICAL - web");
    ends(&fake.run(&["status", "nope", "--check"]), 3);
}

#[test]
fn the_log_is_a_tree_lines_or_json() {
    let fake = Fake::start();
    {
        let mut world = fake.world();
        for record in [
            entered(S::Idle, O::Busy),
            Record::log(flipside_model::Severity::Warning, "evil \x1b[2J\u{202e}"),
            entered(S::Idle, O::Ready),
        ] {
            world.record(record);
        }
    }
    let text = out(&fake.run(&["log", "web"]));
    assert!(
        text.contains("Readiness check") && text.contains("  evil \\u{1b}[2J\\u{202e}"),
        "{text}"
    );
    let json = out(&fake.run(&["log", "--json", "--severity", "warning"]));
    let lines: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!((lines.len(), lines[1]["depth"].as_u64()), (2, Some(1)));
    assert!(!json.contains('\u{202e}'));
    assert!(out(&fake.run(&["log", "--severity", "Error"])).is_empty());
    assert!(
        out(&fake.run(&["log", "--color", "always"]))
            .lines()
            .count()
            == 2
    );
}

//! Configuration files from the command line: nesting, origins, editing, saving, and where files are found.

mod fake;

use fake::{Fake, ends, entered, err, flipside, out, run};
use flipside_model::api::{SessionRequest, StagedConfig};
use flipside_model::{OperationalState as O, UpgradeConfig, UpgradeState as S};
use std::path::{Path, PathBuf};
use std::process::Output;

/// A user with a home of their own, and a working directory.
struct User {
    dir: tempfile::TempDir,
}

impl User {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for place in ["work", "other", "state"] {
            std::fs::create_dir(dir.path().join(place)).expect("made");
        }
        let user = Self { dir };
        for (name, text) in files {
            user.write(name, text);
        }
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), format!("version = 1\n{text}")).expect("written");
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = flipside(args);
        command.current_dir(self.path("work"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        run(self.command(args))
    }

    fn edit(&self, editor: &str, args: &[&str]) -> Output {
        let mut command = self.command(&[&["config", "edit"], args].concat());
        command.env("EDITOR", editor);
        run(command)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("read")
}

const WEB: &str = "title = \"Shop\"\nchildren = [\"db.Config\", { file = \"x.Config\", enabled = false }]\nservices = [\"nginx\"]\n";
const DB: &str = "title = \"Database\"\ncomments = \"PostgreSQL\"\nservices = [\"postgresql\"]\n[timeouts]\nmerge = 7\n";

// CF-27, CF-32, CF-33: every value with the file and line that give it; what is not taken over is said.
#[test]
fn show_tells_where_every_value_comes_from() {
    let user = User::new(&[("work/web.Config", WEB), ("work/db.Config", DB)]);
    let shown = user.run(&["config", "show", "web"]);
    ends(&shown, 0);
    let text = out(&shown);
    let row = |text: &str, value: &str, origin: &str| {
        let found = text.lines().find(|l| l.contains(value)).map(str::trim_end);
        assert!(
            found.is_some_and(|l| l.ends_with(&format!("  {origin}"))),
            "{value}: {found:?}\n{text}"
        );
    };
    row(&text, "Shop", "web.Config:2");
    row(&text, "postgresql.service", "db.Config:4");
    row(&text, "nginx.service", "web.Config:4");
    row(&text, "split 300 s", "default");
    row(&text, "merge 300 s", "default");
    row(&text, "timeouts.merge = 7", "db.Config:6");
    row(&text, "title = Database", "db.Config:2");
    row(&text, "cron.service", "default");
    let json = user.run(&["config", "show", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["timeouts"]["merge"], 300);
    let origin = |key: &str, value: &str, origins: &serde_json::Value| {
        let mut all = origins.as_array().expect("a list").iter();
        let found = all
            .find(|o| o["key"] == key && o["value"] == value)
            .expect(value);
        format!("{} {}", found["file"], found["line"])
    };
    assert_eq!(
        origin("services", "postgresql.service", &value["origins"]),
        "\"db.Config\" 4"
    );
    assert_eq!(
        origin("timeouts.split", "300", &value["origins"]),
        "null null"
    );
    assert_eq!(
        origin("timeouts.merge", "7", &value["not_taken_over"]),
        "\"db.Config\" 6"
    );
    assert_eq!(value["files"][1]["title"], "Database");
    let check = user.run(&["config", "check", "web"]);
    assert_eq!(out(&check), "`web.Config` is valid, with db.Config\n");
}

// CF-15, CF-28, CF-31, CF-36.
#[test]
fn list_shows_titles_comments_and_children() {
    let user = User::new(&[
        ("work/web.Config", WEB),
        ("work/db.Config", DB),
        ("work/all.Config", "children = [\"web.Config\"]\n"),
        ("work/lost.Config", "children = [\"gone.Config\"]\n"),
    ]);
    let listed = user.run(&["config", "list", "."]);
    ends(&listed, 0);
    assert_eq!(
        out(&listed),
        ".\n\
         \x20 all.Config\n\
         \x20     calls web.Config\n\
         \x20     which bring db.Config\n\
         \x20 db.Config               Database\n\
         \x20     PostgreSQL\n\
         \x20 lost.Config\n\
         \x20     calls gone.Config\n\
         \x20     cannot be used: ./lost.Config:2:13: lost.Config → gone.Config: `gone.Config` does not exist\n\
         \x20 web.Config              Shop\n\
         \x20     calls db.Config, x.Config (disabled)\n"
    );
    let json = user.run(&["config", "list", ".", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["files"].as_array().expect("a list").len(), 4);
    ends(&user.run(&["config", "list", "none"]), 2);
}

// CF-03, CF-11: a file may lie in any directory, on another disk as well; whatever reads it leaves it as it is, and only an
// edit changes it.
#[test]
fn a_file_lies_anywhere_and_only_an_edit_changes_it() {
    let user = User::new(&[]);
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("another file system");
    let path = elsewhere.path().join("deep/er/web.Config");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let shown = path.to_str().expect("text");
    ends(&user.run(&["config", "new", shown]), 0);
    let made = read(&path);
    for args in [
        &["config", "check", shown][..],
        &["config", "show", shown],
        &["config", "show", shown, "--json"],
        &["config", "list", elsewhere.path().to_str().expect("text")],
    ] {
        ends(&user.run(args), 0);
        assert_eq!(read(&path), made, "{args:?}");
    }
    let fake = server();
    ends(&fake.run(&["check", "web", "--config", shown]), 0);
    assert_eq!(fake.world().bodies("POST").len(), 1);
    assert_eq!(read(&path), made);
    ends(
        &user.edit("sed -i s/^rehearsal.*/rehearsal=true/", &[shown]),
        0,
    );
    assert_ne!(read(&path), made);
}

// CF-04: the directory of the file that was opened or saved last, per user; the working directory comes first.
#[test]
fn the_directory_used_last_is_remembered_for_each_user() {
    let user = User::new(&[
        ("other/web.Config", ""),
        ("other/only.Config", "title = \"Only\"\n"),
        ("work/web.Config", ""),
    ]);
    ends(&user.run(&["config", "check", "only"]), 2);
    ends(&user.run(&["config", "check", "../other/web"]), 0);
    let found = user.run(&["config", "check", "only"]);
    ends(&found, 0);
    let other = user.path("other").canonicalize().expect("there");
    let shown = other.join("only.Config");
    assert!(
        out(&found).starts_with(&format!(
            "using `{}`, from the directory used last\n",
            shown.display()
        )),
        "{}",
        out(&found)
    );
    assert_eq!(
        out(&user.run(&["config", "check", "web"])),
        "`web.Config` is valid\n",
        "the working directory comes first"
    );
    // Opening it there has moved the memory here; saving there moves it back.
    ends(&user.run(&["config", "check", "only"]), 2);
    ends(&user.run(&["config", "new", "../other/new"]), 0);
    let listed = user.run(&["config", "list"]);
    assert!(
        out(&listed).contains("  only.Config             Only\n"),
        "{}",
        out(&listed)
    );
    // Another user has another memory; one that cannot be written is no failure.
    let stranger = User::new(&[("work/a.Config", "")]);
    ends(&stranger.run(&["config", "check", "only"]), 2);
    let mut command = stranger.command(&["config", "check", "a"]);
    command.env("XDG_STATE_HOME", "/dev/null/none");
    ends(&run(command), 0);
    // A path is taken as it is, and a directory that is gone is forgotten.
    ends(&user.run(&["config", "check", "./only"]), 2);
    std::fs::remove_dir_all(user.path("other")).expect("removed");
    ends(&user.run(&["config", "check", "only"]), 2);
}

// An edit is checked with the children, and what does not check is not saved.
#[test]
fn an_edit_is_checked_with_its_children() {
    let user = User::new(&[("work/web.Config", WEB), ("work/db.Config", DB)]);
    let file = user.path("work/web.Config");
    let before = read(&file);
    let bad = user.edit("sed -i s/db.Config/gone.Config/", &["web"]);
    ends(&bad, 2);
    let text = err(&bad);
    assert!(
        text.contains("web.Config → gone.Config: `gone.Config` does not exist"),
        "{text}"
    );
    assert!(
        text.contains("was not changed; what you typed is in"),
        "{text}"
    );
    assert_eq!(read(&file), before);
    ends(&user.edit("sed -i s/Shop/Store/", &["web"]), 0);
    assert_eq!(read(&file), before.replace("Shop", "Store"));
    assert_eq!(
        read(&user.path("work/db.Config")),
        format!("version = 1\n{DB}"),
        "CF-37"
    );
}

// CF-08, CF-25: another name, checked beside the children of its own directory.
#[test]
fn save_as_writes_a_new_file_and_replaces_none() {
    let user = User::new(&[("work/web.Config", WEB), ("work/db.Config", DB)]);
    let saved = user.edit("true", &["web", "--save-as", "two"]);
    ends(&saved, 0);
    assert_eq!(
        read(&user.path("work/two.Config")),
        read(&user.path("work/web.Config"))
    );
    let again = user.edit("true", &["web", "--save-as", "two.Config"]);
    ends(&again, 2);
    assert!(
        err(&again).contains("`two.Config` exists already"),
        "{}",
        err(&again)
    );
    // CF-29: elsewhere the child is not there.
    let elsewhere = user.edit("true", &["web", "--save-as", "../other/web"]);
    ends(&elsewhere, 2);
    assert!(
        err(&elsewhere).contains("`db.Config` does not exist"),
        "{}",
        err(&elsewhere)
    );
    assert!(!user.path("other/web.Config").exists());
}

#[test]
fn the_schema_is_printed() {
    let user = User::new(&[]);
    let schema = user.run(&["config", "schema"]);
    ends(&schema, 0);
    let value: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert!(value["properties"]["children"].is_object());
}

fn request(body: &str) -> SessionRequest {
    serde_json::from_str(body).expect("a request")
}

/// A server whose session commands are accepted and end at once.
fn server() -> Fake {
    let fake = Fake::start();
    fake.world().script = vec![entered(S::Idle, O::Busy), entered(S::Idle, O::Ready)];
    fake
}

// CF-05: the parent and all children travel as text.
#[test]
fn a_check_sends_the_file_and_everything_it_calls() {
    let fake = server();
    for (name, text) in [("web.Config", WEB), ("db.Config", DB)] {
        std::fs::write(fake.dir.path().join(name), format!("version = 1\n{text}"))
            .expect("written");
    }
    ends(&fake.run(&["check", "web", "--config", "web"]), 0);
    let bodies = fake.world().bodies("POST");
    let sent = request(&bodies[0]).config.expect("a configuration");
    assert!(sent.path.is_absolute() && sent.text.ends_with(WEB));
    let children: Vec<&str> = sent.children.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(children, ["db.Config"], "a disabled child stays here");
    assert!(sent.children[0].text.ends_with(DB));
    // A child that does not check: the server is not asked.
    std::fs::write(fake.dir.path().join("db.Config"), "version = 2").expect("written");
    ends(&fake.run(&["check", "web", "--config", "web"]), 2);
    assert_eq!(fake.world().bodies("POST").len(), 1);
}

// CF-19, CF-20: no file means no file, and says so.
#[test]
fn no_configuration_is_asked_for_by_name() {
    let fake = server();
    let output = fake.run(&["check", "web", "--no-config"]);
    ends(&output, 0);
    assert!(out(&output).contains("no configuration file"));
    let asked = request(&fake.world().bodies("POST")[0]);
    assert!(asked.no_config && asked.config.is_none());
    let none = UpgradeConfig::none();
    assert!(none.services.is_empty() && none.health.is_empty() && none.system_disks.is_empty());
    assert!(none.accept_loss.is_empty() && none.files.is_empty() && !none.rehearsal);
}

// CF-05, invariant 20. Fault 65: what the session keeps is shown, whatever became of the files since.
#[test]
fn the_staged_copy_is_shown_from_the_texts_that_the_session_keeps() {
    let fake = server();
    let dir = fake.dir.path();
    for (name, text) in [("web.Config", WEB), ("db.Config", DB)] {
        std::fs::write(dir.join(name), format!("version = 1\n{text}")).expect("written");
    }
    let (_, resolved) = flipside_config::load(&dir.join("web")).expect("valid");
    fake.world().staged = Some(StagedConfig {
        session: Some(
            serde_json::from_str("\"00000000-0000-0000-0000-000000000001\"").expect("an id"),
        ),
        name: Some("web.Config".to_owned()),
        config: resolved.staged().expect("small"),
    });
    for name in ["web.Config", "db.Config"] {
        std::fs::write(dir.join(name), "version = 1\nservices = [\"other\"]\n").expect("written");
    }
    let shown = fake.run(&["config", "show", "--staged", "web"]);
    ends(&shown, 0);
    let text = out(&shown);
    assert!(
        text.starts_with("`web.Config`, as the session keeps it\n"),
        "{text}"
    );
    assert!(
        text.contains("postgresql.service") && text.contains("db.Config:4"),
        "{text}"
    );
    assert!(!text.contains("other.service"), "{text}");
}

// SU-01, SU-02, SU-05, SU-06, DE-01, DE-02, CF-27, CF-32: what is in force, and for each item whose it is.
#[test]
fn the_summary_marks_what_is_inherited() {
    let user = User::new(&[
        (
            "work/web.Config",
            "title = \"Shop\"\ncomments = \"\"\"for shop only\nask Ann\"\"\"\nchildren = [\"db.Config\"]\nservices = [\"nginx\"]\n",
        ),
        (
            "work/db.Config",
            "title = \"Database\"\nchildren = [\"log.Config\"]\nservices = [\"postgresql\"]\n[disks]\nsystem = [\"data1\"]\n",
        ),
        (
            "work/log.Config",
            "services = [\"rsyslog\"]\n[timeouts]\nmerge = 9\n",
        ),
    ]);
    let before = read(&user.path("work/web.Config"));
    let text = out(&user.run(&["config", "summary", "web"]));
    let line = |part: &str| {
        text.lines()
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("{part}: {text}"))
            .to_owned()
    };
    for part in [
        "Shop",
        "for shop only",
        "ask Ann",
        "the mandatory system disks",
    ] {
        line(part);
    }
    assert!(line("nginx.service").ends_with("  own"), "{text}");
    assert!(
        line("postgresql.service").ends_with("inherited from db.Config"),
        "{text}"
    );
    assert!(
        line("rsyslog.service").ends_with("inherited from log.Config"),
        "{text}"
    );
    assert!(line("Database").contains("db.Config"), "{text}");
    assert!(
        line("web.Config → db.Config → log.Config").contains("log.Config"),
        "{text}"
    );
    // CF-33: what a child says about disks is none of the parent's business.
    assert!(!text.contains("data1"), "{text}");
    let json = out(&user.run(&["config", "summary", "web", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["services"][0]["value"], "rsyslog.service");
    assert_eq!(json["services"][0]["own"], false);
    assert_eq!(json["services"][2]["own"], true);
    // CF-10: to look at a file changes nothing.
    assert_eq!(read(&user.path("work/web.Config")), before);
}

// CF-25, CF-08, CF-29: a copy has a new name, replaces nothing, and must find its children beside it.
#[test]
fn a_copy_is_a_file_of_its_own() {
    let user = User::new(&[
        ("work/web.Config", "children = [\"db.Config\"]\n"),
        ("work/db.Config", "services = [\"postgresql\"]\n"),
    ]);
    let said = out(&user.run(&["config", "copy", "web", "web-2"]));
    assert!(said.contains("`web-2.Config` was written"), "{said}");
    assert_eq!(
        read(&user.path("work/web-2.Config")),
        read(&user.path("work/web.Config"))
    );
    let again = user.run(&["config", "copy", "db", "web-2"]);
    ends(&again, 2);
    assert!(err(&again).contains("exists already"), "{}", err(&again));
    assert_eq!(
        read(&user.path("work/web-2.Config")),
        read(&user.path("work/web.Config"))
    );
    // Elsewhere its child is not beside it.
    let alone = user.run(&["config", "copy", "web", "../other/web"]);
    ends(&alone, 2);
    assert!(err(&alone).contains("db.Config"), "{}", err(&alone));
    assert!(!user.path("other/web.Config").exists());
    ends(&user.run(&["config", "copy", "nothing", "x"]), 2);
}

// CF-42, PR-32: the planning worksheet, empty and filled in.
#[test]
fn the_worksheet_has_the_seven_items() {
    let user = User::new(&[(
        "work/web.Config",
        "title = \"Shop\"\nservices = [\"nginx\"]\n",
    )]);
    let items = [
        "Configuration files to use",
        "Disks to upgrade",
        "Disks that cannot be upgraded",
        "Software installation utilities to run",
        "Application services to start/stop",
        "Custom actions to run",
        "Log files to back up",
    ];
    let empty = out(&user.run(&["config", "worksheet"]));
    let heads: Vec<&str> = empty
        .lines()
        .filter(|line| line.starts_with("[ ] "))
        .collect();
    assert_eq!(heads.len(), items.len(), "{empty}");
    assert!(
        heads
            .iter()
            .zip(items)
            .all(|(head, item)| head.contains(item)),
        "{empty}"
    );
    let filled = out(&user.run(&["config", "worksheet", "web"]));
    assert!(
        filled.contains("      web.Config") && filled.contains("      nginx.service"),
        "{filled}"
    );
}

//! What a person does with the files of a directory: list, choose children, save; and the schema for editors.

use flipside_config::{
    ChildState, SCHEMA_FILE, children_of, list, load, named, parse, save, save_as, schema,
    set_child, template,
};
use flipside_model::{ProblemCode, Timeouts};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("listed")
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

// CF-01: one file holds all settings of one upgrade, and any number of them lie beside each other, each for itself.
#[test]
fn a_file_holds_every_setting_and_any_number_may_exist() {
    let whole = "title = \"Shop\"\ncomments = \"Sunday\"\nchildren = [\"db.Config\"]\nservices = [\"nginx\"]\n\
        [disks]\nsystem = [\"data1\"]\n\
        [[action]]\nfile = \"/usr/local/sbin/page\"\ncontrol_type = \"Backup\"\n\
        [log_backup]\ndirectory = \"/srv/logs\"\nlogs = [\"system journal\"]\n";
    let whole = format!("version = 1\n{whole}");
    let many: Vec<(String, String)> = (0..200)
        .map(|n| {
            let text = format!("version = 1\ntitle = \"later {n}\"\n");
            (format!("later{n}.Config"), text)
        })
        .collect();
    let mut files = vec![
        ("web.Config", whole.as_str()),
        ("db.Config", "version = 1\nservices = [\"postgresql\"]\n"),
    ];
    files.extend(
        many.iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    let dir = directory(&files);
    let (_, resolved) = load(&dir.path().join("web.Config")).expect("valid");
    let config = resolved.config;
    assert_eq!(
        (config.title.as_str(), config.comments.as_str()),
        ("Shop", "Sunday")
    );
    let units: Vec<String> = config.services.iter().map(|s| s.unit()).collect();
    assert_eq!(units, ["postgresql.service", "nginx.service"]);
    assert_eq!(config.system_disks[0].as_str(), "data1");
    assert_eq!(config.actions[0].file, "/usr/local/sbin/page");
    assert_eq!(config.log_backup.directory.as_deref(), Some("/srv/logs"));
    assert_eq!(config.log_backup.logs.len(), 1);
    assert_eq!(resolved.files.len(), 2);
    let listed = list(dir.path()).expect("listed");
    assert_eq!(listed.len(), 202);
    for (n, _) in many.iter().enumerate() {
        let (_, later) = load(&dir.path().join(format!("later{n}.Config"))).expect("valid");
        assert_eq!(later.config.title, format!("later {n}"));
        assert!(later.config.services.is_empty());
    }
}

// CF-14, CF-15, CF-28, CF-31: only configuration files, with title and comments, and what each brings in.
#[test]
fn a_directory_lists_its_files_and_what_each_brings() {
    let dir = directory(&[
        (
            "web.Config",
            "version = 1\ntitle = \"Web\"\nchildren = [\"db.Config\", { file = \"x.Config\", enabled = false }]",
        ),
        (
            "db.Config",
            "version = 1\ntitle = \"Database\"\ncomments = \"c\"\nchildren = [\"base.Config\"]",
        ),
        ("base.Config", "version = 1"),
        ("lost.Config", "version = 1\nchildren = [\"gone.Config\"]"),
        ("bad.Config", "version = 2"),
        (".hidden.Config", "version = 1"),
        ("notes.txt", "version = 1"),
    ]);
    let listed = list(dir.path()).expect("listed");
    let found: Vec<&str> = listed.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        found,
        [
            "bad.Config",
            "base.Config",
            "db.Config",
            "lost.Config",
            "web.Config"
        ]
    );
    let web = &listed[4];
    assert_eq!((web.title.as_str(), web.problem.as_ref()), ("Web", None));
    let children: Vec<(&str, bool)> = web
        .children
        .iter()
        .map(|c| (c.file.as_str(), c.enabled))
        .collect();
    assert_eq!(children, [("db.Config", true), ("x.Config", false)]);
    let brings: Vec<(&str, &str)> = web
        .brings
        .iter()
        .map(|f| (f.name.as_str(), f.title.as_str()))
        .collect();
    assert_eq!(brings, [("db.Config", "Database"), ("base.Config", "")]);
    assert_eq!(listed[2].comments, "c");
    let lost = &listed[3];
    assert_eq!(lost.children.len(), 1, "it still says what it calls");
    assert!(
        lost.problem
            .as_ref()
            .expect("a problem")
            .message
            .contains("lost.Config → gone.Config")
    );
    assert!(
        listed[0]
            .problem
            .as_ref()
            .expect("a problem")
            .message
            .contains("format version 2")
    );
    assert_eq!(
        list(&dir.path().join("none")).expect_err("missing").code,
        ProblemCode::Usage
    );
}

// CF-35, CF-36, CF-37: a check box changes the file itself, and only what it is about.
#[test]
fn a_child_is_added_disabled_enabled_and_removed_in_place() {
    let path = Path::new("a.Config");
    let set =
        |text: &str, child: &str, state| set_child(path, text, child, state).expect("changed");
    let text = "# head\n# more\nversion = 1   # kept\n\n[timeouts]\nmerge = 7\n";
    let one = set(text, "b.Config", ChildState::Enabled);
    assert_eq!(
        one,
        "# head\n# more\nchildren = [\"b.Config\"]\nversion = 1   # kept\n\n[timeouts]\nmerge = 7\n"
    );
    let two = set(&one, "c.Config", ChildState::Disabled);
    assert!(
        two.contains("children = [\"b.Config\", { file = \"c.Config\", enabled = false }]\n"),
        "{two}"
    );
    let off = set(&two, "b.Config", ChildState::Disabled);
    assert!(
        off.contains("[{ file = \"b.Config\", enabled = false }, { file"),
        "{off}"
    );
    assert_eq!(set(&off, "b.Config", ChildState::Enabled), two);
    assert_eq!(set(&two, "c.Config", ChildState::Removed), one);
    assert!(
        set(&two, "b.Config", ChildState::Removed).contains("children = [{ file = \"c.Config\"")
    );
    assert!(set(&one, "b.Config", ChildState::Removed).contains("children = []\nversion"));
    assert_eq!(
        set(&one, "d.Config", ChildState::Removed),
        one,
        "a grandchild is not here"
    );
    let lines = "version = 1\nchildren = [\n  \"a.Config\",  # first\n  \"b.Config\",  # second\n  \"c.Config\",\n]\n";
    assert_eq!(
        set(lines, "b.Config", ChildState::Disabled),
        lines.replace("\"b.Config\"", "{ file = \"b.Config\", enabled = false }")
    );
    for child in ["a.Config", "b.Config", "c.Config"] {
        let without = set(lines, child, ChildState::Removed);
        assert_eq!(
            children_of(path, &without).expect("valid").len(),
            2,
            "{without}"
        );
    }
    for bad in ["../x.Config", "x", ""] {
        assert!(
            set_child(path, text, bad, ChildState::Enabled).is_err(),
            "{bad}"
        );
    }
    let new = set(template(), "odd \"name\\.Config", ChildState::Enabled);
    assert_eq!(
        children_of(path, &new).expect("valid")[0].file,
        "odd \"name\\.Config"
    );
}

// CF-24: saved in one step, with the permissions it had; what does not check changes nothing.
#[test]
fn saving_replaces_the_file_only_by_something_that_checks() {
    let dir = directory(&[("a.Config", "version = 1"), ("b.Config", "version = 1")]);
    let path = dir.path().join("a.Config");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
    let text = "version = 1\nchildren = [\"b.Config\"]\n";
    assert_eq!(save(&path, text).expect("saved").children.len(), 1);
    assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    save(&path, "version = 1\nchildren = [\"c.Config\"]\n").expect_err("no such child");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
    assert_eq!(
        names(dir.path()),
        ["a.Config", "b.Config"],
        "no draft is left"
    );
    std::os::unix::fs::symlink("a.Config", dir.path().join("l.Config")).expect("linked");
    save(&dir.path().join("l.Config"), "version = 1\n").expect("saved");
    assert_eq!(
        std::fs::read_to_string(&path).expect("read"),
        "version = 1\n"
    );
    assert!(dir.path().join("l.Config").is_symlink());
}

// CF-08, CF-25: the extension is appended once; no file is replaced.
#[test]
fn saving_under_a_new_name_replaces_nothing() {
    let dir = directory(&[("a.Config", "version = 1")]);
    let saved = save_as(&dir.path().join("new"), "version = 1\ntitle = \"n\"\n").expect("saved");
    assert_eq!(saved.path, dir.path().join("new.Config"));
    let problem = save_as(&dir.path().join("a.Config"), "version = 1\n").expect_err("exists");
    assert!(
        problem.message.ends_with("a.Config` exists already"),
        "{}",
        problem.message
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a.Config")).expect("read"),
        "version = 1"
    );
    save_as(&dir.path().join("bad"), "version = 2").expect_err("does not check");
    assert_eq!(names(dir.path()), ["a.Config", "new.Config"]);
}

/// The keys that the parser knows at a place, by its own words about one that it does not know.
fn parsers_keys(text: &str) -> Vec<String> {
    let key = "zzzzzzzzzzzzzzzzzzzzzzzz";
    let text = format!("version = 1\n{}", text.replace('@', key));
    let problem = parse(Path::new("a.Config"), &text).expect_err("an unknown key");
    assert!(
        problem.message.ends_with(&format!("unknown key `{key}`")),
        "{}",
        problem.message
    );
    let advice = problem.advice.expect("the known keys");
    let known = advice
        .strip_prefix("known keys here: ")
        .expect("the known keys");
    let mut known: Vec<String> = known.split(", ").map(str::to_owned).collect();
    known.sort();
    known
}

#[test]
fn the_schema_has_every_key_of_the_parser_and_no_other() {
    let schema = schema();
    for (text, at) in [
        ("@ = 1", ""),
        ("[quiesce]\n@ = 1", "/properties/quiesce"),
        ("[[health]]\n@ = 1", "/properties/health/items"),
        ("[timeouts]\n@ = 1", "/properties/timeouts"),
        ("[disks]\n@ = 1", "/properties/disks"),
        ("[[action]]\n@ = 1", "/properties/action/items"),
        ("[log_backup]\n@ = 1", "/properties/log_backup"),
        (
            "children = [{ @ = 1 }]",
            "/properties/children/items/anyOf/1",
        ),
    ] {
        let there = schema.pointer(at).expect("a part of the schema");
        assert_eq!(there["additionalProperties"], false, "{at}");
        let keys = there["properties"].as_object().expect("keys").keys();
        let mut keys: Vec<String> = keys.cloned().collect();
        keys.sort();
        assert_eq!(keys, parsers_keys(text), "{at}");
    }
}

/// Judges a value by the words of JSON schema that ours uses; any other word is a failure.
fn fits(schema: &Value, value: &Value) -> bool {
    schema
        .as_object()
        .expect("a schema")
        .iter()
        .all(|(word, said)| match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match said.as_str() {
                Some("string") => value.is_string(),
                Some("boolean") => value.is_boolean(),
                Some("integer") => value.is_i64(),
                Some("array") => value.is_array(),
                Some("object") => value.is_object(),
                other => panic!("unknown type {other:?}"),
            },
            "const" => value == said,
            "enum" => said.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64() >= said.as_i64(),
            "maximum" => value.as_i64() <= said.as_i64(),
            "minLength" => value
                .as_str()
                .is_some_and(|s| s.len() as u64 >= said.as_u64().expect("a number")),
            "minItems" => value
                .as_array()
                .is_some_and(|a| a.len() as u64 >= said.as_u64().expect("a number")),
            "maxItems" => value
                .as_array()
                .is_some_and(|a| a.len() as u64 <= said.as_u64().expect("a number")),
            "uniqueItems" => value
                .as_array()
                .is_some_and(|a| a.iter().enumerate().all(|(i, v)| !a[..i].contains(v))),
            "pattern" => match said.as_str() {
                Some("^/") => value.as_str().is_some_and(|s| s.starts_with('/')),
                Some("^[^./][^/]*\\.Config$") => value.as_str().is_some_and(|s| {
                    s.ends_with(".Config") && !s.starts_with('.') && !s.contains('/')
                }),
                Some("^(system journal|user journals|/.*)$") => value.as_str().is_some_and(|s| {
                    s.starts_with('/') || matches!(s, "system journal" | "user journals")
                }),
                other => panic!("unknown pattern {other:?}"),
            },
            "items" => value
                .as_array()
                .is_some_and(|a| a.iter().all(|v| fits(said, v))),
            "anyOf" => said
                .as_array()
                .expect("a list")
                .iter()
                .any(|s| fits(s, value)),
            "required" => said
                .as_array()
                .expect("a list")
                .iter()
                .all(|k| value.get(k.as_str().expect("a key")).is_some()),
            "properties" => value.as_object().is_some_and(|o| {
                o.iter()
                    .all(|(k, v)| said.get(k).is_none_or(|s| fits(s, v)))
            }),
            "additionalProperties" => value
                .as_object()
                .is_some_and(|o| o.keys().all(|k| schema["properties"].get(k).is_some())),
            other => panic!("the schema uses `{other}`, which this test does not know"),
        })
}

fn as_json(text: &str) -> Value {
    let table: toml::Table = toml::from_str(text).expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn the_schema_accepts_what_the_parser_accepts_and_refuses_wrong_forms() {
    let schema = schema();
    let nested = "version = 1\nchildren = [\"a.Config\", { file = \"b.Config\", enabled = false }]";
    for good in [
        include_str!("golden/full.Config"),
        template(),
        "version = 1",
        nested,
    ] {
        assert!(fits(&schema, &as_json(good)), "{good}");
    }
    for bad in [
        "title = \"no version\"",
        "version = 2",
        "version = 1\nservces = []",
        "version = 1\ntitle = 5",
        "version = 1\nrehearsal = \"yes\"",
        "version = 1\nservices = [\"\"]",
        "version = 1\nservices = [\"a\", \"a\"]",
        "version = 1\naccept_loss = [\"tmp\"]",
        "version = 1\nchildren = [\"a/b.Config\"]",
        "version = 1\nchildren = [\"b\"]",
        "version = 1\nchildren = [{ enabled = true }]",
        "version = 1\n[[health]]\ncommand = []",
        "version = 1\n[timeouts]\nsplit = 0",
        "version = 1\n[timeouts]\nmerge = 86401",
        "version = 1\n[[action]]\nfile = \"/x\"",
        "version = 1\n[[action]]\ncontrol_type = \"Backup\"",
        "version = 1\n[[action]]\nfile = \"x\"\ncontrol_type = \"Backup\"",
        "version = 1\n[[action]]\nfile = \"/x\"\ncontrol_type = \"backup\"",
        "version = 1\n[[action]]\nfile = \"/x\"\ncontrol_type = \"Advanced\"\ntiming = \"early\"",
        "version = 1\n[[action]]\nfile = \"/x\"\ncontrol_type = \"Advanced\"\nlimit = 0",
        "version = 1\n[[action]]\nfile = \"/x\"\ncontrol_type = \"Advanced\"\nwhere = \"moon\"",
        "version = 1\n[log_backup]\nlogs = [\"nginx\"]",
        "version = 1\n[log_backup]\ndirectory = \"logs\"",
    ] {
        assert!(parse(Path::new("a.Config"), bad).is_err(), "{bad}");
        assert!(!fits(&schema, &as_json(bad)), "{bad}");
    }
    for (key, seconds) in named(&Timeouts::default()) {
        let at = format!("/properties/timeouts/properties/{key}/default");
        assert_eq!(schema.pointer(&at), Some(&Value::from(seconds)), "{key}");
    }
}

#[test]
fn the_template_names_the_schema_for_editors_and_no_host() {
    let first = template().lines().next().expect("a line");
    assert_eq!(first, format!("#:schema ./{SCHEMA_FILE}"));
    assert!(template().contains(&format!("flipside config schema > {SCHEMA_FILE}")));
    assert!(!first.contains("://"));
}

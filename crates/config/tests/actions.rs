//! Custom actions and log backup in configuration files: what is read, what is refused and where, what children bring.

use flipside_config::{Resolved, parse, resolve};
use flipside_model::api::ConfigText;
use flipside_model::{
    ActionPlace, ConfigFile, ControlType, LogSelection, OnFailure, Problem, ProblemCode, Timing,
    UpgradeConfig,
};
use std::path::Path;

fn read(text: &str) -> Result<UpgradeConfig, Problem> {
    parse(Path::new("web.Config"), &format!("version = 1\n{text}"))
}

// CA-05, CA-09, CA-10, CA-17, CA-18, CA-33; LB-05, LB-06.
#[test]
fn actions_and_log_backup_are_read_as_written() {
    let config =
        parse(Path::new("full.Config"), include_str!("golden/full.Config")).expect("valid");
    let [stop, page] = &config.actions[..] else {
        panic!("{:?}", config.actions);
    };
    assert_eq!(stop.file, "/usr/local/sbin/%ACTIVE_UPGRADE_SIDE%-shop");
    assert_eq!(
        stop.arguments,
        ["stop", "two words", "%ACTIVE_UPGRADE_REQUEST%"]
    );
    assert_eq!(stop.control_type, ControlType::StopApplication);
    assert_eq!((stop.timing, stop.limit), (Timing::Default, Some(30)));
    assert_eq!(
        (stop.place, stop.on_failure),
        (ActionPlace::Guest, OnFailure::Stop)
    );
    assert_eq!(page.arguments, ["", "-x"]);
    assert_eq!((page.timing, page.limit), (Timing::Late, None));
    assert_eq!(
        (page.place, page.on_failure),
        (ActionPlace::Host, OnFailure::Warn)
    );
    let backup = &config.log_backup;
    assert_eq!(backup.directory.as_deref(), Some("/srv/data/upgrade-logs"));
    assert_eq!(
        backup.logs,
        [
            LogSelection::SystemJournal,
            LogSelection::UserJournals,
            LogSelection::Path("/var/log/nginx".to_owned())
        ]
    );
    let shortest = read("[[action]]\nfile = \"/x\"\ncontrol_type = \"Backup\"").expect("valid");
    assert!(shortest.actions[0].arguments.is_empty());
}

// CA-06, CA-10, CA-17: what cannot be an action is refused where it stands, with what can be.
#[test]
fn what_is_wrong_is_told_with_its_place() {
    let action = |more: &str| format!("[[action]]\nfile = \"/x\"\n{more}");
    let cases = [
        (
            "[[action]]\nfile = \"bin/x\"\ncontrol_type = \"Backup\"".to_owned(),
            "3:8: the file `bin/x` of an action is not an absolute path",
            "without a search path",
        ),
        (
            "[[action]]\nfile = \"/a/../x\"\ncontrol_type = \"Backup\"".to_owned(),
            "3:8: the file `/a/../x` of an action has `.`, `..`",
            "",
        ),
        (
            action("control_type = \"Stop application\""),
            "4:16: `control_type = \"Stop application\"` is unknown",
            "did you mean \"Stop Application\"",
        ),
        (
            action("control_type = \"Restart\""),
            "4:16: `control_type = \"Restart\"` is unknown",
            "\"Start Application\", \"Stop Application\", \"Readiness Check\", \"Advanced\", \"Backup\"",
        ),
        (
            action("control_type = \"Backup\"\ntiming = \"Early\""),
            "5:10: an action of type \"Backup\" has no timing",
            "only \"Advanced\"",
        ),
        (
            action("control_type = \"Advanced\"\ntiming = \"Soon\""),
            "5:10: `timing = \"Soon\"` is unknown",
            "\"Early\", \"Default\", \"Late\"",
        ),
        (
            action("control_type = \"Backup\"\narguments = \"a 'b\""),
            "5:13: the quote ' is not closed",
            "as a list",
        ),
        (
            action("control_type = \"Backup\"\nlimit = 0"),
            "5:9: `limit = 0` is out of range",
            "",
        ),
        (
            action("control_type = \"Backup\"\nwhere = \"moon\""),
            "5:9: `where = \"moon\"` is unknown",
            "\"guest\", \"host\"",
        ),
        (
            action("control_type = \"Backup\"\ntype = \"x\""),
            "5:1: unknown key `type`",
            "",
        ),
        (
            action(
                "control_type = \"Backup\"\n[[action]]\nfile = \"/x\"\ncontrol_type = \"Backup\"",
            ),
            "6:8: the action `/x` is listed twice",
            "",
        ),
        (
            "[log_backup]\ndirectory = \"logs\"".to_owned(),
            "3:13: `logs` in `log_backup.directory` is not an absolute path",
            "",
        ),
        (
            "[log_backup]\nlogs = [\"nginx\"]".to_owned(),
            "3:9: `nginx` in `log_backup.logs` is no log",
            "`flipside logs`",
        ),
        (
            "[log_backup]\nlogs = [\"/var/log/x\", \"/var/log/x/\"]".to_owned(),
            "3:23: the log `/var/log/x` is listed twice",
            "",
        ),
    ];
    for (text, message, advice) in cases {
        let problem = read(&text).expect_err(&text);
        assert_eq!(problem.code, ProblemCode::Usage);
        let expected = format!("web.Config:{message}");
        assert!(
            problem.message.starts_with(&expected),
            "{problem}\nnot {expected}"
        );
        assert!(
            problem.advice.unwrap_or_default().contains(advice),
            "{text}"
        );
    }
}

fn sent(files: &[(&str, &str)]) -> Resolved {
    let file = |(name, text): &(&str, &str)| ConfigFile {
        name: (*name).to_owned(),
        text: format!("version = 1\n{text}"),
    };
    let all: Vec<ConfigFile> = files.iter().map(file).collect();
    let (first, children) = all.split_first().expect("a file");
    resolve(&ConfigText {
        path: first.name.clone().into(),
        text: first.text.clone(),
        children: children.to_vec(),
    })
    .expect("valid")
}

fn action(file: &str) -> String {
    format!("[[action]]\nfile = \"{file}\"\ncontrol_type = \"Advanced\"\n")
}

// CA-42, gap G.3.38: children first, depth first in list order, then the parent's; a child reached twice counts once. CF-27.
#[test]
fn actions_of_children_come_first_and_once() {
    let files = [
        (
            "shop.Config",
            format!(
                "children = [\"web.Config\", \"db.Config\"]\n{}",
                action("/shop")
            ),
        ),
        (
            "web.Config",
            format!("children = [\"base.Config\"]\n{}", action("/web")),
        ),
        (
            "base.Config",
            format!("{}{}", action("/base1"), action("/base2")),
        ),
        (
            "db.Config",
            format!("children = [\"base.Config\"]\n{}", action("/db")),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let resolved = sent(&files);
    let order: Vec<&str> = resolved
        .config
        .actions
        .iter()
        .map(|a| a.file.as_str())
        .collect();
    assert_eq!(order, ["/base1", "/base2", "/web", "/db", "/shop"]);
    let shown: Vec<String> = resolved
        .origins
        .iter()
        .filter(|o| o.key == "action")
        .map(|o| format!("{} {}", o.value, o.file.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(shown[2], "Advanced: /web web.Config");
}

// Gap G.3.37, CF-32: logs are united; of directories the parent's counts, or else the first child's.
#[test]
fn the_parents_log_directory_wins() {
    let children = "children = [\"a.Config\", \"b.Config\"]\n";
    let (a, b) = (
        "[log_backup]\ndirectory = \"/srv/a\"\nlogs = [\"system journal\"]\n",
        "[log_backup]\ndirectory = \"/srv/b\"\nlogs = [\"/var/log/b\", \"system journal\"]\n",
    );
    let own =
        format!("{children}[log_backup]\ndirectory = \"/srv/own\"\nlogs = [\"/var/log/own\"]\n");
    for (parent, directory, logs) in [
        (children, "/srv/a", "system journal,/var/log/b"),
        (
            own.as_str(),
            "/srv/own",
            "system journal,/var/log/b,/var/log/own",
        ),
    ] {
        let resolved = sent(&[("p.Config", parent), ("a.Config", a), ("b.Config", b)]);
        let backup = &resolved.config.log_backup;
        assert_eq!(backup.directory.as_deref(), Some(directory));
        let selected: Vec<String> = backup.logs.iter().map(ToString::to_string).collect();
        assert_eq!(selected.join(","), logs);
    }
}

// CF-05, invariant 20: what the journal keeps is read back as it was.
#[test]
fn a_staged_configuration_keeps_its_actions() {
    let resolved = sent(&[(
        "p.Config",
        include_str!("golden/full.Config").trim_start_matches("version = 1\n"),
    )]);
    let json = serde_json::to_string(&resolved.staged().expect("staged")).expect("serialises");
    let back: UpgradeConfig = serde_json::from_str(&json).expect("parses");
    assert_eq!(back.actions, resolved.config.actions);
    assert_eq!(back.log_backup, resolved.config.log_backup);
    // A journal of an earlier version has neither.
    let mut value: serde_json::Value = serde_json::from_str(&json).expect("parses");
    let fields = value.as_object_mut().expect("an object");
    fields.remove("actions");
    fields.remove("log_backup");
    let old: UpgradeConfig = serde_json::from_value(value).expect("parses");
    assert!(old.actions.is_empty() && old.log_backup.is_empty());
}

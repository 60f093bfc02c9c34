//! Every refusal of a configuration file, with its exact place.

use flipside_config::{
    MAX_FILE_BYTES, load, parse, parse_mac, parse_network, parse_publish, parse_size, read,
    resolve, template, with_extension,
};
use flipside_model::api::ConfigText;
use flipside_model::{
    AcceptLoss, ConfigFile, NetworkSpec, Problem, ProblemCode, QUIESCE_UNITS, Timeouts,
    UpgradeConfig,
};
use std::path::{Path, PathBuf};

fn refused(text: &str) -> Problem {
    let problem = parse(Path::new("web.Config"), text).expect_err(text);
    assert_eq!(problem.code, ProblemCode::Usage);
    assert_eq!(problem.component.as_deref(), Some("web.Config"));
    problem
}

#[test]
fn the_golden_file_is_read_as_written() {
    let path = Path::new("full.Config");
    let config = parse(path, include_str!("golden/full.Config")).expect("valid");
    assert_eq!(config.title, "Shop: Debian point release");
    assert_eq!(config.comments, "Window: Sunday.\n");
    let units: Vec<String> = config.services.iter().map(|s| s.unit()).collect();
    assert_eq!(units, ["postgresql@15-main.service", "nginx.service"]);
    assert_eq!(
        config.accept_loss,
        [AcceptLoss("/var/lib/app/cache".to_owned())]
    );
    assert_eq!(config.data_paths, ["/srv/uploads"]);
    assert!(config.rehearsal);
    assert_eq!(config.quiesce.len(), QUIESCE_UNITS.len() - 1);
    assert!(config.quiesce.contains(&"my-mailer@*.service".to_owned()));
    assert!(!config.quiesce.contains(&"*.timer".to_owned()));
    assert_eq!(config.health.len(), 2);
    assert_eq!(config.health[1].command, ["/bin/true"]);
    let timeouts = Timeouts {
        split: 120,
        drain: 1,
        ..Timeouts::default()
    };
    assert_eq!(config.timeouts, timeouts);
}

#[test]
fn the_template_and_the_shortest_file_mean_no_settings() {
    let path = Path::new("new.Config");
    for text in [template(), "version = 1"] {
        assert_eq!(parse(path, text).expect("valid"), UpgradeConfig::none());
    }
}

#[test]
fn the_template_with_its_examples_switched_on_is_valid() {
    let mut on = String::new();
    for line in template().lines() {
        let example = line.strip_prefix("# ").filter(|l| {
            l.starts_with("[[") || l.split_once(" = ").is_some_and(|(k, _)| !k.contains(' '))
        });
        let lists = ["services = ", "children = ", "carry = "];
        if !lists.iter().any(|list| line.starts_with(list)) {
            on.push_str(example.unwrap_or(line));
            on.push('\n');
        }
    }
    // The example replaces the list and takes something out of the default one.
    let on = on.replace("\nunits = ", "\n# units = ");
    let text = ConfigText {
        path: PathBuf::from("on.Config"),
        text: on,
        children: vec![ConfigFile {
            name: "db.Config".to_owned(),
            text: "version = 1".to_owned(),
        }],
    };
    let config = resolve(&text).expect("valid").config;
    assert_eq!(config.services.len(), 2);
    // The word for the well-known paths stands for them, and one of the example's own.
    assert_eq!(config.carry.len(), flipside_model::CARRY_PATHS.len() + 1);
    assert_eq!((config.system_disks.len(), config.data_disks.len()), (1, 1));
    assert_eq!(config.health.len(), 1);
    assert_eq!(config.timeouts, Timeouts::default());
}

#[test]
fn every_refusal_names_file_line_and_column() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "",
            "1:1: the key `version` is missing",
            "add the line `version = 1`",
        ),
        (
            "version = 2\nnew = 1",
            "1:11: the file has format version 2, and this flipside knows versions up to 1",
            "newer one",
        ),
        ("version = 0", "1:11: `version` must be the number 1", ""),
        (
            "version = \"1\"",
            "1:11: `version` must be the number 1",
            "",
        ),
        (
            "version = 1\nservces = []",
            "2:1: unknown key `servces`",
            "did you mean `services`?",
        ),
        (
            "version = 1\n\n[timeouts]\n  splitt = 3",
            "4:3: unknown key `splitt`",
            "did you mean `split`?",
        ),
        (
            "version = 1\n[quiesce]\nzzz = []",
            "3:1: unknown key `zzz`",
            "known keys here: units, also, except",
        ),
        (
            "version = 1\n[[health]]\ncommand=[\"/a\"]\nshell=true",
            "4:1: unknown key `shell`",
            "known keys here: command",
        ),
        (
            "version = 1\ntitle = 5",
            "2:9: invalid type: integer `5`, expected a string",
            "",
        ),
        ("version = 1\nrehearsal = \"yes\"", "2:13: invalid type", ""),
        (
            "version = 1\ntitle = \"a\"\ntitle = \"b\"",
            "3:1: duplicate key",
            "",
        ),
        ("version = 1\ntitle = \"a", "2:11: invalid basic string", ""),
        (
            "version = 1\nservices = [\"nginx\", \"\"]",
            "2:22: a service name is empty",
            "",
        ),
        (
            "version = 1\nservices = [\"ä\", \"-x\"]",
            "2:13: service `ä` is not a valid name",
            "",
        ),
        (
            "version = 1\nservices = [\n \"nginx\",\n \"nginx.service\"]",
            "4:2: the service `nginx.service` is listed twice",
            "",
        ),
        (
            "version = 1\ncarry = [\"/etc/a\", \"/\"]",
            "2:20: `/` in `carry` is everything",
            "",
        ),
        (
            "version = 1\ncarry = [\"default\", \"/etc/passwd/\"]",
            "2:21: `/etc/passwd` is listed twice in `carry`",
            "",
        ),
        (
            "version = 1\naccept_loss = [\"tmp\"]",
            "2:16: `tmp` in `accept_loss` is not an absolute path in the guest",
            "",
        ),
        (
            "version = 1\ndata_paths = [\"/a/../b\"]",
            "2:15: `/a/../b` in `data_paths` has",
            "",
        ),
        (
            "version = 1\ndata_paths = [\"/a\", \"/a/\"]",
            "2:21: `/a` is listed twice in `data_paths`",
            "",
        ),
        (
            "version = 1\ndata_paths = [\"/a\\u001b\"]",
            "2:15: `/a\\u{1b}` in",
            "",
        ),
        (
            "version = 1\n[quiesce]\nalso = [\"cron.service\"]",
            "3:9: the unit `cron.service` is listed twice",
            "",
        ),
        (
            "version = 1\n[quiesce]\nalso = [\"a b\"]",
            "3:9: `a b` is not the name or pattern of a unit",
            "",
        ),
        (
            "version = 1\n[quiesce]\nalso = [\"\"]",
            "3:9: `` is not the name",
            "",
        ),
        (
            "version = 1\n[quiesce]\nexcept = [\"logrotate.timer\"]",
            "3:11: `logrotate.timer` is not in the list",
            "`*.timer` covers it",
        ),
        (
            "version = 1\n[quiesce]\nexcept = [\"corn.service\"]",
            "3:11: `corn.service` is not in the list",
            "did you mean `cron.service`?",
        ),
        (
            "version = 1\n[quiesce]\nalso = [\"cron.service\"]\nexcept = [\"cron.service\"]",
            "3:9: `cron.service` is both added and taken out",
            "",
        ),
        (
            "version = 1\n[[health]]\ncommand = []",
            "3:11: a health check needs a command",
            "",
        ),
        (
            "version = 1\n[[health]]\ncommand = [\"curl\"]",
            "3:12: the program `curl` of a health check is not an absolute path",
            "without a shell",
        ),
        (
            "version = 1\n[[health]]\ncommand = [\"/a\", \"b\\u0000\"]",
            "3:18: a NUL character",
            "",
        ),
        (
            "version = 1\n[[health]]",
            "2:1: missing field `command`",
            "",
        ),
        // CF-29: what a child's name may be.
        (
            "version = 1\nchildren = [\"apps/db.Config\"]",
            "2:13: the child `apps/db.Config` has a slash in it",
            "write its name only",
        ),
        (
            "version = 1\nchildren = [{ file = \"../db.Config\" }]",
            "2:13: the child `../db.Config` has a slash in it",
            "",
        ),
        (
            "version = 1\nchildren = [\"..\"]",
            "2:13: the child `..` begins with a dot",
            "",
        ),
        (
            "version = 1\nchildren = [\"a\\u0000.Config\"]",
            "2:13: the child `a\\0.Config` begins with a dot, has a control character",
            "",
        ),
        (
            "version = 1\nchildren = [\"db\"]",
            "2:13: the child `db` does not end with `.Config`",
            "did you mean `db.Config`?",
        ),
        (
            "version = 1\nchildren = [\"\"]",
            "2:13: the name of a child is empty",
            "",
        ),
        (
            "version = 1\nchildren = [{ file = \"a.Config\", enabled = false }, \"a.Config\"]",
            "2:53: the child `a.Config` is listed twice",
            "",
        ),
        (
            "version = 1\nchildren = [{ file = \"a.Config\", enabeld = false }]",
            "2:34: unknown key `enabeld`",
            "did you mean `enabled`?",
        ),
        (
            "version = 1\nchildren = [5]",
            "2:13: invalid type: integer `5`, expected the name of a file",
            "",
        ),
        (
            "version = 1\nchildren = [{ enabled = true }]",
            "2:13: missing field `file`",
            "",
        ),
        // A template cannot be controlled, its instances can.
        (
            "version = 1\nservices = [\"postgresql@\"]",
            "2:13: `postgresql@` is a template, of which nothing can be stopped: name its instances, such as `postgresql@NAME.service`",
            "",
        ),
        (
            "version = 1\n[disks]\nsystem = [\"a b\"]",
            "3:11: disk `a b` is not a valid name",
            "",
        ),
        (
            "version = 1\n[disks]\nsystem = [\"data0\", \"data0\"]",
            "3:20: the disk `data0` is listed twice",
            "",
        ),
        (
            "version = 1\n[disks]\nsystem = [\"data0\"]\ndata = [\"data1\", \"data0\"]",
            "4:18: the disk `data0` is marked both System and Data",
            "",
        ),
        (
            "version = 1\n[timeouts]\nsplit = 0",
            "3:9: `split = 0` is out of range: 1 to 86400 seconds",
            "",
        ),
        (
            "version = 1\n[timeouts]\nmerge = 86401",
            "3:9: `merge = 86401` is out of range",
            "",
        ),
        (
            "version = 1\n[timeouts]\ndrain = -1",
            "3:9: `drain = -1` is out of range",
            "",
        ),
    ];
    for (text, message, advice) in cases {
        let problem = refused(text);
        let expected = format!("web.Config:{message}");
        assert!(
            problem.message.starts_with(&expected),
            "{text}\n  said      {}\n  expected  {expected}",
            problem.message
        );
        assert!(
            problem.advice.unwrap_or_default().contains(advice),
            "{text}: {advice}"
        );
    }
}

#[test]
fn a_controlled_service_is_not_quiesced_as_well() {
    let text = "version = 1\nservices = [\"postfix\"]";
    let config = parse(Path::new("a.Config"), text).expect("valid");
    assert!(!config.quiesce.contains(&"postfix.service".to_owned()));
}

// Fault 65, security 18.
#[test]
fn files_are_regular_small_and_rightly_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let web = file("web.Config", b"version = 1");
    let (text, _) = load(&dir.path().join("web")).expect("found by its name");
    assert_eq!((text.path, text.text.as_str()), (web, "version = 1"));

    let other = file("web.toml", b"version = 1");
    let problem = read(&other).expect_err("wrong name");
    assert!(
        problem
            .message
            .contains("not called like a configuration file")
    );
    assert!(problem.advice.expect("advice").contains("web.toml.Config"));

    let missing = read(&dir.path().join("none")).expect_err("missing");
    assert!(missing.message.contains("none.Config` does not exist"));
    let big = file("big.Config", &vec![b'#'; MAX_FILE_BYTES + 1]);
    assert!(read(&big).expect_err("large").message.contains("larger"));
    let raw = file("raw.Config", b"title = \"\xff\"");
    assert!(read(&raw).expect_err("bytes").message.contains("UTF-8"));
    std::fs::create_dir(dir.path().join("dir.Config")).expect("made");
    let is_dir = read(&dir.path().join("dir.Config")).expect_err("a directory");
    assert!(is_dir.message.contains("not a regular file"));
    let text = "#".repeat(MAX_FILE_BYTES + 1);
    assert!(refused(&text).message.contains("are allowed"));
}

// CF-08: appended once, never doubled.
#[test]
fn the_extension_is_appended_once() {
    for (given, made) in [
        ("web", "web.Config"),
        ("web.Config", "web.Config"),
        ("dir/web-1.2", "dir/web-1.2.Config"),
    ] {
        assert_eq!(with_extension(Path::new(given)), PathBuf::from(made));
    }
}

#[test]
fn sizes_ports_and_addresses() {
    assert_eq!(parse_size("8G").ok(), Some(8 << 30));
    assert_eq!(parse_size("512MiB").ok(), Some(512 << 20));
    assert_eq!(parse_size("65536").ok(), Some(65536));
    for bad in [
        "",
        "G",
        "0",
        "0G",
        "1.5G",
        "-1",
        "8X",
        "99999999999T",
        "8 G",
        "image.raw",
    ] {
        assert!(parse_size(bad).is_err(), "{bad}");
    }
    let publish = |text| {
        parse_publish(text)
            .map(|p| format!("{} {} {}", p.address, p.host_port, p.guest_port))
            .ok()
    };
    assert_eq!(publish("8080:80").as_deref(), Some("127.0.0.1 8080 80"));
    assert_eq!(
        publish("0.0.0.0:8080:80").as_deref(),
        Some("0.0.0.0 8080 80")
    );
    assert_eq!(publish("[::1]:8080:80").as_deref(), Some("::1 8080 80"));
    for bad in [
        "80",
        "0:80",
        "80:0",
        "80:65536",
        "x:80",
        ":80",
        "::1:80:80",
        "host:80:80",
        "+1:80",
    ] {
        assert_eq!(publish(bad), None, "{bad}");
    }
    assert_eq!(
        parse_mac("52:54:00:AB:cd:01").ok().as_deref(),
        Some("52:54:00:ab:cd:01")
    );
    for bad in [
        "",
        "52:54:00:12:34",
        "52-54-00-12-34-56",
        "01:00:00:00:00:00",
        "00:00:00:00:00:00",
        "52:54:00:12:34:5g",
        "52:54:00:12:34:56:",
    ] {
        assert!(parse_mac(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_network("user").ok(), Some(NetworkSpec::User));
    let bridge = NetworkSpec::Bridge("br-lan.7".to_owned());
    assert_eq!(parse_network("bridge=br-lan.7").ok(), Some(bridge));
    for bad in [
        "tap",
        "bridge",
        "bridge=",
        "bridge=sixteen-letters-",
        "bridge=a b",
        "bridge=../x",
        "bridge=-x",
        "bridge=br0,up",
    ] {
        assert!(parse_network(bad).is_err(), "{bad}");
    }
}

// Found by fuzzing: what a message quotes must not break a line of the server's log.
#[test]
fn what_a_message_quotes_cannot_break_its_line() {
    for (path, text) in [
        ("a\tb.Config", "version = 1\nx = 1\n"),
        ("a.Config", "version = 1\n\"x\\n2026 ERROR forged\" = 1\n"),
        ("a\n.Config", ""),
    ] {
        let problem = parse(std::path::Path::new(path), text).expect_err("refused");
        let control = problem.message.chars().find(|c| c.is_control());
        assert_eq!(control, None, "{:?}", problem.message);
    }
    for given in ["1\n:80", "\u{1b}[31m:1:80"] {
        let problem = parse_publish(given).expect_err("refused");
        assert!(
            !problem.message.chars().any(char::is_control),
            "{:?}",
            problem.message
        );
    }
}

// Found by fuzzing: the guest's port refuses these, which would have been in the middle of a split.
#[test]
fn names_that_the_guest_would_refuse_are_refused_in_the_file() {
    let long = format!("version = 1\nservices = [\"{}\"]\n", "a".repeat(248));
    for text in ["version = 1\n[quiesce]\nalso = [\".x.timer\"]\n", &long] {
        assert!(
            parse(std::path::Path::new("a.Config"), text).is_err(),
            "{text}"
        );
    }
}

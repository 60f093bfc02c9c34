//! The binary without a server: help, usage, completions, pages, configuration files.

mod fake;

use fake::{ends, err, flipside, out, run};

const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["system", "create"],
    &["system", "start"],
    &["system", "stop"],
    &["system", "show"],
    &["system", "delete"],
    &["system", "list"],
    &["config", "new"],
    &["config", "edit"],
    &["config", "show"],
    &["config", "check"],
    &["config", "list"],
    &["config", "schema"],
    &["check"],
    &["split"],
    &["run"],
    &["shell"],
    &["restart"],
    &["copy"],
    &["merge"],
    &["commit"],
    &["abort"],
    &["finish"],
    &["retry"],
    &["wait"],
    &["status"],
    &["log"],
    &["demo"],
    &["completion"],
    &["user", "set"],
];

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let output = run(flipside(&[*command, &["--help"]].concat()));
        ends(&output, 0);
        let help = out(&output);
        let exempt = *command == ["system", "list"];
        assert!(exempt || help.contains("Examples:"), "{command:?}\n{help}");
    }
}

// The guide's words are explained where they are met.
#[test]
fn help_says_what_the_words_mean() {
    let help = out(&run(flipside(&["--help"])));
    for text in [
        "not split-brain",
        "no data is merged",
        "RDR, the resync of a mirror",
        "Exit status: 0 done; 1 failed or Broken; 2 usage; 3 refused",
    ] {
        assert!(help.contains(text), "{text}\n{help}");
    }
    assert!(!help.contains("guard"), "hidden");
}

// US-13: the manual is in the program, so it can be read wherever the program is.
#[test]
fn help_shows_pages_and_commands_and_what_was_meant() {
    let list = out(&run(flipside(&["help"])));
    assert!(
        list.contains("flipside help performing") && list.contains("flipside help glossary"),
        "{list}"
    );
    let page = out(&run(flipside(&["help", "performing"])));
    assert!(
        page.starts_with("Performing an upgrade\n====")
            && page.contains("Verify before you commit"),
        "{page}"
    );
    assert!(
        !page.contains('\u{1b}') && page.lines().all(|line| line.chars().count() <= 100),
        "{page}"
    );
    let command = out(&run(flipside(&["help", "config", "edit"])));
    assert!(command.contains("--save-as"), "{command}");
    for (typed, meant) in [("perfroming", "performing"), ("mereg", "merge")] {
        let slip = run(flipside(&["help", typed]));
        ends(&slip, 2);
        assert!(
            err(&slip).contains(&format!("`flipside help {meant}`")),
            "{}",
            err(&slip)
        );
    }
    let json = out(&run(flipside(&["help", "--json"])));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[1]["topic"], "preparing");
}

#[test]
fn what_is_wrongly_typed_is_usage() {
    for args in [
        &["unknown"][..],
        &[],
        &["system"],
        &["status", "-x"],
        &["status", "../etc"],
        &["status", "a b"],
        &["wait", "web"],
        &["wait", "web", "--duplex", "--timeout", "0"],
        &["run", "web"],
        &["restart", "web"],
        &["restart", "web", "--side", "left"],
        &["split", "web", "--config", "x", "--no-config"],
        &["log", "--severity", "Fatal"],
        &["system", "create", "web"],
        &[
            "system",
            "create",
            "web",
            "--system-disk",
            "i",
            "--memory",
            "1X",
        ],
        &[
            "system",
            "create",
            "web",
            "--system-disk",
            "i",
            "--mac",
            "01:00",
        ],
        &["completion", "tcsh9"],
        &["--color", "sometimes", "status"],
    ] {
        let output = run(flipside(args));
        ends(&output, 2);
        assert!(out(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn without_a_server_the_socket_and_the_way_out_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("none.sock");
    let socket = socket.to_str().expect("text");
    for args in [
        &["status"][..],
        &["check", "web"],
        &["merge", "web", "--yes"],
        &["system", "list"],
        &["log"],
    ] {
        let output = run(flipside(&[args, &["--socket", socket]].concat()));
        ends(&output, 1);
        assert!(
            err(&output).contains(socket) && err(&output).contains("`flipside serve`"),
            "{}",
            err(&output)
        );
    }
    // Our own failure of `run` is not taken for the program's.
    ends(
        &run(flipside(&["run", "web", "--socket", socket, "--", "true"])),
        125,
    );
    let check = run(flipside(&["status", "--check", "--socket", socket]));
    ends(&check, 3);
    assert!(out(&check).starts_with("FLIPSIDE UNKNOWN - no flipside server answers"));
    assert_eq!(out(&check).lines().count(), 1);
}

#[test]
fn what_asks_needs_a_terminal_or_yes() {
    for args in [
        &["merge", "web"][..],
        &["commit", "web"],
        &["abort"],
        &["system", "stop", "web"],
        &["system", "delete", "web"],
    ] {
        let output = run(flipside(args));
        ends(&output, 2);
        assert!(err(&output).contains("`--yes`"), "{}", err(&output));
    }
}

#[test]
fn yes_needs_the_name_of_the_system() {
    for command in ["merge", "commit", "abort", "split", "status"] {
        let output = run(flipside(&[command, "--yes"]));
        ends(&output, 2);
        assert!(err(&output).contains("must be named"), "{}", err(&output));
    }
}

#[test]
fn completions_and_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(flipside(&["completion", shell]));
        ends(&output, 0);
        assert!(out(&output).contains("flipside"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("text");
    ends(&run(flipside(&["man", path])), 0);
    for page in ["flipside.1", "flipside-merge.1", "flipside-system-create.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
    assert!(!dir.path().join("flipside-guard.1").exists());
    ends(&run(flipside(&["man", "/does/not/exist"])), 1);
}

// CF-08 and the refusals of crates/config, with exit status 2.
#[test]
fn configuration_files_are_made_checked_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let flip = |args: &[&str]| {
        let mut command = flipside(args);
        command.current_dir(dir.path());
        run(command)
    };
    ends(&flip(&["config", "new", "web"]), 0);
    ends(&flip(&["config", "check", "web"]), 0);
    let again = flip(&["config", "new", "web.Config"]);
    ends(&again, 2);
    assert!(err(&again).contains("exists already"));
    let shown = flip(&["config", "show", "web"]);
    ends(&shown, 0);
    assert!(
        out(&shown).contains("unattended-upgrades.service") && out(&shown).contains("split 300 s")
    );
    let json = flip(&["config", "show", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["timeouts"]["abort"], 900);
    std::fs::write(dir.path().join("bad.Config"), "version = 1\nservces = []\n").expect("written");
    let bad = flip(&["config", "check", "bad"]);
    ends(&bad, 2);
    assert_eq!(
        err(&bad),
        "error: bad.Config:2:1: unknown key `servces`\n  advice: did you mean `services`?\n"
    );
    // The server is not asked with a file that does not check.
    let check = flip(&["check", "web", "--config", "bad", "--socket", "/none"]);
    ends(&check, 2);
    ends(&flip(&["split", "web", "--config", "missing"]), 2);
}

#[test]
fn an_edit_that_does_not_check_is_not_saved() {
    let dir = tempfile::tempdir().expect("a directory");
    let flip = |editor: &str| {
        let mut command = flipside(&["config", "edit", "web"]);
        command.current_dir(dir.path()).env("EDITOR", editor);
        run(command)
    };
    let file = dir.path().join("web.Config");
    std::fs::write(&file, "version = 1\n").expect("written");
    let same = flip("true");
    ends(&same, 0);
    assert!(out(&same).contains("nothing was changed"));
    ends(&flip("sed -i s/1/1#/"), 0);
    assert_eq!(
        std::fs::read_to_string(&file).expect("read"),
        "version = 1#\n"
    );
    let bad = flip("sed -i s/version/versoin/");
    ends(&bad, 2);
    assert!(
        err(&bad).contains("was not changed; what you typed is in"),
        "{}",
        err(&bad)
    );
    assert_eq!(
        std::fs::read_to_string(&file).expect("read"),
        "version = 1#\n"
    );
    ends(&flip("false"), 1);
}

#[test]
fn a_system_with_wrong_parts_is_refused_before_the_server_is_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("i.raw"), "x").expect("written");
    for (args, said) in [
        (
            &["--system-disk", "none.raw"][..],
            "`none.raw` does not exist",
        ),
        (
            &["--system-disk", "i.raw", "--data-disk", "8X"],
            "not a size",
        ),
        (
            &["--system-disk", "i.raw", "--enclosure", "a"],
            "given twice",
        ),
        (
            &[
                "--system-disk",
                "i.raw",
                "--enclosure",
                "a",
                "--enclosure",
                "a",
            ],
            "the same directory",
        ),
        (
            &["--system-disk", "i.raw", "--network", "bridge="],
            "1 to 15 characters",
        ),
        (
            &["--system-disk", "i.raw", "--publish", "80"],
            "not a port to publish",
        ),
        (
            &["--system-disk", "i.raw", "--memory", "1K"],
            "whole number of MiB",
        ),
    ] {
        let mut command =
            flipside(&[&["system", "create", "web", "--socket", "/none"], args].concat());
        command.current_dir(dir.path());
        let output = run(command);
        ends(&output, 2);
        assert!(err(&output).contains(said), "{said}: {}", err(&output));
    }
}

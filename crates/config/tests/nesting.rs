//! Files that call other files: what is merged, what is refused, and where every value comes from.

use flipside_config::{MAX_DEPTH, MAX_FILES, MAX_STAGED_BYTES, Origin, Resolved, load, resolve};
use flipside_model::api::ConfigText;
use flipside_model::{ConfigFile, Problem, ProblemCode, QUIESCE_UNITS, Timeouts};
use std::path::PathBuf;

/// Resolves the first file with the others as its children, as the server does.
fn sent(files: &[(&str, &str)]) -> Result<Resolved, Problem> {
    let mut files = files.iter().map(|(name, text)| ConfigFile {
        name: (*name).to_owned(),
        text: format!("version = 1\n{text}"),
    });
    let first = files.next().expect("a file");
    resolve(&ConfigText {
        path: PathBuf::from("/etc/x").join(first.name),
        text: first.text,
        children: files.collect(),
    })
}

#[track_caller]
fn refused(files: &[(&str, &str)]) -> Problem {
    let problem = sent(files).expect_err("refused");
    assert_eq!(problem.code, ProblemCode::Usage);
    problem
}

fn units(resolved: &Resolved) -> Vec<String> {
    resolved.config.services.iter().map(|s| s.unit()).collect()
}

/// Where the values of a key come from, as `value file:line`.
fn places(origins: &[Origin], key: &str) -> Vec<String> {
    let shown = |o: &Origin| match (&o.file, o.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", o.value),
        _ => format!("{} default", o.value),
    };
    origins.iter().filter(|o| o.key == key).map(shown).collect()
}

// CF-27, CF-30, CF-32: the settings of children and of theirs apply; lists are put together in a fixed order, each value
// once, and what the parent lists itself stands where the parent lists it.
#[test]
fn lists_are_merged_children_first_and_the_parents_position_wins() {
    let resolved = sent(&[
        (
            "shop.Config",
            "children = [\"web.Config\", \"db.Config\"]\nservices = [\"cache\", \"nginx\", \"shop\"]\n\
             accept_loss = [\"/tmp/shop\"]\ndata_paths = [\"/srv/shop\"]\n",
        ),
        (
            "web.Config",
            "children = [\"base.Config\"]\nservices = [\"nginx\", \"varnish\"]\naccept_loss = [\"/tmp/web\"]\n\
             [[health]]\ncommand = [\"/bin/web\"]\n",
        ),
        (
            "base.Config",
            "services = [\"base\"]\ndata_paths = [\"/srv/base\"]\n",
        ),
        (
            "db.Config",
            "children = [\"base.Config\"]\nservices = [\"postgresql\", \"cache\"]\naccept_loss = [\"/tmp/web/\"]\n\
             [[health]]\ncommand = [\"/bin/db\"]\n[[health]]\ncommand = [\"/bin/web\"]\n",
        ),
    ])
    .expect("valid");
    assert_eq!(
        places(&resolved.origins, "services"),
        [
            "base.service base.Config:2",
            "varnish.service web.Config:3",
            "postgresql.service db.Config:3",
            "cache.service shop.Config:3",
            "nginx.service shop.Config:3",
            "shop.service shop.Config:3",
        ]
    );
    assert_eq!(
        units(&resolved).join(" "),
        "base.service varnish.service postgresql.service cache.service nginx.service shop.service"
    );
    assert_eq!(
        places(&resolved.origins, "accept_loss"),
        ["/tmp/web web.Config:4", "/tmp/shop shop.Config:4"]
    );
    assert_eq!(
        places(&resolved.origins, "data_paths"),
        ["/srv/base base.Config:3", "/srv/shop shop.Config:5"]
    );
    assert_eq!(
        places(&resolved.origins, "health"),
        ["/bin/web web.Config:6", "/bin/db db.Config:6"]
    );
    let names: Vec<&str> = resolved.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names[0], "shop.Config");
    assert_eq!(names.len(), 4, "a file that is called twice is read once");
}

// CF-32, CF-33: what is about the upgrade as a whole is the parent's own, also where the parent says nothing.
#[test]
fn disks_titles_deadlines_and_rehearsal_of_children_are_ignored_and_named() {
    let child = "title = \"Database\"\ncomments = \"c\"\nrehearsal = true\n[timeouts]\nmerge = 7\n\
                 [disks]\nsystem = [\"data0\"]\n";
    let resolved = sent(&[
        ("a.Config", "children = [\"db.Config\"]\n"),
        ("db.Config", child),
    ])
    .expect("valid");
    let config = &resolved.config;
    assert_eq!((config.title.as_str(), config.comments.as_str()), ("", ""));
    assert_eq!(config.timeouts, Timeouts::default());
    assert!(!config.rehearsal && config.system_disks.is_empty());
    let ignored: Vec<&str> = resolved
        .not_taken_over
        .iter()
        .map(|o| o.key.as_str())
        .collect();
    assert_eq!(
        ignored,
        [
            "title",
            "comments",
            "rehearsal",
            "timeouts.merge",
            "disks.system"
        ]
    );
    assert_eq!(
        places(&resolved.not_taken_over, "timeouts.merge"),
        ["7 db.Config:6"]
    );
    assert_eq!(places(&resolved.origins, "timeouts.merge"), ["300 default"]);
    // By itself the same file is in force.
    let alone = sent(&[("db.Config", child)]).expect("valid").config;
    assert_eq!((alone.timeouts.merge, alone.system_disks.len()), (7, 1));
}

fn held(files: &[(&str, &str)]) -> Vec<String> {
    sent(files).expect("valid").config.quiesce
}

// CF-27, CF-32: the lists of what acts by itself.
#[test]
fn quiesced_units_are_the_union_and_the_parents_word_is_the_last() {
    let child = (
        "c.Config",
        "[quiesce]\nalso = [\"mailer.service\"]\nexcept = [\"burp.service\"]\n",
    );
    let calls = "children = [\"c.Config\"]\n";
    let list = held(&[("p.Config", calls), child]);
    assert_eq!(list.len(), QUIESCE_UNITS.len());
    assert!(
        list.contains(&"mailer.service".to_owned()) && !list.contains(&"burp.service".to_owned())
    );
    // Held by one child is held, although another one takes it out of its own list.
    let other = ("d.Config", "[quiesce]\nalso = [\"d.service\"]\n");
    let both = held(&[
        ("p.Config", "children = [\"c.Config\", \"d.Config\"]\n"),
        child,
        other,
    ]);
    assert!(both.contains(&"burp.service".to_owned()) && both.contains(&"d.service".to_owned()));
    // The parent takes out what a child added, and adds what a child took out.
    let parent =
        format!("{calls}[quiesce]\nexcept = [\"mailer.service\"]\nalso = [\"burp.service\"]\n");
    let list = held(&[("p.Config", &parent), child]);
    assert!(
        !list.contains(&"mailer.service".to_owned()) && list.contains(&"burp.service".to_owned())
    );
    // Its own list replaces all of theirs.
    let parent = format!("{calls}[quiesce]\nunits = [\"only.service\"]\n");
    assert_eq!(held(&[("p.Config", &parent), child]), ["only.service"]);
    // A controlled service of any file is held by nobody.
    let service = ("c.Config", "services = [\"postfix\"]\n");
    assert!(!held(&[("p.Config", calls), service]).contains(&"postfix.service".to_owned()));
}

// CF-36, CF-37: a disabled child is listed and left out; it need not even be there.
#[test]
fn a_disabled_child_is_left_out() {
    let parent =
        "children = [{ file = \"none.Config\", enabled = false }, { file = \"b.Config\" }]\n";
    let resolved =
        sent(&[("a.Config", parent), ("b.Config", "services = [\"b\"]\n")]).expect("valid");
    assert_eq!(units(&resolved), ["b.service"]);
    let listed: Vec<bool> = resolved.files[0]
        .children
        .iter()
        .map(|c| c.enabled)
        .collect();
    assert_eq!(listed, [false, true]);
}

// CF-29, CF-30. Fault 65: a loop, and what is not there, with the chain that leads to it.
#[test]
fn a_circle_and_a_missing_child_are_named_by_their_chain() {
    let circle = refused(&[
        ("web.Config", "children = [\"db.Config\"]\n"),
        (
            "db.Config",
            "\nchildren = [\"log.Config\", \"web.Config\"]\n",
        ),
        ("log.Config", ""),
    ]);
    assert_eq!(
        circle.message,
        "/etc/x/db.Config:3:27: web.Config → db.Config → web.Config: the files call each other in a circle"
    );
    let own = refused(&[("a.Config", "children = [\"a.Config\"]\n")]);
    assert_eq!(
        own.message,
        "/etc/x/a.Config:2:13: a.Config → a.Config: the files call each other in a circle"
    );
    let missing = refused(&[
        ("web.Config", "children = [\"db.Config\"]\n"),
        ("db.Config", "children = [\"log.Config\"]\n"),
    ]);
    assert_eq!(
        missing.message,
        "/etc/x/db.Config:2:13: web.Config → db.Config → log.Config: `log.Config` does not exist"
    );
    assert!(
        missing
            .advice
            .expect("advice")
            .contains("in the directory of the file that calls it")
    );
}

// A mistake in a child is told at its place, with the way that leads there.
#[test]
fn a_mistake_in_a_child_names_the_child_and_who_calls_it() {
    let problem = refused(&[
        ("web.Config", "children = [\"db.Config\"]\n"),
        ("db.Config", "servces = []\n"),
    ]);
    assert_eq!(
        problem.message,
        "/etc/x/db.Config:2:1: unknown key `servces`"
    );
    assert_eq!(problem.causes, ["it is called by web.Config → db.Config"]);
}

// Fault 65: depth. Both ways to a file count, the longer one too when it is found last.
#[test]
fn a_chain_has_at_most_eight_files() {
    let chain = |length: usize| -> Vec<(String, String)> {
        let file = |i: usize| {
            let calls = if i == length {
                String::new()
            } else {
                format!("children = [\"f{}.Config\"]\n", i + 1)
            };
            (format!("f{i}.Config"), calls)
        };
        (1..=length).map(file).collect()
    };
    let borrowed = |files: &[(String, String)]| -> Result<Resolved, Problem> {
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        sent(&files)
    };
    assert_eq!(borrowed(&chain(MAX_DEPTH)).expect("valid").files.len(), 8);
    let deep = borrowed(&chain(MAX_DEPTH + 1)).expect_err("too deep");
    assert_eq!(
        deep.message,
        "/etc/x/f8.Config:2:13: f1.Config → f2.Config → f3.Config → f4.Config → f5.Config → f6.Config → f7.Config → \
         f8.Config → f9.Config: more than 8 files call each other in a row"
    );
    // f8 is known from a short way when the long one comes to it; f9 below it makes nine in a row.
    let mut files = chain(MAX_DEPTH + 1);
    files[0].1 = "children = [\"f8.Config\", \"f2.Config\"]\n".to_owned();
    let deep = borrowed(&files).expect_err("too deep");
    assert!(
        deep.message
            .contains("more than 8 files call each other in a row"),
        "{}",
        deep.message
    );
}

// Fault 65: number and size.
#[test]
fn a_configuration_has_at_most_64_files_and_one_mebibyte() {
    let many = |count: usize| {
        let names: Vec<String> = (1..count).map(|i| format!("c{i}.Config")).collect();
        let list: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
        let parent = format!("children = [{}]\n", list.join(", "));
        let mut files = vec![("p.Config", parent.as_str())];
        files.extend(names.iter().map(|n| (n.as_str(), "")));
        sent(&files)
    };
    assert_eq!(many(MAX_FILES).expect("valid").files.len(), 64);
    let problem = many(MAX_FILES + 1).expect_err("too many");
    assert!(
        problem
            .message
            .ends_with("p.Config → c64.Config: the configuration has more than 64 files"),
        "{}",
        problem.message
    );
    let large = "#".repeat((1 << 19) - 60);
    let parent = format!("children = [\"b.Config\", \"c.Config\"]\n{large}");
    let problem = refused(&[
        ("p.Config", &parent),
        ("b.Config", &large),
        ("c.Config", &large[..100]),
    ]);
    assert_eq!(
        problem.message,
        "/etc/x/p.Config:2:25: p.Config → c.Config: the files have more than 1048576 bytes together"
    );
}

// CF-05: what would not fit into the journal is refused before a session needs it.
#[test]
fn the_staging_copy_holds_every_text_and_has_a_limit() {
    let resolved = sent(&[
        ("p.Config", "children = [\"b.Config\"]\n# kept\n"),
        ("b.Config", "# kept too\n"),
    ])
    .expect("valid");
    let staged = resolved.staged().expect("small");
    let texts: Vec<(&str, &str)> = staged
        .files
        .iter()
        .map(|f| (f.name.as_str(), f.text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            (
                "p.Config",
                "version = 1\nchildren = [\"b.Config\"]\n# kept\n"
            ),
            ("b.Config", "version = 1\n# kept too\n"),
        ]
    );
    let large = format!("comments = '''{}'''\n", "\"".repeat(MAX_STAGED_BYTES / 4));
    let problem = sent(&[("p.Config", &large)])
        .expect("valid")
        .staged()
        .expect_err("large");
    assert!(
        problem
            .message
            .starts_with("`p.Config` and its children take ")
            && problem
                .message
                .ends_with(&format!("{MAX_STAGED_BYTES} are allowed")),
        "{}",
        problem.message
    );
}

// The server believes only what it was sent, and all of it must mean something.
#[test]
fn what_nothing_calls_and_what_is_sent_twice_is_refused() {
    let stray = refused(&[("p.Config", ""), ("b.Config", "")]);
    assert_eq!(
        stray.message,
        "`b.Config` was sent with the configuration, and nothing calls it"
    );
    let calls = "children = [\"b.Config\"]\n";
    let twice = refused(&[("p.Config", calls), ("b.Config", ""), ("b.Config", "")]);
    assert_eq!(twice.message, "the child `b.Config` was sent twice");
    let own = refused(&[("p.Config", ""), ("p.Config", "")]);
    assert_eq!(
        own.message,
        "`p.Config` was sent with the configuration, and nothing calls it"
    );
}

// Security checklist 17, fault 65: links and pipes are no children, and opening a pipe does not wait for its writer.
#[test]
fn children_are_regular_files_of_the_same_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), format!("version = 1\n{text}")).expect("written");
    };
    let parent = dir.path().join("p.Config");
    write("real.Config", "services = [\"x\"]\n");
    write("p.Config", "children = [\"real.Config\"]\n");
    assert_eq!(units(&load(&parent).expect("valid").1), ["x.service"]);
    std::os::unix::fs::symlink("real.Config", dir.path().join("link.Config")).expect("linked");
    std::fs::create_dir(dir.path().join("dir.Config")).expect("made");
    let pipe = dir.path().join("pipe.Config");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("made");
    std::fs::write(dir.path().join("raw.Config"), b"\xff").expect("written");
    for (child, why) in [
        ("link.Config", "is a symbolic link"),
        ("dir.Config", "is not a regular file"),
        ("pipe.Config", "is not a regular file"),
        ("raw.Config", "is not text in UTF-8"),
        ("none.Config", "does not exist"),
    ] {
        write("p.Config", &format!("children = [\"{child}\"]\n"));
        let problem = load(&parent).expect_err("refused");
        let expected = format!(
            "{}:2:13: p.Config → {child}: `{child}` {why}",
            parent.display()
        );
        assert_eq!(problem.message, expected);
    }
    assert!(
        load(&pipe)
            .expect_err("a pipe")
            .message
            .contains("not a regular file")
    );
}

// CF-29: a file moved away from its children is an error; they are not searched for, not where one works either. A link to
// the file is the file: its children lie beside it.
#[test]
fn children_are_looked_for_beside_the_file_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for place in [&one, &two] {
        std::fs::create_dir(place).expect("made");
    }
    std::fs::write(one.join("b.Config"), "version = 1").expect("written");
    std::fs::write(
        one.join("a.Config"),
        "version = 1\nchildren = [\"b.Config\"]",
    )
    .expect("written");
    let (text, _) = load(&one.join("a")).expect("valid");
    assert_eq!(text.children.len(), 1);
    std::os::unix::fs::symlink(one.join("a.Config"), two.join("link.Config")).expect("linked");
    load(&two.join("link")).expect("its children lie beside the file itself");
    std::fs::rename(one.join("a.Config"), two.join("a.Config")).expect("moved");
    let problem = load(&two.join("a")).expect_err("moved");
    assert!(
        problem.message.ends_with("`b.Config` does not exist"),
        "{}",
        problem.message
    );
}

// What the client resolved and what the server makes of what it was sent is the same.
#[test]
fn client_and_server_resolve_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        (
            "a.Config",
            "version = 1\ntitle = \"A\"\nchildren = [\"b.Config\", \"c.Config\"]\nservices = [\"a\"]",
        ),
        (
            "b.Config",
            "version = 1\nchildren = [\"c.Config\"]\nservices = [\"b\"]",
        ),
        ("c.Config", "version = 1\n[quiesce]\nalso = [\"c.service\"]"),
    ] {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    let (text, client) = load(&dir.path().join("a")).expect("valid");
    let json = serde_json::to_string(&text).expect("written");
    let text: ConfigText = serde_json::from_str(&json).expect("read");
    std::fs::remove_file(dir.path().join("b.Config")).expect("removed");
    assert_eq!(resolve(&text).expect("valid"), client);
}

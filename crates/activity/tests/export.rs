//! The saved log: always well-formed, valid, complete, and shown by a browser (AL-16, AL-17, AL-23, invariant 26).
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use common::{Tape, problem, sample};
use flipside_activity::{ExportHead, SCHEMA, Tree, export, sessions};
use flipside_model::{Entry, OperationalState as O, Record, Severity, UpgradeState as S};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn saved(entries: &[Entry]) -> String {
    let head = ExportHead {
        version: "0.1.0".to_owned(),
        system: "web".to_owned(),
        status: ["web.Config", "Fault Tolerant", "Idle", "Ready", "none"].map(str::to_owned),
        saved_ms: 1_700_000_000_000,
        session: sessions(entries).pop(),
    };
    let mut bytes = Vec::new();
    export(&head, &Tree::fold(entries), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads the file back with a parser that has nothing in common with the writer.
fn parsed(xml: &str) -> roxmltree::Document<'_> {
    roxmltree::Document::parse(xml).unwrap_or_else(|error| panic!("{error}\n{xml}"))
}

/// How often each record is in the file.
fn records(xml: &str) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for node in parsed(xml).descendants() {
        let name = match node.tag_name().name() {
            "entry" => "records",
            "record" => "number",
            _ => continue,
        };
        for number in node.attribute(name).unwrap().split(' ') {
            *found.entry(number.parse().unwrap()).or_insert(0) += 1;
        }
    }
    found
}

fn each_once(entries: &[Entry], xml: &str) {
    let expected: BTreeMap<u64, usize> = entries.iter().map(|e| (e.seq, 1)).collect();
    assert_eq!(records(xml), expected, "{xml}");
}

/// Says whether a text has a character that a viewer would obey, or that XML 1.0 has no place for.
fn obeyed(text: &str) -> Option<char> {
    text.chars().find(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    })
}

/// A program's output with everything that a terminal or a parser trips over.
const HOSTILE: &str = "\u{1b}[2J\u{0}\u{8}\u{b}\u{c}\r\nß]]>&amp;<script>alert(1)</script><!-- \u{fffe}\u{ffff}\u{202e}exe.txt \u{9b}31m \u{feff}\u{10ffff}\"'\t";

// AL-17, CA-40, security 13: what scripts print cannot break the file, and is in it.
#[test]
fn whatever_a_script_prints_the_file_is_well_formed() {
    let mut tape = Tape::default();
    tape.enter(S::Idle, O::Busy)
        .push(Record::Log {
            severity: Severity::Error,
            text: format!("action {HOSTILE}"),
            detail: Some(HOSTILE.repeat(50)),
            component: Some(HOSTILE.to_owned()),
            advice: Some(HOSTILE.to_owned()),
        })
        .broken(S::Idle, &problem(HOSTILE));
    let xml = saved(&tape.0);
    assert_eq!(obeyed(&xml), None);
    each_once(&tape.0, &xml);
    let document = parsed(&xml);
    let detail = document
        .descendants()
        .find(|node| node.tag_name().name() == "detail")
        .and_then(|node| node.text())
        .unwrap();
    assert!(
        detail.starts_with("\\u{1b}[2J\\u{0}\\u{8}\\u{b}\\u{c}\nß]]>&amp;<script>"),
        "{detail}"
    );
    assert_eq!(
        detail.matches("\\u{10ffff}").count(),
        0,
        "a plain character was escaped"
    );
    assert!(
        !document
            .descendants()
            .any(|node| node.tag_name().name() == "script")
    );
}

// Invariant 26, AL-17, AL-24: a whole session with its retry, its refusals and its checks.
#[test]
fn each_record_is_in_it_once() {
    let tape = sample();
    each_once(&tape.0, &saved(&tape.0));
    // A log that begins in the middle, or ends there, is complete as well.
    for at in 0..tape.0.len() {
        each_once(&tape.0[..at], &saved(&tape.0[..at]));
        each_once(&tape.0[at..], &saved(&tape.0[at..]));
    }
}

// AL-23: product version, configuration, times and final status.
#[test]
fn it_says_what_support_asks_first() {
    let tape = sample();
    let xml = saved(&tape.0);
    let document = parsed(&xml);
    let root = document.root_element();
    assert_eq!(root.attribute("product-version"), Some("0.1.0"));
    assert_eq!(root.attribute("saved"), Some("2023-11-14T22:13:20.000Z"));
    let of = |name: &str| {
        document
            .descendants()
            .find(|n| n.tag_name().name() == name)
            .unwrap()
    };
    assert_eq!(of("status").attribute("hardware"), Some("Fault Tolerant"));
    let session = of("session");
    assert_eq!(session.attribute("configuration"), Some("web.Config"));
    assert_eq!(session.attribute("outcome"), Some("aborted"));
    assert!(session.attribute("ended").is_some());
}

/// Runs a tool of Debian's that reads the file as a browser or a support tool does.
fn tool(name: &str, arguments: &[&Path]) -> String {
    let output = Command::new(name).args(arguments).output();
    let output = output
        .unwrap_or_else(|error| panic!("`{name}`: {error}; tools/install-deps.sh installs it"));
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

// AL-17: it is valid by its own schema, and the style sheet inside it makes a page of it.
#[test]
fn it_is_valid_and_a_browser_shows_it() {
    let mut tape = sample();
    tape.push(Record::Log {
        severity: Severity::Warning,
        text: HOSTILE.to_owned(),
        detail: Some("<b>bold</b>".to_owned()),
        component: None,
        advice: None,
    });
    let dir = tempfile::tempdir().unwrap();
    let (schema, file) = (dir.path().join("log.xsd"), dir.path().join("log.xml"));
    std::fs::write(&schema, SCHEMA).unwrap();
    std::fs::write(&file, saved(&tape.0)).unwrap();
    tool(
        "xmllint",
        &[
            Path::new("--nonet"),
            Path::new("--noout"),
            Path::new("--schema"),
            &schema,
            &file,
        ],
    );
    let html = tool("xsltproc", &[Path::new("--nonet"), &file]);
    assert!(html.contains("<h1>Activity log of web</h1>"), "{html}");
    assert!(
        html.contains("&lt;b&gt;bold&lt;/b&gt;") && !html.contains("<b>"),
        "{html}"
    );
    assert!(
        html.contains("<details open"),
        "what asks for attention is open: {html}"
    );
    // Without XSLT, which browsers are removing, the style sheet in the file is used.
    let xml = std::fs::read_to_string(&file).unwrap();
    let document = parsed(&xml);
    let style = document
        .descendants()
        .find(|n| n.tag_name().name() == "style")
        .unwrap();
    assert_eq!(
        style.tag_name().namespace(),
        Some("http://www.w3.org/1999/xhtml")
    );
    assert!(style.text().unwrap().contains("entry[severity=\"Error\"]"));
}

#[test]
fn a_schema_that_says_something_else_would_be_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, file) = (dir.path().join("log.xsd"), dir.path().join("log.xml"));
    std::fs::write(&schema, SCHEMA).unwrap();
    let wrong = saved(&sample().0).replace("severity=\"Error\"", "severity=\"Fatal\"");
    std::fs::write(&file, wrong).unwrap();
    let arguments = ["--nonet", "--noout", "--schema"].map(Path::new);
    let status = Command::new("xmllint")
        .args(arguments)
        .args([&schema, &file])
        .output();
    assert!(!status.unwrap().status.success());
}

fn text() -> impl Strategy<Value = String> {
    // Any characters, and often those that hurt.
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(
            prop_oneof![
                (0_u32..0x20).prop_map(|c| char::from_u32(c).unwrap_or(' ')),
                proptest::sample::select(HOSTILE.chars().collect::<Vec<_>>()),
                any::<char>(),
            ],
            0..40
        )
        .prop_map(String::from_iter),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let severity = proptest::sample::select(flipside_activity::SEVERITIES.to_vec());
    let states = vec![
        S::Idle,
        S::PrepareSplit,
        S::Split,
        S::Merge,
        S::Abort,
        S::Finish,
    ];
    let log =
        (severity, text(), proptest::option::of(text())).prop_map(|(severity, text, detail)| {
            Record::Log {
                severity,
                component: detail.clone(),
                advice: detail.clone(),
                text,
                detail,
            }
        });
    let operational = proptest::sample::select(vec![O::Ready, O::Busy, O::Broken]);
    let entered = (
        proptest::sample::select(states),
        operational,
        proptest::option::of(text()),
    );
    let entered = entered.prop_map(|(state, operational, text)| Record::Entered {
        state,
        operational,
        problem: text.map(|text| problem(&text)),
    });
    let step = (text(), 1..3_u32).prop_map(|(title, attempt)| Record::Intent {
        step: common::step("split.fork"),
        title,
        attempt,
    });
    let ended = text().prop_map(|text| Record::Outcome {
        step: common::step("split.fork"),
        result: flipside_model::StepResult::Failed(problem(&text)),
    });
    let opened = text().prop_map(|version| Record::Opened { version });
    prop_oneof![log, entered, step, ended, opened]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // Invariant 26: any records in any order, with any text in them.
    #[test]
    fn any_log_is_well_formed_and_complete(records in proptest::collection::vec(record(), 0..40)) {
        let mut tape = Tape::default();
        for record in records {
            tape.push(record);
        }
        let xml = saved(&tape.0);
        prop_assert_eq!(obeyed(&xml), None);
        each_once(&tape.0, &xml);
    }
}

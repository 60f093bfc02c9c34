use super::*;
use crate::args::Cli;
use clap::Parser as _;
use clap::error::ErrorKind;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of `docs/manual`, by name.
fn files() -> Vec<(String, String)> {
    let directory = repository().join("docs/manual");
    let entries = std::fs::read_dir(directory).expect("the manual");
    let mut files: Vec<(String, String)> = entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).expect("text"))
        })
        .collect();
    files.sort();
    files
}

// DE-03, CA-24, RS-09, PR-26, CM-02: what is advised and not enforced stands where it is needed, and before what it is for.
#[test]
fn what_is_advised_stands_where_it_is_needed() {
    let page = |name: &str| {
        let found = PAGES.iter().find(|page| page.name == name);
        found.expect("a page").text.replace('\n', " ")
    };
    let configuring = page("configuring");
    let comments = configuring
        .split("## Title and comments")
        .nth(1)
        .expect("a section");
    let comments = comments.split("## ").next().expect("its text");
    for advised in [
        "what kind of upgrade",
        "which systems",
        "set up first",
        "whom to ask",
        "changed last",
    ] {
        assert!(comments.contains(advised), "{advised}: {comments}");
    }
    let actions = configuring
        .split("## Custom actions")
        .nth(1)
        .expect("a section");
    assert!(actions.contains("works outside an upgrade, ends with 0 and completes in good time"));
    let preparing = page("preparing");
    let tasks = preparing
        .split("## The tasks before an upgrade")
        .nth(1)
        .expect("a section");
    assert!(
        tasks.contains("Compare both legs of every disk") && tasks.contains("flipside disk verify")
    );
    let performing = page("performing");
    let commit = performing
        .split("## Commit or abort")
        .nth(1)
        .expect("a section");
    let (before, _) = commit.split_once("flipside commit").expect("the command");
    assert!(
        before.contains("Close applications that nobody needs"),
        "{before}"
    );
}

// CO-29: the manual in the program is the whole manual, and what links name is there.
#[test]
fn every_page_is_in_the_program_and_every_link_leads_somewhere() {
    for (name, text) in files() {
        assert!(
            PAGES.iter().any(|page| page.text == text),
            "{name} has no page"
        );
        for event in Parser::new(&text) {
            let Event::Start(Tag::Link { dest_url, .. }) = event else {
                continue;
            };
            let target = repository().join("docs/manual").join(&*dest_url);
            assert!(target.is_file(), "{name} names `{dest_url}`");
        }
    }
    let names: BTreeSet<&str> = PAGES.iter().map(|page| page.name).collect();
    assert_eq!(names.len(), PAGES.len());
    let index = PAGES[0].text;
    for page in [
        "preparing",
        "configuring",
        "performing",
        "troubleshooting",
        "glossary",
        "differences",
    ] {
        assert!(
            names.contains(page) && index.contains(&format!("`{page}`")),
            "{page}"
        );
    }
}

/// What a page tells to type: lines of shell blocks (true), and code within text.
fn typed(text: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut shell = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                shell = &*language == "sh";
            }
            Event::End(TagEnd::CodeBlock) => shell = false,
            Event::Text(lines) if shell => {
                found.extend(lines.lines().map(|line| (true, line.to_owned())));
            }
            Event::Code(code) => found.push((false, code.to_string())),
            _ => {}
        }
    }
    found.retain(|(_, line)| line.starts_with("flipside ") && !line.contains(['…', '|', '>', '[']));
    found
}

// Every command that the manual names can be typed as it stands.
#[test]
fn every_command_of_the_manual_parses() {
    let mut count = 0;
    for page in &PAGES {
        for (block, line) in typed(page.text) {
            let words = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = words.split_whitespace().collect();
            match Cli::try_parse_from(words) {
                Ok(_) => {}
                // Prose may leave out what is clear from it.
                Err(error) if !block && error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{}: `{line}`: {error}", page.name),
            }
            count += 1;
        }
    }
    assert!(count > 60, "only {count} commands were found");
}

/// All sources of the product as one text, with strings that go over several lines joined.
fn sources() -> String {
    fn add(directory: &Path, all: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                add(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.ends_with("manual_tests.rs")
            {
                all.push_str(&std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut all = String::new();
    for folder in ["crates", "backends"] {
        for entry in std::fs::read_dir(repository().join(folder)).expect("a folder") {
            let source = entry.expect("readable").path().join("src");
            if source.is_dir() {
                add(&source, &mut all);
            }
        }
    }
    let mut joined = String::with_capacity(all.len());
    let mut pieces = all.split("\\\n");
    joined.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        joined.push_str(piece.trim_start());
    }
    joined
}

/// The texts that a page says flipside says: code in the first column of tables that are headed so.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut ours, mut head, mut column) = (false, false, 0);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::TableHead) => (head, column) = (true, 0),
            Event::End(TagEnd::TableHead) => head = false,
            Event::Start(Tag::TableRow) => column = 0,
            Event::End(TagEnd::TableCell) => column += 1,
            Event::Text(text) if head && column == 0 => ours = &*text == "flipside says",
            Event::Code(code) if ours && !head && column == 0 => found.push(code.to_string()),
            _ => {}
        }
    }
    found
}

// TS-01..TS-17: what the tables quote is what flipside says, to the letter; `…` stands for what differs.
#[test]
fn every_text_that_is_quoted_is_in_the_code() {
    let sources = sources();
    let texts: Vec<String> = PAGES.iter().flat_map(|page| quoted(page.text)).collect();
    assert!(texts.len() > 6, "{texts:?}");
    for text in texts {
        for piece in text
            .split('…')
            .map(str::trim)
            .filter(|piece| piece.len() > 3)
        {
            assert!(
                sources.contains(piece),
                "nothing says `{piece}` (of `{text}`)"
            );
        }
    }
}

fn cites(area: &str, rows: std::ops::RangeInclusive<u32>) {
    let all: String = files().into_iter().map(|(_, text)| text).collect();
    for row in rows {
        let number = format!("{area}-{row:02}");
        assert!(
            all.contains(&number),
            "the manual has no place for {number}"
        );
    }
}

// The whole of the guide's tables 5-1 to 5-3 (TS-01 to TS-20), of its checklist (VC-03..VC-08) and of what is to be known and
// done beforehand: PR-01..PR-04, PR-08, PR-09, PR-11, PR-13, PR-19, PR-20, PR-23..PR-25, PR-28..PR-33, SP-25, US-15, US-16,
// US-18, US-29. Only where a row asks for nothing but words is this its test.
#[test]
fn the_manual_has_a_place_for_every_row_that_asks_for_words() {
    cites("TS", 1..=20);
    cites("VC", 1..=11);
    cites("PR", 1..=35);
}

#[test]
fn a_page_is_wrapped_and_has_no_marks_for_writers() {
    for page in &PAGES {
        for width in [40, 80] {
            let text = render(page.text, width, false);
            assert!(
                !text.contains("<!--") && !text.contains("]("),
                "{}",
                page.name
            );
            for line in text.lines() {
                let unbreakable = line.starts_with("    ")
                    || line.split_whitespace().any(|w| w.len() > width / 2);
                assert!(
                    line.chars().count() <= width || unbreakable,
                    "{}: {line}",
                    page.name
                );
            }
        }
    }
}

#[test]
fn a_page_reads_like_this() {
    let text = "# Title\n\nSome `code` and a [link](x.md) that goes\non. <!-- ZZ-01 -->\n\n> Note: mind\n\n1. one\n2. two words\n\n\
                | says | means | do |\n| --- | --- | --- |\n| `a` | b | c d e |\n\n```sh\nflipside status\n```\n";
    let expected = "\
Title
=====

Some `code` and a link that goes
on.

  | Note: mind

1. one
2. two words

* `a`
    means: b
    do: c d e

    flipside status";
    assert_eq!(render(text, 34, false), expected);
    assert!(render(text, 34, true).starts_with("\u{1b}[1mTitle\u{1b}[0m\n"));
}

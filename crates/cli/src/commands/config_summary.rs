//! `flipside config summary` and `flipside config worksheet`: an upgrade on one page.

use crate::context::Context;
use crate::failure::Failure;
use crate::recent;
use flipside_activity::{clean, clean_lines};
use flipside_config::{FileInfo, Item, Summary};
use std::fmt::Write as _;
use std::path::Path;

/// The items of the worksheet (CF-42), each with what a file may say to it.
const WORKSHEET: [(&str, &str); 7] = [
    (
        "Configuration files to use",
        "your own, and those that it calls",
    ),
    ("Disks to upgrade", "besides the mandatory system disks"),
    (
        "Disks that cannot be upgraded",
        "data disks, and storage over a network",
    ),
    (
        "Software installation utilities to run",
        "packages, their order, what they need",
    ),
    (
        "Application services to start/stop",
        "in the order in which they start",
    ),
    ("Custom actions to run", "programs, and when they run"),
    ("Log files to back up", "and the directory on a data disk"),
];

/// Lines left free below an item that no file answers.
const FREE_LINES: usize = 2;

/// SU-01: after a file was created, loaded or edited, by a command of its own; it changes nothing (SU-05, CF-10).
pub(crate) fn summary(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let opened = recent::open(given)?;
    if let Some(note) = &opened.note {
        ctx.say(note)?;
    }
    let summary = Summary::of(&opened.resolved);
    if ctx.json {
        return ctx.object(&summary);
    }
    ctx.line(&summary_text(&summary))
}

fn summary_text(summary: &Summary) -> String {
    let mut out = String::from("Upgrade Summary\n");
    let mut row = |name: &str, lines: Vec<String>| {
        let lines = if lines.is_empty() {
            vec!["–".to_owned()]
        } else {
            lines
        };
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            let _ = writeln!(out, "{}", format!("  {name:<22}{line}").trim_end());
        }
    };
    row("File", vec![clean(&summary.name)]);
    row("Title", clean_lines(&summary.title));
    row("Description", clean_lines(&summary.comments));
    let mut disks = vec!["the mandatory system disks".to_owned()];
    disks.extend(items(&summary.disks));
    row("Disks to upgrade", disks);
    row(
        "Files called",
        summary.children.iter().map(child_text).collect(),
    );
    row("Services", items(&summary.services));
    row("Custom actions", items(&summary.actions));
    row("Logs to back up", items(&summary.logs));
    for (key, item) in &summary.more {
        row(key, vec![item_text(item)]);
    }
    out
}

fn child_text(file: &FileInfo) -> String {
    let title = clean(file.title.lines().next().unwrap_or_default());
    let way: Vec<String> = file.chain.iter().map(|name| clean(name)).collect();
    let mut text = format!("{:<24}{title}", clean(&file.name))
        .trim_end()
        .to_owned();
    if way.len() > 2 {
        let _ = write!(text, "  ({})", way.join(" → "));
    }
    text
}

fn items(items: &[Item]) -> Vec<String> {
    items.iter().map(item_text).collect()
}

/// An item with where it comes from: the file's own, or inherited (SU-06).
fn item_text(item: &Item) -> String {
    let value = clean(item.value.lines().next().unwrap_or_default());
    let from = match &item.file {
        _ if item.own => "own".to_owned(),
        Some(file) => format!("inherited from {}", clean(file)),
        None => "default".to_owned(),
    };
    format!("{value:<40}  {from}")
}

/// CF-42, PR-32: the form, with what a file says already filled in.
pub(crate) fn worksheet(ctx: &Context, given: Option<&Path>) -> Result<(), Failure> {
    let opened = given.map(recent::open).transpose()?;
    if let Some(note) = opened.as_ref().and_then(|opened| opened.note.as_ref()) {
        ctx.say(note)?;
    }
    let summary = opened.map(|opened| Summary::of(&opened.resolved));
    let answers = summary.as_ref().map_or_else(Default::default, answers);
    if ctx.json {
        let rows: Vec<_> = WORKSHEET
            .iter()
            .zip(&answers)
            .map(|((item, hint), answers)| {
                serde_json::json!({ "item": item, "write_down": hint, "answers": answers })
            })
            .collect();
        return ctx.object(&rows);
    }
    let mut out = String::from("Upgrade planning worksheet\n");
    if let Some(summary) = &summary {
        let _ = writeln!(out, "{}: {}", clean(&summary.name), clean(&summary.title));
    }
    for ((item, hint), answers) in WORKSHEET.iter().zip(&answers) {
        let _ = writeln!(out, "\n[ ] {item} ({hint})");
        for answer in answers {
            let _ = writeln!(out, "      {}", clean(answer));
        }
        if answers.is_empty() {
            out.push_str(
                &"      ______________________________________________\n".repeat(FREE_LINES),
            );
        }
    }
    ctx.line(&out)
}

fn answers(summary: &Summary) -> [Vec<String>; 7] {
    let values = |items: &[Item]| items.iter().map(|item| item.value.clone()).collect();
    let called = summary.children.iter().map(|file| file.name.clone());
    [
        std::iter::once(summary.name.clone())
            .chain(called)
            .collect(),
        values(&summary.disks),
        // Files say neither what cannot be upgraded nor what is installed.
        Vec::new(),
        Vec::new(),
        values(&summary.services),
        values(&summary.actions),
        values(&summary.logs),
    ]
}

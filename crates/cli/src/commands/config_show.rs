//! `flipside config show`: the settings in force, and the file and line that each comes from.

use super::config::ShowArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::recent;
use crate::selection;
use flipside_activity::clean;
use flipside_config::{Origin, Resolved};
use flipside_model::api::StagedConfig;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The keys in the order in which they are shown, and what people call them.
const SHOWN: [(&str, &str); 11] = [
    ("title", "Title"),
    ("comments", "Comments"),
    ("services", "Services"),
    ("data_paths", "Data paths"),
    ("accept_loss", "Accepted loss"),
    ("action", "Actions"),
    ("log_backup.directory", "Log directory"),
    ("log_backup.logs", "Logs to save"),
    ("health", "Health"),
    ("quiesce", "Quiesced"),
    ("rehearsal", "Rehearsal"),
];

pub(crate) async fn run(ctx: &Context, args: &ShowArgs) -> Result<(), Failure> {
    if let Some(system) = &args.staged {
        let path = format!("/v1/systems/{system}/config");
        let staged: StagedConfig = ctx.client.get(&path).await?;
        return show_staged(ctx, staged);
    }
    let Some(file) = &args.file else {
        return Err(Failure::usage("no file was named"));
    };
    let opened = recent::open(file)?;
    if let Some(note) = &opened.note {
        ctx.say(note)?;
    }
    show(ctx, &opened.text.path, &opened.resolved)
}

/// What a session keeps are the texts: they are resolved again, by the same rules.
fn show_staged(ctx: &Context, staged: StagedConfig) -> Result<(), Failure> {
    let whose = match (&staged.name, &staged.session) {
        (None, _) => "no configuration file: the defaults".to_owned(),
        (Some(name), Some(_)) => format!("`{}`, as the session keeps it", clean(name)),
        (Some(name), None) => format!("`{}`, as it was checked last", clean(name)),
    };
    ctx.say(&whose)?;
    let resolved = selection::staged(staged)?;
    let name = resolved.files.first().map(|f| f.name.clone());
    show(ctx, Path::new(&name.unwrap_or_default()), &resolved)
}

fn show(ctx: &Context, path: &Path, resolved: &Resolved) -> Result<(), Failure> {
    if ctx.json {
        return ctx.object(&as_json(path, resolved)?);
    }
    ctx.line(&settings_text(path, resolved))
}

/// The settings, and beside them the files, the origin of every value, and what was not taken over.
fn as_json(path: &Path, resolved: &Resolved) -> Result<Value, Failure> {
    let failed = |error| Failure::failed(format!("cannot write JSON: {error}"));
    let mut value = serde_json::to_value(&resolved.config).map_err(failed)?;
    value["file"] = json!(path);
    value["files"] = json!(resolved.files);
    value["origins"] = json!(resolved.origins);
    value["not_taken_over"] = json!(resolved.not_taken_over);
    Ok(value)
}

fn settings_text(path: &Path, resolved: &Resolved) -> String {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for (key, name) in SHOWN {
        let found = resolved.origins.iter().filter(|o| o.key == key);
        rows_of(&mut rows, name, found, |o| match key {
            // SV-11: the box of a service, as text.
            "services" => format!("{} {}", selection::of(resolved, &o.value).0.mark(), o.value),
            _ => o.value.clone(),
        });
    }
    let deadlines = |o: &&Origin| o.key.starts_with("timeouts.");
    rows_of(
        &mut rows,
        "Time-outs",
        resolved.origins.iter().filter(deadlines),
        |o| format!("{} {} s", o.key.trim_start_matches("timeouts."), o.value),
    );
    for (key, name) in [
        ("disks.system", "System disks"),
        ("disks.data", "Data disks"),
    ] {
        let disks = resolved.origins.iter().filter(|o| o.key == key);
        if disks.clone().next().is_some() {
            rows_of(&mut rows, name, disks, |o| o.value.clone());
        }
    }
    if !resolved.not_taken_over.is_empty() {
        rows_of(
            &mut rows,
            "Not taken over",
            resolved.not_taken_over.iter(),
            |o| {
                let value = o.value.lines().next().unwrap_or_default();
                format!("{} = {value}", o.key)
            },
        );
    }
    let width = rows
        .iter()
        .map(|r| r.1.chars().count())
        .max()
        .unwrap_or(0)
        .min(MAX_COLUMN);
    let mut out = format!("{}\n", clean(&path.to_string_lossy()));
    for (name, value, origin) in &rows {
        let line = format!("  {name:<16}{value:<width$}  {origin}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Values longer than this push their origin to the right instead of everybody's.
const MAX_COLUMN: usize = 48;

fn rows_of<'a>(
    rows: &mut Vec<(String, String, String)>,
    name: &str,
    origins: impl Iterator<Item = &'a Origin>,
    shown: impl Fn(&Origin) -> String,
) {
    let before = rows.len();
    for origin in origins {
        let place = match (&origin.file, origin.line) {
            (Some(file), Some(line)) => format!("{}:{line}", clean(file)),
            _ => "default".to_owned(),
        };
        let value = shown(origin);
        let mut place = Some(place);
        for line in value.lines() {
            let first = rows.len() == before;
            let name = if first { name } else { "" };
            rows.push((
                name.to_owned(),
                clean(line),
                place.take().unwrap_or_default(),
            ));
        }
    }
    if rows.len() == before {
        rows.push((name.to_owned(), "–".to_owned(), String::new()));
    }
}

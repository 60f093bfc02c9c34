//! `flipside log --item`: what the guide shows in a window, with Previous and Next (AL-11 to AL-14).

use crate::context::Context;
use crate::failure::Failure;
use flipside_activity::{clean, clean_lines, duration_ms, icon};
use flipside_model::api::LogItem;
use flipside_model::{Severity, SystemName};
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GoArg {
    /// The one before it
    Previous,
    /// The one after it
    Next,
}

pub(crate) async fn run(
    ctx: &Context,
    system: &SystemName,
    id: u64,
    go: Option<GoArg>,
    severity: Option<Severity>,
    session: Option<u32>,
) -> Result<(), Failure> {
    let mut path = format!("/v1/systems/{system}/log/{id}");
    if let Some(go) = go {
        let way = if go == GoArg::Next {
            "next"
        } else {
            "previous"
        };
        crate::url::add(&mut path, "go", way);
    }
    if let Some(severity) = severity {
        crate::url::add(&mut path, "severity", &severity.to_string());
    }
    if let Some(session) = session {
        crate::url::add(&mut path, "session", &session.to_string());
    }
    let item: LogItem = ctx.client.get(&path).await?;
    if ctx.json {
        return ctx.object(&item);
    }
    ctx.line(&text(&item))
}

fn text(item: &LogItem) -> String {
    let mut out = String::new();
    for (depth, above) in item.path.iter().enumerate() {
        let _ = writeln!(out, "{}{}", "  ".repeat(depth), clean(above));
    }
    let _ = writeln!(out, "{} {}", icon(item.severity), clean(&item.text));
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    row("Item", &item.id.to_string());
    row("Time", &clean(&item.time));
    row("Severity", &item.severity.to_string());
    if let Some(took) = item.took_ms {
        row("Took", &duration_ms(took));
    }
    if let Some(component) = &item.component {
        row("Component", &clean(component));
    }
    if let Some(advice) = &item.advice {
        row("Advice", &clean(advice));
    }
    if let Some(detail) = &item.detail {
        out.push_str("  Status\n");
        for line in clean_lines(detail) {
            let _ = writeln!(out, "    {line}");
        }
    }
    let other = |id: Option<u64>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let _ = writeln!(
        out,
        "\nOf severity {}: previous {}, next {}",
        item.walked,
        other(item.previous),
        other(item.next)
    );
    let counts: Vec<String> = item
        .counts
        .iter()
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    let _ = writeln!(out, "The log has {}", counts.join(", "));
    out
}

//! `flipside help`: a page of the manual, or a command.

use crate::args::Cli;
use crate::context::Context;
use crate::failure::Failure;
use crate::manual::{PAGES, Page, render};
use clap::CommandFactory as _;
use flipside_activity::clean;
use flipside_config::nearest;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

const EXAMPLES: &str = "\
Examples:
  flipside help                      the pages
  flipside help performing | less    one page
  flipside help config edit          a command; as `flipside config edit --help`";

/// Wider lines are hard to read.
const WIDEST: usize = 100;

/// A page that is not shown on a terminal is as wide as the manual's files.
const PLAIN_WIDTH: usize = 80;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A page of the manual, or a command
    #[arg(value_name = "TOPIC")]
    topic: Vec<String>,
}

pub(crate) fn run(ctx: &Context, args: &Args) -> Result<(), Failure> {
    let Some(first) = args.topic.first() else {
        return topics(ctx);
    };
    let page = PAGES.iter().find(|page| page.name == first);
    match page.filter(|_| args.topic.len() == 1) {
        Some(page) if ctx.json => ctx.object(&serde_json::json!({
            "topic": page.name, "title": page.title, "text": page.text
        })),
        Some(page) => ctx.line(&render(page.text, width(), ctx.color)),
        None => command(ctx, &args.topic),
    }
}

fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return PLAIN_WIDTH;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(PLAIN_WIDTH, |size| {
        usize::from(size.ws_col).clamp(40, WIDEST)
    })
}

fn topics(ctx: &Context) -> Result<(), Failure> {
    if ctx.json {
        let pages: Vec<_> = PAGES
            .iter()
            .map(|page| serde_json::json!({ "topic": page.name, "title": page.title }))
            .collect();
        return ctx.object(&pages);
    }
    let mut out = String::from("The manual, a page each:\n");
    for Page { name, title, .. } in &PAGES {
        let _ = writeln!(out, "  flipside help {name:<16}{title}");
    }
    out.push_str("\nThe commands: `flipside --help`; one of them: `flipside help COMMAND`\n");
    ctx.line(&out)
}

/// Explains a command by its names, such as `config edit`.
fn command(ctx: &Context, words: &[String]) -> Result<(), Failure> {
    let mut root = Cli::command();
    root.build();
    let mut found = &mut root;
    for word in words {
        let known: Vec<String> = found
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .collect();
        let Some(next) = found.find_subcommand_mut(word) else {
            return Err(unknown(words, word, &known));
        };
        found = next;
    }
    let help = found.render_long_help();
    let text = if ctx.color {
        help.ansi().to_string()
    } else {
        help.to_string()
    };
    ctx.line(&text)
}

fn unknown(words: &[String], word: &str, commands: &[String]) -> Failure {
    let shown: Vec<String> = words.iter().map(|word| clean(word)).collect();
    let pages = PAGES.iter().map(|page| page.name);
    let meant = nearest(word, commands.iter().map(String::as_str).chain(pages));
    let failure = Failure::usage(format!("there is no help for `{}`", shown.join(" ")));
    match meant {
        Some(meant) => failure.advise(format!("did you mean `flipside help {meant}`?")),
        None => failure.advise("`flipside help` lists the pages, `flipside --help` the commands"),
    }
}

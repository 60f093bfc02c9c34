//! `flipside config`: upgrade configuration files. Needs no server.

use super::config_edit;
use crate::context::Context;
use crate::failure::Failure;
use flipside_activity::clean;
use flipside_config::{load, template, with_extension};
use flipside_model::{Problem, ProblemCode, UpgradeConfig};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  flipside config new web        writes web.Config, with every key explained
  flipside config edit web       opens $EDITOR, and refuses to save what does not check
  flipside config check web      names file, line and column of what is wrong
  flipside config show web       prints the settings in force, defaults included";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Write a new file in which every key is explained
    #[command(after_help = "Examples:\n  flipside config new web      writes web.Config")]
    New(FileArg),
    /// Edit a file with $VISUAL or $EDITOR; what does not check is not saved
    #[command(after_help = "Examples:\n  EDITOR=nano flipside config edit web.Config")]
    Edit(FileArg),
    /// Print the settings in force, defaults included
    #[command(after_help = "Examples:\n  flipside config show web.Config --json")]
    Show(FileArg),
    /// Check a file
    #[command(after_help = "Examples:\n  flipside config check web.Config")]
    Check(FileArg),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FileArg {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    file: PathBuf,
}

pub(crate) fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::New(arg) => new(ctx, &arg.file),
        Command::Edit(arg) => config_edit::run(ctx, &arg.file),
        Command::Show(arg) => show(ctx, &arg.file),
        Command::Check(arg) => check(ctx, &arg.file),
    }
}

fn new(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let path = with_extension(given);
    let shown = path.display().to_string();
    let refused = |error: &std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Problem::new(ProblemCode::Usage, format!("`{shown}` exists already"))
                .advise(format!("`flipside config edit {shown}` changes it"));
        }
        Problem::new(ProblemCode::Failed, format!("cannot write `{shown}`")).because(error)
    };
    let mut file = std::fs::File::create_new(&path).map_err(|error| refused(&error))?;
    file.write_all(template().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| refused(&error))?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "file": path }));
    }
    ctx.line(&format!("`{shown}` was written"))
}

fn check(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let (text, config) = load(given)?;
    if ctx.json {
        return ctx.object(
            &serde_json::json!({ "file": text.path, "title": config.title, "valid": true }),
        );
    }
    ctx.line(&format!("`{}` is valid", text.path.display()))
}

fn show(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let (text, config) = load(given)?;
    if ctx.json {
        return ctx.object(&config);
    }
    ctx.line(&settings_text(&text.path, &config))
}

fn settings_text(path: &Path, config: &UpgradeConfig) -> String {
    let mut out = format!("{}\n", path.display());
    let mut field = |name: &str, values: &[String]| {
        let none = ["–".to_owned()];
        let values = if values.is_empty() { &none } else { values };
        for (i, value) in values.iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            let _ = writeln!(out, "  {name:<14}{}", clean(value));
        }
    };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    field("Title", &lines(&config.title));
    field("Comments", &lines(&config.comments));
    field(
        "Services",
        &config.services.iter().map(|s| s.unit()).collect::<Vec<_>>(),
    );
    field("Data paths", &config.data_paths);
    let accepted: Vec<String> = config.accept_loss.iter().map(|a| a.0.clone()).collect();
    field("Accepted loss", &accepted);
    let health: Vec<String> = config.health.iter().map(|h| h.command.join(" ")).collect();
    field("Health", &health);
    field("Quiesced", &config.quiesce);
    field(
        "Rehearsal",
        &[if config.rehearsal { "yes" } else { "no" }.to_owned()],
    );
    let t = &config.timeouts;
    let timeouts = [
        ("split", t.split),
        ("prepare", t.prepare),
        ("merge", t.merge),
        ("commit", t.commit),
        ("abort", t.abort),
        ("finish", t.finish),
        ("service", t.service),
        ("health", t.health),
        ("drain", t.drain),
    ];
    field(
        "Time-outs",
        &timeouts.map(|(name, seconds)| format!("{name} {seconds} s")),
    );
    out
}

//! `flipside config`: upgrade configuration files. Only `show --staged` needs a server.

use super::{config_edit, config_show, config_summary};
use crate::context::Context;
use crate::failure::Failure;
use crate::recent;
use flipside_activity::{clean, clean_lines};
use flipside_config::{
    Child, Listed, exists_already, list, read, save_as, schema, template, with_extension,
};
use flipside_model::{Problem, ProblemCode};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  flipside config new web        writes web.Config, with every key explained
  flipside config edit web       opens $EDITOR, and refuses to save what does not check
  flipside config check web      names file, line and column of what is wrong
  flipside config summary web    shows what the upgrade will do, own and inherited
  flipside config show web       prints the settings in force, and where each comes from
  flipside config list           lists the files of the directory used last

A file may call other files of its directory: children = [\"db.Config\"]. What it says itself wins.";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Write a new file in which every key is explained
    #[command(after_help = "Examples:\n  flipside config new web      writes web.Config")]
    New(FileArg),
    /// Edit a file with $VISUAL or $EDITOR; what does not check is not saved
    #[command(
        after_help = "Examples:\n  EDITOR=nano flipside config edit web.Config\n  flipside config edit web --save-as web-2"
    )]
    Edit(EditArgs),
    /// Print the settings in force, defaults included, and the file and line that each comes from
    #[command(
        after_help = "Examples:\n  flipside config show web.Config --json\n  flipside config show --staged shop    the copy that the session of `shop` keeps"
    )]
    Show(ShowArgs),
    /// Show the Upgrade Summary: disks, files called, services, actions and logs, own and inherited
    #[command(
        after_help = "Examples:\n  flipside config summary web\n  flipside config summary web --json"
    )]
    Summary(FileArg),
    /// Write a copy of a file under a new name; a file that exists is not replaced
    #[command(
        after_help = "Examples:\n  flipside config copy web web-2      children lie beside the copy, or it is refused"
    )]
    Copy(CopyArgs),
    /// Print the planning worksheet, filled in from a file if one is named
    #[command(
        after_help = "Examples:\n  flipside config worksheet | lp\n  flipside config worksheet web"
    )]
    Worksheet(WorksheetArgs),
    /// Check a file and the files it calls
    #[command(after_help = "Examples:\n  flipside config check web.Config")]
    Check(FileArg),
    /// List the files of a directory: title, comments, and what each calls
    #[command(
        after_help = "Examples:\n  flipside config list                   the directory used last\n  flipside config list /srv/upgrades"
    )]
    List(ListArgs),
    /// Print the JSON schema of the files, for editors
    #[command(after_help = "Examples:\n  flipside config schema > flipside.schema.json")]
    Schema,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FileArg {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EditArgs {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    pub(crate) file: PathBuf,
    /// Save under another name; a file that exists is not replaced
    #[arg(long, value_name = "NEW")]
    pub(crate) save_as: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    file: PathBuf,
    /// Name of the copy
    new: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorksheetArgs {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Upgrade configuration file; `NAME` means `NAME.Config`
    #[arg(required_unless_present = "staged")]
    pub(crate) file: Option<PathBuf>,
    /// The copy that the server keeps for the session of this system, or checked last
    #[arg(long, value_name = "SYSTEM", conflicts_with = "file")]
    pub(crate) staged: Option<flipside_model::SystemName>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Directory [default: the one used last]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::New(arg) => new(ctx, &arg.file),
        Command::Edit(args) => config_edit::run(ctx, &args),
        Command::Show(args) => config_show::run(ctx, &args).await,
        Command::Summary(arg) => config_summary::summary(ctx, &arg.file),
        Command::Copy(args) => copy(ctx, &args),
        Command::Worksheet(args) => config_summary::worksheet(ctx, args.file.as_deref()),
        Command::Check(arg) => check(ctx, &arg.file),
        Command::List(args) => list_files(ctx, args.dir),
        Command::Schema => ctx.line(
            &serde_json::to_string_pretty(&schema())
                .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
        ),
    }
}

fn new(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let path = with_extension(given);
    let shown = path.display().to_string();
    let refused = |error: &std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return exists_already(&path);
        }
        Problem::new(ProblemCode::Failed, format!("cannot write `{shown}`")).because(error)
    };
    let mut file = std::fs::File::create_new(&path).map_err(|error| refused(&error))?;
    file.write_all(template().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| refused(&error))?;
    recent::remember(&path);
    if ctx.json {
        return ctx.object(&serde_json::json!({ "file": path }));
    }
    ctx.line(&format!("`{shown}` was written"))
}

/// CF-25 without an editor: what does not check beside its new neighbours is not written.
fn copy(ctx: &Context, args: &CopyArgs) -> Result<(), Failure> {
    let (given, note) = recent::locate(&args.file);
    if let Some(note) = note {
        ctx.say(&note)?;
    }
    let text = read(&given)?;
    let saved = save_as(&args.new, &text.text)?;
    recent::remember(&saved.path);
    if ctx.json {
        return ctx.object(&serde_json::json!({ "file": saved.path }));
    }
    ctx.line(&format!("`{}` was written", saved.path.display()))
}

fn check(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let opened = recent::open(given)?;
    let path = &opened.text.path;
    let children = opened
        .resolved
        .files
        .iter()
        .skip(1)
        .map(|f| f.name.as_str());
    let children: Vec<&str> = children.collect();
    if ctx.json {
        return ctx.object(&serde_json::json!({
            "file": path, "title": opened.resolved.config.title, "children": children, "valid": true
        }));
    }
    if let Some(note) = &opened.note {
        ctx.line(note)?;
    }
    let with = match children.len() {
        0 => String::new(),
        _ => format!(", with {}", clean(&children.join(", "))),
    };
    ctx.line(&format!("`{}` is valid{with}", path.display()))
}

fn list_files(ctx: &Context, dir: Option<PathBuf>) -> Result<(), Failure> {
    let dir = dir.unwrap_or_else(recent::start_directory);
    let files = list(&dir)?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "directory": dir, "files": files }));
    }
    let mut out = format!("{}\n", clean(&dir.to_string_lossy()));
    if files.is_empty() {
        out.push_str("  no configuration files; `flipside config new FILE` makes one\n");
    }
    for file in &files {
        listed_text(&mut out, file);
    }
    ctx.line(&out)
}

fn listed_text(out: &mut String, file: &Listed) {
    let title = clean(&file.title);
    let _ = writeln!(
        out,
        "  {}",
        format!("{:<24}{title}", clean(&file.name)).trim_end()
    );
    for line in clean_lines(&file.comments) {
        let _ = writeln!(out, "      {line}");
    }
    if !file.children.is_empty() {
        let called: Vec<String> = file.children.iter().map(child_text).collect();
        let _ = writeln!(out, "      calls {}", called.join(", "));
    }
    let direct = |name: &str| file.children.iter().any(|c| c.enabled && c.file == name);
    let further = file.brings.iter().filter(|f| !direct(&f.name));
    let further: Vec<String> = further.map(|f| clean(&f.name)).collect();
    if !further.is_empty() {
        let _ = writeln!(out, "      which bring {}", further.join(", "));
    }
    if let Some(problem) = &file.problem {
        let _ = writeln!(out, "      cannot be used: {}", clean(&problem.message));
    }
}

fn child_text(child: &Child) -> String {
    let off = if child.enabled { "" } else { " (disabled)" };
    format!("{}{off}", clean(&child.file))
}

//! `flipside log --export`: the log in a file (AL-16). It is written by the client; the server and the upgrade take no part.

use crate::context::Context;
use crate::failure::Failure;
use crate::report::bar_fields;
use flipside_activity::{ExportHead, Tree, export};
use flipside_model::api::SessionLog;
use flipside_model::{Problem, ProblemCode, SystemName};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Readable for the owner's group, as other logs are; the log names hosts, services and files.
const MODE: u32 = 0o640;

pub(crate) async fn run(
    ctx: &Context,
    system: &SystemName,
    file: &Path,
    tree: &Tree,
    session: Option<&SessionLog>,
) -> Result<(), Failure> {
    let status = ctx.status(system).await?;
    let path = with_extension(file);
    let head = ExportHead {
        version: status.version.clone(),
        system: system.to_string(),
        status: bar_fields(&status),
        saved_ms: jiff::Timestamp::now().as_millisecond(),
        session: session.cloned(),
    };
    let created = create(&path).map_err(|error| problem(&path, &error))?;
    let written = write(&created, &head, tree);
    if let Err(error) = written {
        // Half a log is none; what was made here is removed again.
        let _ = std::fs::remove_file(&path);
        return Err(problem(&path, &error).into());
    }
    if ctx.json {
        return ctx.object(&serde_json::json!({ "file": path }));
    }
    ctx.line(&format!("the log was saved as `{}`", path.display()))
}

/// Makes a new file: one that exists is not replaced, and a link is not followed.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    options.write(true).create_new(true).mode(MODE);
    options.custom_flags(flags).open(path)
}

fn write(file: &File, head: &ExportHead, tree: &Tree) -> std::io::Result<()> {
    export(head, tree, BufWriter::new(file))?;
    // A full disk may be told only now.
    file.sync_all()
}

/// Appends `.xml` unless it is there already (AL-16).
fn with_extension(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    if name.is_empty() || name.to_string_lossy().ends_with(".xml") {
        return path.to_owned();
    }
    let mut name = name.to_owned();
    name.push(".xml");
    path.with_file_name(name)
}

fn problem(path: &Path, error: &std::io::Error) -> Problem {
    let shown = path.display();
    if error.kind() == ErrorKind::AlreadyExists {
        return Problem::new(ProblemCode::Usage, format!("`{shown}` exists already"))
            .about(shown.to_string())
            .advise("name another file; a saved log is not replaced");
    }
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ProblemCode::NoSpace,
        _ => ProblemCode::Failed,
    };
    Problem::new(code, format!("the log cannot be saved as `{shown}`"))
        .about(shown.to_string())
        .because(error)
        .advise("save it elsewhere; the server keeps the log, and the upgrade is not affected")
}

#[cfg(test)]
mod tests {
    use super::*;

    // AL-16: `.xml` is added.
    #[test]
    fn the_extension_is_not_doubled() {
        let cases = [
            ("a", "a.xml"),
            ("d/a.xml", "d/a.xml"),
            ("a.log", "a.log.xml"),
        ];
        for (given, expected) in cases {
            assert_eq!(with_extension(Path::new(given)), PathBuf::from(expected));
        }
    }
}

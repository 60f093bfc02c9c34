//! `flipside config edit`: the file itself changes only to something that checks.

use crate::confirm;
use crate::context::Context;
use crate::failure::{Failure, problem_text};
use flipside_config::{EXTENSION, parse, read};
use flipside_model::{Problem, ProblemCode};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn run(ctx: &Context, given: &Path) -> Result<(), Failure> {
    let before = read(given)?;
    let path = std::fs::canonicalize(&before.path).unwrap_or(before.path);
    let draft = draft_path(&path);
    let problem = |what: &str, path: &Path, error: &std::io::Error| {
        let message = format!("cannot {what} `{}`", path.display());
        Failure::from(Problem::new(ProblemCode::Failed, message).because(error))
    };
    std::fs::File::create_new(&draft)
        .and_then(|mut file| file.write_all(before.text.as_bytes()))
        .map_err(|error| problem("make a draft", &draft, &error))?;
    loop {
        edit(&draft)?;
        let text = read(&draft)?.text;
        if text == before.text {
            std::fs::remove_file(&draft).map_err(|error| problem("remove", &draft, &error))?;
            return ctx.say("nothing was changed");
        }
        let Err(refused) = parse(&path, &text) else {
            break;
        };
        if std::io::stdin().is_terminal() {
            let question = format!("{}Edit it again?", problem_text("error: ", &refused));
            if confirm::terminal(&question, confirm::Answer::Yes).is_ok() {
                continue;
            }
        }
        return Err(Failure::from(refused.advise(format!(
            "`{}` was not changed; what you typed is in `{}`",
            path.display(),
            draft.display()
        ))));
    }
    let mode = std::fs::metadata(&path).map(|meta| meta.permissions());
    mode.and_then(|mode| std::fs::set_permissions(&draft, mode))
        .and_then(|()| std::fs::File::open(&draft)?.sync_all())
        .and_then(|()| std::fs::rename(&draft, &path))
        .map_err(|error| problem("save", &path, &error))?;
    ctx.say(&format!("`{}` was saved", path.display()))
}

/// A draft lies beside the file, so that saving it is one rename.
fn draft_path(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = name.strip_suffix(EXTENSION).unwrap_or(&name);
    path.with_file_name(format!(".{stem}.draft-{}{EXTENSION}", std::process::id()))
}

fn edit(draft: &Path) -> Result<(), Failure> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.trim().is_empty())
        .unwrap_or_else(|| "vi".to_owned());
    // An editor may be set with options, so a shell takes it apart, as for every other program that opens one.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg("editor")
        .arg(draft)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(format!(
            "the editor `{}` ended with {status}",
            editor.escape_debug()
        ))
        .advise(format!(
            "nothing was saved; what you typed is in `{}`",
            draft.display()
        ))),
        Err(error) => Err(Problem::new(ProblemCode::Failed, "cannot start the editor")
            .because(&error)
            .into()),
    }
}

//! `flipside config edit`: the file itself changes only to something that checks.

use super::config::EditArgs;
use crate::confirm;
use crate::context::Context;
use crate::failure::{Failure, problem_text};
use crate::recent;
use flipside_config::{
    draft_path, exists_already, read, resolve_beside, save, save_as, with_extension,
};
use flipside_model::{Problem, ProblemCode};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;

pub(crate) fn run(ctx: &Context, args: &EditArgs) -> Result<(), Failure> {
    let (given, note) = recent::locate(&args.file);
    if let Some(note) = note {
        ctx.say(&note)?;
    }
    let before = read(&given)?;
    let new = args.save_as.as_deref().map(with_extension);
    if let Some(new) = new.as_ref().filter(|new| new.exists()) {
        return Err(exists_already(new).into());
    }
    // A link to the file is the file: the draft and the children lie beside it.
    let path = new.clone().unwrap_or_else(|| {
        std::fs::canonicalize(&before.path).unwrap_or_else(|_| before.path.clone())
    });
    let draft = draft_path(&path, "draft");
    let problem = |what: &str, path: &Path, error: &std::io::Error| {
        let message = format!("cannot {what} `{}`", path.display());
        Failure::from(Problem::new(ProblemCode::Failed, message).because(error))
    };
    std::fs::File::create_new(&draft)
        .and_then(|mut file| file.write_all(before.text.as_bytes()))
        .map_err(|error| problem("make a draft", &draft, &error))?;
    let kept = |refused: Problem| {
        let changed = if new.is_some() { "written" } else { "changed" };
        Failure::from(refused.advise(format!(
            "`{}` was not {changed}; what you typed is in `{}`",
            path.display(),
            draft.display()
        )))
    };
    let text = loop {
        edit(&draft)?;
        let text = read(&draft)?.text;
        if text == before.text && new.is_none() {
            std::fs::remove_file(&draft).map_err(|error| problem("remove", &draft, &error))?;
            recent::remember(&path);
            return ctx.say("nothing was changed");
        }
        let Err(refused) = resolve_beside(&path, &text) else {
            break text;
        };
        if std::io::stdin().is_terminal() {
            let question = format!("{}Edit it again?", problem_text("error: ", &refused));
            if confirm::terminal(&question, confirm::Answer::Yes).is_ok() {
                continue;
            }
        }
        return Err(kept(refused));
    };
    let saved = match &new {
        Some(new) => save_as(new, &text),
        None => save(&path, &text),
    };
    saved.map_err(kept)?;
    std::fs::remove_file(&draft).map_err(|error| problem("remove", &draft, &error))?;
    recent::remember(&path);
    ctx.say(&format!("`{}` was saved", path.display()))
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

//! What a person does with the files of a directory: list them, choose children, save. Used by the command line and pages.

use crate::edit::children_of;
use crate::load::{EXTENSION, load, read, resolve_beside};
use crate::resolve::{Child, FileInfo};
use flipside_model::api::ConfigText;
use flipside_model::{Problem, ProblemCode};
use serde::Serialize;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// A configuration file of a directory (CF-14, CF-15, CF-28, CF-31).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its title, empty without one or when it cannot be read.
    pub title: String,
    /// Its comments.
    pub comments: String,
    /// The children it lists, disabled ones too.
    pub children: Vec<Child>,
    /// All files that it brings in when it is chosen: its enabled children and theirs.
    pub brings: Vec<FileInfo>,
    /// Why it cannot be used.
    pub problem: Option<Problem>,
}

/// Lists the configuration files of a directory by name. Hidden files are drafts and are left out (CF-14, CF-28).
pub fn list(directory: &Path) -> Result<Vec<Listed>, Problem> {
    let shown = directory.display();
    let failed = |error: &std::io::Error| {
        let message = format!("the directory `{shown}` cannot be read");
        Problem::new(ProblemCode::Usage, message).because(error)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| failed(&error))? {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        // A name that is no text cannot be written into `children`, and is not offered.
        let Ok(name) = name.into_string() else {
            continue;
        };
        if name.ends_with(EXTENSION) && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| one(directory, name)).collect())
}

fn one(directory: &Path, name: String) -> Listed {
    let path = directory.join(&name);
    match load(&path) {
        Ok((_, resolved)) => {
            let mut files = resolved.files.into_iter();
            let own = files.next();
            Listed {
                name,
                title: own.as_ref().map(|o| o.title.clone()).unwrap_or_default(),
                comments: own.as_ref().map(|o| o.comments.clone()).unwrap_or_default(),
                children: own.map(|o| o.children).unwrap_or_default(),
                brings: files.collect(),
                problem: None,
            }
        }
        Err(problem) => {
            // Its children may be what is wrong: it still says by itself which they are.
            let text = read(&path).ok();
            let children = text.and_then(|t| children_of(&path, &t.text).ok());
            Listed {
                name,
                title: String::new(),
                comments: String::new(),
                children: children.unwrap_or_default(),
                brings: Vec::new(),
                problem: Some(problem),
            }
        }
    }
}

/// Saves a text under the name that its file has already (CF-24). What does not check is not saved.
///
/// The file is replaced in one step and keeps its permissions; a link to it stays a link.
pub fn save(path: &Path, text: &str) -> Result<ConfigText, Problem> {
    let (checked, _) = resolve_beside(path, text)?;
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = write_draft(&real, text)?;
    let kept = std::fs::metadata(&real).map(|meta| meta.permissions());
    kept.and_then(|mode| std::fs::set_permissions(&draft, mode))
        .and_then(|()| std::fs::rename(&draft, &real))
        .and_then(|()| sync_directory(&real))
        .map_err(|error| cannot_save(path, &draft, &error))?;
    Ok(checked)
}

/// Saves a text under a new name (CF-08, CF-25). What does not check is not saved, and no file is replaced.
pub fn save_as(path: &Path, text: &str) -> Result<ConfigText, Problem> {
    let path = crate::load::with_extension(path);
    let (checked, _) = resolve_beside(&path, text)?;
    let draft = write_draft(&path, text)?;
    // A second name is refused where one stands already; a rename would replace it.
    std::fs::hard_link(&draft, &path)
        .and_then(|()| std::fs::remove_file(&draft))
        .and_then(|()| sync_directory(&path))
        .map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                let _ = std::fs::remove_file(&draft);
                return exists_already(&path);
            }
            cannot_save(&path, &draft, &error)
        })?;
    Ok(checked)
}

/// Refuses to write where a file stands.
pub fn exists_already(path: &Path) -> Problem {
    let shown = path.display();
    Problem::new(ProblemCode::Usage, format!("`{shown}` exists already"))
        .about(shown.to_string())
        .advise(format!("`flipside config edit {shown}` changes it"))
}

fn cannot_save(path: &Path, draft: &Path, error: &std::io::Error) -> Problem {
    let _ = std::fs::remove_file(draft);
    let message = format!("cannot save `{}`", path.display());
    Problem::new(ProblemCode::Failed, message).because(error)
}

/// Names a hidden file beside a configuration file, for this process only, so that saving it is one rename.
pub fn draft_path(path: &Path, what: &str) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = name.strip_suffix(EXTENSION).unwrap_or(&name);
    path.with_file_name(format!(".{stem}.{what}-{}{EXTENSION}", std::process::id()))
}

fn write_draft(path: &Path, text: &str) -> Result<PathBuf, Problem> {
    let draft = draft_path(path, "saving");
    let written = File::create_new(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
    });
    written.map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            let message = format!(
                "cannot save `{}`: `{}` is in the way",
                path.display(),
                draft.display()
            );
            return Problem::new(ProblemCode::Failed, message).advise("remove it");
        }
        cannot_save(path, &draft, &error)
    })?;
    Ok(draft)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

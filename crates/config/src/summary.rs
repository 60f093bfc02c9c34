//! The Upgrade Summary: what an upgrade will do, each item with the file that says so (SU-02, SU-06).

use crate::resolve::{FileInfo, Origin, Resolved};
use serde::Serialize;

/// One item of a summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub value: String,
    /// The file that gives it; none for a default.
    pub file: Option<String>,
    /// Its line there.
    pub line: Option<usize>,
    /// Whether it is this file's own, and not inherited from one that it calls.
    pub own: bool,
}

/// Everything that is in force, own and inherited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// File name.
    pub name: String,
    /// Title, empty without one.
    pub title: String,
    /// Description, empty without one.
    pub comments: String,
    /// Disks to upgrade besides the mandatory system disks.
    pub disks: Vec<Item>,
    /// All files that are called, directly and by others.
    pub children: Vec<FileInfo>,
    /// Services to start and stop, in start order.
    pub services: Vec<Item>,
    /// Custom actions to run.
    pub actions: Vec<Item>,
    /// Logs to back up, and where.
    pub logs: Vec<Item>,
    /// What else a file says: keys with their values.
    pub more: Vec<(String, Item)>,
}

impl Summary {
    /// Summarises a configuration.
    pub fn of(resolved: &Resolved) -> Self {
        let own = resolved.files.first();
        let name = own.map(|file| file.name.clone()).unwrap_or_default();
        let mut summary = Self {
            title: resolved.config.title.clone(),
            comments: resolved.config.comments.clone(),
            disks: Vec::new(),
            children: resolved.files.iter().skip(1).cloned().collect(),
            services: Vec::new(),
            actions: Vec::new(),
            logs: Vec::new(),
            more: Vec::new(),
            name,
        };
        for origin in &resolved.origins {
            let item = item(origin, &summary.name);
            match origin.key.as_str() {
                "title" | "comments" => {}
                "disks.system" => summary.disks.push(item),
                "services" => summary.services.push(item),
                "action" => summary.actions.push(item),
                key if key.starts_with("log_backup.") => summary.logs.push(item),
                _ if origin.file.is_none() => {}
                key => summary.more.push((key.to_owned(), item)),
            }
        }
        summary
    }
}

fn item(origin: &Origin, name: &str) -> Item {
    Item {
        value: origin.value.clone(),
        file: origin.file.clone(),
        line: origin.line,
        own: origin.file.as_deref() == Some(name),
    }
}

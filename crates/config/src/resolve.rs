//! From the texts of all files to the settings of one upgrade, with the origin of every value.

use crate::file::Own;
use crate::load::MAX_FILE_BYTES;
use crate::merge::{Item, Lists, default_quiesce, merge};
use crate::nest::{Fetch, Node, Unfetched, walk};
use crate::position::{Given, printable};
use flipside_model::api::ConfigText;
use flipside_model::{
    AcceptLoss, ActionPlace, ConfigFile, CustomAction, DiskName, LogBackup, OnFailure, Problem,
    ProblemCode, Timeouts, Timing, UpgradeConfig,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest staging copy, in bytes as it stands in the journal: a record there has at most 1 MiB, and needs some of it
/// for itself.
pub const MAX_STAGED_BYTES: usize = MAX_FILE_BYTES - (64 << 10);

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The key, such as `services` or `timeouts.merge`.
    pub key: String,
    /// The value, as it is shown.
    pub value: String,
    /// The name of the file that gives it; none for a default.
    pub file: Option<String>,
    /// Its line in the file, from 1; none for a default.
    pub line: Option<usize>,
}

/// A child as a file lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Child {
    /// Its name.
    pub file: String,
    /// False when it is listed and left out (CF-36).
    pub enabled: bool,
}

/// One file of a configuration, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its title, empty without one.
    pub title: String,
    /// Its comments, empty without any.
    pub comments: String,
    /// The children it lists, disabled ones too.
    pub children: Vec<Child>,
    /// The files that lead to it, itself last (the first such way).
    pub chain: Vec<String>,
}

/// A configuration with everything it calls, checked and merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The settings in force, without the staging copy.
    pub config: UpgradeConfig,
    /// Where every value of the settings comes from, in the order in which they are shown.
    pub origins: Vec<Origin>,
    /// What children say and the parent does not take over: titles, comments, deadlines, switches and disks (CF-33).
    pub not_taken_over: Vec<Origin>,
    /// The file, then the files it calls, parents before children.
    pub files: Vec<FileInfo>,
    texts: Vec<ConfigFile>,
}

impl Resolved {
    /// Returns the settings with the text of every file: what a session keeps (CF-05, invariant 20).
    pub fn staged(&self) -> Result<UpgradeConfig, Problem> {
        let mut config = self.config.clone();
        config.files.clone_from(&self.texts);
        let bytes = serde_json::to_vec(&config).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_STAGED_BYTES {
            let name = self.files.first().map_or("", |f| f.name.as_str());
            let message = format!(
                "`{}` and its children take {bytes} bytes in the journal, {MAX_STAGED_BYTES} are allowed",
                printable(name)
            );
            return Err(Problem::new(ProblemCode::Usage, message).advise("shorten the comments"));
        }
        Ok(config)
    }
}

/// Parses and checks a file that calls no other; `path` is only used in messages.
///
/// Every refusal is a [`ProblemCode::Usage`] whose message begins with `FILE:LINE:COLUMN:`.
pub fn parse(path: &Path, text: &str) -> Result<UpgradeConfig, Problem> {
    let text = ConfigText {
        path: path.to_owned(),
        text: text.to_owned(),
        children: Vec::new(),
    };
    resolve(&text).map(|resolved| resolved.config)
}

/// Checks and merges a file with the children that were sent with it; opens no file.
pub fn resolve(given: &ConfigText) -> Result<Resolved, Problem> {
    let mut sent: BTreeMap<&str, &str> = BTreeMap::new();
    for child in &given.children {
        if sent.insert(&child.name, &child.text).is_some() {
            let message = format!("the child `{}` was sent twice", child.name.escape_debug());
            return Err(Problem::new(ProblemCode::Usage, message));
        }
    }
    let resolved = gather(&given.path, &given.text, &mut |name, _| {
        let missing = || Unfetched {
            why: "does not exist".to_owned(),
            cause: None,
        };
        sent.get(name)
            .map(|text| (*text).to_owned())
            .ok_or_else(missing)
    })?;
    let called = |name: &str| resolved.texts.iter().skip(1).any(|f| f.name == name);
    if let Some(stray) = given.children.iter().find(|c| !called(&c.name)) {
        let message = format!(
            "`{}` was sent with the configuration, and nothing calls it",
            stray.name.escape_debug()
        );
        return Err(Problem::new(ProblemCode::Usage, message));
    }
    Ok(resolved)
}

/// Checks and merges a file with the children that a function fetches.
pub(crate) fn gather(path: &Path, text: &str, fetch: Fetch<'_>) -> Result<Resolved, Problem> {
    let nodes = walk(path, text, fetch)?;
    let merged = merge(&nodes)?.pop();
    let (Some(root), Some(lists)) = (nodes.last(), merged) else {
        return Err(Problem::new(ProblemCode::Internal, "no file was read"));
    };
    let mut config = settings(&root.own, &lists);
    // A controlled service is stopped and started by the session: its startup type must not be saved twice.
    let quiesce: Vec<Item<String>> = lists
        .quiesce
        .clone()
        .unwrap_or_else(default_quiesce)
        .into_iter()
        .filter(|unit| !config.services.iter().any(|s| s.unit() == unit.value))
        .collect();
    config.quiesce = quiesce.iter().map(|unit| unit.value.clone()).collect();
    let origins = origins(&nodes, root, &lists, &quiesce, &config);
    config.inherited = inherited(&origins, &root.name);
    let not_taken_over = nodes[..nodes.len() - 1].iter().flat_map(alone).collect();
    let parents_first = || nodes.iter().rev();
    Ok(Resolved {
        config,
        origins,
        not_taken_over,
        files: parents_first().map(info).collect(),
        texts: parents_first().map(staged_file).collect(),
    })
}

/// Names the child that brought what the readiness check looks for (CF-34).
fn inherited(origins: &[Origin], own: &str) -> BTreeMap<String, String> {
    let asked = |key: &str| matches!(key, "services" | "action") || key.starts_with("log_backup.");
    let from_child = |origin: &&Origin| asked(&origin.key) && origin.file.as_deref() != Some(own);
    let named = |origin: &Origin| {
        let key = UpgradeConfig::inherited_key(&origin.key, &origin.value);
        Some((key, origin.file.clone()?))
    };
    origins
        .iter()
        .filter(from_child)
        .filter_map(named)
        .collect()
}

fn staged_file(node: &Node) -> ConfigFile {
    ConfigFile {
        name: node.name.clone(),
        text: node.text.clone(),
    }
}

/// Describes one file.
pub(crate) fn info(node: &Node) -> FileInfo {
    let text = |given: &Option<Given<String>>| given.as_ref().map(|g| g.value.clone());
    FileInfo {
        name: node.name.clone(),
        title: text(&node.own.title).unwrap_or_default(),
        comments: text(&node.own.comments).unwrap_or_default(),
        children: listed(&node.own),
        chain: node.chain.clone(),
    }
}

/// Returns the children that a file lists.
pub(crate) fn listed(own: &Own) -> Vec<Child> {
    let child = |c: &Given<crate::file::ChildRef>| Child {
        file: c.value.file.clone(),
        enabled: c.value.enabled,
    };
    own.children.iter().map(child).collect()
}

fn settings(own: &Own, lists: &Lists) -> UpgradeConfig {
    let text = |given: &Option<Given<String>>| given.as_ref().map(|g| g.value.clone());
    UpgradeConfig {
        title: text(&own.title).unwrap_or_default(),
        comments: text(&own.comments).unwrap_or_default(),
        services: lists.services.iter().map(|i| i.value.clone()).collect(),
        quiesce: Vec::new(),
        accept_loss: lists
            .accept_loss
            .iter()
            .map(|i| AcceptLoss(i.value.clone()))
            .collect(),
        data_paths: lists.data_paths.iter().map(|i| i.value.clone()).collect(),
        carry: lists.carry.iter().map(|i| i.value.clone()).collect(),
        health: lists.health.iter().map(|i| i.value.clone()).collect(),
        timeouts: deadlines(own),
        rehearsal: own.rehearsal.as_ref().is_some_and(|r| r.value),
        checkpoint: own.checkpoint.as_ref().is_some_and(|c| c.value),
        system_disks: own.system_disks.iter().map(|d| d.value.clone()).collect(),
        data_disks: own.data_disks.iter().map(|d| d.value.clone()).collect(),
        inherited: BTreeMap::new(),
        actions: lists.actions.iter().map(|i| i.value.clone()).collect(),
        log_backup: LogBackup {
            directory: lists.log_directory.as_ref().map(|i| i.value.clone()),
            logs: lists.logs.iter().map(|i| i.value.clone()).collect(),
        },
        files: Vec::new(),
    }
}

fn deadlines(own: &Own) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for (key, seconds) in &own.timeouts {
        let field = match *key {
            "split" => &mut timeouts.split,
            "prepare" => &mut timeouts.prepare,
            "merge" => &mut timeouts.merge,
            "commit" => &mut timeouts.commit,
            "abort" => &mut timeouts.abort,
            "finish" => &mut timeouts.finish,
            "service" => &mut timeouts.service,
            "health" => &mut timeouts.health,
            _ => &mut timeouts.drain,
        };
        *field = seconds.value;
    }
    timeouts
}

/// The origin of a value of one file.
fn origin(node: &Node, key: &str, value: impl Into<String>, line: usize) -> Origin {
    Origin {
        key: key.to_owned(),
        value: value.into(),
        file: Some(node.name.clone()),
        line: Some(line),
    }
}

/// What a file says that is its own when another file calls it.
fn alone(node: &Node) -> Vec<Origin> {
    let own = &node.own;
    let mut all = Vec::new();
    for (key, text) in [("title", &own.title), ("comments", &own.comments)] {
        all.extend(
            text.as_ref()
                .filter(|t| !t.value.is_empty())
                .map(|t| origin(node, key, &t.value, t.line)),
        );
    }
    for (key, given) in switches(own) {
        let switch = |g: &Given<bool>| origin(node, key, g.value.to_string(), g.line);
        all.extend(given.map(switch));
    }
    for (key, seconds) in &own.timeouts {
        let value = seconds.value.to_string();
        all.push(origin(
            node,
            &format!("timeouts.{key}"),
            value,
            seconds.line,
        ));
    }
    for (key, disks) in marked(own) {
        let given = disks.iter();
        all.extend(given.map(|d| origin(node, key, d.value.as_str(), d.line)));
    }
    all
}

fn origins(
    nodes: &[Node],
    root: &Node,
    lists: &Lists,
    quiesce: &[Item<String>],
    config: &UpgradeConfig,
) -> Vec<Origin> {
    let mut all = Vec::new();
    let mut list =
        |key: &str, items: &mut dyn Iterator<Item = (String, Option<(usize, usize)>)>| {
            for (value, from) in items {
                all.push(Origin {
                    key: key.to_owned(),
                    value,
                    file: from.map(|(file, _)| nodes[file].name.clone()),
                    line: from.map(|(_, line)| line),
                });
            }
        };
    let last = nodes.len() - 1;
    let at = |line: usize| Some((last, line));
    let own = &root.own;
    for (key, text) in [("title", &own.title), ("comments", &own.comments)] {
        let mut given = text.iter().map(|t| (t.value.clone(), at(t.line)));
        list(key, &mut given);
    }
    list(
        "services",
        &mut lists.services.iter().map(|i| (i.value.unit(), i.from)),
    );
    list(
        "data_paths",
        &mut lists.data_paths.iter().map(|i| (i.value.clone(), i.from)),
    );
    list(
        "accept_loss",
        &mut lists.accept_loss.iter().map(|i| (i.value.clone(), i.from)),
    );
    list(
        "carry",
        &mut lists.carry.iter().map(|i| (i.value.clone(), i.from)),
    );
    list(
        "health",
        &mut lists
            .health
            .iter()
            .map(|i| (i.value.command.join(" "), i.from)),
    );
    list(
        "action",
        &mut lists
            .actions
            .iter()
            .map(|i| (action_text(&i.value), i.from)),
    );
    list(
        "log_backup.directory",
        &mut lists
            .log_directory
            .iter()
            .map(|i| (i.value.clone(), i.from)),
    );
    list(
        "log_backup.logs",
        &mut lists.logs.iter().map(|i| (i.value.to_string(), i.from)),
    );
    list(
        "quiesce",
        &mut quiesce.iter().map(|i| (i.value.clone(), i.from)),
    );
    for (key, given) in switches(own) {
        let (value, from) = given.map_or((false, None), |g| (g.value, at(g.line)));
        list(key, &mut std::iter::once((value.to_string(), from)));
    }
    for (key, seconds) in named(&config.timeouts) {
        let given = own.timeouts.iter().find(|(k, _)| *k == key);
        let from = given.and_then(|(_, g)| at(g.line));
        list(
            &format!("timeouts.{key}"),
            &mut std::iter::once((seconds.to_string(), from)),
        );
    }
    for (key, disks) in marked(own) {
        let mut given = disks
            .iter()
            .map(|d| (d.value.as_str().to_owned(), at(d.line)));
        list(key, &mut given);
    }
    all
}

/// The selection of disks by the names of its keys.
fn marked(own: &Own) -> [(&'static str, &[Given<DiskName>]); 2] {
    [
        ("disks.system", &own.system_disks),
        ("disks.data", &own.data_disks),
    ]
}

/// The switches of a file by the names of their keys; each is off when it is not given.
fn switches(own: &Own) -> [(&'static str, Option<&Given<bool>>); 2] {
    [
        ("rehearsal", own.rehearsal.as_ref()),
        ("checkpoint", own.checkpoint.as_ref()),
    ]
}

/// An action on one line, with what differs from the defaults.
fn action_text(action: &CustomAction) -> String {
    let mut text = format!("{}: {}", action.control_type, action.shown());
    let mut further = Vec::new();
    if action.timing != Timing::Default {
        further.push(action.timing.to_string());
    }
    further.extend(action.limit.map(|seconds| format!("limit {seconds} s")));
    if action.place == ActionPlace::Host {
        further.push("on the host".to_owned());
    }
    if action.on_failure == OnFailure::Warn {
        further.push("a failure only warns".to_owned());
    }
    if !further.is_empty() {
        text.push_str(&format!(" ({})", further.join(", ")));
    }
    text
}

/// The deadlines by the names of their keys.
pub fn named(timeouts: &Timeouts) -> [(&'static str, u32); 9] {
    [
        ("split", timeouts.split),
        ("prepare", timeouts.prepare),
        ("merge", timeouts.merge),
        ("commit", timeouts.commit),
        ("abort", timeouts.abort),
        ("finish", timeouts.finish),
        ("service", timeouts.service),
        ("health", timeouts.health),
        ("drain", timeouts.drain),
    ]
}

/// Makes what travels to the server out of what was resolved.
pub(crate) fn to_send(path: PathBuf, resolved: &Resolved) -> ConfigText {
    let mut texts = resolved.texts.iter().cloned();
    let text = texts.next().map(|file| file.text).unwrap_or_default();
    ConfigText {
        path,
        text,
        children: texts.collect(),
    }
}

//! Puts the values of a file and of the files it calls together (CF-27, CF-32, CF-33).
//!
//! Files are taken one after the other, every child before the files that call it, so each is merged once from what its
//! children came to. In a list the children's values stand first, in the order of `children`; what the file lists itself
//! stands where it lists it. `docs/configuration.md` says the same for administrators.

use crate::file::OwnQuiesce;
use crate::near::nearest;
use crate::nest::Node;
use crate::position::Given;
use flipside_model::{
    CustomAction, HealthCheck, LogSelection, Problem, QUIESCE_UNITS, ServiceName,
};

/// A value with the file, by its place in the list of files, and the line that give it; none is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item<T> {
    pub(crate) value: T,
    pub(crate) from: Option<(usize, usize)>,
}

/// The lists of a file, its children's values included.
pub(crate) struct Lists {
    pub(crate) services: Vec<Item<ServiceName>>,
    pub(crate) accept_loss: Vec<Item<String>>,
    pub(crate) data_paths: Vec<Item<String>>,
    pub(crate) carry: Vec<Item<String>>,
    pub(crate) health: Vec<Item<HealthCheck>>,
    /// In the order of the list; timing comes later (gap G.3.38).
    pub(crate) actions: Vec<Item<CustomAction>>,
    pub(crate) logs: Vec<Item<LogSelection>>,
    /// The file's own, or else its first child's (gap G.3.37).
    pub(crate) log_directory: Option<Item<String>>,
    /// None when no file says anything about it.
    pub(crate) quiesce: Option<Vec<Item<String>>>,
}

/// Merges all files; the result of the first file is the last one.
pub(crate) fn merge(nodes: &[Node]) -> Result<Vec<Lists>, Problem> {
    let mut merged: Vec<Lists> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let below: Vec<&Lists> = node.calls.iter().map(|call| &merged[*call]).collect();
        let lists = Lists {
            services: union(
                below.iter().map(|l| &l.services),
                own(at, &node.own.services),
                |a, b| a.unit() == b.unit(),
            ),
            accept_loss: union(
                below.iter().map(|l| &l.accept_loss),
                own(at, &node.own.accept_loss),
                PartialEq::eq,
            ),
            data_paths: union(
                below.iter().map(|l| &l.data_paths),
                own(at, &node.own.data_paths),
                PartialEq::eq,
            ),
            carry: union(
                below.iter().map(|l| &l.carry),
                own(at, &node.own.carry),
                PartialEq::eq,
            ),
            health: union(
                below.iter().map(|l| &l.health),
                own(at, &node.own.health),
                PartialEq::eq,
            ),
            actions: union(
                below.iter().map(|l| &l.actions),
                own(at, &node.own.actions),
                PartialEq::eq,
            ),
            logs: union(
                below.iter().map(|l| &l.logs),
                own(at, &node.own.log_backup.logs),
                PartialEq::eq,
            ),
            log_directory: own(at, node.own.log_backup.directory.as_slice())
                .into_iter()
                .chain(below.iter().filter_map(|l| l.log_directory.clone()))
                .next(),
            quiesce: quiesce(at, node, &below)?,
        };
        merged.push(lists);
    }
    Ok(merged)
}

fn own<T: Clone>(file: usize, given: &[Given<T>]) -> Vec<Item<T>> {
    let item = |g: &Given<T>| Item {
        value: g.value.clone(),
        from: Some((file, g.line)),
    };
    given.iter().map(item).collect()
}

/// Puts the children's values first, each once, without those that the file lists itself; then the file's own.
fn union<'a, T: Clone + 'a>(
    below: impl Iterator<Item = &'a Vec<Item<T>>>,
    own: Vec<Item<T>>,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<Item<T>> {
    let mut all: Vec<Item<T>> = Vec::new();
    for item in below.flatten() {
        let known = |items: &[Item<T>]| items.iter().any(|i| same(&i.value, &item.value));
        if !known(&all) && !known(&own) {
            all.push(item.clone());
        }
    }
    all.extend(own);
    all
}

/// The default list, of which no file is the origin.
pub(crate) fn default_quiesce() -> Vec<Item<String>> {
    let item = |unit: &&str| Item {
        value: (*unit).to_owned(),
        from: None,
    };
    QUIESCE_UNITS.iter().map(item).collect()
}

/// What a file and its children hold: its `units` or else the union of the children's lists or else the default, without
/// its `except`, with its `also`.
fn quiesce(at: usize, node: &Node, below: &[&Lists]) -> Result<Option<Vec<Item<String>>>, Problem> {
    let OwnQuiesce {
        units,
        also,
        except,
    } = &node.own.quiesce;
    let mut base = match units {
        Some(units) => Some(own(at, units)),
        None if below.iter().any(|l| l.quiesce.is_some()) => Some(union(
            below.iter().filter_map(|l| l.quiesce.as_ref()),
            Vec::new(),
            PartialEq::eq,
        )),
        None => None,
    };
    if also.is_empty() && except.is_empty() {
        return Ok(base);
    }
    let mut list = base.take().unwrap_or_else(default_quiesce);
    for unit in except {
        take_out(node, &mut list, unit)?;
    }
    for unit in also {
        let known = list.iter().position(|i| i.value == unit.value);
        // What a child added may be said again; the default list and the file's own may not.
        match known.map(|k| (k, list[k].from)) {
            Some((_, from)) if from.is_none_or(|(file, _)| file == at) => {
                let message = format!("the unit `{}` is listed twice", unit.value);
                return Err(node.source().refuse(unit.span.clone(), message));
            }
            Some((k, _)) => drop(list.remove(k)),
            None => {}
        }
        if except.iter().any(|e| e.value == unit.value) {
            let message = format!("`{}` is both added and taken out", unit.value);
            return Err(node.source().refuse(unit.span.clone(), message));
        }
    }
    list.extend(own(at, also));
    Ok(Some(list))
}

fn take_out(
    node: &Node,
    list: &mut Vec<Item<String>>,
    unit: &Given<String>,
) -> Result<(), Problem> {
    let name = &unit.value;
    if let Some(at) = list.iter().position(|i| &i.value == name) {
        list.remove(at);
        return Ok(());
    }
    let message = format!("`{name}` is not in the list, so it cannot be taken out of it");
    let problem = node.source().refuse(unit.span.clone(), message);
    let units = || list.iter().map(|i| i.value.as_str());
    let advice = match units().find(|pattern| matches(pattern, name)) {
        Some(pattern) => format!(
            "`{pattern}` covers it: take that out, and add with `also` what should still be held"
        ),
        None => nearest(name, units()).map_or_else(
            || "`flipside config show` prints the list".to_owned(),
            |near| format!("did you mean `{near}`?"),
        ),
    };
    Err(problem.advise(advice))
}

/// Matches `*` and `?` as in file names; enough for the advice it serves. Goes back to the last `*` only.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else {
                    return false;
                };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

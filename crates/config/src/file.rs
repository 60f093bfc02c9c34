//! The upgrade configuration file, format version 1.
//!
//! A file is read in three passes, so that the most useful thing is said first: is it TOML, is its version known,
//! are its keys and values right. Nesting (CF-27) will merge several checked files; each of them goes through here.

use crate::load::MAX_FILE_BYTES;
use crate::near::nearest;
use crate::position::Source;
use flipside_model::{
    AcceptLoss, HealthCheck, MAX_TIMEOUT_SECONDS, Problem, ProblemCode, QUIESCE_UNITS, ServiceName,
    Timeouts, UpgradeConfig,
};
use serde::Deserialize;
use std::path::Path;
use toml::Spanned;

/// Version of the format that this program reads and writes.
pub const CONFIG_VERSION: i64 = 1;

type Strings = Vec<Spanned<String>>;

#[derive(Deserialize)]
struct VersionOnly {
    version: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(
        dead_code,
        reason = "checked in a pass of its own, before unknown keys"
    )]
    version: i64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    comments: String,
    #[serde(default)]
    services: Strings,
    #[serde(default)]
    accept_loss: Strings,
    #[serde(default)]
    data_paths: Strings,
    #[serde(default)]
    rehearsal: bool,
    #[serde(default)]
    quiesce: Quiesce,
    #[serde(default)]
    health: Vec<Health>,
    #[serde(default)]
    timeouts: TimeoutKeys,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quiesce {
    units: Option<Strings>,
    #[serde(default)]
    also: Strings,
    #[serde(default)]
    except: Strings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    command: Spanned<Strings>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutKeys {
    split: Option<Spanned<i64>>,
    prepare: Option<Spanned<i64>>,
    merge: Option<Spanned<i64>>,
    commit: Option<Spanned<i64>>,
    abort: Option<Spanned<i64>>,
    finish: Option<Spanned<i64>>,
    service: Option<Spanned<i64>>,
    health: Option<Spanned<i64>>,
    drain: Option<Spanned<i64>>,
}

/// Parses and checks a configuration file; `path` is only used in messages.
///
/// Every refusal is a [`ProblemCode::Usage`] whose message begins with `FILE:LINE:COLUMN:`.
pub fn parse(path: &Path, text: &str) -> Result<UpgradeConfig, Problem> {
    let source = Source { path, text };
    if text.len() > MAX_FILE_BYTES {
        let shown = source.shown_path();
        let message = format!(
            "{shown}: the file has {} bytes, {MAX_FILE_BYTES} are allowed",
            text.len()
        );
        return Err(Problem::new(ProblemCode::Usage, message).about(shown));
    }
    check_version(source)?;
    let file: File = toml::from_str(text).map_err(|error| explain(source, &error))?;
    let services = services(source, &file.services)?;
    let mut quiesce = quiesce(source, &file.quiesce)?;
    // A controlled service is stopped and started by the session: its startup type must not be saved twice.
    quiesce.retain(|unit| !services.iter().any(|s| &s.unit() == unit));
    Ok(UpgradeConfig {
        title: file.title,
        comments: file.comments,
        services,
        quiesce,
        accept_loss: paths(source, "accept_loss", &file.accept_loss)?
            .into_iter()
            .map(AcceptLoss)
            .collect(),
        data_paths: paths(source, "data_paths", &file.data_paths)?,
        health: file
            .health
            .iter()
            .map(|h| health(source, h))
            .collect::<Result<_, _>>()?,
        timeouts: timeouts(source, &file.timeouts)?,
        rehearsal: file.rehearsal,
    })
}

fn check_version(source: Source<'_>) -> Result<(), Problem> {
    let file: VersionOnly = toml::from_str(source.text).map_err(|error| explain(source, &error))?;
    let Some(version) = file.version else {
        return Err(source
            .refuse(0..0, "the key `version` is missing")
            .advise(format!("add the line `version = {CONFIG_VERSION}`")));
    };
    match version.get_ref().as_integer() {
        Some(CONFIG_VERSION) => Ok(()),
        Some(newer) if newer > CONFIG_VERSION => Err(source
            .refuse(
                version.span(),
                format!(
                    "the file has format version {newer}, and this flipside knows versions up to {CONFIG_VERSION}"
                ),
            )
            .advise("use the flipside that wrote the file, or a newer one")),
        _ => Err(source.refuse(
            version.span(),
            format!("`version` must be the number {CONFIG_VERSION}"),
        )),
    }
}

/// Explains what serde or the TOML reader refused, with a suggestion for an unknown key.
fn explain(source: Source<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(key) = quoted.next()
    {
        let known: Vec<&str> = quoted.collect();
        let advice = nearest(key, known.iter().copied()).map_or_else(
            || format!("known keys here: {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        return source
            .refuse(span, format!("unknown key `{key}`"))
            .advise(advice);
    }
    source.refuse(span, message.lines().collect::<Vec<_>>().join(", "))
}

fn services(source: Source<'_>, given: &Strings) -> Result<Vec<ServiceName>, Problem> {
    let mut services: Vec<ServiceName> = Vec::new();
    for name in given {
        if name.get_ref().is_empty() {
            return Err(source.refuse(name.span(), "a service name is empty"));
        }
        let service = ServiceName::new(name.get_ref())
            .map_err(|error| source.refuse(name.span(), error.to_string()))?;
        if services.iter().any(|s| s.unit() == service.unit()) {
            return Err(source.refuse(
                name.span(),
                format!("the service `{service}` is listed twice"),
            ));
        }
        services.push(service);
    }
    Ok(services)
}

fn quiesce(source: Source<'_>, given: &Quiesce) -> Result<Vec<String>, Problem> {
    let mut units: Vec<String> = match &given.units {
        Some(units) => patterns(source, units, &[])?,
        None => QUIESCE_UNITS.iter().map(|u| (*u).to_owned()).collect(),
    };
    for unit in &given.except {
        let name = unit.get_ref();
        let Some(at) = units.iter().position(|u| u == name) else {
            let message = format!("`{name}` is not in the list, so it cannot be taken out of it");
            let problem = source.refuse(unit.span(), message);
            let advice = match units.iter().find(|pattern| matches(pattern, name)) {
                Some(pattern) => format!(
                    "`{pattern}` covers it: take that out, and add with `also` what should still be held"
                ),
                None => nearest(name, units.iter().map(String::as_str)).map_or_else(
                    || "`flipside config show` prints the list".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                ),
            };
            return Err(problem.advise(advice));
        };
        units.remove(at);
    }
    let also = patterns(source, &given.also, &units)?;
    if let Some(both) = given
        .also
        .iter()
        .find(|a| given.except.iter().any(|e| e.get_ref() == a.get_ref()))
    {
        let message = format!("`{}` is both added and taken out", both.get_ref());
        return Err(source.refuse(both.span(), message));
    }
    units.extend(also);
    Ok(units)
}

fn patterns(source: Source<'_>, given: &Strings, known: &[String]) -> Result<Vec<String>, Problem> {
    let mut units: Vec<String> = Vec::new();
    for unit in given {
        let name = unit.get_ref();
        let letters = |c: char| c.is_ascii_alphanumeric() || "._-@:\\*?[]".contains(c);
        let valid = name.chars().all(letters) && name.len() <= 255 && !name.starts_with(['-', '.']);
        if name.is_empty() || !valid {
            return Err(source.refuse(
                unit.span(),
                format!(
                    "`{}` is not the name or pattern of a unit",
                    name.escape_debug()
                ),
            ));
        }
        if units.contains(name) || known.contains(name) {
            return Err(source.refuse(unit.span(), format!("the unit `{name}` is listed twice")));
        }
        units.push(name.clone());
    }
    Ok(units)
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

fn paths(source: Source<'_>, key: &str, given: &Strings) -> Result<Vec<String>, Problem> {
    let mut paths: Vec<String> = Vec::new();
    for item in given {
        let shown = item.get_ref().escape_debug();
        if !item.get_ref().starts_with('/') {
            return Err(source.refuse(
                item.span(),
                format!("`{shown}` in `{key}` is not an absolute path in the guest"),
            ));
        }
        let parts: Vec<&str> = item
            .get_ref()
            .split('/')
            .filter(|p| !p.is_empty())
            .collect();
        if parts.iter().any(|p| matches!(*p, "." | ".."))
            || item.get_ref().contains(char::is_control)
        {
            return Err(source.refuse(
                item.span(),
                format!("`{shown}` in `{key}` has `.`, `..` or a control character in it"),
            ));
        }
        let path = format!("/{}", parts.join("/"));
        if paths.contains(&path) {
            return Err(source.refuse(item.span(), format!("`{path}` is listed twice in `{key}`")));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn health(source: Source<'_>, given: &Health) -> Result<HealthCheck, Problem> {
    let command: Vec<String> = given
        .command
        .get_ref()
        .iter()
        .map(|word| word.get_ref().clone())
        .collect();
    let Some(program) = given.command.get_ref().first() else {
        return Err(source.refuse(given.command.span(), "a health check needs a command"));
    };
    if !program.get_ref().starts_with('/') {
        return Err(source
            .refuse(
                program.span(),
                format!(
                    "the program `{}` of a health check is not an absolute path in the guest",
                    program.get_ref().escape_debug()
                ),
            )
            .advise("it runs without a shell and without a search path"));
    }
    if let Some(word) = given
        .command
        .get_ref()
        .iter()
        .find(|w| w.get_ref().contains('\0'))
    {
        return Err(source.refuse(word.span(), "a NUL character cannot be passed to a program"));
    }
    Ok(HealthCheck { command })
}

fn timeouts(source: Source<'_>, given: &TimeoutKeys) -> Result<Timeouts, Problem> {
    let defaults = Timeouts::default();
    let one = |key: &str, given: &Option<Spanned<i64>>, default: u32| match given {
        None => Ok(default),
        Some(value) => u32::try_from(*value.get_ref())
            .ok()
            .filter(|v| (1..=MAX_TIMEOUT_SECONDS).contains(v))
            .ok_or_else(|| {
                let message = format!(
                    "`{key} = {}` is out of range: 1 to {MAX_TIMEOUT_SECONDS} seconds",
                    value.get_ref()
                );
                source.refuse(value.span(), message)
            }),
    };
    Ok(Timeouts {
        split: one("split", &given.split, defaults.split)?,
        prepare: one("prepare", &given.prepare, defaults.prepare)?,
        merge: one("merge", &given.merge, defaults.merge)?,
        commit: one("commit", &given.commit, defaults.commit)?,
        abort: one("abort", &given.abort, defaults.abort)?,
        finish: one("finish", &given.finish, defaults.finish)?,
        service: one("service", &given.service, defaults.service)?,
        health: one("health", &given.health, defaults.health)?,
        drain: one("drain", &given.drain, defaults.drain)?,
    })
}

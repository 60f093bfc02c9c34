//! The values of one configuration file: each is checked where it stands.

use crate::file::{Health, Strings, TimeoutKeys};
use crate::load::EXTENSION;
use crate::position::{Given, Source};
use flipside_model::{
    CARRY_PATHS, DiskName, HealthCheck, MAX_TIMEOUT_SECONDS, Problem, ServiceName,
};
use std::ops::Range;
use toml::Spanned;

/// The longest name of a file, in bytes, as file systems have it.
const MAX_NAME_BYTES: usize = 255;

/// Checks the name of a child: a file of the directory in which the calling file lies (CF-29).
pub(crate) fn child_name(
    source: Source<'_>,
    span: Range<usize>,
    name: &str,
) -> Result<(), Problem> {
    let shown = name.escape_debug();
    let refuse = |message: String| source.refuse(span.clone(), message);
    if name.is_empty() {
        return Err(refuse("the name of a child is empty".to_owned()));
    }
    if name.contains('/') {
        return Err(
            refuse(format!("the child `{shown}` has a slash in it")).advise(
                "a child lies in the directory of the file that calls it: write its name only",
            ),
        );
    }
    if name.starts_with('.') || name.contains(char::is_control) || name.len() > MAX_NAME_BYTES {
        return Err(refuse(format!(
            "the child `{shown}` begins with a dot, has a control character in it or is too long"
        )));
    }
    if !name.ends_with(EXTENSION) {
        return Err(refuse(format!(
            "the child `{shown}` does not end with `{EXTENSION}`"
        ))
        .advise(format!("did you mean `{shown}{EXTENSION}`?")));
    }
    Ok(())
}

pub(crate) fn services(
    source: Source<'_>,
    given: &Strings,
) -> Result<Vec<Given<ServiceName>>, Problem> {
    let mut services: Vec<Given<ServiceName>> = Vec::new();
    for name in given {
        if name.get_ref().is_empty() {
            return Err(source.refuse(name.span(), "a service name is empty"));
        }
        let service = ServiceName::new(name.get_ref())
            .map_err(|error| source.refuse(name.span(), error.to_string()))?;
        let unit = service.unit();
        if unit.contains("@.") {
            let (stem, kind) = unit.split_once("@.").unwrap_or_default();
            let message = format!(
                "`{service}` is a template, of which nothing can be stopped: name its instances, such as `{stem}@NAME.{kind}`"
            );
            return Err(source.refuse(name.span(), message));
        }
        if services.iter().any(|s| s.value.unit() == unit) {
            return Err(source.refuse(
                name.span(),
                format!("the service `{service}` is listed twice"),
            ));
        }
        services.push(source.at(name.span(), service));
    }
    Ok(services)
}

pub(crate) fn patterns(source: Source<'_>, given: &Strings) -> Result<Vec<Given<String>>, Problem> {
    let mut units: Vec<Given<String>> = Vec::new();
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
        if units.iter().any(|u| &u.value == name) {
            return Err(source.refuse(unit.span(), format!("the unit `{name}` is listed twice")));
        }
        units.push(source.given(unit));
    }
    Ok(units)
}

pub(crate) fn paths(
    source: Source<'_>,
    key: &str,
    given: &Strings,
) -> Result<Vec<Given<String>>, Problem> {
    let mut paths: Vec<Given<String>> = Vec::new();
    for item in given {
        let path = path(source, key, item)?;
        if paths.iter().any(|p| p.value == path) {
            return Err(source.refuse(item.span(), format!("`{path}` is listed twice in `{key}`")));
        }
        paths.push(source.at(item.span(), path));
    }
    Ok(paths)
}

/// Checks an absolute path in the guest; doubled and trailing slashes are taken out.
pub(crate) fn path(
    source: Source<'_>,
    key: &str,
    item: &Spanned<String>,
) -> Result<String, Problem> {
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
    if parts.iter().any(|p| matches!(*p, "." | "..")) || item.get_ref().contains(char::is_control) {
        return Err(source.refuse(
            item.span(),
            format!("`{shown}` in `{key}` has `.`, `..` or a control character in it"),
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The word in `carry` that stands for the well-known paths.
const DEFAULT: &str = "default";

/// Reads what is carried over: absolute paths and patterns in the guest, and the word for the well-known ones.
pub(crate) fn carry(source: Source<'_>, given: &Strings) -> Result<Vec<Given<String>>, Problem> {
    let mut all: Vec<Given<String>> = Vec::new();
    for item in given {
        if item.get_ref() == DEFAULT {
            let known = CARRY_PATHS.iter();
            all.extend(known.map(|path| source.at(item.span(), (*path).to_owned())));
            continue;
        }
        all.extend(paths(source, "carry", &vec![item.clone()])?);
    }
    for (at, path) in all.iter().enumerate() {
        if path.value == "/" || all[..at].iter().any(|p| p.value == path.value) {
            let shown = path.value.escape_debug();
            let text = if path.value == "/" {
                "`/` in `carry` is everything: name what is to be carried over".to_owned()
            } else {
                format!("`{shown}` is listed twice in `carry`")
            };
            let span = given
                .iter()
                .find(|g| g.get_ref().trim_end_matches('/') == path.value.trim_end_matches('/'))
                .map_or(0..0, Spanned::span);
            return Err(source.refuse(span, text));
        }
    }
    Ok(all)
}

pub(crate) fn health(
    source: Source<'_>,
    given: &[Health],
) -> Result<Vec<Given<HealthCheck>>, Problem> {
    given.iter().map(|h| one_health(source, h)).collect()
}

fn one_health(source: Source<'_>, given: &Health) -> Result<Given<HealthCheck>, Problem> {
    let words = given.command.get_ref();
    let Some(program) = words.first() else {
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
    if let Some(word) = words.iter().find(|w| w.get_ref().contains('\0')) {
        return Err(source.refuse(word.span(), "a NUL character cannot be passed to a program"));
    }
    let command = words.iter().map(|word| word.get_ref().clone()).collect();
    Ok(source.at(given.command.span(), HealthCheck { command }))
}

pub(crate) fn timeouts(
    source: Source<'_>,
    given: &TimeoutKeys,
) -> Result<Vec<(&'static str, Given<u32>)>, Problem> {
    let keys: [(&'static str, &Option<Spanned<i64>>); 9] = [
        ("split", &given.split),
        ("prepare", &given.prepare),
        ("merge", &given.merge),
        ("commit", &given.commit),
        ("abort", &given.abort),
        ("finish", &given.finish),
        ("service", &given.service),
        ("health", &given.health),
        ("drain", &given.drain),
    ];
    let mut set = Vec::new();
    for (key, value) in keys {
        let Some(value) = value else { continue };
        let seconds = u32::try_from(*value.get_ref())
            .ok()
            .filter(|v| (1..=MAX_TIMEOUT_SECONDS).contains(v))
            .ok_or_else(|| {
                let message = format!(
                    "`{key} = {}` is out of range: 1 to {MAX_TIMEOUT_SECONDS} seconds",
                    value.get_ref()
                );
                source.refuse(value.span(), message)
            })?;
        set.push((key, source.at(value.span(), seconds)));
    }
    Ok(set)
}

/// Reads names of disks; none may be among the others, which are marked otherwise.
pub(crate) fn disks(
    source: Source<'_>,
    given: &Strings,
    others: &[Spanned<String>],
) -> Result<Vec<Given<DiskName>>, Problem> {
    let mut disks: Vec<Given<DiskName>> = Vec::new();
    for name in given {
        let disk = DiskName::new(name.get_ref())
            .map_err(|error| source.refuse(name.span(), error.to_string()))?;
        if disks.iter().any(|d| d.value == disk) {
            return Err(source.refuse(name.span(), format!("the disk `{disk}` is listed twice")));
        }
        if others.iter().any(|o| o.get_ref() == disk.as_str()) {
            let message = format!("the disk `{disk}` is marked both System and Data");
            return Err(source.refuse(name.span(), message));
        }
        disks.push(source.at(name.span(), disk));
    }
    Ok(disks)
}

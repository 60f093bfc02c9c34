//! One upgrade configuration file by itself, format version 1.
//!
//! A file is read in three passes, so that the most useful thing is said first: is it TOML, is its version known,
//! are its keys and values right. `nest` walks over the files that it calls, `merge` puts their values together.

use crate::actions::{self, Arguments, OwnBackup};
use crate::load::MAX_FILE_BYTES;
use crate::near::nearest;
use crate::position::{Given, Source};
use crate::values;
use flipside_model::{CustomAction, DiskName, HealthCheck, Problem, ProblemCode, ServiceName};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::fmt;
use toml::Spanned;

/// Version of the format that this program reads and writes.
pub const CONFIG_VERSION: i64 = 1;

pub(crate) type Strings = Vec<Spanned<String>>;

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
    title: Option<Spanned<String>>,
    comments: Option<Spanned<String>>,
    children: Option<Spanned<Vec<Spanned<ChildKey>>>>,
    #[serde(default)]
    services: Strings,
    #[serde(default)]
    accept_loss: Strings,
    #[serde(default)]
    data_paths: Strings,
    #[serde(default)]
    carry: Strings,
    rehearsal: Option<Spanned<bool>>,
    checkpoint: Option<Spanned<bool>>,
    #[serde(default)]
    quiesce: Quiesce,
    #[serde(default)]
    health: Vec<Health>,
    #[serde(default)]
    timeouts: TimeoutKeys,
    #[serde(default)]
    disks: Disks,
    #[serde(default)]
    action: Vec<Action>,
    #[serde(default)]
    log_backup: Backup,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Action {
    pub(crate) file: Spanned<String>,
    pub(crate) arguments: Option<Spanned<Arguments>>,
    pub(crate) control_type: Spanned<String>,
    pub(crate) timing: Option<Spanned<String>>,
    pub(crate) limit: Option<Spanned<i64>>,
    #[serde(rename = "where")]
    pub(crate) place: Option<Spanned<String>>,
    pub(crate) on_failure: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    pub(crate) directory: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) logs: Strings,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quiesce {
    pub(crate) units: Option<Strings>,
    #[serde(default)]
    pub(crate) also: Strings,
    #[serde(default)]
    pub(crate) except: Strings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) command: Spanned<Strings>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disks {
    #[serde(default)]
    system: Strings,
    #[serde(default)]
    data: Strings,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeoutKeys {
    pub(crate) split: Option<Spanned<i64>>,
    pub(crate) prepare: Option<Spanned<i64>>,
    pub(crate) merge: Option<Spanned<i64>>,
    pub(crate) commit: Option<Spanned<i64>>,
    pub(crate) abort: Option<Spanned<i64>>,
    pub(crate) finish: Option<Spanned<i64>>,
    pub(crate) service: Option<Spanned<i64>>,
    pub(crate) health: Option<Spanned<i64>>,
    pub(crate) drain: Option<Spanned<i64>>,
}

/// A child as it is written: `"db.Config"`, or `{ file = "db.Config", enabled = false }`.
struct ChildKey {
    file: String,
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildTable {
    file: String,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for ChildKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChildVisitor)
    }
}

struct ChildVisitor;

impl<'de> Visitor<'de> for ChildVisitor {
    type Value = ChildKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a file, or `{ file = NAME, enabled = false }`")
    }

    fn visit_str<E>(self, file: &str) -> Result<ChildKey, E> {
        Ok(ChildKey {
            file: file.to_owned(),
            enabled: true,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ChildKey, A::Error> {
        let table = ChildTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ChildKey {
            file: table.file,
            enabled: table.enabled,
        })
    }
}

/// A child that a file calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChildRef {
    pub(crate) file: String,
    pub(crate) enabled: bool,
}

/// What one file says by itself, checked; with the place of every value.
pub(crate) struct Own {
    pub(crate) title: Option<Given<String>>,
    pub(crate) comments: Option<Given<String>>,
    /// The children in their order, disabled ones too.
    pub(crate) children: Vec<Given<ChildRef>>,
    /// The bytes of the whole value of `children`.
    pub(crate) children_span: Option<std::ops::Range<usize>>,
    pub(crate) services: Vec<Given<ServiceName>>,
    pub(crate) accept_loss: Vec<Given<String>>,
    pub(crate) data_paths: Vec<Given<String>>,
    pub(crate) carry: Vec<Given<String>>,
    pub(crate) rehearsal: Option<Given<bool>>,
    pub(crate) checkpoint: Option<Given<bool>>,
    pub(crate) quiesce: OwnQuiesce,
    pub(crate) health: Vec<Given<HealthCheck>>,
    /// The deadlines that are set, by their names.
    pub(crate) timeouts: Vec<(&'static str, Given<u32>)>,
    pub(crate) system_disks: Vec<Given<DiskName>>,
    pub(crate) data_disks: Vec<Given<DiskName>>,
    pub(crate) actions: Vec<Given<CustomAction>>,
    pub(crate) log_backup: OwnBackup,
}

/// What one file says about units that act by themselves.
pub(crate) struct OwnQuiesce {
    pub(crate) units: Option<Vec<Given<String>>>,
    pub(crate) also: Vec<Given<String>>,
    pub(crate) except: Vec<Given<String>>,
}

/// Reads and checks one file; what it says about other files is only checked for its form.
pub(crate) fn read_own(source: Source<'_>) -> Result<Own, Problem> {
    if source.text.len() > MAX_FILE_BYTES {
        let shown = source.shown_path();
        let message = format!(
            "{shown}: the file has {} bytes, {MAX_FILE_BYTES} are allowed",
            source.text.len()
        );
        return Err(Problem::new(ProblemCode::Usage, message).about(shown));
    }
    check_version(source)?;
    let file: File = toml::from_str(source.text).map_err(|error| explain(source, &error))?;
    Ok(Own {
        title: file.title.as_ref().map(|t| source.given(t)),
        comments: file.comments.as_ref().map(|c| source.given(c)),
        children_span: file.children.as_ref().map(Spanned::span),
        children: children(source, file.children)?,
        services: values::services(source, &file.services)?,
        quiesce: OwnQuiesce {
            units: match &file.quiesce.units {
                Some(units) => Some(values::patterns(source, units)?),
                None => None,
            },
            also: values::patterns(source, &file.quiesce.also)?,
            except: file
                .quiesce
                .except
                .iter()
                .map(|u| source.given(u))
                .collect(),
        },
        accept_loss: values::paths(source, "accept_loss", &file.accept_loss)?,
        data_paths: values::paths(source, "data_paths", &file.data_paths)?,
        carry: values::carry(source, &file.carry)?,
        health: values::health(source, &file.health)?,
        timeouts: values::timeouts(source, &file.timeouts)?,
        rehearsal: file.rehearsal.as_ref().map(|r| source.given(r)),
        checkpoint: file.checkpoint.as_ref().map(|c| source.given(c)),
        system_disks: values::disks(source, &file.disks.system, &[])?,
        data_disks: values::disks(source, &file.disks.data, &file.disks.system)?,
        actions: actions::actions(source, &file.action)?,
        log_backup: actions::log_backup(source, &file.log_backup)?,
    })
}

fn children(
    source: Source<'_>,
    given: Option<Spanned<Vec<Spanned<ChildKey>>>>,
) -> Result<Vec<Given<ChildRef>>, Problem> {
    let mut children: Vec<Given<ChildRef>> = Vec::new();
    for child in given.map(Spanned::into_inner).unwrap_or_default() {
        let span = child.span();
        let ChildKey { file, enabled } = child.into_inner();
        values::child_name(source, span.clone(), &file)?;
        if children.iter().any(|c| c.value.file == file) {
            return Err(source.refuse(span, format!("the child `{file}` is listed twice")));
        }
        children.push(source.at(span, ChildRef { file, enabled }));
    }
    Ok(children)
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

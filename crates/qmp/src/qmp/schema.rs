//! Looks into the reply to `query-qmp-schema`.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

/// Knows what the commands of one QEMU accept.
///
/// Versions and builds differ: what matters is asked here, never derived from
/// the version.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Vec<Entry>")]
pub struct Schema {
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    meta_type: String,
    arg_type: Option<String>,
    #[serde(default)]
    members: Vec<Member>,
    /// The names of an enumeration, in versions before `members`.
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Member {
    name: Option<String>,
    r#type: Option<String>,
}

impl From<Vec<Entry>> for Schema {
    fn from(entries: Vec<Entry>) -> Self {
        let entries = entries.into_iter().map(|e| (e.name.clone(), e)).collect();
        Self { entries }
    }
}

impl Schema {
    fn entry(&self, name: &str, meta_type: &str) -> Option<&Entry> {
        self.entries.get(name).filter(|e| e.meta_type == meta_type)
    }

    fn argument(&self, command: &str, argument: &str) -> Option<&Member> {
        let arg_type = self.entry(command, "command")?.arg_type.as_deref()?;
        let members = &self.entry(arg_type, "object")?.members;
        members.iter().find(|m| m.name.as_deref() == Some(argument))
    }

    /// Tells whether there is such a command.
    #[must_use]
    pub fn has_command(&self, name: &str) -> bool {
        self.entry(name, "command").is_some()
    }

    /// Tells whether there is such an event.
    #[must_use]
    pub fn has_event(&self, name: &str) -> bool {
        self.entry(name, "event").is_some()
    }

    /// Tells whether the command takes the argument; arguments that only some
    /// variants of a command have (those of one block driver, say) are not seen.
    #[must_use]
    pub fn has_argument(&self, command: &str, argument: &str) -> bool {
        self.argument(command, argument).is_some()
    }

    /// Returns the values an enumerated argument may have, empty when there is
    /// no such command, no such argument, or it is no enumeration.
    ///
    /// `argument_values("blockdev-add", "driver")` holds the block drivers.
    #[must_use]
    pub fn argument_values(&self, command: &str, argument: &str) -> BTreeSet<&str> {
        let found = self
            .argument(command, argument)
            .and_then(|member| self.entry(member.r#type.as_deref()?, "enum"));
        found
            .into_iter()
            .flat_map(|e| {
                let named = e.members.iter().filter_map(|m| m.name.as_deref());
                named.chain(e.values.iter().map(String::as_str))
            })
            .collect()
    }
}

//! Names and identifiers, checked where they are made so that nobody else has to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Says why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} `{given}` is not a valid name: use 1 to {max} letters, digits or any of `{extra}`, starting with a letter or digit"
)]
pub struct InvalidName {
    /// What kind of name was asked for.
    pub what: &'static str,
    /// What was given, cut to a readable length.
    pub given: String,
    /// The punctuation that is allowed.
    pub extra: &'static str,
    /// The longest length allowed.
    pub max: usize,
}

/// Makes what was given fit for a message: short, and on one line.
pub(crate) fn shown(given: &str) -> String {
    let harmless = |c: char| if c.is_control() { '?' } else { c };
    given.chars().take(80).map(harmless).collect()
}

fn check(
    what: &'static str,
    given: &str,
    extra: &'static str,
    max: usize,
) -> Result<(), InvalidName> {
    let mut chars = given.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
    if first && rest && given.len() <= max {
        return Ok(());
    }
    Err(InvalidName {
        what,
        given: shown(given),
        extra,
        max,
    })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(given: &str) -> Result<Self, InvalidName> {
                check($what, given, $extra, $max)?;
                Ok(Self(given.to_owned()))
            }
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(given: String) -> Result<Self, InvalidName> {
                Self::new(&given)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(given: &str) -> Result<Self, InvalidName> {
                Self::new(given)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a system: `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$` (reliability 3.19).
    SystemName, "system", "._-", 63
);
name_type!(
    /// The name of a service in the guest, such as `nginx.service` or `postgresql@15-main.service`.
    ///
    /// Together with the `.service` that may be appended it is no longer than systemd's longest name, 255 bytes.
    ServiceName, "service", "._-@:\\", 247
);

impl ServiceName {
    /// Returns the full unit name: `.service` is appended when no unit suffix is given.
    pub fn unit(&self) -> String {
        const SUFFIXES: [&str; 6] = [
            ".service", ".socket", ".timer", ".target", ".path", ".mount",
        ];
        if SUFFIXES.iter().any(|s| self.0.ends_with(s)) {
            self.0.clone()
        } else {
            format!("{}.service", self.0)
        }
    }
}

/// Names one upgrade session; version 7, so ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub uuid::Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers one machine process of a system: it grows by one with every process started, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineId(pub u32);

impl MachineId {
    /// Returns the id of the process started after this one.
    pub fn next(self) -> MachineId {
        MachineId(self.0 + 1)
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_could_be_an_option_a_path_or_a_control_character() {
        for bad in ["", "-x", ".x", "a/b", "a b", "a\n", "é", &"a".repeat(64)] {
            assert!(SystemName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "A.b_c", &"a".repeat(63)] {
            assert!(SystemName::new(good).is_ok(), "{good:?}");
        }
        assert!(ServiceName::new("--now").is_err());
        let longest = ServiceName::new(&"a".repeat(247)).expect("valid");
        assert_eq!(longest.unit().len(), 255);
        assert!(ServiceName::new(&"a".repeat(248)).is_err());
        assert_eq!(
            ServiceName::new("nginx").expect("valid").unit(),
            "nginx.service"
        );
        assert_eq!(
            ServiceName::new("postgresql@15-main.service")
                .expect("valid")
                .unit(),
            "postgresql@15-main.service"
        );
    }
}

//! Disks, legs and the state of a mirror.

use crate::names::InvalidName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What a disk holds, which decides the direction of its resynchronisation (DK-26, DK-27).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DiskRole {
    /// Software to upgrade; each side has its own leg while split.
    System,
    /// Persistent application data; only ever live on one side.
    Data,
}

impl fmt::Display for DiskRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskRole::System => "System",
            DiskRole::Data => "Data",
        })
    }
}

/// The name of a disk, `system0` … or `data0` …, which is also its serial number in the guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiskName(Arc<str>);

impl DiskName {
    /// Checks and wraps a disk name.
    pub fn new(given: &str) -> Result<Self, InvalidName> {
        let digits = given
            .strip_prefix("system")
            .or_else(|| given.strip_prefix("data"));
        let valid = digits
            .is_some_and(|d| (1..=2).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()));
        if valid {
            return Ok(Self(given.into()));
        }
        Err(InvalidName {
            what: "disk",
            given: crate::names::shown(given),
            extra: "system0, data0, …",
            max: 8,
        })
    }

    /// Makes the name of the `index`th disk of a role.
    pub fn numbered(role: DiskRole, index: usize) -> Self {
        match role {
            DiskRole::System => Self(format!("system{index}").into()),
            DiskRole::Data => Self(format!("data{index}").into()),
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DiskName {
    type Error = InvalidName;
    fn try_from(given: String) -> Result<Self, InvalidName> {
        Self::new(&given)
    }
}

impl std::str::FromStr for DiskName {
    type Err = InvalidName;
    fn from_str(given: &str) -> Result<Self, InvalidName> {
        Self::new(given)
    }
}

impl From<DiskName> for String {
    fn from(name: DiskName) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One half of a mirrored disk; leg A lies in enclosure A, leg B in enclosure B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Leg {
    /// The half in the first enclosure.
    A,
    /// The half in the second enclosure.
    B,
}

impl Leg {
    /// Both legs.
    pub const BOTH: [Leg; 2] = [Leg::A, Leg::B];

    /// Returns the other leg.
    pub fn other(self) -> Leg {
        match self {
            Leg::A => Leg::B,
            Leg::B => Leg::A,
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leg::A => "A",
            Leg::B => "B",
        })
    }
}

/// The Status property of a mirrored disk (RS-06).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MirrorStatus {
    /// Both legs are in sync.
    None,
    /// The stale leg is being rewritten; percentage done, 0 to 99.
    Resync(u8),
    /// One leg only, and nothing is being rewritten (own addition: split, or a failed leg).
    Simplex,
}

impl fmt::Display for MirrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MirrorStatus::None => f.write_str("None"),
            MirrorStatus::Resync(percent) => write!(f, "Resync {percent}%"),
            MirrorStatus::Simplex => f.write_str("Simplex"),
        }
    }
}

impl Serialize for MirrorStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MirrorStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "None" => return Ok(MirrorStatus::None),
            "Simplex" => return Ok(MirrorStatus::Simplex),
            _ => {}
        }
        text.strip_prefix("Resync ")
            .and_then(|rest| rest.strip_suffix('%'))
            .and_then(|percent| percent.parse().ok())
            .map(MirrorStatus::Resync)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a mirror status")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Found by fuzzing.
    #[test]
    fn a_refusal_quotes_no_control_character() {
        let refused = DiskName::new("data\u{1b}[31m\n").expect_err("no disk's name");
        assert!(
            !refused.to_string().chars().any(char::is_control),
            "{refused}"
        );
    }

    // RS-06: the exact spellings.
    #[test]
    fn mirror_status_is_spelled_as_the_guide_spells_it() {
        for (value, text) in [
            (MirrorStatus::None, "None"),
            (MirrorStatus::Resync(42), "Resync 42%"),
            (MirrorStatus::Simplex, "Simplex"),
        ] {
            assert_eq!(value.to_string(), text);
            let json = serde_json::to_string(&value).expect("serialises");
            assert_eq!(
                serde_json::from_str::<MirrorStatus>(&json).expect("parses"),
                value
            );
        }
    }

    #[test]
    fn disk_names_are_closed() {
        assert!(DiskName::new("system0").is_ok() && DiskName::new("data12").is_ok());
        for bad in ["", "system", "data-1", "disk0", "data0,x=y", "system123"] {
            assert!(DiskName::new(bad).is_err(), "{bad}");
        }
    }
}

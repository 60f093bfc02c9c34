//! What an administrator sees and does on one side of a divided system.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Keys that are pressed together (US-23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySequence {
    /// Ctrl-Alt-Del: systemd restarts the machine, a Windows guest asks for a login.
    CtrlAltDel,
    /// Ctrl-Alt-F1 to F6 is the way to another text console; this is the first.
    CtrlAltF1,
    /// Enter, to wake a screen.
    Enter,
}

impl KeySequence {
    /// Every sequence.
    pub const ALL: [KeySequence; 3] = [
        KeySequence::CtrlAltDel,
        KeySequence::CtrlAltF1,
        KeySequence::Enter,
    ];

    /// Its name, as typed.
    pub fn name(self) -> &'static str {
        match self {
            KeySequence::CtrlAltDel => "ctrl-alt-del",
            KeySequence::CtrlAltF1 => "ctrl-alt-f1",
            KeySequence::Enter => "enter",
        }
    }
}

impl fmt::Display for KeySequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeySequence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = KeySequence::ALL.into_iter().find(|k| k.name() == text);
        found.ok_or_else(|| {
            let names = KeySequence::ALL.map(KeySequence::name).join(", ");
            format!("`{text}` is not one of: {names}")
        })
    }
}

/// A dump file that is kept on the host (AB-11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// File name, such as `Memory1.dmp`.
    pub name: String,
    /// Where it is.
    pub path: std::path::PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was taken, in milliseconds since 1970.
    pub at_ms: i64,
}

/// How the operating system of a side is (VC-07).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// The operating system's own name and version.
    pub system: String,
    /// What the service manager says of the whole: `running`, `degraded`, `starting`.
    pub state: String,
    /// The kernel that runs.
    pub kernel: String,
    /// The newest kernel that is installed.
    pub newest_kernel: Option<String>,
    /// Units that have failed.
    pub failed_units: Vec<String>,
    /// Why a restart is needed; empty when none is.
    pub restart_needed: Vec<String>,
}

/// A file of a package that is not as it was installed (VC-08).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageFault {
    /// Path in the guest.
    pub path: String,
    /// What is wrong: `changed`, `missing`, or the guest's own words.
    pub what: String,
    /// It is a configuration file, which administrators change.
    pub configuration: bool,
}

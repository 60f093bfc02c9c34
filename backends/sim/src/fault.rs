//! Faults that a test plans, and the record of every call.

use flipside_platform::PortErrorKind;
use std::sync::Arc;

/// Which call a fault hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The nth call of all, from 1.
    Nth(u64),
    /// The nth call that can change something, from 1.
    NthEffect(u64),
    /// The nth call from now whose name matches the pattern (`*` stands for anything), from 1.
    Name(String, u64),
    /// Every call whose name matches the pattern, until the plan is cleared.
    Every(String),
}

/// What happens to the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is done; it answers that it failed.
    FailBefore,
    /// Nothing is done; it answers with this kind of error.
    FailWith(PortErrorKind),
    /// It is done, but the answer is lost: `TimedOut`, at once.
    LostReply,
    /// No answer until the deadline of the port, then `TimedOut`.
    Hang {
        /// Whether it was done all the same.
        done: bool,
    },
    /// The server dies before anything is done.
    CrashBefore,
    /// The server dies after it is done, before the answer.
    CrashAfter,
    /// So many of its parts are done (see [`crate::SimWorld`] for the parts), then it answers that it failed.
    /// A call of fewer parts is done wholly.
    Torn(u32),
    /// The same, and the answer is lost.
    TornLost(u32),
    /// The same, and the server dies.
    TornCrash(u32),
    /// It is done twice; the first answer counts.
    Twice,
}

/// A planned fault; it happens once, except for [`At::Every`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which call.
    pub call: At,
    /// What happens.
    pub kind: FaultKind,
}

impl Fault {
    /// Makes a fault for the next call whose name matches.
    pub fn next(pattern: &str, kind: FaultKind) -> Self {
        Self {
            call: At::Name(pattern.to_owned(), 1),
            kind,
        }
    }

    /// Makes a fault for the nth call of all, from 1.
    pub fn nth(n: u64, kind: FaultKind) -> Self {
        Self {
            call: At::Nth(n),
            kind,
        }
    }

    /// Makes a fault for the nth changing call, from 1.
    pub fn nth_effect(n: u64, kind: FaultKind) -> Self {
        Self {
            call: At::NthEffect(n),
            kind,
        }
    }

    /// Says whether this call is hit, and whether the fault is used up by it.
    pub(crate) fn hits(&mut self, call: &Call) -> (bool, bool) {
        match &mut self.call {
            At::Nth(n) => (*n == call.n, *n == call.n),
            At::NthEffect(n) => {
                let hit = Some(*n) == call.effect;
                (hit, hit)
            }
            At::Name(pattern, left) => {
                if !glob(pattern, &call.name) {
                    return (false, false);
                }
                *left = left.saturating_sub(1);
                (*left == 0, *left == 0)
            }
            At::Every(pattern) => (glob(pattern, &call.name), false),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEnd {
    /// It has not answered yet, or never will.
    Open,
    /// It answered.
    Ok,
    /// It answered with an error of this kind.
    Err(PortErrorKind),
    /// The server died in it.
    Crashed,
}

/// One call of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 1.
    pub n: u64,
    /// Its number among the calls that can change something, from 1.
    pub effect: Option<u64>,
    /// Its stable name, such as `disk.unplug.m2.data0`.
    pub name: String,
    /// In which step of the engine it was made, as [`SimWorld::label`](crate::SimWorld::label) said last.
    pub label: Arc<str>,
    /// How many parts it has begun: so many places inside it where it can be torn, less one.
    pub parts: u32,
    /// The fault that hit it.
    pub fault: Option<FaultKind>,
    /// How it ended.
    pub end: CallEnd,
}

/// Says whether a text matches a pattern in which `*` stands for anything.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, text, want) in [
            ("disk.unplug.*", "disk.unplug.m2.data0", true),
            ("*.m2.*", "disk.unplug.m2.data0", true),
            ("disk.unplug", "disk.unplug.m2", false),
            ("disk.unplug.m2", "disk.unplug.m2", true),
            ("*", "x", true),
            ("a*a", "a", false),
            ("*.timer", "apt-daily.timer", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}

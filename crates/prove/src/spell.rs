//! A plan as one word, for the command that repeats it: `commit@85=crash-after+120=torn-crash-2/power`.

use crate::run::Plan;
use crate::ways::Way;
use flipside_backend_sim::{
    At, BookCut, Fault, FaultKind, GuardAt, GuardFault, GuardFaultKind as Guard,
};
use flipside_platform::PortErrorKind;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.way.name())?;
        for (index, fault) in self.faults.iter().enumerate() {
            f.write_str(if index == 0 { "@" } else { "+" })?;
            let kind = spell(&fault.kind);
            match &fault.call {
                At::Nth(n) => write!(f, "c{n}={kind}")?,
                At::NthEffect(n) => write!(f, "{n}={kind}")?,
                At::Name(name, n) => write!(f, "{name}#{n}={kind}")?,
                At::Every(name) => write!(f, "{name}#*={kind}")?,
            }
        }
        if self.power {
            write!(f, "/power")?;
        }
        if self.kept > 0 {
            write!(f, "/kept={}", self.kept)?;
        }
        if self.book != BookCut::Lost {
            write!(f, "/book={}", format!("{:?}", self.book).to_lowercase())?;
        }
        for fault in &self.guard {
            write!(f, "/guard={}", spell_guard(fault))?;
        }
        if !self.away.is_zero() {
            write!(f, "/away={}", self.away.as_secs())?;
        }
        if let Some(at) = self.abort_at {
            write!(f, "/abort={at}")?;
        }
        Ok(())
    }
}

/// Spells a kind of fault.
fn spell(kind: &FaultKind) -> String {
    match kind {
        FaultKind::FailBefore => "fail".to_owned(),
        FaultKind::FailWith(PortErrorKind::NoSpace) => "no-space".to_owned(),
        FaultKind::FailWith(kind) => format!("fail-{kind:?}").to_lowercase(),
        FaultKind::LostReply => "lost-reply".to_owned(),
        FaultKind::Hang { done: false } => "hang".to_owned(),
        FaultKind::Hang { done: true } => "hang-done".to_owned(),
        FaultKind::CrashBefore => "crash-before".to_owned(),
        FaultKind::CrashAfter => "crash-after".to_owned(),
        FaultKind::Torn(n) => format!("torn-{n}"),
        FaultKind::TornLost(n) => format!("torn-lost-{n}"),
        FaultKind::TornCrash(n) => format!("torn-crash-{n}"),
        FaultKind::Twice => "twice".to_owned(),
    }
}

/// Spells a fault of the guard: where it is, such as `b85` (before the server's 85th changing call), and what it is.
fn spell_guard(fault: &GuardFault) -> String {
    let at = match fault.at {
        GuardAt::Before(n) => format!("b{n}"),
        GuardAt::After(n) => format!("a{n}"),
        GuardAt::Own(n) => format!("own{n}"),
    };
    let kind = match fault.kind {
        Guard::Kill => "kill".to_owned(),
        Guard::KillTorn(parts) => format!("torn-{parts}"),
        Guard::KillAfter => "kill-after".to_owned(),
        Guard::Hang(None) => "hang".to_owned(),
        Guard::Hang(Some(span)) => format!("hang-{}", span.as_secs()),
        Guard::Double => "double".to_owned(),
    };
    format!("{at}-{kind}")
}

fn read_guard(text: &str) -> Result<GuardFault, String> {
    let bad = || format!("`{text}` is not a fault of the guard");
    let (at, kind) = text.split_once('-').ok_or_else(bad)?;
    let number = |n: &str| n.parse().map_err(|_| bad());
    let at = if let Some(n) = at.strip_prefix("own") {
        GuardAt::Own(number(n)?)
    } else if let Some(n) = at.strip_prefix('b') {
        GuardAt::Before(number(n)?)
    } else {
        GuardAt::After(number(at.strip_prefix('a').ok_or_else(bad)?)?)
    };
    let kind = match kind.split_once('-') {
        None if kind == "kill" => Guard::Kill,
        None if kind == "hang" => Guard::Hang(None),
        None if kind == "double" => Guard::Double,
        Some(("kill", "after")) => Guard::KillAfter,
        Some(("torn", n)) => Guard::KillTorn(n.parse().map_err(|_| bad())?),
        Some(("hang", n)) => Guard::Hang(Some(Duration::from_secs(number(n)?))),
        _ => return Err(bad()),
    };
    Ok(GuardFault { at, kind })
}

fn read_book(text: &str) -> Result<BookCut, String> {
    let named = |cut: &&BookCut| format!("{cut:?}").to_lowercase() == text;
    let found = BookCut::ALL.iter().find(named).copied();
    found.ok_or_else(|| format!("`{text}` is not what a power cut leaves of a book"))
}

fn read_kind(text: &str) -> Result<FaultKind, String> {
    let fixed = [
        FaultKind::FailBefore,
        FaultKind::FailWith(PortErrorKind::NoSpace),
        FaultKind::FailWith(PortErrorKind::TimedOut),
        FaultKind::FailWith(PortErrorKind::Absent),
        FaultKind::LostReply,
        FaultKind::Hang { done: false },
        FaultKind::Hang { done: true },
        FaultKind::CrashBefore,
        FaultKind::CrashAfter,
        FaultKind::Twice,
    ];
    if let Some(kind) = fixed.into_iter().find(|k| spell(k) == text) {
        return Ok(kind);
    }
    let unknown = || format!("unknown fault `{text}`");
    let (word, n) = text.rsplit_once('-').ok_or_else(unknown)?;
    let n: u32 = n.parse().map_err(|_| unknown())?;
    match word {
        "torn" => Ok(FaultKind::Torn(n)),
        "torn-lost" => Ok(FaultKind::TornLost(n)),
        "torn-crash" => Ok(FaultKind::TornCrash(n)),
        _ => Err(unknown()),
    }
}

fn read_fault(text: &str) -> Result<Fault, String> {
    let bad = || format!("`{text}` is not CALL=FAULT");
    let (at, kind) = text.split_once('=').ok_or_else(bad)?;
    let kind = read_kind(kind)?;
    let call = if let Ok(n) = at.parse() {
        At::NthEffect(n)
    } else if let Some((name, n)) = at.split_once('#') {
        match n {
            "*" => At::Every(name.to_owned()),
            n => At::Name(name.to_owned(), n.parse().map_err(|_| bad())?),
        }
    } else {
        let n = at.strip_prefix('c').ok_or_else(bad)?;
        At::Nth(n.parse().map_err(|_| bad())?)
    };
    Ok(Fault { call, kind })
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let head = parts.next().unwrap_or_default();
        let (way, faults) = head.split_once('@').unwrap_or((head, ""));
        let way = Way::find(way).ok_or_else(|| format!("unknown way `{way}`"))?;
        let mut plan = Plan::clean(way);
        for fault in faults.split('+').filter(|f| !f.is_empty()) {
            plan.faults.push(read_fault(fault)?);
        }
        for part in parts {
            match part.split_once('=') {
                None if part == "power" => plan.power = true,
                Some(("kept", n)) => plan.kept = n.parse().map_err(|_| "kept=BYTES".to_owned())?,
                Some(("book", text)) => plan.book = read_book(text)?,
                Some(("guard", text)) => plan.guard.push(read_guard(text)?),
                Some(("away", n)) => {
                    let seconds = n.parse().map_err(|_| "away=SECONDS".to_owned())?;
                    plan.away = Duration::from_secs(seconds);
                }
                Some(("abort", n)) => {
                    plan.abort_at = Some(n.parse().map_err(|_| "abort=CALL".to_owned())?);
                }
                _ => return Err(format!("unknown part `{part}`")),
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_is_spelled() {
        for text in [
            "commit",
            "commit@85=crash-after",
            "abort-in-merge@c3=hang-done+120=torn-crash-2/power/kept=40",
            "many-disks@1=no-space+2=torn-lost-3+journal.sync#2=fail",
            "commit/abort=33",
            "commit@85=crash-after/power/book=torn",
            "commit@85=crash-after/guard=b85-kill/guard=own2-torn-1/away=30",
            "leg-fails/guard=a7-hang-6/guard=own1-kill-after/guard=b9-double",
        ] {
            let plan: Plan = text.parse().expect("reads");
            assert_eq!(plan.to_string(), text);
        }
        for text in [
            "nowhere",
            "commit@x=crash-after",
            "commit@1=explode",
            "commit/x",
            "commit/guard=b1-explode",
            "commit/book=burnt",
        ] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }
}

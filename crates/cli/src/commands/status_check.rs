//! `flipside status --check`: one line and an exit status, as monitoring plugins do it.

use crate::context::Context;
use crate::failure::Failure;
use flipside_activity::clean;
use flipside_model::{
    HardwareState, MirrorStatus, OperationalState, Status, SystemName, UpgradeState,
};
use std::time::Duration;

/// A session is meant for a maintenance window: who leaves one open this long has forgotten it.
const SESSION_LONG: Duration = Duration::from_secs(24 * 3600);

/// Monitoring systems give a plugin some ten seconds; it must answer within them.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

pub(crate) async fn run(ctx: &Context, named: Option<&SystemName>) -> Result<(), Failure> {
    let asked = tokio::time::timeout(ANSWER_DEADLINE, ask(ctx, named)).await;
    let (level, text) = match asked {
        Ok(Ok(all)) if all.is_empty() => (Level::Unknown, "there is no system".to_owned()),
        Ok(Ok(all)) => judge_all(&all, now()),
        Ok(Err(Failure::Problem(problem) | Failure::Lost(problem))) => {
            (Level::Unknown, clean(&problem.to_string()))
        }
        Ok(Err(Failure::Status(_))) => (Level::Unknown, "no answer".to_owned()),
        Err(_) => (
            Level::Unknown,
            format!("no answer within {} seconds", ANSWER_DEADLINE.as_secs()),
        ),
    };
    if ctx.json {
        ctx.object(&serde_json::json!({ "level": level.word(), "text": text }))?;
    } else {
        ctx.line(&format!("FLIPSIDE {} - {text}", level.word()))?;
    }
    match level {
        Level::Ok => Ok(()),
        level => Err(Failure::Status(level.status())),
    }
}

async fn ask(ctx: &Context, named: Option<&SystemName>) -> Result<Vec<Status>, Failure> {
    match named {
        Some(name) => Ok(vec![ctx.status(name).await?]),
        None => ctx.client.get("/v1/systems").await,
    }
}

fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

fn judge_all(all: &[Status], now: Duration) -> (Level, String) {
    let judged: Vec<(Level, String)> = all.iter().map(|s| judge(s, now)).collect();
    let worst = judged
        .iter()
        .map(|(level, _)| *level)
        .max()
        .unwrap_or(Level::Unknown);
    let texts: Vec<String> = judged
        .into_iter()
        .filter(|(level, _)| *level == worst)
        .map(|(_, text)| text)
        .collect();
    (worst, texts.join("; "))
}

/// The text has no `|`, which would begin the figures of a plugin's line.
fn judge(status: &Status, now: Duration) -> (Level, String) {
    let mut found = Vec::new();
    if !status.running {
        found.push((Level::Critical, "not running".to_owned()));
    }
    if status.operational_state == OperationalState::Broken {
        let why = status.problem.as_ref().map_or_else(
            || "see the activity log".to_owned(),
            |p| clean(&p.message).replace('|', "/"),
        );
        found.push((Level::Critical, format!("Broken: {why}")));
    }
    for disk in &status.disks {
        match disk.mirror {
            MirrorStatus::None => {}
            other => found.push((Level::Warning, format!("{} {other}", disk.name))),
        }
    }
    if status.hardware_state == HardwareState::Simplex {
        // The line begins with it.
        found.push((Level::Warning, String::new()));
    }
    if !status.not_saved.is_empty() {
        // LB-11
        found.push((
            Level::Warning,
            format!("{} logs not saved", status.not_saved.len()),
        ));
    }
    if let Some(age) = session_age(status, now).filter(|age| *age >= SESSION_LONG) {
        let hours = age.as_secs() / 3600;
        found.push((Level::Warning, format!("session open for {hours} hours")));
    }
    let worst = found
        .iter()
        .map(|(level, _)| *level)
        .max()
        .unwrap_or(Level::Ok);
    let mut text = format!(
        "{}: {}, {}, {}",
        status.system, status.hardware_state, status.upgrade_state, status.operational_state
    );
    for (_, why) in found.into_iter().filter(|(_, why)| !why.is_empty()) {
        text.push_str(", ");
        text.push_str(&why);
    }
    (worst, text)
}

/// The id of a session carries the time of its beginning.
fn session_age(status: &Status, now: Duration) -> Option<Duration> {
    if status.upgrade_state == UpgradeState::Idle {
        return None;
    }
    let (seconds, nanos) = status.session?.0.get_timestamp()?.to_unix();
    now.checked_sub(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use flipside_model::{Problem, ProblemCode};

    /// The time in the id of the sample's session: 14 November 2023.
    const BEGAN: Duration = Duration::from_millis(0x018b_cfe5_68f4);

    fn idle() -> Status {
        let mut status = sample();
        status.upgrade_state = UpgradeState::Idle;
        status.hardware_state = HardwareState::FaultTolerant;
        for disk in &mut status.disks {
            disk.mirror = MirrorStatus::None;
        }
        status
    }

    #[test]
    fn each_condition_has_its_level() {
        assert_eq!(
            judge(&idle(), BEGAN),
            (Level::Ok, "web: Fault Tolerant, Idle, Ready".to_owned())
        );
        let mut off = idle();
        off.running = false;
        assert_eq!(judge(&off, BEGAN).0, Level::Critical);
        let mut broken = idle();
        broken.operational_state = OperationalState::Broken;
        broken.problem = Some(Problem::new(ProblemCode::Failed, "a|b"));
        let (level, text) = judge(&broken, BEGAN);
        assert_eq!(level, Level::Critical);
        assert!(text.ends_with("Broken: a/b"), "{text}");
        let mut resync = idle();
        resync.disks[1].mirror = MirrorStatus::Resync(42);
        let (level, text) = judge(&resync, BEGAN);
        assert_eq!(level, Level::Warning);
        assert!(text.contains("data0 Resync 42%"), "{text}");
        let (level, text) = judge_all(&[idle(), off, resync], BEGAN);
        assert_eq!(level, Level::Critical);
        assert!(!text.contains("Resync"), "only the worst: {text}");
    }

    #[test]
    fn a_session_left_open_is_noticed_after_a_day() {
        let mut open = idle();
        open.upgrade_state = UpgradeState::Merge;
        assert_eq!(judge(&open, BEGAN + SESSION_LONG / 2).0, Level::Ok);
        let (level, text) = judge(&open, BEGAN + SESSION_LONG * 2);
        assert_eq!(level, Level::Warning);
        assert!(text.contains("session open for 48 hours"), "{text}");
    }
}

//! Saves the logs of the Production Side: what it logged since the split is gone at Commit (LB-02, MG-06).
//!
//! Users are waiting, so a log that cannot be saved never fails the merge: it is a Warning now, in the status until the
//! session ends, and in the question that Commit asks (LB-11). Until then nothing is lost: Abort keeps the disk that
//! has it.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{
    DiskRole, Fact, LogCopy, LogsSaved, MachineId, Problem, ProblemCode, Record, Severity, Side,
    planted,
};
use flipside_platform::LogRequest;
use flipside_session::Step as Name;
use flipside_session::readiness::unusable;
use std::time::Duration;

/// How long copying may take while users wait. Only what was logged since the split is copied, which is little; a disk
/// that takes longer for it is a disk in trouble.
const COPY: Duration = Duration::from_secs(60);

pub(super) struct BackUpLogs;

#[async_trait]
impl Action for BackUpLogs {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let done = cx.state().done.contains(&Name::BackUpLogs.name());
        Ok(if done || cx.gave_up(Side::Production).await? {
            Seen::Done
        } else {
            Seen::Repeat
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let settings = cx.settings();
        let Some((directory, logs)) = settings.log_backup.wanted() else {
            return Ok(());
        };
        let production = cx.machine(Side::Production)?;
        let session = cx
            .state()
            .session
            .map_or(String::new(), |id| id.to_string());
        let request = LogRequest {
            target: format!("{}/flipside-{session}", directory.trim_end_matches('/')),
            directory: directory.to_owned(),
            logs: logs.to_vec(),
            limit: cx.remaining(COPY),
        };
        let copies = match copy(cx, production, &request).await {
            Ok(copies) => copies,
            Err(problem) if planted::is("failed-log-copy-forgotten") => {
                tracing::warn!(%problem, "the logs were not saved");
                Vec::new()
            }
            Err(problem) => {
                let failed = |log| LogCopy {
                    log,
                    files: 0,
                    bytes: 0,
                    failure: Some(problem.to_string()),
                };
                request.logs.iter().cloned().map(failed).collect()
            }
        };
        tell(cx, &copies)?;
        cx.ledger.fact(Fact::LogsSaved(LogsSaved {
            directory: request.target,
            copies,
        }))?;
        Ok(())
    }
}

async fn copy(
    cx: &Cx,
    production: MachineId,
    request: &LogRequest,
) -> Result<Vec<LogCopy>, Problem> {
    let mut copies = cx.ports.guest.back_up_logs(production, request).await?;
    for log in &request.logs {
        if !copies.iter().any(|c| c.log == *log) {
            copies.push(LogCopy {
                log: log.clone(),
                files: 0,
                bytes: 0,
                failure: Some("the guest does not say what became of it".to_owned()),
            });
        }
    }
    Ok(copies)
}

fn tell(cx: &Cx, copies: &[LogCopy]) -> Result<(), Problem> {
    for copy in copies {
        let Some(why) = &copy.failure else { continue };
        let text = format!("the log `{}` was not saved: {why}", copy.log);
        let problem = Problem::new(ProblemCode::Failed, text)
            .about(copy.log.to_string())
            .advise("it is lost at Commit; `flipside abort` keeps it");
        cx.ledger
            .write(Record::problem(Severity::Warning, &problem))?;
    }
    Ok(())
}

/// Before a merge: the directory can be written to (gap G.2.27).
pub(super) async fn check_directory(cx: &Cx) -> Step {
    let settings = cx.settings();
    let Some((directory, _)) = settings.log_backup.wanted() else {
        return Ok(());
    };
    let path = [directory.to_owned()];
    let data = cx.disks(DiskRole::Data);
    let views = crate::actions::look(cx, Some(Side::Production), &path).await?;
    if let Some(text) = views
        .first()
        .and_then(|view| unusable(&cx.spec, &data, view))
    {
        return Err(Problem::new(ProblemCode::NotReady, text)
            .about(directory)
            .advise("mend it on the Production Side, then `flipside retry`; or `flipside abort`")
            .into());
    }
    Ok(())
}

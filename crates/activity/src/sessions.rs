//! Which records are the log of which session: one log a session, with the checks that came before it (design, gap 63).

use flipside_model::api::{SessionEnd, SessionLog};
use flipside_model::{Entry, OperationalState, Record, SessionId, UpgradeState};

/// Finds the sessions in a journal, oldest first. Each begins where the one before it ended.
pub fn sessions<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<SessionLog> {
    let mut all: Vec<SessionLog> = Vec::new();
    let mut chosen: Option<(SessionId, Option<String>)> = None;
    let mut first = 1;
    let mut open = false;
    for entry in entries {
        match &entry.record {
            Record::Session {
                id, config_name, ..
            } => chosen = Some((*id, config_name.clone())),
            Record::Entered {
                state: UpgradeState::Idle,
                ..
            } if open => {
                if let Some(last) = all.last_mut() {
                    last.ended_ms = Some(entry.at_ms);
                    last.last = entry.seq;
                }
                open = false;
                first = entry.seq + 1;
            }
            Record::Entered {
                state, operational, ..
            } => {
                // A session whose first stage was never recorded never began.
                let begins = *state == UpgradeState::PrepareSplit
                    && *operational == OperationalState::Busy
                    && !open;
                if let Some((id, config)) = chosen.take().filter(|_| begins) {
                    let number = u32::try_from(all.len() + 1).unwrap_or(u32::MAX);
                    all.push(SessionLog {
                        number,
                        id,
                        config,
                        first,
                        last: entry.seq,
                        began_ms: entry.at_ms,
                        ended_ms: None,
                        outcome: SessionEnd::Open,
                    });
                    open = true;
                }
                if let Some(last) = all.last_mut().filter(|_| open) {
                    match state {
                        UpgradeState::Commit => last.outcome = SessionEnd::Committed,
                        UpgradeState::Abort => last.outcome = SessionEnd::Aborted,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if open && let Some(last) = all.last_mut() {
            last.last = entry.seq;
        }
    }
    all
}

/// Returns the record with which the current log begins: that of the open session, or else of the last one.
pub fn current(sessions: &[SessionLog]) -> u64 {
    sessions.last().map_or(1, |session| session.first)
}

//! One package proxy for each system, as long as its session is in Split.

use super::{Allowed, Proxy, Told, resolver};
use flipside_engine::System;
use flipside_model::{Problem, ProblemCode, SessionId, Severity, SystemName, UpgradeState};
use flipside_session::SessionState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The proxies that are open.
#[derive(Default)]
pub(crate) struct Proxies {
    open: Mutex<BTreeMap<SystemName, (SessionId, Proxy)>>,
}

impl Proxies {
    /// Returns the proxy of a system's session for these hosts; opens it, and tells the log, when there is none yet.
    pub(crate) fn get(&self, system: &System, allowed: Allowed) -> Result<Proxy, Problem> {
        let session = in_split(&system.state()).ok_or_else(|| refused(system))?;
        let name = system.spec().name.clone();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, proxy)) = open.get(&name)
            && *of == session
            && *proxy.allowed() == allowed
        {
            return Ok(proxy.clone());
        }
        let text = format!(
            "the Upgrade Side may fetch packages from {} through this host",
            allowed.shown()
        );
        system.note(Severity::Information, text)?;
        let (keep, seen) = watch::channel(true);
        tokio::spawn(close_after(system.clone(), session, keep));
        let proxy = Proxy::new(allowed, resolver(), teller(system.clone()), seen);
        open.insert(name, (session, proxy.clone()));
        Ok(proxy)
    }
}

/// Returns the session, if its Upgrade Side is isolated and waits for software.
fn in_split(state: &SessionState) -> Option<SessionId> {
    let isolated = state.upgrade == UpgradeState::Split && state.facts.divided;
    state.session.filter(|_| isolated)
}

fn refused(system: &System) -> Problem {
    let text = format!(
        "packages are fetched in Split, and this is {}",
        system.state().upgrade
    );
    Problem::new(ProblemCode::Refused, text)
        .advise("in Idle the system has its own network; after the merge the Upgrade Side has")
}

/// Closes a proxy when its session leaves Split.
async fn close_after(system: System, session: SessionId, keep: watch::Sender<bool>) {
    let mut changes = system.changes();
    while in_split(&system.state()) == Some(session) {
        if changes.changed().await.is_err() {
            break;
        }
    }
    keep.send_replace(false);
}

fn teller(system: System) -> super::Teller {
    Arc::new(move |told| {
        let (severity, text) = match told {
            Told::Reached(target) => (
                Severity::Information,
                format!("packages are fetched from {target}"),
            ),
            Told::Refused(asked, why) => {
                let asked = asked.escape_debug();
                (
                    Severity::Warning,
                    format!("the package proxy refused `{asked}`: {why}"),
                )
            }
            Told::Failed(target, why) => (
                Severity::Warning,
                format!("{target} could not be reached: {why}"),
            ),
        };
        // A log that cannot be written stops the session by itself; a fetch is no reason to say it twice.
        if let Err(problem) = system.note(severity, text) {
            tracing::warn!(%problem, "the package proxy could not write to the log");
        }
    })
}

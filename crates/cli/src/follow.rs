//! Waits for an operation: follows the log for its end and the status for its progress.
//!
//! The log decides, not the status: a status read too early still shows what was before, a record does not. A server
//! that is killed in the middle is waited for, for a bounded time; it goes on from its journal.

use crate::client::{Lines, stuck};
use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED};
use crate::live::Live;
use flipside_activity::{Line, Tree};
use flipside_model::{
    Command, EXECUTE_CUSTOM_ACTIONS, Entry, OperationalState, Record, Severity, Status, SystemName,
    UpgradeState,
};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A killed server is started again by its service manager within seconds; adopting machines takes a few more.
pub(crate) const RECONNECT_FOR: Duration = Duration::from_secs(60);

/// Often enough to notice a new server at once, seldom enough to cost nothing.
const RECONNECT_EVERY: Duration = Duration::from_millis(250);

/// Between two stages that follow each other by themselves there is no pause; this long without the next one means
/// that it will not come.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// The server sends a status every five seconds even when nothing changes; silence this long means that it hangs.
const SILENCE: Duration = Duration::from_secs(20);

/// Returns the state in which a command has done its work.
pub(crate) fn goal(command: Command, from: UpgradeState) -> UpgradeState {
    use UpgradeState as S;
    match command {
        Command::Check | Command::Finish => S::Idle,
        Command::Split => S::Split,
        Command::Merge => S::Merge,
        Command::Commit => S::Commit,
        Command::Abort => S::Abort,
        Command::Retry => match from {
            S::Idle | S::Finish => S::Idle,
            S::PrepareSplit | S::Split => S::Split,
            S::PrepareMerge | S::Merge => S::Merge,
            S::Commit => S::Commit,
            S::Abort => S::Abort,
        },
    }
}

/// What a record says about the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Going,
    /// It rests in a state that is not its end; if nothing follows, it is over.
    Resting,
    /// It is over, well or Broken.
    Over,
}

fn judge(command: Command, goal: UpgradeState, entry: &Entry) -> Option<Verdict> {
    let Record::Entered {
        state, operational, ..
    } = &entry.record
    else {
        return None;
    };
    Some(match operational {
        OperationalState::Busy => Verdict::Going,
        OperationalState::Ready if *state == goal => Verdict::Over,
        OperationalState::Ready => Verdict::Resting,
        // An abort may have to wait for an operation that breaks before the abort begins.
        OperationalState::Broken if command == Command::Abort && *state != goal => Verdict::Resting,
        OperationalState::Broken => Verdict::Over,
    })
}

/// Keeps count of how long the server has been away.
#[derive(Default)]
pub(crate) struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Waits a moment after a loss; fails when the server stayed away too long.
    pub(crate) async fn lost(&mut self, live: &Live, failure: Failure) -> Result<(), Failure> {
        let Failure::Lost(problem) = failure else {
            return Err(failure);
        };
        let until = *self.until.get_or_insert_with(|| {
            live.note(&format!(
                "the server went away; waiting up to {} seconds for it to come back",
                RECONNECT_FOR.as_secs()
            ));
            Instant::now() + RECONNECT_FOR
        });
        if Instant::now() >= until {
            return Err(Failure::Lost(problem));
        }
        sleep(RECONNECT_EVERY).await;
        Ok(())
    }

    /// Takes note that the server answers.
    pub(crate) fn found(&mut self, live: &Live) {
        if self.until.take().is_some() {
            live.note("the server is back");
        }
    }
}

/// Waits until an operation is over and returns the status then, Ready or Broken.
pub(crate) async fn wait(
    ctx: &Context,
    system: &SystemName,
    command: Command,
    goal: UpgradeState,
    after: u64,
) -> Result<Status, Failure> {
    let mut run = Run {
        ctx,
        system,
        command,
        goal,
        last: after,
        tree: Tree::default(),
        live: Live::new(ctx.json, ctx.color),
    };
    let mut patience = Patience::default();
    loop {
        match run.follow(&mut patience).await {
            Ok(status) => return Ok(status),
            Err(failure) => patience.lost(&run.live, failure).await?,
        }
    }
}

struct Run<'a> {
    ctx: &'a Context,
    system: &'a SystemName,
    command: Command,
    goal: UpgradeState,
    last: u64,
    tree: Tree,
    live: Live,
}

impl Run<'_> {
    async fn follow(&mut self, patience: &mut Patience) -> Result<Status, Failure> {
        let name = self.system;
        let path = format!("/v1/systems/{name}/log?after={}&follow=true", self.last);
        let mut log: Lines<Entry> = self.ctx.client.watch(&path).await?;
        let path = format!("/v1/systems/{name}/status?watch=true");
        let mut watch: Lines<Status> = self.ctx.client.watch(&path).await?;
        patience.found(&self.live);
        let mut resting: Option<Instant> = None;
        let mut heard = Instant::now();
        loop {
            let rest = resting;
            tokio::select! {
                biased;
                entry = log.next() => {
                    let Some(entry) = entry? else { return Err(ended()) };
                    if entry.seq <= self.last {
                        continue;
                    }
                    self.last = entry.seq;
                    self.show(&entry)?;
                    match judge(self.command, self.goal, &entry) {
                        None => {}
                        Some(Verdict::Going) => resting = None,
                        Some(Verdict::Resting) => resting = Some(Instant::now() + SETTLED_AFTER),
                        Some(Verdict::Over) => return self.over().await,
                    }
                }
                status = watch.next() => match status? {
                    Some(status) => {
                        heard = Instant::now();
                        self.live.status(&status);
                    }
                    None => return Err(ended()),
                },
                () = sleep_until(heard + SILENCE) => return Err(stuck()),
                () = at(rest) => return self.unexpected().await,
                _ = tokio::signal::ctrl_c() => {
                    self.live.note(&format!(
                        "the operation goes on without this command: `flipside status {name} --watch`"
                    ));
                    return Err(Failure::Status(INTERRUPTED));
                }
            }
        }
    }

    /// Reads the status after the end; the record came first, so it may be a moment behind.
    async fn over(&self) -> Result<Status, Failure> {
        let deadline = Instant::now() + SETTLED_AFTER;
        loop {
            let status = match self.ctx.status(self.system).await {
                Ok(status) => status,
                // The end was seen and recorded; the status of the next server says the same.
                Err(Failure::Lost(_)) if Instant::now() < deadline + RECONNECT_FOR => {
                    sleep(RECONNECT_EVERY).await;
                    continue;
                }
                Err(other) => return Err(other),
            };
            if status.last_seq >= self.last || Instant::now() >= deadline {
                return Ok(status);
            }
            sleep(RECONNECT_EVERY).await;
        }
    }

    async fn unexpected(&self) -> Result<Status, Failure> {
        let status = self.over().await?;
        if status.operational_state == OperationalState::Broken {
            return Ok(status);
        }
        Err(Failure::failed(format!(
            "`{}` ended in {} | {}, not in {}",
            self.command, status.upgrade_state, status.operational_state, self.goal
        ))
        .advise(format!("see what happened: `flipside log {}`", self.system)))
    }

    fn show(&mut self, entry: &Entry) -> Result<(), Failure> {
        for line in self.tree.push(entry) {
            if is_shown(&line) {
                self.live.line(&line.brief(self.ctx.color))?;
            }
        }
        Ok(())
    }
}

/// Shows the end of every step, stage and custom action, and whatever asks for attention. What holds actions is not told:
/// they are.
fn is_shown(line: &Line) -> bool {
    let action = line
        .path
        .last()
        .is_some_and(|p| p == EXECUTE_CUSTOM_ACTIONS);
    let step = line.depth() <= 1 && line.text != EXECUTE_CUSTOM_ACTIONS;
    line.severity != Severity::Pending && (action || step || line.severity >= Severity::Warning)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A stream that ends while it is needed: the server is closing.
pub(crate) fn ended() -> Failure {
    Failure::Lost(Box::new(flipside_model::Problem::new(
        flipside_model::ProblemCode::Failed,
        "the server closed the connection",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use OperationalState as O;
    use UpgradeState as S;

    fn entered(state: S, operational: O) -> Entry {
        Entry {
            seq: 1,
            at_ms: 0,
            record: Record::Entered {
                state,
                operational,
                problem: None,
            },
        }
    }

    #[test]
    fn a_custom_action_is_told_by_its_own_name_and_its_holder_is_not() {
        let line = |path: &[&str], text: &str| Line {
            severity: Severity::Success,
            path: path.iter().map(|p| (*p).to_owned()).collect(),
            text: text.to_owned(),
            seq: 1,
            node: 1,
            at_ms: 0,
            detail: None,
            component: None,
            advice: None,
            took_ms: None,
            hidden: 0,
        };
        let (check, actions) = ("Readiness check", EXECUTE_CUSTOM_ACTIONS);
        assert!(is_shown(&line(&[check], "Memory for two machines")));
        assert!(is_shown(&line(
            &[check, actions],
            "/usr/local/sbin/shop ready"
        )));
        assert!(!is_shown(&line(&[check], actions)));
        assert!(!is_shown(&line(&[check, "Step"], "a detail of a step")));
    }

    #[test]
    fn each_command_ends_where_the_contract_says() {
        let cases = [
            (Command::Check, S::Idle, O::Ready, Verdict::Over),
            (Command::Check, S::Idle, O::Broken, Verdict::Over),
            // The check inside a split ends Ready in Idle, and the split goes on.
            (Command::Split, S::Idle, O::Ready, Verdict::Resting),
            (Command::Split, S::Idle, O::Broken, Verdict::Over),
            (Command::Split, S::Split, O::Busy, Verdict::Going),
            (Command::Split, S::Split, O::Ready, Verdict::Over),
            (Command::Split, S::Abort, O::Ready, Verdict::Resting),
            (Command::Merge, S::PrepareMerge, O::Broken, Verdict::Over),
            (Command::Merge, S::Merge, O::Ready, Verdict::Over),
            (Command::Commit, S::Commit, O::Ready, Verdict::Over),
            (Command::Abort, S::Split, O::Broken, Verdict::Resting),
            (Command::Abort, S::Abort, O::Broken, Verdict::Over),
            (Command::Abort, S::Abort, O::Ready, Verdict::Over),
            (Command::Finish, S::Idle, O::Ready, Verdict::Over),
        ];
        for (command, state, operational, verdict) in cases {
            let goal = goal(command, S::Idle);
            assert_eq!(
                judge(command, goal, &entered(state, operational)),
                Some(verdict),
                "{command} {state} {operational}"
            );
        }
        assert_eq!(goal(Command::Retry, S::PrepareMerge), S::Merge);
        assert_eq!(goal(Command::Retry, S::Finish), S::Idle);
    }
}

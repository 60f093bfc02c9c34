//! Watches the machines: partner state, ends by themselves, and the mirror keeper's clock.

use crate::context::Cx;
use crate::{devices, mirrors, power};
use flipside_model::{
    Fact, LegBook, MachineId, OperationalState, PartnerState, Problem, ProblemCode, Severity, Side,
    UpgradeState,
};
use flipside_platform::{LegChange, RunState};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// How often the machines are looked at: the server must stay below 0.1 % of a CPU when idle.
const IDLE_PERIOD: Duration = Duration::from_secs(2);

/// How often while something is being resynchronised or a partner exists.
const BUSY_PERIOD: Duration = Duration::from_millis(250);

/// Without a sign of life for this long, a guest that had been up counts as hung (gap G.1.18).
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// A boot that takes longer than this counts as hung (gap G.1.18).
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// What was seen last; the basis of the status.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub running: bool,
    pub partner: Option<PartnerState>,
    pub accelerator: Option<String>,
    pub book: Option<Arc<LegBook>>,
    /// The machine whose end was told, so that it is told once.
    lost: Option<MachineId>,
    partner_machine: Option<MachineId>,
    was_up: bool,
    rebooting: bool,
    silent_since: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    /// Changed legs that are in the log already.
    changed: Arc<Mutex<BTreeSet<LegChange>>>,
}

impl Monitor {
    pub(crate) fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn update(&self, f: impl FnOnce(&mut Seen)) {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The Upgrade Side was restarted by us: its silence is a restart, not a hang.
    pub(crate) fn expect_reboot(&self) {
        self.update(|seen| (seen.rebooting, seen.was_up, seen.silent_since) = (true, false, None));
    }

    /// Runs until the task is dropped.
    pub(crate) async fn run(&self, cx: &Cx) {
        loop {
            if let Err(problem) = self.look(cx).await {
                warn!(%problem, "the machines could not be observed");
            }
            if let Err(problem) = keep_guard(cx).await {
                warn!(%problem, "the guard is not there and cannot be started");
            }
            if let Err(problem) = self.hear(cx).await {
                warn!(%problem, "the guard's notes could not be recorded");
            }
            if let Err(problem) = self.notice_changes(cx).await {
                warn!(%problem, "the legs could not be examined");
            }
            let busy = match mirrors::tick(cx).await {
                Ok(open) => open,
                Err(problem) => {
                    warn!(%problem, "the mirrors could not be kept");
                    false
                }
            };
            let partner = cx.facts().upgrade.is_some();
            tokio::time::sleep(if busy || partner {
                BUSY_PERIOD
            } else {
                IDLE_PERIOD
            })
            .await;
        }
    }

    /// Puts into the log what the guard did while nobody else looked.
    async fn hear(&self, cx: &Cx) -> Result<(), Problem> {
        for note in cx.ports.network.notes(cx.facts().heard).await {
            cx.ledger.log(note.severity, note.text)?;
            cx.ledger.fact(Fact::Heard(note.number))?;
        }
        Ok(())
    }

    /// Puts into the log, once, that somebody changed a leg, and that it is well again (SP-18, fault 22). Whoever is about
    /// to open it refuses by itself.
    async fn notice_changes(&self, cx: &Cx) -> Result<(), Problem> {
        let now: BTreeSet<LegChange> = devices::changes(cx).await?.into_iter().collect();
        let before = {
            let mut known = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, now.clone())
        };
        for change in now.difference(&before) {
            cx.ledger.write(devices::warning(change))?;
        }
        for change in before.difference(&now) {
            let (disk, leg) = (&change.disk, change.leg);
            if now.iter().all(|c| (&c.disk, c.leg) != (disk, leg)) {
                let text = format!("Leg {leg} of {disk} is the recorded file again.");
                cx.ledger.log(Severity::Information, text)?;
            }
        }
        Ok(())
    }

    /// Looks once at everything the status shows.
    pub(crate) async fn look(&self, cx: &Cx) -> Result<(), Problem> {
        let facts = cx.facts();
        let serving = facts
            .machine(facts.owner)
            .or(facts.production)
            .or(facts.upgrade);
        let view = match serving {
            Some(machine) => Some(cx.view(machine).await?),
            None => None,
        };
        let book = cx.book().await?;
        let before = self.seen();
        self.update(|seen| {
            seen.running = view.as_ref().is_some_and(|v| v.run == RunState::Running);
            if let Some(accelerator) = view.as_ref().and_then(|v| v.accelerator.clone()) {
                seen.accelerator = Some(accelerator);
            }
            seen.book = Some(Arc::new(book));
        });
        self.look_at_partner(cx).await?;
        let after = self.seen();
        if (before.running, before.partner, &before.book)
            != (after.running, after.partner, &after.book)
        {
            cx.ledger.touch();
        }
        let ended = view.is_some_and(|view| {
            matches!(
                view.run,
                RunState::Shutdown | RunState::Absent | RunState::Panicked
            )
        });
        if let (Some(machine), true) = (serving, ended) {
            self.notice_loss(cx, machine)?;
        }
        if let (Some(machine), true) = (facts.production, ended) {
            self.notice_end(cx, machine).await?;
        }
        Ok(())
    }

    /// The machine that serves the users ended in a session: nothing happens by itself, but it is told what can be done
    /// (faults 25 and 28, invariant 19).
    fn notice_loss(&self, cx: &Cx, machine: MachineId) -> Result<(), Problem> {
        let state = cx.state();
        let told = self.seen().lost == Some(machine);
        if told
            || state.upgrade == UpgradeState::Idle
            || state.operational == OperationalState::Busy
        {
            return Ok(());
        }
        self.update(|seen| seen.lost = Some(machine));
        let upgraded = state.facts.upgrade == Some(machine);
        let side = if upgraded {
            Side::Upgrade
        } else {
            Side::Production
        };
        let problem = Problem::new(
            ProblemCode::Failed,
            format!("the machine of the {side}, which serves the users, has ended or hangs"),
        )
        .advise(match state.upgrade {
            UpgradeState::Merge => {
                "`flipside abort` brings the users back to the Production Side; every acknowledged write stays"
            }
            UpgradeState::Commit | UpgradeState::Abort | UpgradeState::Finish => {
                "`flipside system start` boots it from its own legs"
            }
            _ => "`flipside abort` boots the Production Side from its own legs",
        });
        cx.ledger
            .write(flipside_model::Record::problem(Severity::Error, &problem))?;
        Ok(())
    }

    /// A guest that shut itself down outside a session: its machine is ended cleanly, as after `system stop`.
    async fn notice_end(&self, cx: &Cx, machine: MachineId) -> Result<(), Problem> {
        let held = cx.exclusive().await?;
        let state = cx.state();
        let idle =
            state.upgrade == UpgradeState::Idle && state.operational != OperationalState::Busy;
        if !idle || state.facts.production != Some(machine) {
            return Ok(());
        }
        // Looked at again under the lease: it may have been starting a moment ago.
        match cx.view(machine).await?.run {
            RunState::Shutdown => {
                cx.ledger
                    .log(Severity::Information, "the guest shut itself down")?;
                power::settle_power(cx, &held, machine, false).await
            }
            RunState::Absent => {
                cx.ledger.log(
                    Severity::Error,
                    "the system's machine has ended unexpectedly",
                )?;
                power::settle_power(cx, &held, machine, true).await
            }
            _ => Ok(()),
        }
    }

    // PS-01 to PS-12: the partner is the Upgrade Side as long as the system is divided.
    async fn look_at_partner(&self, cx: &Cx) -> Result<(), Problem> {
        let facts = cx.facts();
        let stage = cx.state().upgrade;
        let divided =
            facts.divided && matches!(stage, UpgradeState::Split | UpgradeState::PrepareMerge);
        let Some(machine) = facts.upgrade.filter(|_| divided) else {
            self.update(|seen| {
                (seen.partner, seen.partner_machine, seen.was_up) = (None, None, false)
            });
            return Ok(());
        };
        let run = cx.view(machine).await?.run;
        let alive = run == RunState::Running && cx.ports.guest.ping(machine).await.is_ok();
        let mut news = None;
        self.update(|seen| {
            if seen.partner_machine != Some(machine) {
                (seen.partner_machine, seen.was_up, seen.silent_since) =
                    (Some(machine), false, None);
            }
            let state = partner_state(seen, run, alive);
            if seen.partner != Some(state) && seen.partner.is_some() {
                news = Some(state);
            }
            seen.partner = Some(state);
        });
        if let Some(state) = news {
            // AL-22: a restart can be followed in the log as well.
            let severity = if matches!(state, PartnerState::DcOn | PartnerState::DcOff) {
                Severity::Warning
            } else {
                Severity::Information
            };
            cx.ledger.log(severity, format!("Partner: {state}"))?;
        }
        Ok(())
    }
}

/// Starts the guard again when it is gone although a machine serves users; it takes the front door up where it was.
async fn keep_guard(cx: &Cx) -> Result<(), Problem> {
    if cx.book().await?.owner.is_none() || cx.ports.network.view().await.is_ok() {
        return Ok(());
    }
    cx.ports.network.ensure().await?;
    cx.ledger.log(
        Severity::Warning,
        "the guard had ended and was started again",
    )?;
    Ok(())
}

fn partner_state(seen: &mut Seen, run: RunState, alive: bool) -> PartnerState {
    if alive {
        (seen.was_up, seen.rebooting, seen.silent_since) = (true, false, None);
        return PartnerState::OsUp;
    }
    let silent = seen.silent_since.get_or_insert_with(Instant::now).elapsed();
    match run {
        RunState::Absent => PartnerState::DcOff,
        RunState::Shutdown => PartnerState::DcOn,
        RunState::Panicked => PartnerState::RecoveryNmi,
        RunState::Unresponsive => PartnerState::HungOsUp,
        _ if seen.rebooting && silent > BOOT_LIMIT => PartnerState::HungOsRebooting,
        _ if seen.rebooting => PartnerState::OsRebooting,
        _ if silent > BOOT_LIMIT => PartnerState::HungOsBooting,
        _ if seen.was_up && silent > HUNG_AFTER => {
            seen.was_up = false;
            PartnerState::HungOsUp
        }
        _ if seen.was_up => PartnerState::OsRebooting,
        _ => PartnerState::OsBooting,
    }
}

/// Returns the machine a side's commands go to (`run`, `shell`, `copy`), by the rule of the command line.
pub(crate) fn machine_for(cx: &Cx, side: Option<Side>) -> Result<MachineId, Problem> {
    let state = cx.state();
    let split =
        state.upgrade == UpgradeState::Split && state.operational == OperationalState::Ready;
    match side {
        None if split => cx.machine(Side::Upgrade),
        None => Err(Problem::new(
            ProblemCode::Refused,
            format!(
                "without `--side` a program runs on the Upgrade Side in Split only, and this is {}",
                state.upgrade
            ),
        )
        .advise("name the side: `--side production` or `--side upgrade`")),
        Some(side) => cx.machine(side),
    }
}

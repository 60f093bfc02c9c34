//! Watches the machines: partner state, ends by themselves, and the mirror keeper's clock.

use crate::context::Cx;
use crate::neighbour::Neighbour;
use crate::partner::{self, Evidence, Partner};
use crate::tell::Teller;
use crate::{crash, devices, mirrors, power};
use flipside_model::{
    Fact, LegBook, MachineId, OperationalState, PartnerState, Problem, ProblemCode, Record,
    Severity, Side, UpgradeState,
};
use flipside_platform::{LegChange, RunState, Signs};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How often the machines are looked at: the server must stay below 0.1 % of a CPU when idle.
const IDLE_PERIOD: Duration = Duration::from_secs(2);

/// How often while something is being resynchronised or a partner exists.
const BUSY_PERIOD: Duration = Duration::from_millis(250);

/// How much of what the partner's console printed is read for what it says: a burst of systemd's messages.
const CONSOLE_READ: usize = 16 << 10;

/// What was seen last; the basis of the status.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub running: bool,
    pub partner: Option<PartnerState>,
    /// What is remembered of the partner.
    pub(crate) watch: Partner,
    pub accelerator: Option<String>,
    pub book: Option<Arc<LegBook>>,
    /// The machine whose end was told, so that it is told once.
    lost: Option<MachineId>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    /// Changed legs that are in the log already.
    changed: Arc<Mutex<BTreeSet<LegChange>>>,
    /// The partner's operating system has crashed.
    crashed: Arc<Notify>,
    teller: Teller,
    neighbour: Neighbour,
}

impl Monitor {
    pub(crate) fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn update(&self, f: impl FnOnce(&mut Seen)) {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The Upgrade Side was restarted by us: its silence is a restart, not a hang.
    pub(crate) fn expect_reboot(&self) {
        self.update(|seen| seen.watch.told_to_restart = true);
    }

    /// Runs until the task is dropped.
    pub(crate) async fn run(&self, cx: &Cx) {
        // A dump may take a minute, and a guest its time to answer; nothing else waits for them.
        tokio::join!(self.watch(cx), self.recover_crashes(cx), self.tend(cx));
    }

    /// Waits until the partner has crashed.
    pub(crate) async fn crash(&self) {
        self.crashed.notified().await;
    }

    /// Shows the log on the Upgrade Side, and looks what is done on the other one.
    async fn tend(&self, cx: &Cx) {
        loop {
            tokio::time::sleep(IDLE_PERIOD).await;
            self.teller.tell(cx, &self.seen()).await;
            if let Err(problem) = self.neighbour.look(cx).await {
                debug!(%problem, "the Production Side was not looked at");
            }
        }
    }

    async fn watch(&self, cx: &Cx) {
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

    // PS-01 to PS-15: the partner is the Upgrade Side as long as the system is divided.
    async fn look_at_partner(&self, cx: &Cx) -> Result<(), Problem> {
        let facts = cx.facts();
        let stage = cx.state().upgrade;
        let divided =
            facts.divided && matches!(stage, UpgradeState::Split | UpgradeState::PrepareMerge);
        let Some(machine) = facts.upgrade.filter(|_| divided) else {
            self.update(|seen| (seen.partner, seen.watch) = (None, Partner::default()));
            return Ok(());
        };
        let evidence = self.evidence(cx, machine).await?;
        let mut news = None;
        let mut crashed = false;
        self.update(|seen| {
            let state = seen.watch.judge(&evidence, Instant::now());
            if seen.partner != Some(state) && seen.partner.is_some() {
                news = Some(state);
            }
            seen.partner = Some(state);
            crashed = evidence.run == RunState::Panicked && seen.watch.recovery.is_none();
        });
        if let Some(state) = news {
            self.tell_partner(cx, machine, state).await?;
        }
        if crashed {
            self.crashed.notify_one();
        }
        Ok(())
    }

    async fn evidence(&self, cx: &Cx, machine: MachineId) -> Result<Evidence, Problem> {
        let run = cx.view(machine).await?.run;
        let mut evidence = Evidence {
            machine,
            run,
            boot_id: None,
            signs: Signs::default(),
            going: None,
        };
        if run != RunState::Running {
            return Ok(evidence);
        }
        if let Ok(info) = cx.ports.guest.ping(machine).await {
            evidence.boot_id = Some(info.boot_id);
        }
        // A machine that has just ended or hangs shows that at the next look.
        if let Ok(signs) = cx.ports.side.signs(machine).await {
            evidence.signs = signs;
            let since = self.seen().watch.printed(machine);
            if signs.printed > since
                && let Ok(said) = cx.ports.side.printed(machine, since, CONSOLE_READ).await
            {
                evidence.going = partner::going(&said);
            }
        }
        Ok(evidence)
    }

    /// Puts a new state into the log (AL-22), with what helps where it is trouble: fault 41, US-20.
    async fn tell_partner(
        &self,
        cx: &Cx,
        machine: MachineId,
        state: PartnerState,
    ) -> Result<(), Problem> {
        let down = matches!(state, PartnerState::DcOn | PartnerState::DcOff);
        let detail = if state.is_trouble() {
            crash::console_tail(cx, machine).await
        } else {
            None
        };
        let advice = match state {
            _ if down => Some(
                "the Upgrade Side was shut down and does not come back online; `flipside abort` is the only way, and its changes are lost",
            ),
            PartnerState::RecoveryNmi | PartnerState::RecoveryReset => None,
            _ if state.is_trouble() => Some(
                "look at `flipside console --tail`; `flipside restart --side upgrade` resets it, `flipside abort` takes everything back",
            ),
            _ => None,
        };
        cx.ledger.write(Record::Log {
            severity: if down || state.is_trouble() {
                Severity::Warning
            } else {
                Severity::Information
            },
            text: format!("Partner: {state}"),
            detail,
            component: (down || state.is_trouble()).then(|| Side::Upgrade.to_string()),
            advice: advice.map(str::to_owned),
        })?;
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

/// The same for what does not depend on a guest's answer and may be asked for in Idle too, where there is one side only:
/// the console, the CD drive, an address.
pub(crate) fn side_for(cx: &Cx, side: Option<Side>) -> Result<Side, Problem> {
    let state = cx.state();
    match side {
        Some(side) => Ok(side),
        None if state.upgrade == UpgradeState::Idle => Ok(Side::Production),
        None => machine_for(cx, None).map(|_| Side::Upgrade),
    }
}

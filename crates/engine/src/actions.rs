//! Runs custom actions, one after another (CA-21), and records each before it begins and after it has ended.
//!
//! A run is found again by a number that is recorded first: a server that was ended in the middle follows the same
//! program on, and only if nobody knows of it any more it is started again, with `ATTEMPT` one higher (fault 58).

use crate::context::{Cx, Halt, POLL, Step};
use flipside_model::{
    ActionContext, ActionEnd, ActionPlace, ActionResult, ActionRun, CustomAction, Fact, FileView,
    OnFailure, Problem, ProblemCode, Record, Severity, Side, UpgradeState, action_key, planted,
};
use flipside_platform::{ActionRequest, PortErrorKind, PortResult};
use flipside_session::actions::{self, Rule, planned};
use flipside_session::{law, readiness};
use std::time::Duration;
use tokio::time::Instant;

mod capture;
mod files;

use capture::Output;
pub(crate) use files::{accept, check_files, look, pin};

/// The longest wait between two looks at an action that runs for a while.
const SLOWEST_POLL: Duration = Duration::from_millis(500);

/// How long nothing may be heard of a running action before its outcome counts as unknown: a busy guest answers within
/// seconds, a restarted one says that it knows nothing of it.
const OUT_OF_SIGHT: Duration = Duration::from_secs(60);

/// How long the output of an action that was ended is still waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long actions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the stage is out of time, or an abort is requested (gap G.1.14).
    Stage,
    /// So long each, whatever else happens: users are waiting to be served again.
    Each(Duration),
}

/// The actions of one row of the table on one side.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub cx: &'a Cx,
    pub rule: &'a Rule,
    pub side: Side,
    pub patience: Patience,
    /// A failure is recorded as a Warning, and the next action runs.
    pub gives_way: bool,
}

/// What became of looking for a run: its end, or nothing when nobody knows of it.
type Followed = Result<Option<ActionEnd>, Halt>;

impl Job<'_> {
    /// Runs all actions in their order; the first that fails ends it (CA-35, CA-37).
    pub(crate) async fn run(&self) -> Step {
        let config = self.cx.settings();
        for (index, action) in self.rule.actions(&config) {
            match self.one(index, action).await {
                Err(Halt::Failed(problem)) if self.gives_way => self.warn(&problem)?,
                Err(Halt::Failed(_)) if planted::is("failed-action-passed-over") => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Runs all actions, whatever becomes of each (RC-08), and records failures as Errors; returns how many there were.
    async fn run_each(&self) -> Result<usize, Problem> {
        let config = self.cx.settings();
        let mut failed = 0;
        for (index, action) in self.rule.actions(&config) {
            if let Err(Halt::Failed(problem)) = self.one(index, action).await {
                self.cx
                    .ledger
                    .write(Record::problem(Severity::Error, &problem))?;
                failed += 1;
            }
        }
        Ok(failed)
    }

    fn warn(&self, problem: &Problem) -> Result<(), Problem> {
        let record = Record::problem(Severity::Warning, problem);
        self.cx.ledger.write(record).map(drop)
    }

    fn context(&self) -> ActionContext {
        let state = self.cx.state();
        let mut context = self.rule.context(self.side, state.upgrade, &state.facts);
        if planted::is("side-always-production") {
            context.side = Side::Production;
        }
        context
    }

    async fn one(&self, index: u32, action: &CustomAction) -> Step {
        let context = self.context();
        let end = match self.adopted(index, &context, action).await? {
            Some(end) => end,
            None => self.anew(index, action, context).await?,
        };
        let Some(message) = end.failure() else {
            return Ok(());
        };
        let mut problem = match end.result {
            ActionResult::TimedOut(problem) | ActionResult::Failed(problem) => problem,
            _ => Problem::new(ProblemCode::Failed, message),
        };
        let file = context.expand(&action.file, 1);
        problem.component.get_or_insert(file);
        problem.advice.get_or_insert_with(|| {
            format!(
                "its output is in the log; correct the cause, then {}",
                law::recovery(context.state)
            )
        });
        if end.tolerated {
            return Ok(self.warn(&problem)?);
        }
        Err(Halt::Failed(problem))
    }

    /// Follows a run of an earlier life of the server, if this action was interrupted; ends a run of another one.
    async fn adopted(
        &self,
        index: u32,
        context: &ActionContext,
        action: &CustomAction,
    ) -> Followed {
        let Some(open) = self.cx.facts().action.clone() else {
            return Ok(None);
        };
        if open.key() != action_key(index, context) || planted::is("interrupted-action-forgotten") {
            end_run(self.cx, &open).await?;
            return Ok(None);
        }
        let end = self.follow(&open, action).await?;
        match end {
            Some(end) => Ok(Some(self.settled(end, action)?)),
            None => {
                let problem =
                    unknown("the server ended while it ran, and nobody knows how it ended");
                self.record(&ended(
                    &open,
                    ActionResult::Failed(problem),
                    Output::default(),
                ))?;
                Ok(None)
            }
        }
    }

    async fn anew(
        &self,
        index: u32,
        action: &CustomAction,
        context: ActionContext,
    ) -> Result<ActionEnd, Halt> {
        let key = action_key(index, &context);
        let attempt = self
            .cx
            .facts()
            .action_attempts
            .get(&key)
            .copied()
            .unwrap_or(0)
            + 1;
        let words = std::iter::once(&action.file).chain(&action.arguments);
        let run = ActionRun {
            // Small enough for every reader of JSON.
            handle: uuid::Uuid::new_v4().as_u64_pair().0 >> 12,
            index,
            control_type: action.control_type,
            place: action.place,
            argv: words.map(|w| context.expand(w, attempt)).collect(),
            context,
            attempt,
        };
        self.cx
            .ledger
            .fact(Fact::ActionStarted(Box::new(run.clone())))?;
        let end = match self.begin(&run).await {
            Ok(()) => match self.follow(&run, action).await? {
                Some(end) => end,
                None => {
                    let problem = unknown("it was started, and nothing is known of it any more");
                    ended(&run, ActionResult::Failed(problem), Output::default())
                }
            },
            Err(problem) => ended(&run, ActionResult::Failed(problem), Output::default()),
        };
        Ok(self.settled(end, action)?)
    }

    /// Judges and records the end of a run.
    fn settled(&self, mut end: ActionEnd, action: &CustomAction) -> Result<ActionEnd, Problem> {
        end.tolerated = !end.success() && action.on_failure == OnFailure::Warn;
        self.record(&end)?;
        Ok(end)
    }

    /// Starts a program whose file is the one that was recorded. No answer in time means unknown: it is looked for.
    async fn begin(&self, run: &ActionRun) -> Result<(), Problem> {
        files::refuse_changed(self.cx, run).await?;
        let mut env: Vec<(String, String)> = run
            .context
            .environment(run.attempt)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        env.push(("FLIPSIDE_SYSTEM".to_owned(), self.cx.spec.name.to_string()));
        env.push(("FLIPSIDE_ACTION".to_owned(), run.handle.to_string()));
        let request = ActionRequest {
            handle: run.handle,
            argv: run.argv.clone(),
            env,
            keep: flipside_model::MAX_ACTION_OUTPUT,
        };
        let started = match run.place {
            ActionPlace::Guest => {
                let machine = self.cx.machine(run.context.side)?;
                self.cx.ports.guest.action_start(machine, &request).await
            }
            ActionPlace::Host => self.cx.ports.host.action_start(&request).await,
        };
        match started {
            Err(error) if error.kind == PortErrorKind::TimedOut => Ok(()),
            other => Ok(other?),
        }
    }

    /// Waits for the end of a run; when its time is over or an abort is requested it is ended first.
    async fn follow(&self, run: &ActionRun, action: &CustomAction) -> Followed {
        let began = Instant::now();
        let mut output = Output::default();
        let mut heard = began;
        let mut pause = POLL;
        loop {
            match poll(self.cx, run).await {
                Ok(more) => {
                    heard = Instant::now();
                    output.add(&more);
                    if let Some(exit) = more.exit {
                        return Ok(Some(ended(run, ActionResult::Exit(exit), output)));
                    }
                }
                Err(error) if error.kind == PortErrorKind::Absent => return Ok(None),
                Err(error) if heard.elapsed() > OUT_OF_SIGHT => {
                    let problem = Problem::from(error);
                    return Ok(Some(ended(run, ActionResult::Failed(problem), output)));
                }
                Err(_) => {}
            }
            if let Err(halt) = self.may_go_on(run, action, began) {
                return self.cut_short(run, output, halt).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SLOWEST_POLL);
        }
    }

    fn may_go_on(&self, run: &ActionRun, action: &CustomAction, began: Instant) -> Step {
        let over = |limit: Duration| {
            let text = format!(
                "the custom action did not end within {} s and was ended",
                limit.as_secs()
            );
            Err(Halt::Failed(Problem::new(ProblemCode::TimedOut, text)))
        };
        let own = action.limit.map(|s| Duration::from_secs(u64::from(s)));
        if let Some(limit) = own.filter(|limit| began.elapsed() >= *limit) {
            return over(limit);
        }
        match self.patience {
            Patience::Stage => self.cx.safe_point(&run.shown()),
            Patience::Each(limit) if began.elapsed() >= limit => over(limit),
            Patience::Each(_) => Ok(()),
        }
    }

    /// Ends a run with everything it started, and keeps what it printed until then (gap G.1.14).
    async fn cut_short(&self, run: &ActionRun, mut output: Output, halt: Halt) -> Followed {
        let killed = if planted::is("expired-action-left-running") {
            Ok(())
        } else {
            kill(self.cx, run).await
        };
        let until = Instant::now() + LAST_WORDS;
        while let Ok(more) = poll(self.cx, run).await {
            output.add(&more);
            if more.exit.is_some() || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        match halt {
            Halt::Cancelled => {
                self.record(&ended(run, ActionResult::Ended, output))?;
                Err(Halt::Cancelled)
            }
            Halt::Failed(mut problem) => {
                if let Err(error) = killed {
                    let problem_of_end = Problem::from(error);
                    problem
                        .causes
                        .push(format!("it could not be ended: {problem_of_end}"));
                }
                Ok(Some(ended(run, ActionResult::TimedOut(problem), output)))
            }
        }
    }

    fn record(&self, end: &ActionEnd) -> Result<(), Problem> {
        let fact = Fact::ActionEnded(Box::new(end.clone()));
        self.cx.ledger.fact(fact).map(drop)
    }
}

fn unknown(why: &str) -> Problem {
    Problem::new(
        ProblemCode::TimedOut,
        format!("the custom action is gone: {why}"),
    )
}

fn ended(run: &ActionRun, result: ActionResult, output: Output) -> ActionEnd {
    let (out, err) = output.captured();
    ActionEnd {
        handle: run.handle,
        result,
        out,
        err,
        tolerated: false,
    }
}

async fn poll(cx: &Cx, run: &ActionRun) -> PortResult<flipside_platform::ExecOutput> {
    match (run.place, cx.facts().machine(run.context.side)) {
        (ActionPlace::Host, _) => cx.ports.host.action_poll(run.handle).await,
        (ActionPlace::Guest, Some(machine)) => cx.ports.guest.exec_poll(machine, run.handle).await,
        (ActionPlace::Guest, None) => Err(flipside_platform::PortError::absent(
            "its side has no machine any more",
        )),
    }
}

async fn kill(cx: &Cx, run: &ActionRun) -> PortResult<()> {
    match (run.place, cx.facts().machine(run.context.side)) {
        (ActionPlace::Host, _) => cx.ports.host.action_kill(run.handle).await,
        (ActionPlace::Guest, Some(machine)) => {
            cx.ports.guest.action_kill(machine, run.handle).await
        }
        (ActionPlace::Guest, None) => Ok(()),
    }
}

/// Ends a run that the session does not wait for any more. A guest that does not answer keeps nobody: it is only told.
async fn end_run(cx: &Cx, run: &ActionRun) -> Result<(), Problem> {
    let mut output = Output::default();
    let result = match kill(cx, run).await {
        Ok(()) => ActionResult::Ended,
        Err(error) => ActionResult::Failed(error.into()),
    };
    if let Ok(more) = poll(cx, run).await {
        output.add(&more);
    }
    let end = ended(run, result, output);
    cx.ledger.fact(Fact::ActionEnded(Box::new(end))).map(drop)
}

/// Before a step: an action that an interrupted stage left running, and that no step of this one will follow, is ended.
pub(crate) async fn end_leftover(cx: &Cx) -> Result<(), Problem> {
    let state = cx.state();
    let Some(run) = &state.facts.action else {
        return Ok(());
    };
    let follows = |step: &flipside_session::Step| {
        actions::of_step(*step).is_some_and(|rule| {
            rule.request == run.context.request && rule.sides.contains(&run.context.side)
        })
    };
    let this_stage = run.context.state == state.upgrade && state.upgrade != UpgradeState::Idle;
    if this_stage && planned(&state).iter().any(follows) {
        return Ok(());
    }
    end_run(cx, run).await
}

/// Runs the actions of a readiness check in Idle (CA-13, RC-35); returns how many failed.
pub(crate) async fn check(cx: &Cx) -> Result<usize, Problem> {
    let rule = actions::of_check();
    let config = cx.settings();
    let wanted = rule.actions(&config);
    if wanted.is_empty() {
        return end_leftover(cx).await.map(|()| 0);
    }
    let in_guest = wanted.iter().any(|(_, a)| a.place == ActionPlace::Guest);
    if in_guest && !answers(cx).await {
        // It may have answered all tests before, so this is an Error of its own: no condition counts as met that nobody looked at.
        let problem = Problem::new(
            ProblemCode::TimedOut,
            "the custom actions were not run: the guest does not answer",
        )
        .advise("see that `qemu-guest-agent` runs in the guest and that it is not overloaded, then `flipside retry`");
        cx.ledger
            .write(Record::problem(Severity::Error, &problem))?;
        return Ok(1);
    }
    let job = Job {
        cx,
        rule,
        side: Side::Production,
        patience: Patience::Stage,
        gives_way: false,
    };
    let failed = job.run_each().await?;
    end_leftover(cx).await?;
    Ok(failed)
}

async fn answers(cx: &Cx) -> bool {
    match cx.facts().production {
        Some(machine) => cx.ports.guest.ping(machine).await.is_ok(),
        None => false,
    }
}

/// Waits for a guest that may be booting, before the last actions of a session.
pub(crate) async fn wait_for_guest(cx: &Cx, side: Side) -> Step {
    let machine = cx.machine(side)?;
    loop {
        match cx.ports.guest.ping(machine).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                if cx.check_time("waiting for the guest").is_err() {
                    return Err(Halt::from(error));
                }
            }
        }
        tokio::time::sleep(SLOWEST_POLL).await;
    }
}

/// Says why a file is not run, as the error of a step.
fn refusal(view: &FileView) -> Option<Problem> {
    let (text, advice) = readiness::not_ready(view)?;
    Some(
        Problem::new(ProblemCode::NotReady, text)
            .about(view.path.clone())
            .advise(advice),
    )
}

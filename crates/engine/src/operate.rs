//! Runs the steps of a stage by the step contract, and stages one after another.
//!
//! For every step: intent (synced) → observe → act only if needed → observe again as proof → outcome (synced). A
//! time-out of an act means *unknown*, so it is observed again before it counts as a failure. An abort takes effect
//! between two steps, or at a safe point inside a long wait. A failed step of the first half of a merge takes the
//! users back at once; everything else stays where it is, for Retry or Abort.

use crate::context::{Cx, Halt};
use crate::steps::{Seen, action};
use flipside_model::{
    OperationalState, Problem, ProblemCode, Record, Severity, StepResult, UpgradeState, planted,
};
use flipside_session::actions::planned;
use flipside_session::{Step, Undo, deadline_seconds, law};
use tracing::{debug, warn};

/// How a stage ended.
enum StageEnd {
    Done,
    Failed(Problem),
    Aborted,
}

/// Runs the stage the session is in, and every stage that follows by itself (SM-07, SM-10).
pub(crate) async fn run(cx: &Cx) -> Result<(), Problem> {
    loop {
        let stage = cx.state().upgrade;
        let end = match run_stage(cx, stage).await? {
            // An abort that came during the last step is honoured now, not forgotten.
            StageEnd::Done | StageEnd::Failed(_) if may_abort(stage) && cx.abort_requested() => {
                StageEnd::Aborted
            }
            end => end,
        };
        match end {
            StageEnd::Done => {
                if let Some(next) = follows(stage) {
                    // An abort that comes exactly here takes effect in the next stage's first safe point.
                    enter(cx, next, OperationalState::Busy, None)?;
                    continue;
                }
                let (next, operational) = match stage {
                    UpgradeState::Finish => (UpgradeState::Idle, OperationalState::Ready),
                    same => (same, OperationalState::Ready),
                };
                enter(cx, next, operational, None)?;
                return Ok(());
            }
            StageEnd::Failed(problem) => {
                enter(cx, stage, OperationalState::Broken, Some(problem))?;
                return Ok(());
            }
            StageEnd::Aborted => {
                cx.clear_abort();
                enter(cx, UpgradeState::Abort, OperationalState::Busy, None)?;
            }
        }
    }
}

fn follows(stage: UpgradeState) -> Option<UpgradeState> {
    match stage {
        UpgradeState::PrepareSplit => Some(UpgradeState::Split),
        UpgradeState::PrepareMerge => Some(UpgradeState::Merge),
        _ => None,
    }
}

/// Records a stage; an abort's records may use the space reserved for it (fault 11).
pub(crate) fn enter(
    cx: &Cx,
    state: UpgradeState,
    operational: OperationalState,
    problem: Option<Problem>,
) -> Result<(), Problem> {
    let record = Record::Entered {
        state,
        operational,
        problem,
    };
    write(cx, state, record)
}

fn write(cx: &Cx, stage: UpgradeState, record: Record) -> Result<(), Problem> {
    if stage == UpgradeState::Abort {
        cx.ledger.write_reserved(record)
    } else {
        cx.ledger.write(record)
    }
    .map(|_| ())
}

/// An abort is honoured everywhere but in stages that cannot be aborted.
fn may_abort(stage: UpgradeState) -> bool {
    matches!(
        stage,
        UpgradeState::PrepareSplit
            | UpgradeState::Split
            | UpgradeState::PrepareMerge
            | UpgradeState::Merge
    )
}

async fn run_stage(cx: &Cx, stage: UpgradeState) -> Result<StageEnd, Problem> {
    let state = cx.state();
    cx.begin_stage(deadline_seconds(stage, &state.settings().timeouts));
    let mut finished: Vec<Step> = Vec::new();
    for step in planned(&state) {
        if may_abort(stage) && cx.abort_requested() {
            return Ok(StageEnd::Aborted);
        }
        match run_step(cx, stage, step).await? {
            StepEnd::Done => finished.push(step),
            StepEnd::Cancelled if may_abort(stage) => return Ok(StageEnd::Aborted),
            StepEnd::Cancelled => {
                let problem = Problem::new(
                    ProblemCode::Internal,
                    format!("{} was cancelled", step.title()),
                );
                return Ok(StageEnd::Failed(problem));
            }
            StepEnd::Failed(problem) => {
                if step.fails_back() && !cx.abort_requested() {
                    finished.push(step);
                    take_back(cx, stage, &finished).await?;
                }
                return Ok(StageEnd::Failed(problem));
            }
        }
    }
    cx.show(None);
    Ok(StageEnd::Done)
}

enum StepEnd {
    Done,
    Failed(Problem),
    Cancelled,
}

async fn run_step(cx: &Cx, stage: UpgradeState, step: Step) -> Result<StepEnd, Problem> {
    let attempt = cx.state().attempts.get(&step.name()).copied().unwrap_or(0) + 1;
    cx.point(step, "intent");
    let intent = Record::Intent {
        step: step.name(),
        title: step.title().to_owned(),
        attempt,
    };
    let late = planted::is("intent-after-effect");
    if !late {
        write(cx, stage, intent.clone())?;
    }
    debug!(step = step.id(), attempt, "step begins");
    crate::actions::end_leftover(cx).await?;
    let result = perform(cx, step, attempt).await;
    if late {
        write(cx, stage, intent)?;
    }
    let (end, result) = match result {
        Ok(result) => (StepEnd::Done, result),
        Err(Halt::Failed(_)) if planted::is("failed-step-is-success") => {
            (StepEnd::Done, StepResult::Done)
        }
        Err(Halt::Failed(problem)) => {
            warn!(step = step.id(), %problem, "step failed");
            (
                StepEnd::Failed(problem.clone()),
                StepResult::Failed(problem),
            )
        }
        Err(Halt::Cancelled) => (StepEnd::Cancelled, StepResult::Cancelled),
    };
    write(
        cx,
        stage,
        Record::Outcome {
            step: step.name(),
            result,
        },
    )?;
    cx.point(step, "outcome");
    Ok(end)
}

/// Observes, acts if needed, and observes again as proof.
async fn perform(cx: &Cx, step: Step, attempt: u32) -> Result<StepResult, Halt> {
    let action = action(step);
    let quick = attempt == 1 && action.proves_itself();
    if quick {
        cx.point(step, "act");
        let acted = action.act(cx).await;
        cx.point(step, "acted");
        return match acted {
            Ok(()) => Ok(StepResult::Done),
            Err(halt) => believe_what_is_seen(halt, action.observe(cx).await),
        };
    }
    match action.observe(cx).await? {
        Seen::Done => return Ok(StepResult::Already),
        Seen::Todo | Seen::Repeat => {}
    }
    cx.point(step, "act");
    let acted = action.act(cx).await;
    cx.point(step, "acted");
    match (acted, action.observe(cx).await) {
        (Ok(()), Ok(Seen::Done | Seen::Repeat)) => Ok(StepResult::Done),
        (Ok(()), Ok(Seen::Todo)) => Err(Halt::Failed(
            Problem::new(
                ProblemCode::Failed,
                format!("{}: done, but it cannot be seen to be so", step.title()),
            )
            .advise(law::recovery(cx.state().upgrade)),
        )),
        (Ok(()), Err(halt)) => Err(halt),
        (Err(halt), seen) => believe_what_is_seen(halt, seen),
    }
}

/// No answer in time means unknown: what can be seen decides.
fn believe_what_is_seen(halt: Halt, seen: Result<Seen, Halt>) -> Result<StepResult, Halt> {
    match (halt, seen) {
        (Halt::Failed(problem), _)
            if problem.code == ProblemCode::TimedOut && planted::is("time-out-is-success") =>
        {
            Ok(StepResult::Done)
        }
        (Halt::Failed(problem), Ok(Seen::Done)) if problem.code == ProblemCode::TimedOut => {
            Ok(StepResult::Done)
        }
        (halt, _) => Err(halt),
    }
}

/// Takes finished steps back, the last one first.
async fn take_back(cx: &Cx, stage: UpgradeState, finished: &[Step]) -> Result<(), Problem> {
    for step in finished.iter().rev().filter(|s| s.undo() == Undo::TakeBack) {
        match action(*step).undo(cx).await {
            Ok(()) => write(
                cx,
                stage,
                Record::Outcome {
                    step: step.name(),
                    result: StepResult::Undone,
                },
            )?,
            Err(Halt::Failed(problem)) => {
                let text = format!("{} could not be taken back", step.title());
                cx.ledger.log(Severity::Error, text)?;
                cx.ledger
                    .write(Record::problem(Severity::Error, &problem))?;
            }
            Err(Halt::Cancelled) => {}
        }
    }
    Ok(())
}

/// Takes back what an interrupted first half of a merge left, so that the users are served while the operator decides.
pub(crate) async fn take_back_interrupted(cx: &Cx) -> Result<(), Problem> {
    let state = cx.state();
    let begun: Vec<Step> = planned(&state)
        .into_iter()
        .filter(|s| state.attempts.contains_key(&s.name()))
        .collect();
    if begun.last().is_some_and(|last| last.fails_back()) {
        take_back(cx, state.upgrade, &begun).await?;
    }
    Ok(())
}

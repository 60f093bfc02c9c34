//! Custom actions at their places in an upgrade (CA-11 to CA-16, Appendix B).

use super::{Action, Seen};
use crate::actions::{Job, Patience, wait_for_guest};
use crate::context::{Cx, Step as Outcome};
use async_trait::async_trait;
use flipside_model::{Fact, Side, planted};
use flipside_platform::RunState;
use flipside_session::Step;
use flipside_session::actions::{Rule, START_AGAIN, of_step};
use std::time::Duration;

pub(super) struct RunActions {
    pub step: Step,
}

#[async_trait]
impl Action for RunActions {
    async fn observe(&self, cx: &Cx) -> Outcome<Seen> {
        // Retry repeats a request that failed (CA-36), not the ones before it. Only what was stopped on the Upgrade Side
        // is stopped again: that side may have been restarted in between (gap G.1.20).
        let done = cx.state().done.contains(&self.step.name());
        if done && self.step != Step::StopUpgradeActions {
            return Ok(Seen::Done);
        }
        let behind = match self.step {
            Step::StopProductionActions | Step::BackupActions | Step::LeaveActions => {
                cx.gave_up(Side::Production).await?
            }
            Step::AbortStopActions => {
                cx.gave_up(Side::Upgrade).await?
                    || cx.view_of(Side::Upgrade).await?.run != RunState::Running
            }
            _ => false,
        };
        Ok(if behind { Seen::Done } else { Seen::Repeat })
    }

    async fn act(&self, cx: &Cx) -> Outcome {
        let Some(rule) = of_step(self.step) else {
            return Ok(());
        };
        match self.step {
            Step::StopProductionActions => {
                cx.start_inside_clock();
                if !rule.actions(&cx.settings()).is_empty() {
                    cx.ledger.fact(Fact::ActionsStopped(true))?;
                }
            }
            Step::CommitActions => {
                crate::power::boot_committed(cx).await?;
                wait_for_guest(cx, Side::Upgrade).await?;
            }
            Step::AbortActions => wait_for_guest(cx, Side::Production).await?,
            _ => {}
        }
        // In an abort of a merge nothing on the upgraded side may keep the users waiting.
        let gives_way = self.step == Step::AbortStopActions;
        let patience = if gives_way {
            Patience::Each(service_time(cx))
        } else {
            Patience::Stage
        };
        run(cx, rule, patience, gives_way).await?;
        if self.step == Step::AbortStartActions {
            cx.ledger.fact(Fact::ActionsStopped(false))?;
        }
        Ok(())
    }

    async fn undo(&self, cx: &Cx) -> Outcome {
        if self.step == Step::StopProductionActions && !planted::is("stop-action-not-taken-back") {
            // Gap G.3.49: what was stopped is started where it was.
            run(cx, &START_AGAIN, Patience::Each(service_time(cx)), false).await?;
            cx.ledger.fact(Fact::ActionsStopped(false))?;
        }
        Ok(())
    }
}

fn service_time(cx: &Cx) -> Duration {
    Duration::from_secs(u64::from(cx.settings().timeouts.service))
}

async fn run(cx: &Cx, rule: &Rule, patience: Patience, gives_way: bool) -> Outcome {
    for side in rule.sides {
        let job = Job {
            cx,
            rule,
            side: *side,
            patience,
            gives_way,
        };
        job.run().await?;
    }
    Ok(())
}

/// Records the files of the actions; every try of PrepareSplit does so anew, since nothing is divided yet.
pub(super) struct PinActions;

#[async_trait]
impl Action for PinActions {
    async fn observe(&self, _cx: &Cx) -> Outcome<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Outcome {
        crate::actions::pin(cx).await
    }
}

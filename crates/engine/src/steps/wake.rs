//! Proves that the Upgrade Side is isolated, then lets it run (SP-02, SP-04, invariant 3).

use super::{Action, Seen};
use crate::context::{Cx, POLL, Step};
use async_trait::async_trait;
use flipside_model::{DiskRole, Problem, ProblemCode, Side, planted};
use flipside_platform::{DiskSource, RunState};
use std::time::Duration;

/// How long the forked guest may take until its agent answers: it wakes in the middle of whatever it was doing, on a
/// host that runs two machines now.
const AGENT_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Wake;

#[async_trait]
impl Action for Wake {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let upgrade = cx.machine(Side::Upgrade)?;
        let running = cx.view(upgrade).await?.run == RunState::Running;
        Ok(if running && cx.ports.guest.ping(upgrade).await.is_ok() {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        prove_isolated(cx).await?;
        {
            let _held = cx.exclusive().await?;
            if planted::is("upgrade-side-on-the-wire") {
                cx.ports.machine.set_link(upgrade, true).await?;
            }
            if cx.view(upgrade).await?.run != RunState::Running {
                cx.ports.machine.resume(upgrade).await?;
            }
        }
        let limit = tokio::time::Instant::now() + cx.remaining(AGENT_WAIT);
        loop {
            cx.safe_point("waiting for the Upgrade Side's agent")?;
            match cx.ports.guest.ping(upgrade).await {
                Ok(_) => break,
                Err(error) if tokio::time::Instant::now() >= limit => {
                    return Err(Problem::from(error)
                        .advise("`flipside restart --side upgrade`, then `flipside retry`")
                        .into());
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
        if let Err(error) = cx.ports.guest.set_clock(upgrade).await {
            cx.ledger.write(flipside_model::Record::problem(
                flipside_model::Severity::Warning,
                &error.into(),
            ))?;
        }
        Ok(())
    }
}

/// Looks at the machine's own answers: no link, no leg that Production uses, data only as a throw-away copy.
async fn prove_isolated(cx: &Cx) -> Step {
    let view = cx.view_of(Side::Upgrade).await?;
    let refuse = |text: String| -> Step {
        Err(Problem::new(ProblemCode::Mismatch, text)
            .advise("`flipside abort`: the Upgrade Side is not isolated")
            .into())
    };
    if view.link_up {
        return refuse("the network link of the Upgrade Side is up".to_owned());
    }
    let book = cx.book().await?;
    for (name, disk) in &view.disks {
        let (Some(pair), Some(_)) = (book.disks.get(name), cx.spec.disk(name)) else {
            return refuse(format!(
                "the Upgrade Side has a disk `{name}` that nobody gave it"
            ));
        };
        let other = pair.authority.other();
        let good = match (cx.role(name), &disk.source) {
            (DiskRole::System, DiskSource::Legs(legs)) => *legs == [other],
            (DiskRole::Data, DiskSource::Overlay(leg)) => *leg == other,
            _ => false,
        };
        if !good {
            return refuse(format!(
                "`{name}` of the Upgrade Side is not backed by its own leg"
            ));
        }
    }
    Ok(())
}

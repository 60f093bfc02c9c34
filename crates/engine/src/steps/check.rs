//! The readiness checks inside a session: before the split (RC-07) and before the merge (RC-45).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::{devices, observe};
use async_trait::async_trait;
use flipside_model::{LegRole, Problem, ProblemCode, Side};
use flipside_platform::{DiskSource, RunState};

/// Judges readiness once more; an Error leaves `Prepare Split | Broken` (RC-52).
pub(super) struct FinalCheck;

#[async_trait]
impl Action for FinalCheck {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Step {
        let settings = cx.settings();
        let (_, errors) = observe::check(cx, &settings).await?;
        if errors == 0 {
            return Ok(());
        }
        let text = format!("the final readiness check found {errors} error(s)");
        Err(Problem::new(ProblemCode::NotReady, text)
            .advise("correct what the activity log lists, then `retry`; or `abort`")
            .into())
    }
}

/// Tests that the Upgrade Side can take over; nothing has changed for the users yet.
pub(super) struct MergeCheck;

#[async_trait]
impl Action for MergeCheck {
    async fn observe(&self, _cx: &Cx) -> Step<Seen> {
        Ok(Seen::Repeat)
    }

    async fn act(&self, cx: &Cx) -> Step {
        let upgrade = cx.machine(Side::Upgrade)?;
        let view = cx.view(upgrade).await?;
        // US-20, PS-16: a shut-down Upgrade Side does not come back; only Abort is left.
        match view.run {
            RunState::Running => {}
            RunState::Shutdown | RunState::Absent => {
                return Err(Problem::new(
                    ProblemCode::NotReady,
                    "the Upgrade Side was shut down or has ended",
                )
                .about(Side::Upgrade.to_string())
                .advise("its changes cannot be merged: `flipside abort`")
                .into());
            }
            other => {
                return Err(Problem::new(
                    ProblemCode::NotReady,
                    format!("the Upgrade Side is not running ({other:?})"),
                )
                .about(Side::Upgrade.to_string())
                .advise("`flipside restart --side upgrade`, then `flipside retry`")
                .into());
            }
        }
        let live: Vec<_> = view
            .disks
            .iter()
            .filter(|(_, d)| matches!(d.source, DiskSource::Overlay(_)))
            .collect();
        if let Some((disk, _)) = live.first() {
            return Err(Problem::new(
                ProblemCode::NotReady,
                format!("`{disk}` is still a copy on the Upgrade Side"),
            )
            .about(disk.as_str())
            .advise("`flipside restart --side upgrade`, then `flipside retry`")
            .into());
        }
        cx.ports.guest.ping(upgrade).await.map_err(|error| {
            Problem::from(error).advise(
                "wait until `flipside status` shows `Partner: OS Up`, then `flipside retry`",
            )
        })?;
        services_exist(cx, upgrade).await?;
        network_is_ready(cx, upgrade).await?;
        nothing_is_remote(cx, upgrade).await?;
        legs_are_good(cx).await?;
        crate::actions::check_files(cx).await?;
        super::back_up_logs::check_directory(cx).await?;
        Ok(devices::refuse_changed(cx, |_, _| true).await?)
    }
}

/// Design 3.5: a file system that wakes with a stale cache destroys live data, so the link never rises over one that is reached
/// through it.
async fn nothing_is_remote(cx: &Cx, upgrade: flipside_model::MachineId) -> Step {
    let around = cx.ports.guest.surroundings(upgrade).await?;
    let Some(storage) = around.remote.first() else {
        return Ok(());
    };
    let text = format!(
        "the Upgrade Side still has {} `{}`, which Production has written to since the split",
        storage.kind, storage.source
    );
    Err(Problem::new(ProblemCode::NotReady, text)
        .about(storage.source.clone())
        .advise(
            "unmount it there (`flipside run -- umount -f …`) and log out, or take it out of that side's mount table and \
             `flipside restart --side upgrade`; then `flipside retry`",
        )
        .into())
}

/// The users can be led to the Upgrade Side (gap G.2.27, fault 49): told before the outage, not in it.
async fn network_is_ready(cx: &Cx, upgrade: flipside_model::MachineId) -> Step {
    let Some(bridge) = cx.ports.network.bridge().await? else {
        return Ok(());
    };
    let name = &bridge.name;
    let (text, advice) = if !bridge.exists {
        let text = format!("there is no bridge `{name}` on the host any more");
        (text, "make it again, then `flipside retry`")
    } else if !bridge.up {
        let text = format!("the bridge `{name}` is down");
        (
            text,
            "bring it up: `ip link set BRIDGE up`, then `flipside retry`",
        )
    } else if let Some(why) = &bridge.unable {
        let text = format!("the network cannot be moved to the Upgrade Side: {why}");
        (text, "correct it, then `flipside retry`")
    } else if !bridge.taps.contains(&upgrade) {
        let text = "the tap of the Upgrade Side was removed from the host".to_owned();
        (text, "its changes cannot be merged: `flipside abort`")
    } else {
        return Ok(());
    };
    Err(Problem::new(ProblemCode::NotReady, text)
        .about(name.clone())
        .advise(advice)
        .into())
}

async fn services_exist(cx: &Cx, upgrade: flipside_model::MachineId) -> Step {
    for service in cx.ports.guest.services(upgrade, &cx.units()).await? {
        if !service.exists {
            let text = format!(
                "service `{}` does not exist any more on the Upgrade Side",
                service.unit
            );
            return Err(Problem::new(ProblemCode::NotReady, text)
                .about(service.unit)
                .advise("install it again there, then `flipside retry`; or `flipside abort`")
                .into());
        }
    }
    Ok(())
}

async fn legs_are_good(cx: &Cx) -> Step {
    let book = cx.book().await?;
    let needed = book.disks.iter().filter(|(_, pair)| {
        let other = &pair.get(pair.authority.other()).role;
        let divided = matches!(other, LegRole::Upgraded)
            && pair.get(pair.authority).role == LegRole::Original;
        !(divided || pair.get(pair.authority).role == LegRole::Live)
    });
    match needed.map(|(name, _)| name.clone()).next() {
        None => Ok(()),
        Some(disk) => Err(Problem::new(ProblemCode::NotReady, format!("the legs of `{disk}` are not fit for a merge"))
            .about(disk.as_str())
            .advise("`flipside system show` tells what each leg holds; `flipside abort` takes everything back")
            .into()),
    }
}

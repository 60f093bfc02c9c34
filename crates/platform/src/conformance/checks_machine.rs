//! Checks of machine processes.

use super::CheckResult;
use super::bench::{Bench, NOBODY, expect, ok, refused};
use crate::{MachineView, PortErrorKind, RunState};

pub(crate) async fn an_unknown_machine_is_absent(b: &mut Bench<'_>) -> CheckResult {
    let view = b.see(NOBODY).await?;
    expect(
        view == MachineView::absent(),
        format!("it is {view:?} instead of absent"),
    )?;
    ok("end", b.p.machine.end(NOBODY).await)?;
    let list = ok("list", b.p.machine.list().await)?;
    expect(list.is_empty(), format!("{list:?} exist after a reset"))
}

pub(crate) async fn starting_twice_is_starting_once(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let plan = b.boot_plan();
    ok("start again", b.p.machine.start(id, &plan).await)?;
    let list = ok("list", b.p.machine.list().await)?;
    expect(list == [id], format!("{list:?} exist, not {id} alone"))?;
    b.is(id, RunState::Running).await?;
    for disk in [b.system.clone(), b.data.clone()] {
        b.backed(id, &disk, Some(b.both())).await?;
    }
    let view = b.see(id).await?;
    expect(
        view.accelerator.is_some_and(|a| !a.is_empty()),
        "the accelerator is not named",
    )
}

pub(crate) async fn pausing_and_continuing_are_repeatable(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    for _ in 0..2 {
        ok("pause", b.p.machine.pause(id).await)?;
        b.is(id, RunState::Paused).await?;
    }
    for _ in 0..2 {
        ok("resume", b.p.machine.resume(id).await)?;
        b.is(id, RunState::Running).await?;
    }
    Ok(())
}

pub(crate) async fn ending_is_repeatable(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    for _ in 0..2 {
        ok("end", b.p.machine.end(id).await)?;
        b.is(id, RunState::Absent).await?;
    }
    let list = ok("list", b.p.machine.list().await)?;
    expect(list.is_empty(), format!("{list:?} exist after the end"))?;
    let again = b.power_on().await?;
    expect(again != id, "an id was used twice")?;
    b.is(again, RunState::Running).await
}

pub(crate) async fn the_link_is_down_at_first(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    expect(!b.see(id).await?.link_up, "the link is up after the start")?;
    for up in [true, true, false, false, true] {
        ok("set_link", b.p.machine.set_link(id, up).await)?;
        let is = b.see(id).await?.link_up;
        expect(is == up, format!("the link is {is} after it was set {up}"))?;
    }
    Ok(())
}

// Fault 35: locks are never off.
pub(crate) async fn a_leg_in_use_is_refused(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let second = b.book(|k| k.last_machine = k.last_machine.next()).await?;
    let plan = b.boot_plan();
    let result = b.p.machine.start(second.last_machine, &plan).await;
    refused("start on legs in use", &result)?;
    let kind = result.err().map(|e| e.kind);
    expect(
        kind == Some(PortErrorKind::InUse),
        format!("legs in use are told as {kind:?}, not InUse"),
    )?;
    b.is(second.last_machine, RunState::Absent).await?;
    b.is(id, RunState::Running).await
}

pub(crate) async fn the_reset_button_keeps_the_process(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let before = b.see(id).await?;
    ok("reset", b.p.machine.reset(id).await)?;
    let after = b.see(id).await?;
    expect(
        before == after,
        format!("{before:?} became {after:?} by a reset"),
    )
}

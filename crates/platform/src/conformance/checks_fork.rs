//! Checks of the live fork.

use super::CheckResult;
use super::bench::{Bench, expect, ok, refused};
use crate::{DiskSource, PortErrorKind, RunState};
use flipside_model::{Leg, MachineId};

async fn divided(b: &Bench<'_>, from: MachineId, to: MachineId) -> CheckResult {
    let (system, data) = (b.system.clone(), b.data.clone());
    b.is(from, RunState::Running).await?;
    b.is(to, RunState::Paused).await?;
    let a = DiskSource::Legs(vec![Leg::A]);
    b.backed(from, &system, Some(a.clone())).await?;
    b.backed(from, &data, Some(a)).await?;
    let upgrade = DiskSource::Legs(vec![Leg::B]);
    b.backed(to, &system, Some(upgrade)).await?;
    let overlay = DiskSource::Overlay(Leg::B);
    b.backed(to, &data, Some(overlay)).await?;
    for (id, disk) in [(from, &system), (from, &data), (to, &system)] {
        b.dirty(id, disk).await?;
    }
    expect(!b.see(to).await?.link_up, "the link of the fork is up")?;
    expect(b.see(from).await?.link_up, "the link of the source is down")
}

async fn as_before(b: &Bench<'_>, from: MachineId) -> CheckResult {
    b.is(from, RunState::Running).await?;
    for disk in [b.system.clone(), b.data.clone()] {
        b.backed(from, &disk, Some(b.both())).await?;
    }
    Ok(())
}

async fn linked(b: &mut Bench<'_>) -> Result<MachineId, String> {
    let from = b.power_on().await?;
    ok("set_link", b.p.machine.set_link(from, true).await)?;
    Ok(from)
}

pub(crate) async fn a_fork_leaves_both_machines_as_promised(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    refused("fork_poll", &b.p.machine.fork_poll(from).await)?;
    let to = b.incoming(from).await?;
    ok("fork_begin", b.p.machine.fork_begin(from, to).await)?;
    ok("fork_begin again", b.p.machine.fork_begin(from, to).await)?;
    b.until_ready(from).await?;
    b.is(from, RunState::PreSwitchover).await?;
    ok("pause", b.p.machine.pause(from).await)?;
    b.is(from, RunState::PreSwitchover).await?;
    let keep = b.keep();
    let result = b.p.machine.fork_switch(from, to, &keep).await;
    let figures = ok("fork_switch", result)?;
    expect(figures.memory_bytes > 0, "no memory was copied")?;
    divided(b, from, to).await?;
    // One instant for all disks: what the legs of both sides hold is the same until somebody runs on.
    let dirty = b.dirty(to, &b.system.clone()).await?;
    expect(
        dirty == 0,
        format!("{dirty} bytes changed in a paused fork"),
    )?;
    ok("resume", b.p.machine.resume(to).await)?;
    b.is(to, RunState::Running).await?;
    b.is(from, RunState::Running).await?;
    ok("end", b.p.machine.end(to).await)?;
    b.is(from, RunState::Running).await
}

pub(crate) async fn a_switch_is_repeatable(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    let to = b.fork(from).await?;
    let keep = b.keep();
    let again = b.p.machine.fork_switch(from, to, &keep).await;
    ok("fork_switch again", again)?;
    divided(b, from, to).await
}

pub(crate) async fn a_fork_can_be_given_up_at_once(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    ok("without a fork", b.p.machine.fork_cancel(from).await)?;
    as_before(b, from).await?;
    let to = b.incoming(from).await?;
    ok("before it began", b.p.machine.fork_cancel(from).await)?;
    as_before(b, from).await?;
    ok("fork_begin", b.p.machine.fork_begin(from, to).await)?;
    ok("fork_cancel", b.p.machine.fork_cancel(from).await)?;
    as_before(b, from).await?;
    ok("end", b.p.machine.end(to).await)?;
    // It can begin again.
    let to = b.fork(from).await?;
    divided(b, from, to).await
}

pub(crate) async fn a_fork_can_be_given_up_when_ready(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    let to = b.incoming(from).await?;
    ok("fork_begin", b.p.machine.fork_begin(from, to).await)?;
    b.until_ready(from).await?;
    for _ in 0..2 {
        ok("fork_cancel", b.p.machine.fork_cancel(from).await)?;
        as_before(b, from).await?;
    }
    let keep = b.keep();
    let result = b.p.machine.fork_switch(from, to, &keep).await;
    refused("fork_switch after fork_cancel", &result)?;
    as_before(b, from).await?;
    ok("end", b.p.machine.end(to).await)?;
    as_before(b, from).await
}

// Fault 27: the other machine dies while the source waits for the switch.
pub(crate) async fn a_fork_survives_the_other_machines_end(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    let to = b.incoming(from).await?;
    ok("fork_begin", b.p.machine.fork_begin(from, to).await)?;
    b.until_ready(from).await?;
    ok("end", b.p.machine.end(to).await)?;
    ok("fork_cancel", b.p.machine.fork_cancel(from).await)?;
    as_before(b, from).await?;
    b.is(to, RunState::Absent).await
}

// Invariants 1 and 2: the data disk has one owner at every moment.
pub(crate) async fn a_data_disk_moves_to_the_fork(b: &mut Bench<'_>) -> CheckResult {
    let from = linked(b).await?;
    let to = b.fork(from).await?;
    let data = b.data.clone();
    ok("resume", b.p.machine.resume(to).await)?;
    ok("unplug overlay", b.p.disk.unplug(to, &data).await)?;
    b.backed(to, &data, None).await?;
    ok("link down", b.p.machine.set_link(from, false).await)?;
    b.book(|k| k.owner = Some(to)).await?;
    let result = b.p.disk.plug(to, &data, &[Leg::A]).await;
    refused("plug of a leg in use", &result)?;
    let kind = result.err().map(|e| e.kind);
    expect(
        kind == Some(PortErrorKind::InUse),
        format!("a leg in use is told as {kind:?}, not InUse"),
    )?;
    b.backed(to, &data, None).await?;
    ok("unplug", b.p.disk.unplug(from, &data).await)?;
    ok("pause", b.p.machine.pause(from).await)?;
    ok("plug", b.p.disk.plug(to, &data, &[Leg::A]).await)?;
    let moved = DiskSource::Legs(vec![Leg::A]);
    b.backed(to, &data, Some(moved.clone())).await?;
    // And back, as an abort does; the source is paused meanwhile.
    ok("unplug", b.p.disk.unplug(to, &data).await)?;
    b.book(|k| k.owner = Some(from)).await?;
    ok("plug", b.p.disk.plug(from, &data, &[Leg::A]).await)?;
    ok("resume", b.p.machine.resume(from).await)?;
    b.backed(from, &data, Some(moved)).await?;
    b.is(from, RunState::Running).await
}

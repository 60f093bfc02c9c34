//! Checks of block graphs.

use super::CheckResult;
use super::bench::{Bench, NOBODY, expect, ok, refused};
use crate::{DiskSource, PortErrorKind, RunState};
use flipside_model::Leg;

pub(crate) async fn one_leg_and_two_legs_again(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    for disk in [b.system.clone(), b.data.clone()] {
        b.stale(&disk, Leg::B).await?;
        ok("pause", b.p.machine.pause(id).await)?;
        for _ in 0..2 {
            ok("set_legs A", b.p.disk.set_legs(id, &disk, &[Leg::A]).await)?;
            let one = DiskSource::Legs(vec![Leg::A]);
            b.backed(id, &disk, Some(one)).await?;
            let dirty = b.dirty(id, &disk).await?;
            expect(dirty == 0, format!("{dirty} bytes are dirty at once"))?;
        }
        // Nothing was written meanwhile: the guest is paused.
        for _ in 0..2 {
            let both = [Leg::A, Leg::B];
            ok("set_legs A B", b.p.disk.set_legs(id, &disk, &both).await)?;
            b.backed(id, &disk, Some(b.both())).await?;
        }
        b.is(id, RunState::Paused).await?;
        ok("resume", b.p.machine.resume(id).await)?;
        b.is(id, RunState::Running).await?;
    }
    Ok(())
}

pub(crate) async fn legs_of_a_running_machine_are_left_alone(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let data = b.data.clone();
    let both = [Leg::A, Leg::B];
    ok("set as it is", b.p.disk.set_legs(id, &data, &both).await)?;
    let result = b.p.disk.set_legs(id, &data, &[Leg::A]).await;
    refused("set_legs of a running machine", &result)?;
    b.backed(id, &data, Some(b.both())).await?;
    b.is(id, RunState::Running).await
}

pub(crate) async fn unplugging_and_plugging_are_repeatable(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let data = b.data.clone();
    for _ in 0..2 {
        ok("unplug", b.p.disk.unplug(id, &data).await)?;
        b.backed(id, &data, None).await?;
    }
    for _ in 0..2 {
        let both = [Leg::A, Leg::B];
        ok("plug", b.p.disk.plug(id, &data, &both).await)?;
        b.backed(id, &data, Some(b.both())).await?;
    }
    ok("unplug", b.p.disk.unplug(id, &data).await)?;
    b.stale(&data, Leg::B).await?;
    ok("plug A", b.p.disk.plug(id, &data, &[Leg::A]).await)?;
    let dirty = b.dirty(id, &data).await;
    expect(dirty.is_ok(), "a disk plugged with one leg has no bitmap")?;
    b.is(id, RunState::Running).await
}

pub(crate) async fn a_missing_disk_or_machine_is_told(b: &mut Bench<'_>) -> CheckResult {
    let data = b.data.clone();
    let absent = |what: &str, kind: Option<PortErrorKind>| {
        expect(
            kind == Some(PortErrorKind::Absent),
            format!("{what} without a machine is {kind:?}, not Absent"),
        )
    };
    let result = b.p.disk.set_legs(NOBODY, &data, &[Leg::A]).await;
    absent("set_legs", result.err().map(|e| e.kind))?;
    let result = b.p.disk.plug(NOBODY, &data, &[Leg::A]).await;
    absent("plug", result.err().map(|e| e.kind))?;
    let result = b.p.machine.resume(NOBODY).await;
    absent("resume", result.err().map(|e| e.kind))?;
    let result = b.p.machine.set_link(NOBODY, true).await;
    absent("set_link", result.err().map(|e| e.kind))?;
    let id = b.power_on().await?;
    ok("unplug", b.p.disk.unplug(id, &data).await)?;
    let result = b.p.disk.carry_out(id, &data).await;
    refused("carry_out of a disk that is not plugged", &result)?;
    let result = b.p.disk.resync_finish(id, &data).await;
    refused("resync_finish without a resynchronisation", &result)
}

//! Checks of change bitmaps and of the resynchronisation.

use super::CheckResult;
use super::bench::{Bench, expect, ok, refused};
use crate::{DiskSource, ResyncPhase, ResyncStart, RunState};
use flipside_model::{DiskName, Leg, LegRole, MachineId};

async fn write(b: &mut Bench<'_>, id: MachineId, disk: &DiskName, seeds: [u64; 3]) -> CheckResult {
    for seed in seeds {
        b.fixture.write(id, disk, seed).await?;
    }
    Ok(())
}

async fn equal(b: &mut Bench<'_>, id: MachineId, disk: &DiskName) -> CheckResult {
    ok("pause", b.p.machine.pause(id).await)?;
    let equal = b.fixture.legs_equal(disk).await?;
    expect(equal, format!("the legs of {disk} differ"))?;
    ok("resume", b.p.machine.resume(id).await)
}

/// Lets a machine run a disk on leg A alone and write to it.
async fn simplex(b: &mut Bench<'_>, id: MachineId, disk: &DiskName) -> CheckResult {
    b.stale(disk, Leg::B).await?;
    ok("pause", b.p.machine.pause(id).await)?;
    ok("set_legs", b.p.disk.set_legs(id, disk, &[Leg::A]).await)?;
    ok("resume", b.p.machine.resume(id).await)?;
    write(b, id, disk, [1, 2, 3]).await
}

async fn resync(
    b: &mut Bench<'_>,
    id: MachineId,
    disk: &DiskName,
    how: ResyncStart,
) -> CheckResult {
    for _ in 0..2 {
        let d = &b.p.disk;
        let result = d.resync_start(id, disk, Leg::A, Leg::B, how, 0).await;
        ok("resync_start", result)?;
    }
    write(b, id, disk, [4, 5, 6]).await?;
    b.until_nearly(id, disk).await?;
    let figures = ok("resync_finish", b.p.disk.resync_finish(id, disk).await)?;
    let wanted = how == ResyncStart::Compare;
    expect(
        figures.compared == wanted && &figures.disk == disk && figures.disk_bytes > 0,
        format!("the figures are {figures:?}"),
    )?;
    b.backed(id, disk, Some(b.both())).await?;
    b.is(id, RunState::Running).await?;
    b.role(disk, Leg::B, LegRole::Live).await?;
    let view = ok("resync_poll", b.p.disk.resync_poll(id, disk).await)?;
    expect(
        view.phase == ResyncPhase::None,
        format!("{:?} is left after the end", view.phase),
    )?;
    write(b, id, disk, [7, 8, 9]).await?;
    equal(b, id, disk).await
}

pub(crate) async fn a_bitmap_resync_makes_the_legs_equal(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    for disk in [b.data.clone(), b.system.clone()] {
        simplex(b, id, &disk).await?;
        resync(b, id, &disk, ResyncStart::Bitmap).await?;
    }
    Ok(())
}

pub(crate) async fn a_full_compare_makes_the_legs_equal(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let disk = b.data.clone();
    simplex(b, id, &disk).await?;
    // The bitmap is lost with its node.
    ok("unplug", b.p.disk.unplug(id, &disk).await)?;
    ok("plug", b.p.disk.plug(id, &disk, &[Leg::A]).await)?;
    resync(b, id, &disk, ResyncStart::Compare).await
}

pub(crate) async fn a_resync_can_be_given_up_and_begun_again(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let disk = b.data.clone();
    ok("cancel none", b.p.disk.resync_cancel(id, &disk).await)?;
    simplex(b, id, &disk).await?;
    let d = b.p.disk.clone();
    let start = d.resync_start(id, &disk, Leg::A, Leg::B, ResyncStart::Bitmap, 0);
    ok("resync_start", start.await)?;
    ok("resync_poll", d.resync_poll(id, &disk).await)?;
    for _ in 0..2 {
        ok("resync_cancel", d.resync_cancel(id, &disk).await)?;
        let view = ok("resync_poll", d.resync_poll(id, &disk).await)?;
        expect(
            view.phase == ResyncPhase::None,
            format!("{:?} is left after resync_cancel", view.phase),
        )?;
    }
    let one = DiskSource::Legs(vec![Leg::A]);
    b.backed(id, &disk, Some(one)).await?;
    b.is(id, RunState::Running).await?;
    refused("resync_finish", &d.resync_finish(id, &disk).await)?;
    b.is(id, RunState::Running).await?;
    let after = b.dirty(id, &disk).await?;
    // What a round copied before it was given up may be dirty again, and a guest goes on writing; the rest of the
    // disk stays clean.
    let spec = b.fixture.spec();
    let size = spec.disk(&disk).map_or(0, |d| d.size);
    expect(after < size, format!("{after} of {size} bytes are dirty"))?;
    resync(b, id, &disk, ResyncStart::Bitmap).await
}

// Design 3.8: the union of both sides' changes, then only what it names is copied.
pub(crate) async fn both_sides_changes_are_united(b: &mut Bench<'_>) -> CheckResult {
    let from = b.power_on().await?;
    let to = b.fork(from).await?;
    let disk = b.system.clone();
    ok("resume", b.p.machine.resume(to).await)?;
    write(b, from, &disk, [1, 2, 3]).await?;
    write(b, to, &disk, [11, 12, 13]).await?;
    for id in [from, to] {
        ok("pause", b.p.machine.pause(id).await)?;
    }
    let own = b.dirty(from, &disk).await?;
    let theirs = b.dirty(to, &disk).await?;
    let d = b.p.disk.clone();
    refused("carry_in of nothing", &d.carry_in(from, &disk).await)?;
    for _ in 0..2 {
        let carried = ok("carry_out", d.carry_out(to, &disk).await)?;
        expect(
            carried.disk == disk && carried.dirty_bytes == theirs,
            format!("{carried:?} was carried instead of {theirs} bytes"),
        )?;
    }
    ok("end", b.p.machine.end(to).await)?;
    for _ in 0..2 {
        let union = ok("carry_in", d.carry_in(from, &disk).await)?;
        expect(
            union >= own.max(theirs) && union <= own + theirs,
            format!("{own} and {theirs} bytes are {union} together"),
        )?;
        let seen = b.dirty(from, &disk).await?;
        expect(seen == union, format!("{seen} bytes are seen of {union}"))?;
    }
    for _ in 0..2 {
        ok("drop_carried", d.drop_carried(&disk).await)?;
    }
    refused("carry_in of nothing", &d.carry_in(from, &disk).await)?;
    b.role(&disk, Leg::A, LegRole::Live).await?;
    b.stale(&disk, Leg::B).await?;
    ok("resume", b.p.machine.resume(from).await)?;
    resync(b, from, &disk, ResyncStart::Bitmap).await
}

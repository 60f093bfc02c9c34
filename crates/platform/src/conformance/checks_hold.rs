//! Checks of the hold: gates, startup types, restarts.

use super::CheckResult;
use super::bench::{Bench, GuestFixture, expect, ok, refused};
use super::checks_guest::{active, disks, mounted, starts, views};
use crate::{Held, HoldSet};
use flipside_model::MachineId;
use tokio::time::Instant;

fn set(guest: &GuestFixture) -> HoldSet {
    HoldSet {
        units: guest.units.clone(),
        mounts: guest.mounts.clone(),
        quiesce: guest.quiesce.clone(),
    }
}

/// Checks startup type and gate of every controlled service.
async fn gated(b: &Bench<'_>, id: MachineId, guest: &GuestFixture, held: bool) -> CheckResult {
    for view in views(b, id, guest).await? {
        expect(
            view.gated == held,
            format!("{} is gated: {}, not {held}", view.unit, view.gated),
        )?;
    }
    Ok(())
}

/// Holds, and stops everything that is held.
async fn hold(b: &Bench<'_>, id: MachineId, guest: &GuestFixture) -> Result<Held, String> {
    let (g, set, time) = (b.p.guest.clone(), set(guest), b.fixture.patience());
    let held = ok("startup", g.startup(id, &set).await)?;
    let units: Vec<&String> = held.units.iter().map(|u| &u.unit).collect();
    expect(
        units == guest.units.iter().collect::<Vec<_>>(),
        format!("{units:?} were found instead of {:?}", guest.units),
    )?;
    for saved in &held.units {
        expect(
            saved.active && saved.startup.0 == "enabled",
            format!("{saved:?} before the hold"),
        )?;
    }
    for _ in 0..2 {
        ok("hold", g.hold(id, &set, &held).await)?;
        gated(b, id, guest, true).await?;
    }
    for view in views(b, id, guest).await? {
        expect(
            view.startup.0 != "enabled",
            format!("{view:?} under the hold"),
        )?;
    }
    let mut all = guest.units.clone();
    all.extend(held.quiesced.iter().map(|q| q.unit.clone()));
    ok("stop", g.stop(id, &all, time).await)?;
    ok("close_data", g.close_data(id, &disks(b)).await)?;
    let lifted = ok("lifted", g.lifted(id).await)?;
    expect(!lifted, "the gates are lifted at once")?;
    let result = g.start(id, &starts(guest), time).await;
    refused("start behind a gate", &result)?;
    active(b, id, guest, false).await?;
    refused("open_data", &g.open_data(id, &guest.mounts).await)?;
    mounted(b, id, guest, false).await?;
    Ok(held)
}

pub(crate) async fn a_hold_keeps_services_down_until_lifted(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let held = hold(b, id, &guest).await?;
    let (g, set, time) = (b.p.guest.clone(), set(&guest), b.fixture.patience());
    for _ in 0..2 {
        let result = g.prepare_release(id, &set, &held).await;
        ok("prepare_release", result)?;
        gated(b, id, &guest, true).await?;
    }
    for view in views(b, id, &guest).await? {
        expect(
            view.startup.0 == "enabled",
            format!("{view:?} after prepare_release"),
        )?;
    }
    let result = g.start(id, &starts(&guest), time).await;
    refused("start behind a gate", &result)?;
    for lift in [true, true, false, false, true] {
        if lift {
            ok("lift", g.lift(id).await)?;
        } else {
            ok("lower", g.lower(id).await)?;
        }
        let lifted = ok("lifted", g.lifted(id).await)?;
        expect(lifted == lift, format!("lifted is {lifted}, not {lift}"))?;
        gated(b, id, &guest, !lift).await?;
    }
    ok("open_data", g.open_data(id, &guest.mounts).await)?;
    mounted(b, id, &guest, true).await?;
    ok("start", g.start(id, &starts(&guest), time).await)?;
    active(b, id, &guest, true).await?;
    for _ in 0..2 {
        ok("cleanup", g.cleanup(id).await)?;
        gated(b, id, &guest, false).await?;
    }
    active(b, id, &guest, true).await
}

// Design 3.5: quiescing survives a restart of the Upgrade Side, without its data disk.
pub(crate) async fn a_hold_survives_a_restart_of_the_fork(b: &mut Bench<'_>) -> CheckResult {
    let (from, guest) = b.boot().await?;
    let boot = b.answers(from).await?;
    let to = b.fork(from).await?;
    ok("resume", b.p.machine.resume(to).await)?;
    let forked = b.answers(to).await?;
    expect(forked == boot, "the fork has another boot id")?;
    let still = b.answers(from).await?;
    expect(still == boot, "the source restarted in the fork")?;
    hold(b, to, &guest).await?;
    let data = b.data.clone();
    ok("unplug", b.p.disk.unplug(to, &data).await)?;
    ok("restart", b.p.guest.restart(to).await)?;
    let began = Instant::now();
    loop {
        match b.p.guest.ping(to).await {
            Ok(info) if info.boot_id != boot => break,
            _ => b.wait(began, "the restart").await?,
        }
    }
    gated(b, to, &guest, true).await?;
    active(b, to, &guest, false).await?;
    mounted(b, to, &guest, false).await?;
    active(b, from, &guest, true).await?;
    mounted(b, from, &guest, true).await
}

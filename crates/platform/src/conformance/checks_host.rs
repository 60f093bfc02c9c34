//! Checks of the book, the lease, the front door and the host.

use super::CheckResult;
use super::bench::{Bench, LegDamage, expect, ok, refused};
use crate::PortErrorKind;
use flipside_model::Leg;

pub(crate) async fn the_book_refuses_an_old_generation(b: &mut Bench<'_>) -> CheckResult {
    let first = ok("load", b.p.legs.load().await)?;
    let mut changed = first.clone();
    changed.pause_until_ms = Some(1);
    let stored = ok("store", b.p.legs.store(&changed).await)?;
    expect(
        stored.generation == first.generation + 1,
        format!(
            "generation {} follows {}",
            stored.generation, first.generation
        ),
    )?;
    changed.generation = stored.generation;
    expect(changed == stored, "the stored book is another")?;
    let result = b.p.legs.store(&first).await;
    refused("store of an old generation", &result)?;
    let kind = result.err().map(|e| e.kind);
    expect(
        kind == Some(PortErrorKind::Mismatch),
        format!("an old generation is told as {kind:?}, not Mismatch"),
    )?;
    let loaded = ok("load", b.p.legs.load().await)?;
    expect(loaded == stored, "the book is not as stored")
}

pub(crate) async fn the_lease_is_exclusive(b: &mut Bench<'_>) -> CheckResult {
    let second = b.p.legs.lease().await;
    refused("a second lease", &second)?;
    b.lease = None;
    for _ in 0..2 {
        b.lease = Some(ok("lease", b.p.legs.lease().await)?);
        b.lease = None;
    }
    Ok(())
}

pub(crate) async fn the_door_is_held_and_opened(b: &mut Bench<'_>) -> CheckResult {
    let id = b.power_on().await?;
    let n = b.p.network.clone();
    for _ in 0..2 {
        ok("ensure", n.ensure().await)?;
    }
    let view = ok("view", n.view().await)?;
    expect(view.open_to.is_none(), "a new door is open")?;
    let bridge = ok("bridge", n.bridge().await)?;
    let (named, spec) = (bridge.map(|b| b.name), &b.fixture.spec().network);
    expect(
        named.as_deref() == spec.bridge(),
        format!("the bridge {named:?} of the network {spec:?}"),
    )?;
    for _ in 0..2 {
        ok("open", n.open(id).await)?;
        let view = ok("view", n.view().await)?;
        expect(view.open_to == Some(id), format!("it is {view:?}"))?;
    }
    // Adopting it changes nothing.
    ok("ensure", n.ensure().await)?;
    let view = ok("view", n.view().await)?;
    expect(view.open_to == Some(id), "ensure closed the door")?;
    for _ in 0..2 {
        ok("hold", n.hold().await)?;
        let view = ok("view", n.view().await)?;
        expect(view.open_to.is_none(), "the door is open after hold")?;
    }
    let drained = ok("drain", n.drain(100).await)?;
    expect(drained.busy == 0, "nobody was there, yet busy")?;
    ok("cut", n.cut().await)?;
    let held = ok("open", n.open(id).await)?;
    let view = ok("view", n.view().await)?;
    expect(
        view.held_ms == held,
        format!("held for {held} ms, then {} ms", view.held_ms),
    )
}

pub(crate) async fn the_door_can_be_shut_and_made_again(b: &mut Bench<'_>) -> CheckResult {
    let n = b.p.network.clone();
    ok("ensure", n.ensure().await)?;
    for _ in 0..2 {
        ok("shut", n.shut().await)?;
    }
    refused("view of no door", &n.view().await)?;
    ok("ensure", n.ensure().await)?;
    ok("view", n.view().await)?;
    ok("shut", n.shut().await)
}

pub(crate) async fn the_host_answers(b: &mut Bench<'_>) -> CheckResult {
    let facts = ok("facts", b.p.host.facts().await)?;
    expect(
        !facts.hypervisor.is_empty() && facts.memory_available_mib > 0,
        format!("the facts are {facts:?}"),
    )?;
    let wrong = ok("check_legs", b.p.host.check_legs().await)?;
    expect(wrong.is_empty(), format!("{wrong:?} after a reset"))?;
    let now = b.p.clock.now_ms();
    expect(now > 1_500_000_000_000, format!("it is {now}"))
}

// SP-18, fault 22.
pub(crate) async fn a_changed_leg_is_named(b: &mut Bench<'_>) -> CheckResult {
    for disk in [b.system.clone(), b.data.clone()] {
        for (leg, how) in Leg::BOTH
            .into_iter()
            .flat_map(|l| LegDamage::ALL.map(|h| (l, h)))
        {
            b.fixture.change_leg(&disk, leg, Some(how)).await?;
            let found = ok("check_legs", b.p.host.check_legs().await)?;
            let [change] = &found[..] else {
                return Err(format!("{disk} {leg} {how:?}: {found:?}"));
            };
            expect(
                (&change.disk, change.leg) == (&disk, leg),
                format!("{disk} {leg} {how:?} is told as {change:?}"),
            )?;
            let named = [disk.to_string(), format!("Leg {leg}"), "/".to_owned()];
            expect(
                named.iter().all(|part| change.text.contains(part)),
                format!("it does not name disk, leg and path: {}", change.text),
            )?;
            b.fixture.change_leg(&disk, leg, None).await?;
            let left = ok("check_legs", b.p.host.check_legs().await)?;
            expect(left.is_empty(), format!("put back, and yet {left:?}"))?;
        }
    }
    Ok(())
}

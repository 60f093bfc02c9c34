//! Checks of the guest: services, mounts, programs, power.

use super::CheckResult;
use super::bench::{Bench, GuestFixture, NOBODY, expect, ok, refused};
use crate::{ExecOutput, ExecRequest, PortErrorKind, RunState, ServiceView, UnitStart};
use flipside_model::{GuestDevice, HealthCheck, Leg, MachineId};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) fn starts(guest: &GuestFixture) -> Vec<UnitStart> {
    let start = |unit: &String| UnitStart {
        unit: unit.clone(),
        required: true,
    };
    guest.units.iter().map(start).collect()
}

pub(crate) async fn views(
    b: &Bench<'_>,
    id: MachineId,
    guest: &GuestFixture,
) -> Result<Vec<ServiceView>, String> {
    ok("services", b.p.guest.services(id, &guest.units).await)
}

/// Checks that all controlled services run, or that none does.
pub(crate) async fn active(
    b: &Bench<'_>,
    id: MachineId,
    guest: &GuestFixture,
    run: bool,
) -> CheckResult {
    for view in views(b, id, guest).await? {
        expect(
            view.active == run,
            format!("{} is active: {}, not {run}", view.unit, view.active),
        )?;
    }
    Ok(())
}

/// Checks which data file systems are mounted: all or none.
pub(crate) async fn mounted(
    b: &Bench<'_>,
    id: MachineId,
    guest: &GuestFixture,
    all: bool,
) -> CheckResult {
    let data = [b.data.clone()];
    let mounts = ok("mounts", b.p.guest.mounts(id, &data).await)?;
    let is = |target: &String| mounts.iter().any(|m| &m.target == target);
    let as_wanted = guest.mounts.iter().all(|m| is(&m.target) == all);
    expect(
        as_wanted,
        format!("{mounts:?} are mounted, wanted all: {all}"),
    )
}

pub(crate) fn disks(b: &Bench<'_>) -> Vec<String> {
    vec![b.data.as_str().to_owned()]
}

/// Runs a program to its end.
pub(crate) async fn exec(
    b: &Bench<'_>,
    id: MachineId,
    argv: &[&str],
) -> Result<ExecOutput, String> {
    let request = ExecRequest {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: Vec::new(),
        timeout: None,
    };
    let handle = ok("exec_start", b.p.guest.exec_start(id, &request).await)?;
    finish(b, id, handle).await
}

async fn finish(b: &Bench<'_>, id: MachineId, handle: u64) -> Result<ExecOutput, String> {
    let began = Instant::now();
    let mut all = ExecOutput::default();
    loop {
        let next = ok("exec_poll", b.p.guest.exec_poll(id, handle).await)?;
        all.out.extend(next.out);
        all.err.extend(next.err);
        all.exit = next.exit;
        if all.exit.is_some() {
            return Ok(all);
        }
        b.wait(began, "the program to end").await?;
    }
}

pub(crate) async fn the_guest_answers_and_keeps_its_boot_id(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let first = ok("ping", b.p.guest.ping(id).await)?;
    let second = ok("ping", b.p.guest.ping(id).await)?;
    expect(
        first == second && !first.boot_id.is_empty(),
        format!("{first:?}, then {second:?}"),
    )?;
    ok("set_clock", b.p.guest.set_clock(id).await)?;
    ok("sync", b.p.guest.sync(id).await)?;
    let result = b.p.guest.ping(NOBODY).await;
    refused("ping of no machine", &result)
}

pub(crate) async fn services_and_mounts_are_described(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let mut units = guest.units.clone();
    units.push("flipside-no-such.service".to_owned());
    let views = ok("services", b.p.guest.services(id, &units).await)?;
    let names: Vec<&String> = views.iter().map(|v| &v.unit).collect();
    expect(
        names == units.iter().collect::<Vec<_>>(),
        format!("{names:?} were described instead of {units:?}"),
    )?;
    for view in &views[..guest.units.len()] {
        let as_booted = view.exists && view.active && !view.gated;
        expect(
            as_booted && view.startup.0 == "enabled",
            format!("{view:?} after power-on"),
        )?;
    }
    let last = views.last().ok_or("no view")?;
    expect(!last.exists && !last.active, format!("{last:?}"))?;
    // SV-01: all of them, in the order of their names.
    let all = ok("all_services", b.p.guest.all_services(id).await)?;
    for unit in &guest.units {
        let listed = all.iter().find(|s| &s.unit == unit);
        let fine = listed.is_some_and(|s| s.active && s.startup.0 == "enabled");
        expect(fine, format!("{unit} is listed as {listed:?}"))?;
    }
    let sorted = all.is_sorted_by(|a, b| a.unit < b.unit);
    expect(sorted, "the list of all services is not in order")?;
    mounted(b, id, &guest, true).await?;
    let data = b.data.clone();
    let on = |disk: &flipside_model::DiskName| [disk.clone()];
    let mounts = ok("mounts", b.p.guest.mounts(id, &on(&data)).await)?;
    expect(
        mounts.iter().all(|m| m.disk == data),
        format!("{mounts:?} lie on other than {data}"),
    )?;
    ok("open_files", b.p.guest.open_files(id, &guest.units).await)?;
    let has = ok("has_disk", b.p.guest.has_disk(id, data.as_str()).await)?;
    expect(has, "the guest does not see its data disk")
}

// DK-01, DK-16: every disk by its serial number and with its size, and on which of them a file system lies.
pub(crate) async fn disks_and_volumes_are_described(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let found = ok("inventory", b.p.guest.inventory(id).await)?;
    for disk in &b.fixture.spec().disks {
        let serial = |d: &&GuestDevice| d.serial.as_deref() == Some(disk.name.as_str());
        let device = found.devices.iter().find(serial);
        let device = device.ok_or_else(|| format!("{} is not in {found:?}", disk.name))?;
        expect(
            device.size == disk.size && device.below.is_empty(),
            format!("{device:?} is not {disk:?}"),
        )?;
    }
    let data = b.data.as_str();
    let mut wanted = vec![("/", b.system.as_str())];
    wanted.extend(guest.mounts.iter().map(|m| (m.target.as_str(), data)));
    for (target, disk) in wanted {
        let mount = found.mounts.iter().rfind(|m| m.target == target);
        let device = mount.and_then(|m| m.device.as_deref());
        let device = device.ok_or_else(|| format!("{target} has no device: {mount:?}"))?;
        let under = found.disks_under(device);
        let serials: Vec<&str> = under.iter().filter_map(|d| d.serial.as_deref()).collect();
        expect(
            serials == [disk],
            format!("{target} lies on {serials:?}, not on {disk}"),
        )?;
        let format = found.device(device).and_then(|d| d.format.as_deref());
        expect(format.is_some(), format!("{device} holds nothing known"))?;
    }
    let again = ok("inventory", b.p.guest.inventory(id).await)?;
    expect(
        found.devices == again.devices,
        "two looks at the same differ",
    )
}

pub(crate) async fn data_is_closed_and_opened_again(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let (g, data, time) = (b.p.guest.clone(), disks(b), b.fixture.patience());
    // Pitfall 16: nothing is closed that is in use.
    let result = g.close_data(id, &data).await;
    refused("close_data under running services", &result)?;
    let kind = result.err().map(|e| e.kind);
    expect(
        kind == Some(PortErrorKind::InUse),
        format!("busy data is told as {kind:?}, not InUse"),
    )?;
    for _ in 0..2 {
        ok("stop", g.stop(id, &guest.units, time).await)?;
        active(b, id, &guest, false).await?;
    }
    for _ in 0..2 {
        ok("close_data", g.close_data(id, &data).await)?;
        mounted(b, id, &guest, false).await?;
    }
    for _ in 0..2 {
        ok("open_data", g.open_data(id, &guest.mounts).await)?;
        mounted(b, id, &guest, true).await?;
    }
    let starts = starts(&guest);
    for _ in 0..2 {
        ok("start", g.start(id, &starts, time).await)?;
        active(b, id, &guest, true).await?;
    }
    let start = |required| UnitStart {
        unit: "flipside-no-such.service".to_owned(),
        required,
    };
    let result = g.start(id, &[start(true)], time).await;
    refused("start of a required unit that is not there", &result)?;
    ok(
        "start of an optional one",
        g.start(id, &[start(false)], time).await,
    )
}

pub(crate) async fn a_data_disk_leaves_and_returns(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let (g, data, time) = (b.p.guest.clone(), b.data.clone(), b.fixture.patience());
    ok("stop", g.stop(id, &guest.units, time).await)?;
    ok("close_data", g.close_data(id, &disks(b)).await)?;
    ok("sync", g.sync(id).await)?;
    ok("unplug", b.p.disk.unplug(id, &data).await)?;
    let began = Instant::now();
    while ok("has_disk", g.has_disk(id, data.as_str()).await)? {
        b.wait(began, "the guest to lose the disk").await?;
    }
    refused("open_data", &g.open_data(id, &guest.mounts).await)?;
    let both = [Leg::A, Leg::B];
    ok("plug", b.p.disk.plug(id, &data, &both).await)?;
    let began = Instant::now();
    while !ok("has_disk", g.has_disk(id, data.as_str()).await)? {
        b.wait(began, "the guest to see the disk").await?;
    }
    ok("open_data", g.open_data(id, &guest.mounts).await)?;
    mounted(b, id, &guest, true).await?;
    ok("start", g.start(id, &starts(&guest), time).await)?;
    active(b, id, &guest, true).await
}

pub(crate) async fn programs_run(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let echo = exec(b, id, &["/bin/echo", "a b", "$HOME"]).await?;
    expect(
        echo.out == b"a b $HOME\n" && echo.exit == Some(0),
        format!("echo gave {echo:?}"),
    )?;
    let no = exec(b, id, &["/bin/false"]).await?;
    expect(no.exit == Some(1), format!("false gave {no:?}"))?;
    let request = ExecRequest {
        argv: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
        env: Vec::new(),
        timeout: None,
    };
    let handle = ok("exec_start", b.p.guest.exec_start(id, &request).await)?;
    let first = ok("exec_poll", b.p.guest.exec_poll(id, handle).await)?;
    expect(first.exit.is_none(), format!("sleep gave {first:?}"))?;
    ok("exec_kill", b.p.guest.exec_kill(id, handle).await)?;
    let killed = finish(b, id, handle).await?;
    expect(
        killed.exit.is_some_and(|e| e > 128),
        format!("a killed program gave {killed:?}"),
    )?;
    let request = ExecRequest {
        argv: vec!["/no/such/program".to_owned()],
        env: Vec::new(),
        timeout: None,
    };
    match b.p.guest.exec_start(id, &request).await {
        Err(_) => Ok(()),
        Ok(handle) => {
            let output = finish(b, id, handle).await?;
            let told = output.exit.is_some_and(|e| e != 0);
            expect(told, format!("a missing program gave {output:?}"))
        }
    }
}

pub(crate) async fn files_are_written(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let path = "/var/tmp/flipside-conformance";
    let g = b.p.guest.clone();
    for _ in 0..2 {
        ok("write", g.write_file(id, path, 0, b"hello ").await)?;
        ok("append", g.write_file(id, path, 6, b"world\n").await)?;
        let read = exec(b, id, &["/bin/cat", path]).await?;
        expect(read.out == b"hello world\n", format!("it holds {read:?}"))?;
    }
    Ok(())
}

pub(crate) async fn health_is_checked(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let check = |program: &str| HealthCheck {
        command: vec![program.to_owned()],
    };
    let g = b.p.guest.clone();
    ok("no checks", g.healthy(id, &[]).await)?;
    ok("true", g.healthy(id, &[check("/bin/true")]).await)?;
    let checks = [check("/bin/true"), check("/bin/false")];
    refused("false", &g.healthy(id, &checks).await)
}

pub(crate) async fn a_paused_guest_is_silent(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let before = b.answers(id).await?;
    ok("pause", b.p.machine.pause(id).await)?;
    let began = Instant::now();
    let result = b.p.guest.ping(id).await;
    let took = began.elapsed();
    refused("ping of a paused guest", &result)?;
    expect(
        took <= Duration::from_secs(10),
        format!("it took {took:?} to say so"),
    )?;
    ok("resume", b.p.machine.resume(id).await)?;
    let after = b.answers(id).await?;
    expect(before == after, "the guest restarted in a pause")
}

pub(crate) async fn the_guest_shuts_down(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    ok("shut_down", b.p.guest.shut_down(id).await)?;
    let began = Instant::now();
    while b.see(id).await?.run != RunState::Shutdown {
        b.wait(began, "the guest to shut down").await?;
    }
    refused("resume", &b.p.machine.resume(id).await)?;
    ok("end", b.p.machine.end(id).await)?;
    b.is(id, RunState::Absent).await
}

pub(crate) async fn the_power_button_is_heard(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    ok("power_down", b.p.machine.power_down(id).await)?;
    let began = Instant::now();
    while b.see(id).await?.run != RunState::Shutdown {
        b.wait(began, "the guest to shut down").await?;
    }
    // The process is kept, and can be used again.
    ok("reset", b.p.machine.reset(id).await)?;
    b.is(id, RunState::Running).await
}

pub(crate) async fn the_guest_tells_its_surroundings(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let mac = b.fixture.spec().mac;
    let around = ok("surroundings", b.p.guest.surroundings(id).await)?;
    let ours = around.cards.iter().find(|c| c.mac == mac && c.physical);
    let Some(card) = ours else {
        return Err(format!(
            "the production card {mac} is not one of {:?}",
            around.cards
        ));
    };
    // Whatever comes of it, the card keeps its addresses (RC-53).
    ok("renew_lease", b.p.guest.renew_lease(id, &card.name).await)?;
    let after = ok("surroundings", b.p.guest.surroundings(id).await)?;
    let kept = after.cards.iter().find(|c| c.name == card.name);
    let kept = kept.is_some_and(|after| card.addresses.iter().all(|a| after.addresses.contains(a)));
    expect(kept, format!("addresses were lost: {:?}", after.cards))?;
    let bad = b.p.guest.renew_lease(id, "-x; reboot").await;
    refused("a card with a name that is none", &bad)?;
    let nobody = b.p.guest.surroundings(NOBODY).await;
    refused("the surroundings of a machine that is not there", &nobody)?;
    let answers = b.p.network.answers(id).await;
    let has_ssh = around.logins.iter().any(|unit| unit.starts_with("ssh"));
    expect(
        ok("answers", answers)? == has_ssh,
        format!("somebody answers on the private path: not {has_ssh}"),
    )
}

//! Checks of what surrounds a machine, and of what the Upgrade Side is asked for.

use super::CheckResult;
use super::bench::{Bench, NOBODY, expect, ok, refused};
use super::checks_guest::exec;
use crate::{Medium, Notice, PortErrorKind};
use flipside_model::KeySequence;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

// SP-07, US-09, US-23, PS-04.
pub(crate) async fn a_machine_has_a_private_address_signs_and_keys(
    b: &mut Bench<'_>,
) -> CheckResult {
    let side = b.p.side.clone();
    refused("access to nobody", &side.access(NOBODY).await)?;
    refused("signs of nobody", &side.signs(NOBODY).await)?;
    let id = b.power_on().await?;
    let address = ok("access", side.access(id).await)?;
    expect(
        address.ip().is_loopback() && address.port() != 0,
        format!("the private way is {address}"),
    )?;
    let before = ok("signs", side.signs(id).await)?;
    let printed = ok("printed", side.printed(id, 0, 1 << 20).await)?;
    let after = ok("signs", side.signs(id).await)?;
    expect(
        after.resets == before.resets && after.printed >= printed.len() as u64,
        format!("{before:?}, then {after:?}, with {} printed", printed.len()),
    )?;
    let rest = ok("printed", side.printed(id, u64::MAX, 100).await)?;
    expect(rest.is_empty(), "something was printed after the end")?;
    ok("reset", b.p.machine.reset(id).await)?;
    let began = Instant::now();
    while ok("signs", side.signs(id).await)?.resets <= after.resets {
        b.wait(began, "the reset to be seen").await?;
    }
    for keys in KeySequence::ALL {
        ok("send_keys", side.send_keys(id, keys).await)?;
    }
    refused(
        "keys of nobody",
        &side.send_keys(NOBODY, KeySequence::Enter).await,
    )
}

pub(crate) async fn the_console_is_for_one_at_a_time(b: &mut Bench<'_>) -> CheckResult {
    let side = b.p.side.clone();
    refused("the console of nobody", &side.console(NOBODY).await)?;
    let id = b.power_on().await?;
    for _ in 0..2 {
        let first = ok("console", side.console(id).await)?;
        let second = side.console(id).await.map(drop);
        expect(
            second.as_ref().err().map(|e| e.kind) == Some(PortErrorKind::InUse),
            format!("the second console: {second:?}"),
        )?;
        drop(first);
    }
    Ok(())
}

pub(crate) async fn a_medium_is_inserted_and_ejected(b: &mut Bench<'_>) -> CheckResult {
    let side = b.p.side.clone();
    let image = b.fixture.image().await?;
    let id = b.power_on().await?;
    ok("check_image", side.check_image(&image).await)?;
    for wrong in ["/", "/nowhere/x", "relative"] {
        let wrong = Path::new(wrong);
        refused("a wrong image", &side.check_image(wrong).await)?;
        refused("insert", &side.insert(id, wrong).await)?;
    }
    let there = Medium {
        image: Some(image.clone()),
        locked: false,
    };
    for want in [there.clone(), there, Medium::default(), Medium::default()] {
        if want.image.is_some() {
            ok("insert", side.insert(id, &image).await)?;
        } else {
            ok("eject", side.eject(id, false).await)?;
        }
        let seen = ok("medium", side.medium(id).await)?;
        expect(
            seen == want,
            format!("the drive has {seen:?}, not {want:?}"),
        )?;
        // A medium is no disk of the machine.
        b.backed(id, &b.data.clone(), Some(b.both())).await?;
    }
    Ok(())
}

// AB-12.
pub(crate) async fn dump_files_are_numbered_and_kept(b: &mut Bench<'_>) -> CheckResult {
    let side = b.p.side.clone();
    expect(
        ok("dumps", side.dumps().await)?.is_empty(),
        "dumps after a reset",
    )?;
    let id = b.power_on().await?;
    ok("pause", b.p.machine.pause(id).await)?;
    for number in 1..3 {
        let dump = ok("dump_memory", side.dump_memory(id).await)?;
        expect(
            dump.name == format!("Memory{number}.dmp") && dump.bytes > 0,
            format!("dump {number} is {dump:?}"),
        )?;
    }
    ok("part", side.dump_part(0, b"one ").await)?;
    ok("part", side.dump_part(4, b"two").await)?;
    let kept = ok("keep", side.dump_keep(Some("/var/crash/x.core")).await)?;
    expect(
        (kept.name.as_str(), kept.bytes) == ("Crash1-x.core", 7),
        format!("the kept file is {kept:?}"),
    )?;
    refused("keep of nothing", &side.dump_keep(None).await)?;
    let all = ok("dumps", side.dumps().await)?;
    expect(all.len() == 3, format!("{all:?}"))?;
    refused("memory of nobody", &side.dump_memory(NOBODY).await)
}

// US-13, US-31, VC-06, VC-07, VC-08.
pub(crate) async fn the_guest_tells_its_condition(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let g = b.p.guest.clone();
    let condition = ok("condition", g.condition(id).await)?;
    expect(
        !condition.system.is_empty() && !condition.kernel.is_empty(),
        format!("the condition is {condition:?}"),
    )?;
    let stamp = ok("software_stamp", g.software_stamp(id).await)?;
    let again = ok("software_stamp", g.software_stamp(id).await)?;
    expect(
        !stamp.is_empty() && stamp == again,
        format!("{stamp}, {again}"),
    )?;
    ok("host_keys", g.host_keys(id).await)?;
    let notice = Notice {
        log: "one\ntwo\n".to_owned(),
        help: "do not shut down".to_owned(),
    };
    for _ in 0..2 {
        ok("publish", g.publish(id, &notice).await)?;
    }
    ok("cleanup", g.cleanup(id).await)?;
    ok("verify_packages", g.verify_packages(id).await).map(drop)
}

// AB-11.
pub(crate) async fn what_crashes_left_is_read(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    let g = b.p.guest.clone();
    let path = "/var/crash/flipside-vmcore";
    let known = ok(
        "crash_files",
        g.crash_files(id, Duration::from_secs(600)).await,
    )?;
    expect(known.is_empty(), format!("crashes before any: {known:?}"))?;
    // The folder belongs to whoever catches crashes; where nobody does it is not there yet.
    exec(b, id, &["/bin/mkdir", "-p", "/var/crash"]).await?;
    ok("write", g.write_file(id, path, 0, b"0123456789").await)?;
    let found = ok(
        "crash_files",
        g.crash_files(id, Duration::from_secs(600)).await,
    )?;
    expect(
        found.len() == 1 && found[0].path == path && found[0].bytes == 10,
        format!("{found:?}"),
    )?;
    for (offset, most, want) in [(0, 4, "0123"), (8, 4, "89"), (10, 4, "")] {
        let read = ok("read_file", g.read_file(id, path, offset, most).await)?;
        expect(read == want.as_bytes(), format!("at {offset}: {read:?}"))?;
    }
    refused("no file", &g.read_file(id, "/nowhere", 0, 1).await)
}

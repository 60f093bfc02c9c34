//! Checks of what custom actions and log backup need, in the guest and on the host.

use super::CheckResult;
use super::bench::{Bench, expect, ok, refused};
use crate::{ActionRequest, ExecOutput, LogRequest, PortErrorKind};
use flipside_model::{FileKind, LogSelection, MachineId};
use std::time::Duration;
use tokio::time::Instant;

/// A number that no other check of the same run uses.
fn request(handle: u64, argv: &[&str]) -> ActionRequest {
    ActionRequest {
        handle: 0x00ac_7000_0000 + handle,
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![
            ("ACTIVE_UPGRADE_SIDE".to_owned(), "Upgrade".to_owned()),
            (
                "FLIPSIDE_ACTION".to_owned(),
                (0x00ac_7000_0000 + handle).to_string(),
            ),
        ],
        keep: 4096,
    }
}

/// Where an action runs.
#[derive(Clone, Copy)]
enum At {
    Guest(MachineId),
    Host,
}

async fn start(b: &Bench<'_>, at: At, request: &ActionRequest) -> CheckResult {
    let started = match at {
        At::Guest(id) => b.p.guest.action_start(id, request).await,
        At::Host => b.p.host.action_start(request).await,
    };
    ok("action_start", started)
}

async fn poll(b: &Bench<'_>, at: At, handle: u64) -> crate::PortResult<ExecOutput> {
    match at {
        At::Guest(id) => b.p.guest.exec_poll(id, handle).await,
        At::Host => b.p.host.action_poll(handle).await,
    }
}

async fn end(b: &Bench<'_>, at: At, handle: u64) -> Result<ExecOutput, String> {
    let began = Instant::now();
    let mut all = ExecOutput::default();
    loop {
        let next = ok("poll", poll(b, at, handle).await)?;
        all.out.extend(next.out);
        all.err.extend(next.err);
        all.exit = next.exit;
        if all.exit.is_some() {
            return Ok(all);
        }
        b.wait(began, "the action to end").await?;
    }
}

/// What an action prints and how it ends is told; one that runs is ended; one that never was is Absent.
async fn actions_at(b: &Bench<'_>, at: At, first: u64) -> CheckResult {
    let echo = request(first, &["/bin/echo", "a b", "$HOME"]);
    start(b, at, &echo).await?;
    let ended = end(b, at, echo.handle).await?;
    expect(
        ended.out == b"a b $HOME\n" && ended.exit == Some(0),
        format!("echo gave {ended:?}"),
    )?;
    let env = request(first + 1, &["/usr/bin/env"]);
    start(b, at, &env).await?;
    let ended = end(b, at, env.handle).await?;
    let said = String::from_utf8_lossy(&ended.out).into_owned();
    expect(
        said.lines().any(|l| l == "ACTIVE_UPGRADE_SIDE=Upgrade"),
        format!("its environment is {said}"),
    )?;
    let sleep = request(first + 2, &["/bin/sleep", "1000"]);
    // Twice is once.
    for _ in 0..2 {
        start(b, at, &sleep).await?;
    }
    let first_look = ok("poll", poll(b, at, sleep.handle).await)?;
    expect(
        first_look.exit.is_none(),
        format!("sleep gave {first_look:?}"),
    )?;
    let killed = match at {
        At::Guest(id) => b.p.guest.action_kill(id, sleep.handle).await,
        At::Host => b.p.host.action_kill(sleep.handle).await,
    };
    ok("action_kill", killed)?;
    let ended = end(b, at, sleep.handle).await?;
    expect(
        ended.exit.is_some_and(|e| e > 128),
        format!("an action that was ended gave {ended:?}"),
    )?;
    let never = poll(b, at, 0x00ac_6fff_ffff).await;
    refused("poll of an action that never was", &never)?;
    let kind = never.err().map(|e| e.kind);
    expect(
        kind == Some(PortErrorKind::Absent),
        format!("an action that never was is told as {kind:?}, not Absent"),
    )
}

pub(crate) async fn actions_run_in_the_guest(b: &mut Bench<'_>) -> CheckResult {
    let (id, _) = b.boot().await?;
    actions_at(b, At::Guest(id), 0).await
}

pub(crate) async fn actions_run_on_the_host(b: &mut Bench<'_>) -> CheckResult {
    actions_at(b, At::Host, 100).await?;
    let paths = ["/bin/true", "/no/such/file"].map(str::to_owned);
    let views = ok("look_at", b.p.host.look_at(&paths).await)?;
    expect(
        views.len() == 2 && views[0].executable && views[1].kind == FileKind::Missing,
        format!("{views:?}"),
    )
}

pub(crate) async fn files_are_described(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let mount = guest
        .mounts
        .first()
        .ok_or("the fixture has no data mount")?;
    let paths = ["/bin/true", "/no/such/file", mount.target.as_str()].map(str::to_owned);
    let views = ok("look_at", b.p.guest.look_at(id, &paths).await)?;
    let [program, missing, directory] = &views[..] else {
        return Err(format!("{views:?} describe {paths:?}"));
    };
    let system = b.system.as_str();
    expect(
        program.kind == FileKind::Regular
            && program.executable
            && program.sha256.len() == 64
            && program.disk == system
            && program.flaw.is_none(),
        format!("{program:?}"),
    )?;
    expect(missing.kind == FileKind::Missing, format!("{missing:?}"))?;
    expect(
        directory.kind == FileKind::Directory
            && directory.writable
            && directory.disk == mount.disk.as_str(),
        format!("{directory:?}"),
    )
}

pub(crate) async fn logs_are_saved(b: &mut Bench<'_>) -> CheckResult {
    let (id, guest) = b.boot().await?;
    let mount = guest
        .mounts
        .first()
        .ok_or("the fixture has no data mount")?;
    let sources = ok("log_sources", b.p.guest.log_sources(id).await)?;
    expect(
        sources
            .iter()
            .any(|s| s.log == LogSelection::SystemJournal && s.bytes > 0),
        format!("no system journal among {sources:?}"),
    )?;
    let mut request = LogRequest {
        target: format!("{}/flipside-logs", mount.target),
        directory: mount.target.clone(),
        logs: vec![
            LogSelection::SystemJournal,
            LogSelection::Path("/var/log/no-such-log".to_owned()),
        ],
        limit: Duration::from_secs(60),
    };
    for marked in [false, true] {
        if marked {
            ok("mark_logs", b.p.guest.mark_logs(id).await)?;
        }
        let copies = ok("back_up_logs", b.p.guest.back_up_logs(id, &request).await)?;
        let names: Vec<&LogSelection> = copies.iter().map(|c| &c.log).collect();
        expect(
            names == request.logs.iter().collect::<Vec<_>>(),
            format!("{copies:?} answer {:?}", request.logs),
        )?;
        expect(
            copies[0].failure.is_none() && copies[0].files > 0,
            format!("the journal: {:?}", copies[0]),
        )?;
        expect(copies[1].failure.is_some(), format!("{:?}", copies[1]))?;
    }
    request.directory = "/no/such/directory".to_owned();
    request.target = "/no/such/directory/x".to_owned();
    let result = b.p.guest.back_up_logs(id, &request).await;
    refused("a log backup into a directory that is not there", &result)
}

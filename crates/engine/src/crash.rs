//! What a crash of the Upgrade Side is answered with: its memory is saved and it is reset (PS-14, PS-15); at an abort the
//! files that crashes left in it are collected before its disk is written over (AB-11, AB-12, PS-17).
//!
//! Nothing here may stand in anybody's way: what cannot be saved costs a warning, and users never wait for it.

use crate::context::Cx;
use crate::monitor::Monitor;
use crate::partner::Recovery;
use flipside_model::{
    Dump, Fact, MachineId, OperationalState, Problem, Record, Severity, Side, UpgradeState,
};
use flipside_platform::{CrashFile, RunState};
use std::time::Duration;
use tracing::warn;

/// So many crashes in a row are answered by a reset; a guest that never comes up any more is left as it is, to be looked at.
const RESETS: u32 = 3;

/// What the console printed last, for the log: the kernel's words at a panic fill about a screen.
const TAIL: usize = 4 << 10;

/// How long files are collected at an abort. Nobody is served by them, and the resynchronisation waits.
const COLLECT: Duration = Duration::from_secs(120);

/// The largest crash file that is taken: the memory of a guest is compressed by whoever writes it inside.
const LARGEST: u64 = 4 << 30;

/// Bytes asked for at a time.
const PIECE: usize = 4 << 20;

impl Monitor {
    /// Answers crashes of the partner, until the task is dropped.
    pub(crate) async fn recover_crashes(&self, cx: &Cx) {
        loop {
            self.crash().await;
            let Some(machine) = crashed(cx).await else {
                continue;
            };
            let crashes = self.seen().watch.crashes + 1;
            self.update(|seen| seen.watch.crashes = crashes);
            if crashes > RESETS {
                continue;
            }
            if let Err(problem) = self.recover(cx, machine).await {
                warn!(%problem, "the crashed Upgrade Side could not be recovered");
            }
            self.update(|seen| seen.watch.recovery = None);
        }
    }

    async fn recover(&self, cx: &Cx, machine: MachineId) -> Result<(), Problem> {
        self.update(|seen| seen.watch.recovery = Some(Recovery::Dump));
        cx.ledger.write(Record::Log {
            severity: Severity::Warning,
            text: "the operating system of the Upgrade Side has crashed; its memory is saved, then it is reset".to_owned(),
            detail: console_tail(cx, machine).await,
            component: Some(Side::Upgrade.to_string()),
            advice: Some("users are not affected; `flipside dumps` lists what was saved".to_owned()),
        })?;
        save_memory(cx, machine).await?;
        // An operation may have begun meanwhile, which knows better what becomes of this machine.
        let held = cx.exclusive().await?;
        if crashed(cx).await == Some(machine) {
            self.update(|seen| seen.watch.recovery = Some(Recovery::Reset));
            cx.ports.machine.reset(machine).await?;
        }
        drop(held);
        Ok(())
    }
}

/// Returns the Upgrade Side's machine if it has crashed in Split and no operation is about to deal with it.
async fn crashed(cx: &Cx) -> Option<MachineId> {
    let state = cx.state();
    let split = state.facts.divided
        && matches!(
            state.upgrade,
            UpgradeState::Split | UpgradeState::PrepareMerge
        )
        && state.operational != OperationalState::Busy;
    let machine = state.facts.upgrade.filter(|_| split)?;
    let view = cx.view(machine).await.ok()?;
    (view.run == RunState::Panicked).then_some(machine)
}

/// What a machine's serial console printed last.
pub(crate) async fn console_tail(cx: &Cx, machine: MachineId) -> Option<String> {
    let said = cx.ports.side.printed(machine, 0, TAIL).await.ok()?;
    let text = String::from_utf8_lossy(&said).replace('\r', "");
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

async fn save_memory(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    match cx.ports.side.dump_memory(machine).await {
        Ok(dump) => saved(cx, &dump, "the memory of the Upgrade Side"),
        Err(error) => not_saved(cx, error.into()),
    }
}

fn saved(cx: &Cx, dump: &Dump, what: &str) -> Result<(), Problem> {
    let text = format!("{what} was saved as `{}`", dump.path.display());
    cx.ledger.log(Severity::Information, text).map(|_| ())
}

/// AB-12: a failed copy is logged and blocks nothing.
fn not_saved(cx: &Cx, problem: Problem) -> Result<(), Problem> {
    cx.ledger
        .write_reserved(Record::problem(Severity::Warning, &problem))
        .map(|_| ())
}

/// Collects at an abort what crashes left, while the Upgrade Side's disk still holds it. Fails only when the journal does.
pub(crate) async fn collect(cx: &Cx) -> Result<(), Problem> {
    let Some(machine) = cx.facts().upgrade else {
        return Ok(());
    };
    if !cx.facts().divided || users_wait(cx).await {
        return Ok(());
    }
    let limit = cx.remaining(COLLECT);
    match tokio::time::timeout(limit, collect_from(cx, machine)).await {
        Ok(done) => done,
        Err(_) => not_saved(
            cx,
            Problem::new(
                flipside_model::ProblemCode::TimedOut,
                format!(
                    "the dump files of the Upgrade Side were not collected within {} s; the abort goes on",
                    limit.as_secs()
                ),
            ),
        ),
    }
}

/// Says whether nobody serves the users at this moment: then everything else waits.
async fn users_wait(cx: &Cx) -> bool {
    let owner = cx.book().await.ok().and_then(|book| book.owner);
    let upgrade = cx.facts().upgrade;
    let Some(owner) = owner.filter(|owner| Some(*owner) != upgrade) else {
        return true;
    };
    cx.view(owner)
        .await
        .map_or(true, |view| view.run != RunState::Running)
}

async fn collect_from(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    match cx.view(machine).await {
        Ok(view) if view.run == RunState::Panicked => save_memory(cx, machine).await,
        Ok(view) if view.run == RunState::Running => collect_files(cx, machine).await,
        _ => Ok(()),
    }
}

async fn collect_files(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    // A guest that does not answer has nothing to give; that it does not is in the log already.
    if cx.ports.guest.ping(machine).await.is_err() {
        return Ok(());
    }
    let files = match cx.ports.guest.crash_files(machine, since_split(cx)).await {
        Ok(files) => files,
        Err(error) => return not_saved(cx, error.into()),
    };
    for file in files {
        match copy(cx, machine, &file).await {
            Ok(dump) => saved(cx, &dump, &format!("`{}` of the Upgrade Side", file.path))?,
            Err(problem) => not_saved(cx, problem)?,
        }
    }
    Ok(())
}

/// How long ago the system was divided: what is older lies on the Production Side's disk too.
fn since_split(cx: &Cx) -> Duration {
    let entries = cx.ledger.entries_after(0);
    let divided = entries.iter().rev().find_map(|entry| match entry.record {
        Record::Fact(Fact::Divided(true)) => Some(entry.at_ms),
        _ => None,
    });
    let ago = divided.map_or(0, |at| cx.ports.clock.now_ms() - at);
    Duration::from_millis(u64::try_from(ago).unwrap_or(0))
}

async fn copy(cx: &Cx, machine: MachineId, file: &CrashFile) -> Result<Dump, Problem> {
    if file.bytes > LARGEST {
        return Err(Problem::new(
            flipside_model::ProblemCode::NoSpace,
            format!("`{}` is too large to be collected", file.path),
        ));
    }
    let (guest, side) = (&cx.ports.guest, &cx.ports.side);
    let mut offset = 0;
    loop {
        let piece = guest.read_file(machine, &file.path, offset, PIECE).await?;
        if !piece.is_empty() || offset == 0 {
            side.dump_part(offset, &piece).await?;
        }
        offset += piece.len() as u64;
        if piece.is_empty() || offset >= file.bytes {
            break;
        }
    }
    let name = (!file.memory).then_some(file.path.as_str());
    Ok(side.dump_keep(name).await?)
}

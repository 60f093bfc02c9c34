//! The programs of custom actions: there, fit to run, and the ones that were recorded in PrepareSplit (RC-33, fault 60).

use crate::context::{Cx, Halt, Step};
use flipside_model::{
    ActionPlace, ActionRun, Fact, FileView, PinnedFile, Problem, ProblemCode, Severity, Side,
    UpgradeConfig, UpgradeState, planted,
};
use flipside_platform::RunState;
use flipside_session::actions::files;
use std::collections::BTreeSet;

/// Where files lie: on a side's disk, or on the host when there is no side.
const PLACES: [Option<Side>; 3] = [Some(Side::Production), Some(Side::Upgrade), None];

fn paths(config: &UpgradeConfig, side: Option<Side>) -> Vec<String> {
    let all = config.actions.iter().flat_map(|a| files(a, side));
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Describes files of a side, or of the host.
pub(crate) async fn look(
    cx: &Cx,
    side: Option<Side>,
    paths: &[String],
) -> Result<Vec<FileView>, Problem> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let views = match side {
        None => cx.ports.host.look_at(paths).await?,
        Some(side) => cx.ports.guest.look_at(cx.machine(side)?, paths).await?,
    };
    if views.len() != paths.len() {
        return Err(Problem::new(
            ProblemCode::Failed,
            "the files of the custom actions were not all described",
        ));
    }
    Ok(views)
}

fn side_of(run: &ActionRun) -> Option<Side> {
    (run.place == ActionPlace::Guest).then_some(run.context.side)
}

/// Refuses a program that is not there, cannot run, or is not the one that was recorded.
pub(super) async fn refuse_changed(cx: &Cx, run: &ActionRun) -> Result<(), Problem> {
    let side = side_of(run);
    let views = look(cx, side, &run.argv[..1]).await?;
    refuse(cx, side, &views)
}

fn refuse(cx: &Cx, side: Option<Side>, views: &[FileView]) -> Result<(), Problem> {
    for view in views {
        if let Some(problem) = super::refusal(view) {
            return Err(problem);
        }
        if changed(cx, side, view) && !planted::is("changed-action-run") {
            let place = side.map_or("host".to_owned(), |side| side.to_string());
            let text = format!(
                "`{}` on the {place} is not the file that was recorded in Prepare Split: it is not run",
                view.path
            );
            return Err(Problem::new(ProblemCode::Mismatch, text)
                .about(view.path.clone())
                .advise(
                    "put it back; or, if you changed it on purpose, `flipside actions accept`; then `flipside retry`",
                ));
        }
    }
    Ok(())
}

/// Says whether a file differs from the one that was recorded; outside a session none is recorded.
fn changed(cx: &Cx, side: Option<Side>, view: &FileView) -> bool {
    let state = cx.state();
    if state.upgrade == UpgradeState::Idle {
        return false;
    }
    let mut pins = state.facts.pinned.iter();
    pins.find(|p| p.side == side && p.path == view.path)
        .is_some_and(|pin| pin.sha256 != view.sha256)
}

fn pins(side: Option<Side>, views: &[FileView]) -> Vec<PinnedFile> {
    let pin = |view: &FileView| PinnedFile {
        side,
        path: view.path.clone(),
        sha256: view.sha256.clone(),
    };
    views.iter().map(pin).collect()
}

/// Records what the files are, before the split. At the fork both sides' system disks are the same, so the Upgrade
/// Side's files are read on the Production Side.
pub(crate) async fn pin(cx: &Cx) -> Step {
    let config = cx.settings();
    let mut all = Vec::new();
    for side in PLACES {
        let from = side.map(|_| Side::Production);
        let views = look(cx, from, &paths(&config, side)).await?;
        if let Some(problem) = views.iter().find_map(super::refusal) {
            return Err(Halt::Failed(problem));
        }
        all.extend(pins(side, &views));
    }
    cx.ledger.fact(Fact::Pinned(all))?;
    Ok(())
}

/// Before a merge: every file is on its side, and the one that was recorded (gap G.2.27).
pub(crate) async fn check_files(cx: &Cx) -> Step {
    let config = cx.settings();
    for side in PLACES {
        let views = look(cx, side, &paths(&config, side)).await?;
        refuse(cx, side, &views)?;
    }
    Ok(())
}

/// Records changed files anew, because the administrator says that they are meant; returns what was changed.
pub(crate) async fn accept(cx: &Cx) -> Result<Vec<PinnedFile>, Problem> {
    let config = cx.settings();
    let mut accepted = Vec::new();
    for side in PLACES {
        let wanted = paths(&config, side);
        if wanted.is_empty() {
            continue;
        }
        if let Some(side) = side
            && cx.view_of(side).await?.run != RunState::Running
        {
            cx.ledger.log(
                Severity::Information,
                format!("the {side} does not run: its files were not looked at"),
            )?;
            continue;
        }
        let mut views = look(cx, side, &wanted).await?;
        views.retain(|view| changed(cx, side, view));
        if let Some(problem) = views.iter().find_map(super::refusal) {
            return Err(problem);
        }
        accepted.extend(pins(side, &views));
    }
    if !accepted.is_empty() {
        cx.ledger.fact(Fact::Pinned(accepted.clone()))?;
    }
    Ok(accepted)
}

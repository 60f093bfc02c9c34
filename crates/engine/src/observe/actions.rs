//! What readiness asks about custom actions and log backup.

use super::Guest;
use crate::context::Cx;
use flipside_model::{ActionPlace, DiskName, FileKind, LogSelection, Side, UpgradeConfig};
use flipside_session::actions::files;
use flipside_session::readiness::{ActionFile, Asked, LogsSeen, Prepared};
use std::collections::BTreeSet;

pub(super) async fn prepared(
    cx: &Cx,
    guest: &Guest,
    config: &UpgradeConfig,
    data: &[DiskName],
) -> Prepared {
    Prepared {
        files: action_files(cx, guest, config).await,
        logs: logs(cx, guest, config).await,
        data: data.to_vec(),
    }
}

async fn action_files(cx: &Cx, guest: &Guest, config: &UpgradeConfig) -> Asked<Vec<ActionFile>> {
    // Both sides' files lie on the Production Side's disk now.
    let sides = [Some(Side::Production), Some(Side::Upgrade)];
    let of = |side| config.actions.iter().flat_map(move |a| files(a, side));
    let in_guest: BTreeSet<String> = sides.into_iter().flat_map(of).collect();
    let on_host: BTreeSet<String> = of(None).collect();
    let mut seen = Vec::new();
    for (place, paths) in [(ActionPlace::Guest, in_guest), (ActionPlace::Host, on_host)] {
        if paths.is_empty() {
            continue;
        }
        let paths: Vec<String> = paths.into_iter().collect();
        let views = match place {
            ActionPlace::Guest => cx.ports.guest.look_at(guest.clone()?, &paths).await,
            ActionPlace::Host => cx.ports.host.look_at(&paths).await,
        };
        let views = views.map_err(|error| error.to_string())?;
        seen.extend(views.into_iter().map(|view| ActionFile { place, view }));
    }
    Ok(seen)
}

async fn logs(cx: &Cx, guest: &Guest, config: &UpgradeConfig) -> Asked<LogsSeen> {
    let Some((directory, logs)) = config.log_backup.wanted() else {
        return Ok(LogsSeen::default());
    };
    let machine = guest.clone()?;
    let mut paths = vec![directory.to_owned()];
    paths.extend(logs.iter().filter_map(|log| match log {
        LogSelection::Path(path) => Some(path.clone()),
        _ => None,
    }));
    let views = cx.ports.guest.look_at(machine, &paths).await;
    let views = views.map_err(|error| error.to_string())?;
    let there = |path: &String| {
        let view = views.iter().find(|v| v.path == *path);
        view.is_some_and(|v| v.kind != FileKind::Missing)
    };
    let journals = logs.iter().any(|l| !matches!(l, LogSelection::Path(_)));
    let sources = match journals {
        true => cx.ports.guest.log_sources(machine).await,
        false => Ok(Vec::new()),
    };
    let sources = sources.map_err(|error| error.to_string())?;
    let missing = logs.iter().filter(|log| match log {
        LogSelection::Path(path) => !there(path),
        // Users get a journal with their first message, so none may be there yet.
        LogSelection::UserJournals => false,
        LogSelection::SystemJournal => !sources.iter().any(|s| s.log == **log),
    });
    Ok(LogsSeen {
        directory: views.first().cloned(),
        missing: missing.cloned().collect(),
    })
}

//! A session with a custom action of every type and saved logs: whatever happens on the way, every row of the table of actions
//! ran, in its order, with the values of its row, on the side it names.

use super::install;
use crate::bench::Bench;
use flipside_backend_sim::SimOptions;
use flipside_model::{
    ActionPlace, Command, ControlType, CustomAction, LogBackup, LogSelection, LogSource, OnFailure,
    Timing, UpgradeState as S,
};

/// Appendix B for a session that is committed: SIDE STATE REQUEST HW_SPLIT and the type.
const ROWS: [&str; 13] = [
    "Production Idle CheckReadiness No Readiness Check",
    "Production PrepareSplit PrepareSplit No Advanced",
    "Production Split ExecuteSplit Yes Advanced",
    "Upgrade Split ExecuteSplit Yes Advanced",
    "Upgrade Split Stop Yes Stop Application",
    "Production PrepareMerge PrepareMerge Yes Advanced",
    "Upgrade PrepareMerge PrepareMerge Yes Advanced",
    "Production Merge Stop Yes Stop Application",
    "Production Merge Backup Yes Backup",
    "Production Merge ExecuteMerge Yes Advanced",
    "Upgrade Merge ExecuteMerge No Advanced",
    "Upgrade Merge Start No Start Application",
    "Upgrade Commit Commit No Advanced",
];

/// A program for each type, which says that it ran.
pub(super) fn files(options: &mut SimOptions) {
    for control in ControlType::ALL {
        let text = format!("out {control}\nexit 0");
        options.files.insert(file(*control), text.into_bytes());
    }
    options.logs = vec![LogSource {
        log: LogSelection::SystemJournal,
        kind: "journal".to_owned(),
        bytes: 4096,
    }];
}

fn file(control: ControlType) -> String {
    format!("/opt/{}", control.name().replace(' ', "-").to_lowercase())
}

fn action(control: &ControlType) -> CustomAction {
    CustomAction {
        file: file(*control),
        arguments: vec![control.name().to_owned()],
        control_type: *control,
        timing: Timing::Default,
        limit: None,
        place: ActionPlace::Guest,
        on_failure: OnFailure::Stop,
    }
}

/// Split, merge, commit.
pub(super) async fn walk(bench: &mut Bench) -> Result<S, String> {
    bench.config.actions = ControlType::ALL.iter().map(action).collect();
    bench.config.log_backup = LogBackup {
        directory: Some("/srv/data0".to_owned()),
        logs: vec![LogSelection::SystemJournal],
    };
    for (command, goal) in [
        (Command::Split, S::Split),
        (Command::Merge, S::Merge),
        (Command::Commit, S::Commit),
    ] {
        if bench.reach(command, goal).await? == S::Abort {
            return Ok(S::Abort);
        }
        if goal == S::Split {
            install(bench)?;
        }
    }
    each_row_ran(bench)?;
    Ok(S::Commit)
}

/// Every row ran, and the first run of each came after those of the rows before it.
fn each_row_ran(bench: &Bench) -> Result<(), String> {
    let told: Vec<String> = bench
        .world
        .actions()
        .iter()
        .map(|a| {
            let values = ["SIDE", "STATE", "REQUEST", "HW_SPLIT"];
            let values = values.map(|name| a.var(&format!("ACTIVE_UPGRADE_{name}")).to_owned());
            format!("{} {}", values.join(" "), a.argv[1])
        })
        .collect();
    let mut last = 0;
    for row in ROWS {
        let first = told.iter().position(|t| t == row);
        match first {
            None => return Err(format!("`{row}` did not run: {told:#?}")),
            Some(place) if place < last => {
                return Err(format!("`{row}` ran before its turn: {told:#?}"));
            }
            Some(place) => last = place,
        }
    }
    Ok(())
}

//! `flipside services`: the controlled services of each side (SV-18, SV-20, VC-03).

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use crate::selection::{self, Selection};
use flipside_activity::clean;
use flipside_model::api::{ServiceListing, ServiceStatus};
use flipside_model::{Side, Status, SystemName, UpgradeState};
use serde::Serialize;

const LONG: &str = "\
Shows the controlled services: their status (Running, or nothing) and their startup type, on both sides while the system \
is divided. In Split they are Running on the Production Side, and on the Upgrade Side held: stopped and disabled until \
the merge.

With --all it lists every service of the guest, from which those to control are chosen: [x] selected in the \
configuration itself, [-] selected in a file that it calls, [ ] not selected.";

const EXAMPLES: &str = "\
Examples:
  flipside services web
  flipside services web --side upgrade --json
  flipside services web --all --sort selected";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Only this side
    #[arg(long)]
    side: Option<SideArg>,
    /// Every service of the side (Production unless another is named), with what is selected of them
    #[arg(long)]
    all: bool,
    /// Column to sort the list of all by; `selected` groups those that are and those that are not
    #[arg(long, requires = "all", default_value = "name")]
    sort: Column,
}

/// A column of the list of all services (SV-13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Column {
    /// Name of the unit
    Name,
    /// Running first
    Status,
    /// Startup type
    Startup,
    /// Selected first
    Selected,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    if args.all {
        return all(
            ctx,
            &system,
            args.side.unwrap_or(SideArg::Production),
            args.sort,
        )
        .await;
    }
    let sides = match args.side {
        Some(side) => vec![side],
        None => sides(&ctx.status(&system).await?),
    };
    let mut rows = vec![["SIDE", "SERVICE", "STATUS", "STARTUP TYPE"].map(str::to_owned)];
    for side in sides {
        let path = format!("/v1/systems/{system}/services?side={}", side.query());
        let services: Vec<ServiceStatus> = ctx.client.get(&path).await?;
        if ctx.json {
            ctx.object(&serde_json::json!({ "side": side.query(), "services": services }))?;
        }
        rows.extend(services.iter().map(|service| row(side.side(), service)));
    }
    if ctx.json {
        return Ok(());
    }
    if rows.len() == 1 {
        return ctx.line("no service is controlled: the configuration names none");
    }
    ctx.line(&columns(&rows))
}

/// A service of the guest with its check box.
#[derive(Debug, Serialize)]
struct Choice {
    #[serde(flatten)]
    service: ServiceListing,
    selected: Selection,
    /// The file that selects it.
    from: Option<String>,
}

async fn all(ctx: &Context, system: &SystemName, side: SideArg, by: Column) -> Result<(), Failure> {
    let path = format!("/v1/systems/{system}/services/all?side={}", side.query());
    let listed: Vec<ServiceListing> = ctx.client.get(&path).await?;
    let staged = ctx
        .client
        .get(&format!("/v1/systems/{system}/config"))
        .await?;
    let resolved = selection::staged(staged)?;
    let choice = |service: ServiceListing| {
        let (selected, from) = selection::of(&resolved, &service.unit);
        let from = from.map(str::to_owned);
        Choice {
            service,
            selected,
            from,
        }
    };
    let mut choices: Vec<Choice> = listed.into_iter().map(choice).collect();
    sort(&mut choices, by);
    if ctx.json {
        return ctx.object(&serde_json::json!({ "side": side.query(), "services": choices }));
    }
    let mut rows =
        vec![["", "SERVICE", "STATUS", "STARTUP TYPE", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(choices.iter().map(|choice| {
        let service = &choice.service;
        let status = if service.active { "Running" } else { "" };
        let from = match (&choice.from, choice.selected) {
            (Some(file), Selection::Inherited) => format!(" ({})", clean(file)),
            _ => String::new(),
        };
        [
            choice.selected.mark().to_owned(),
            clean(&service.unit) + &from,
            status.to_owned(),
            clean(&service.startup),
            clean(&service.description),
        ]
    }));
    ctx.line(&columns(&rows))
}

/// SV-13: by name, or by another column and then by name.
fn sort(choices: &mut [Choice], by: Column) {
    choices.sort_by(|a, b| a.service.unit.cmp(&b.service.unit));
    match by {
        Column::Name => {}
        Column::Status => choices.sort_by_key(|c| !c.service.active),
        Column::Startup => choices.sort_by(|a, b| a.service.startup.cmp(&b.service.startup)),
        Column::Selected => choices.sort_by_key(|c| c.selected),
    }
}

/// The sides whose guests answer in this state; on the paused Production Side of a merge nobody does.
fn sides(status: &Status) -> Vec<SideArg> {
    match status.upgrade_state {
        UpgradeState::Split | UpgradeState::PrepareMerge => {
            vec![SideArg::Production, SideArg::Upgrade]
        }
        UpgradeState::Merge => vec![SideArg::Upgrade],
        _ => vec![SideArg::Production],
    }
}

fn row(side: Side, service: &ServiceStatus) -> [String; 4] {
    let status = match (service.exists, service.active) {
        (false, _) => "missing",
        (true, true) => "Running",
        (true, false) => "",
    };
    let held = if service.held { ", held" } else { "" };
    [
        side.to_string(),
        clean(&service.unit),
        status.to_owned(),
        format!("{}{held}", clean(&service.startup)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    // SV-13: alphabetical, or by a column and then alphabetical; the boxes group what is selected.
    #[test]
    fn the_list_is_sorted_by_any_column() {
        let choice = |unit: &str, active, startup: &str, selected| Choice {
            service: ServiceListing {
                unit: unit.to_owned(),
                description: String::new(),
                active,
                startup: startup.to_owned(),
            },
            selected,
            from: None,
        };
        let mut all = vec![
            choice("b", true, "static", Selection::Cleared),
            choice("c", false, "enabled", Selection::Inherited),
            choice("a", false, "static", Selection::Cleared),
            choice("d", true, "disabled", Selection::Checked),
        ];
        for (by, expected) in [
            (Column::Name, "abcd"),
            (Column::Status, "bdac"),
            (Column::Startup, "dcab"),
            (Column::Selected, "dcab"),
        ] {
            sort(&mut all, by);
            let order: String = all.iter().map(|c| c.service.unit.as_str()).collect();
            assert_eq!(order, expected, "{by:?}");
        }
    }
}

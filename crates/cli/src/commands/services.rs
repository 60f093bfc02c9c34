//! `flipside services`: the controlled services of each side (SV-18, SV-20, VC-03).

use super::SideArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_activity::clean;
use flipside_model::api::ServiceStatus;
use flipside_model::{Side, Status, SystemName, UpgradeState};

const LONG: &str = "\
Shows the controlled services: their status (Running, or nothing) and their startup type, on both sides while the system \
is divided. In Split they are Running on the Production Side, and on the Upgrade Side held: stopped and disabled until \
the merge.";

const EXAMPLES: &str = "\
Examples:
  flipside services web
  flipside services web --side upgrade --json";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Only this side
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
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

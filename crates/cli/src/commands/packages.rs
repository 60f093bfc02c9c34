//! `flipside packages`: what is installed on a side, and what the upgrade changed (VC-06, VC-11).

use super::SideArg;
use crate::client::empty;
use crate::context::Context;
use crate::failure::Failure;
use crate::live::Live;
use crate::report::columns;
use flipside_activity::clean;
use flipside_model::api::PackageChange;
use flipside_model::{Package, PackageFault, SystemName, UpgradeState};
use hyper::Method;

const LONG: &str = "\
Lists the installed packages: in Split and Merge those of the Upgrade Side, because the Production Side does not have \
the new software; otherwise those of the system. With `--diff` it lists what the Upgrade Side has installed (+), removed \
(-) and changed (~) since the split. With `--verify` it compares the files of the installed packages with what was \
installed (`dpkg --verify`, `rpm -Va`) and lists those that were changed or are missing; that takes minutes.";

const EXAMPLES: &str = "\
Examples:
  flipside packages web --diff
  flipside packages web --side production
  flipside packages web --verify
  flipside packages web --diff --json | jq -r .name";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// The packages of this side
    #[arg(long, conflicts_with = "diff")]
    side: Option<SideArg>,
    /// What the Upgrade Side has changed since the split
    #[arg(long)]
    diff: bool,
    /// Compare the files of the installed packages with what was installed
    #[arg(long, conflicts_with = "diff")]
    verify: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    if args.diff {
        return diff(ctx, &system).await;
    }
    let side = match args.side {
        Some(side) => side,
        None => match ctx.status(&system).await?.upgrade_state {
            UpgradeState::Split | UpgradeState::PrepareMerge | UpgradeState::Merge => {
                SideArg::Upgrade
            }
            _ => SideArg::Production,
        },
    };
    if args.verify {
        return verify(ctx, &system, side).await;
    }
    let path = format!("/v1/systems/{system}/packages?side={}", side.query());
    let packages: Vec<Package> = ctx.client.get(&path).await?;
    if ctx.json {
        return packages.iter().try_for_each(|package| ctx.object(package));
    }
    let rows: Vec<[String; 2]> = packages
        .iter()
        .map(|p| [clean(&p.name), clean(&p.version)])
        .collect();
    ctx.line(&columns(&rows))
}

async fn verify(ctx: &Context, system: &SystemName, side: SideArg) -> Result<(), Failure> {
    let path = format!("/v1/systems/{system}/packages/verify?side={}", side.query());
    let live = Live::new(ctx.json, ctx.color);
    live.message(format!("comparing the files on the {}", side.side()));
    // Without a deadline: every installed file is read.
    let faults: Vec<PackageFault> = ctx.client.json(Method::GET, &path, empty()).await?;
    drop(live);
    if ctx.json {
        return faults.iter().try_for_each(|fault| ctx.object(fault));
    }
    if faults.is_empty() {
        return ctx.line("every file of every package is as it was installed");
    }
    let row = |fault: &PackageFault| {
        let kind = if fault.configuration {
            "configuration"
        } else {
            ""
        };
        [clean(&fault.what), clean(&fault.path), kind.to_owned()]
    };
    ctx.line(&columns(&faults.iter().map(row).collect::<Vec<_>>()))
}

async fn diff(ctx: &Context, system: &SystemName) -> Result<(), Failure> {
    let path = format!("/v1/systems/{system}/packages/changes");
    let changes: Vec<PackageChange> = ctx.client.get(&path).await?;
    if ctx.json {
        return changes.iter().try_for_each(|change| ctx.object(change));
    }
    if changes.is_empty() {
        return ctx.line("no package differs between the sides");
    }
    ctx.line(&columns(&changes.iter().map(row).collect::<Vec<_>>()))
}

fn row(change: &PackageChange) -> [String; 3] {
    let version = |version: &Option<String>| clean(version.as_deref().unwrap_or(""));
    let (before, after) = (version(&change.before), version(&change.after));
    let (sign, versions) = match (&change.before, &change.after) {
        (None, _) => ("+", after),
        (_, None) => ("-", before),
        _ => ("~", format!("{before} → {after}")),
    };
    [sign.to_owned(), clean(&change.name), versions]
}

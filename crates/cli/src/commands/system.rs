//! `flipside system`.

use super::system_create;
use crate::confirm::{self, Answer};
use crate::context::Context;
use crate::failure::Failure;
use crate::live::Live;
use crate::{disks, report};
use flipside_activity::clean;
use flipside_model::api::{PowerAction, PowerRequest};
use flipside_model::{DiskMap, Status, SystemName, SystemSpec};

const EXAMPLES: &str = "\
Examples:
  flipside system create web --system-disk debian.qcow2 --data-disk 8G --memory 2G --publish 8080:80
  flipside system start web
  flipside system show web
  flipside system list";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Create a system from disk images; every disk gets two legs
    Create(system_create::Args),
    /// Start a system
    #[command(after_help = "Examples:\n  flipside system start web")]
    Start(Name),
    /// Stop a system: the users are not served until it is started again
    #[command(
        after_help = "Examples:\n  flipside system stop web\n  flipside system stop web --yes --force"
    )]
    Stop(Stop),
    /// Show the definition and the state of a system, and draw its disks with their volumes
    #[command(after_help = "Examples:\n  flipside system show web --json")]
    Show(Name),
    /// Delete a stopped system with all its disks
    #[command(after_help = "Examples:\n  flipside system delete web")]
    Delete(Name),
    /// List all systems
    #[command(after_help = "Examples:\n  flipside system list --json")]
    List,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    /// System
    name: SystemName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// System
    name: SystemName,
    /// End its machine at once; what the guest has not written yet is lost
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(ctx: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => system_create::run(ctx, args).await,
        Command::Start(arg) => power(ctx, &arg.name, PowerAction::Start).await,
        Command::Stop(arg) => stop(ctx, &arg.name, arg.force).await,
        Command::Show(arg) => show(ctx, &arg.name).await,
        Command::Delete(arg) => delete(ctx, &arg.name).await,
        Command::List => list(ctx).await,
    }
}

async fn stop(ctx: &Context, name: &SystemName, force: bool) -> Result<(), Failure> {
    confirm::demand(ctx)?;
    if !ctx.yes {
        // A wrong name is told before a question is asked about it.
        ctx.status(name).await?;
        confirm::terminal(&confirm::stop_text(name, force), Answer::Yes)?;
    }
    let action = if force {
        PowerAction::Kill
    } else {
        PowerAction::Stop
    };
    power(ctx, name, action).await
}

async fn power(ctx: &Context, name: &SystemName, action: PowerAction) -> Result<(), Failure> {
    let live = Live::new(ctx.json, ctx.color);
    live.message(match action {
        PowerAction::Start => format!("starting {name}"),
        PowerAction::Stop | PowerAction::Kill => format!("stopping {name}"),
    });
    let path = format!("/v1/systems/{name}/power");
    let status: Status = ctx.client.post(&path, &PowerRequest { action }).await?;
    drop(live);
    if ctx.json {
        return ctx.object(&status);
    }
    let running = if status.running {
        "running"
    } else {
        "not running"
    };
    ctx.line(&format!(
        "{name}: {running}, {}",
        report::status_bar(&status)
    ))
}

async fn show(ctx: &Context, name: &SystemName) -> Result<(), Failure> {
    let status = ctx.status(name).await?;
    let path = format!("/v1/systems/{name}/spec");
    let spec: SystemSpec = ctx.client.get(&path).await?;
    // DK-01: a fresh look each time.
    let map: DiskMap = ctx.client.get(&format!("/v1/systems/{name}/disks")).await?;
    if ctx.json {
        let all = serde_json::json!({ "status": status, "spec": spec, "disk_map": map });
        return ctx.object(&all);
    }
    let mut text = report::status_text(&status, ctx.color);
    text.push_str(&disks::text(&map, ctx.color));
    text.push_str(&spec_text(&spec));
    ctx.line(&text)
}

fn spec_text(spec: &SystemSpec) -> String {
    let firmware = format!("{:?}", spec.firmware).to_lowercase();
    let enclosures: Vec<String> = spec
        .enclosures
        .iter()
        .map(|dir| clean(&dir.to_string_lossy()))
        .collect();
    format!(
        "
Definition:
  identity    {}
  memory      {}
  processors  {}
  firmware    {firmware}
  network     {}, card {}
  enclosures  A {}
              B {}
",
        spec.uuid,
        flipside_activity::size(u64::from(spec.memory_mib) << 20),
        spec.cpus,
        format!("{:?}", spec.network).to_lowercase(),
        clean(&spec.mac),
        enclosures[0],
        enclosures[1],
    )
}

async fn delete(ctx: &Context, name: &SystemName) -> Result<(), Failure> {
    confirm::demand(ctx)?;
    if !ctx.yes {
        ctx.status(name).await?;
        confirm::terminal(&confirm::delete_text(name), Answer::Yes)?;
    }
    ctx.client.delete(&format!("/v1/systems/{name}")).await?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "deleted": name }));
    }
    ctx.line(&format!("`{name}` was deleted"))
}

async fn list(ctx: &Context) -> Result<(), Failure> {
    let all: Vec<Status> = ctx.client.get("/v1/systems").await?;
    if ctx.json {
        return ctx.object(&serde_json::json!({ "systems": all }));
    }
    if all.is_empty() {
        return ctx.line(
            "there is no system; make one: `flipside system create NAME --system-disk IMAGE`",
        );
    }
    let width = all
        .iter()
        .map(|s| s.system.as_str().len())
        .max()
        .unwrap_or(0);
    for status in &all {
        let running = if status.running {
            "running"
        } else {
            "not running"
        };
        ctx.line(&format!(
            "{:<width$}  {running:<11}  {}",
            status.system.as_str(),
            report::status_bar(status)
        ))?;
    }
    Ok(())
}

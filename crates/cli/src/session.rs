//! The way of every session command: confirm, request, wait, and say what came of it.

use crate::commands::changes;
use crate::confirm;
use crate::context::Context;
use crate::failure::{FAILED, Failure, problem_text};
use crate::follow;
use crate::report;
use flipside_activity::{clean, duration_ms, duration_us};
use flipside_model::api::{Accepted, ConfigText, SessionRequest, StagedConfig};
use flipside_model::{
    Command, OperationalState, Problem, ProblemCode, Status, SystemName, UpgradeConfig,
};

/// One request for the next step of a session.
pub(crate) struct Ask<'a> {
    pub(crate) system: Option<&'a SystemName>,
    pub(crate) command: Command,
    pub(crate) config: Option<ConfigText>,
    pub(crate) no_config: bool,
    pub(crate) discard_data: bool,
}

impl<'a> Ask<'a> {
    /// Makes a request without a configuration.
    pub(crate) fn plain(system: Option<&'a SystemName>, command: Command) -> Self {
        Self {
            system,
            command,
            config: None,
            no_config: false,
            discard_data: false,
        }
    }
}

/// Runs a session command to its end, or to its acceptance with `--no-wait`.
pub(crate) async fn run(ctx: &Context, ask: Ask<'_>) -> Result<(), Failure> {
    let asks = confirm::is_asked(ask.command);
    if asks {
        confirm::demand(ctx)?;
    }
    let system = ctx.system(ask.system).await?;
    refuse_in_action(&system)?;
    let before = ctx.status(&system).await?;
    if asks && !ctx.yes {
        allowed(&before, ask.command)?;
        let staged = staged(ctx, &before).await?;
        let told = confirm::Told {
            checkpoint: staged.as_ref().is_some_and(|c| c.checkpoint),
            rehearsal: staged.as_ref().is_some_and(|c| c.rehearsal),
            discard: ask.discard_data,
            changes: lost_at_commit(ctx, &before, ask.command).await,
        };
        confirm::session(&before, ask.command, &told)?;
        // What was said holds for the state it was said in.
        let now = ctx.status(&system).await?;
        if now.upgrade_state != before.upgrade_state {
            return Err(Failure::failed(format!(
                "`{system}` went from {} to {} meanwhile: nothing was done",
                before.upgrade_state, now.upgrade_state
            ))
            .advise("look at `flipside status`, then ask again"));
        }
    }
    if ask.command == Command::Split {
        ctx.say(&confirm::split_note(&system))?;
    }
    let request = SessionRequest {
        command: ask.command,
        config: ask.config,
        no_config: ask.no_config,
        seen: Some(before.last_seq),
        discard_data: ask.discard_data,
    };
    let path = format!("/v1/systems/{system}/session");
    let accepted: Accepted = ctx.client.post(&path, &request).await?;
    if matches!(ask.command, Command::Check | Command::Split) {
        let name = accepted.config.as_deref().map(clean);
        let name = name.map_or_else(
            || "no configuration file".to_owned(),
            |name| format!("configuration: {name}"),
        );
        ctx.say(&name)?;
    }
    if ctx.no_wait {
        if ctx.json {
            return ctx.object(&accepted);
        }
        return ctx.line(&format!(
            "`{}` of `{system}` was accepted; follow it with `flipside status {system} --watch`",
            ask.command
        ));
    }
    let goal = follow::goal(ask.command, before.upgrade_state);
    let ended = follow::wait(ctx, &system, ask.command, goal, accepted.after).await?;
    finish(ctx, ask.command, &ended)
}

/// The first of the files that a commit loses; none when nobody knows.
async fn lost_at_commit(ctx: &Context, status: &Status, command: Command) -> Option<String> {
    if command != Command::Commit {
        return None;
    }
    let list = changes::ask(ctx, &status.system, "", 200).await.ok()?;
    Some(changes::brief(&list))
}

/// Returns the settings of the open session.
async fn staged(ctx: &Context, status: &Status) -> Result<Option<UpgradeConfig>, Failure> {
    if status.session.is_none() {
        return Ok(None);
    }
    let path = format!("/v1/systems/{}/config", status.system);
    let staged: StagedConfig = ctx.client.get(&path).await?;
    Ok(Some(staged.config))
}

/// Fault 59: a script that an operation runs cannot move that operation; waiting for its end would be waiting for itself.
fn refuse_in_action(system: &SystemName) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok();
    if set("FLIPSIDE_ACTION").is_none()
        || set("FLIPSIDE_SYSTEM").as_deref() != Some(system.as_str())
    {
        return Ok(());
    }
    let message = format!("`{system}` is busy: it is running this custom action");
    Err(Problem::new(ProblemCode::Refused, message)
        .advise("an action only looks, and tells by its exit value how the operation goes on")
        .into())
}

/// Refuses before asking what the server would refuse after it.
fn allowed(status: &Status, command: Command) -> Result<(), Failure> {
    if status.allowed.contains(&command) {
        return Ok(());
    }
    let why = match status.operational_state {
        OperationalState::Busy => "an operation is in progress",
        OperationalState::Broken => "the last operation failed",
        OperationalState::Ready => "the session has not come to that point, or has passed it",
    };
    let message = format!(
        "`{command}` is refused in {} | {}: {why}",
        status.upgrade_state, status.operational_state
    );
    Err(Problem::new(ProblemCode::Refused, message)
        .advise(report::allowed_line(status))
        .into())
}

fn finish(ctx: &Context, command: Command, status: &Status) -> Result<(), Failure> {
    if ctx.json {
        ctx.object(status)?;
    }
    if status.operational_state == OperationalState::Broken {
        let lead = format!("error: {}: ", report::bar_line(status));
        let problem = status.problem.clone().unwrap_or_else(|| {
            Problem::new(
                ProblemCode::Failed,
                "the operation could not be completed; see `flipside log`",
            )
        });
        eprint!("{}", problem_text(&lead, &problem));
        eprintln!("  {}", report::allowed_line(status));
        return Err(Failure::Status(FAILED));
    }
    ctx.say(&format!(
        "{}\n{}\n{}",
        report::status_bar(status),
        report::protection(status),
        done_text(command, status)
    ))
}

fn done_text(command: Command, status: &Status) -> String {
    use flipside_model::UpgradeState as S;
    let system = &status.system;
    match (command, status.upgrade_state) {
        // SP-21: the tasks that are open while the system is split.
        (_, S::Split) => {
            let pause = status.pause_ms.map_or_else(String::new, |ms| {
                format!(
                    "Production paused for {}. ",
                    duration_us((ms * 1000.0) as u64)
                )
            });
            format!(
                "{pause}Work on the Upgrade Side and verify it there: `flipside shell {system}`; manage production: `flipside shell {system} --side production`. Then `flipside merge {system}`, or `flipside abort {system}`."
            )
        }
        (_, S::Merge) => format!(
            "{}Test in production; then `flipside commit {system}` makes it permanent, `flipside abort {system}` takes it back.",
            outage_text(status)
        ),
        (_, S::Commit | S::Abort) => {
            let outage = if status.upgrade_state == S::Abort {
                outage_text(status)
            } else {
                String::new()
            };
            format!(
                "{outage}The mirrors are being resynchronised (RDR): `flipside wait {system} --duplex` waits for it. Next: `flipside finish {system}`."
            )
        }
        (Command::Finish, _) => "The session is closed.".to_owned(),
        (_, S::Idle) => format!(
            "Ready for the split: {} errors, {} warnings{}. Next: `flipside split {system}`.",
            status.errors,
            status.warnings,
            if status.warnings > 0 {
                format!(" (`flipside log {system} --severity Warning`)")
            } else {
                String::new()
            }
        ),
        _ => String::new(),
    }
}

fn outage_text(status: &Status) -> String {
    match (status.outage_ms, status.outage_inside_ms) {
        (Some(door), Some(inside)) => format!(
            "Outage {} at the front door ({} inside). ",
            duration_ms(door),
            duration_ms(inside)
        ),
        (Some(door), None) => format!("Outage {} at the front door. ", duration_ms(door)),
        _ => String::new(),
    }
}

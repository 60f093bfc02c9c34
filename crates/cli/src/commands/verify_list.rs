//! `flipside verify-list`: what to verify before a merge (US-29, US-30) and before a commit (VC-01 to VC-10).

use crate::context::Context;
use crate::failure::Failure;
use crate::report::columns;
use flipside_activity::clean;
use flipside_model::api::{PackageChange, ServiceStatus};
use flipside_model::{Condition, Problem, ProblemCode, Status, SystemName, UpgradeState};

const LONG: &str = "\
Goes through what is to be verified: in Split before the merge, in Merge before the decision to commit or to abort. What \
flipside can see itself is answered: `ok`, or `!!` with what is wrong. What only people can judge says `look`, with the \
command that shows it. It changes nothing and decides nothing.

There is no limit of time on Split and Merge. An abort in Split costs nothing; in Merge it costs the users a brief outage, \
because the applications move back.";

const EXAMPLES: &str = "\
Examples:
  flipside verify-list web
  flipside verify-list web --json | jq -r 'select(.result == \"!!\").item'";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
}

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
enum Outcome {
    #[serde(rename = "ok")]
    Fine,
    #[serde(rename = "!!")]
    Wrong,
    #[serde(rename = "look")]
    Look,
}

/// One item of the list.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Item {
    result: Outcome,
    item: &'static str,
    found: String,
    command: String,
}

/// What the Upgrade Side says of itself; none of it when it does not answer.
struct Facts {
    services: Result<Vec<ServiceStatus>, String>,
    condition: Result<Condition, String>,
    changes: Result<Vec<PackageChange>, String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let status = ctx.status(&system).await?;
    let stage = status.upgrade_state;
    if !matches!(
        stage,
        UpgradeState::Split | UpgradeState::PrepareMerge | UpgradeState::Merge
    ) {
        return Err(Problem::new(
            ProblemCode::Refused,
            format!("there is nothing to verify in {stage}"),
        )
        .advise(
            "in Split the Upgrade Side is verified before the merge, in Merge before the commit",
        )
        .into());
    }
    let base = format!("/v1/systems/{system}");
    let facts = Facts {
        services: said(
            ctx.client
                .get(&format!("{base}/services?side=Upgrade"))
                .await,
        ),
        condition: said(
            ctx.client
                .get(&format!("{base}/condition?side=Upgrade"))
                .await,
        ),
        changes: said(ctx.client.get(&format!("{base}/packages/changes")).await),
    };
    let items = list(&status, &facts);
    if ctx.json {
        return items.iter().try_for_each(|item| ctx.object(item));
    }
    let rows: Vec<[String; 4]> = items.iter().map(row).collect();
    ctx.line(&columns(&rows))?;
    ctx.line(&format!("\n{}", what_next(&status)))
}

fn said<T>(answer: Result<T, Failure>) -> Result<T, String> {
    answer.map_err(|failure| {
        let text = failure.text();
        let first = text.lines().next().unwrap_or_default();
        first.trim_start_matches("error: ").to_owned()
    })
}

fn row(item: &Item) -> [String; 4] {
    let mark = match item.result {
        Outcome::Fine => "ok",
        Outcome::Wrong => "!!",
        Outcome::Look => "look",
    };
    [
        mark.to_owned(),
        item.item.to_owned(),
        clean(&item.found),
        item.command.clone(),
    ]
}

/// The list for the stage the session is in.
fn list(status: &Status, facts: &Facts) -> Vec<Item> {
    let system = &status.system;
    let live = status.upgrade_state == UpgradeState::Merge;
    let on_upgrade = |what: &str| format!("flipside run {system} --side upgrade -- {what}");
    let item = |item, (result, found): (Outcome, String), command: String| Item {
        result,
        item,
        found,
        command,
    };
    let look = |found: &str| (Outcome::Look, found.to_owned());
    let mut items = Vec::new();
    // VC-03.
    items.push(item(
        if live {
            "critical applications run"
        } else {
            "critical applications are held until the merge"
        },
        services(&facts.services, live),
        format!("flipside services {system}"),
    ));
    if live {
        // VC-04, VC-05, VC-02.
        items.push(item(
            "network and data disks are there",
            look("addresses and mounted file systems"),
            on_upgrade("sh -c 'ip -brief address; findmnt --real'"),
        ));
        let at = if status.published.is_empty() {
            "from a client's place".to_owned()
        } else {
            format!("from a client's place, at {}", status.published.join(", "))
        };
        items.push(item(
            "clients can reach all services",
            (Outcome::Look, at),
            format!("flipside log {system} --severity Warning"),
        ));
    }
    // VC-06, VC-11.
    items.push(item(
        "packages have the versions that were meant",
        changes(&facts.changes),
        format!("flipside packages {system} --diff"),
    ));
    // VC-07.
    items.push(item(
        "nothing has failed on the Upgrade Side",
        failures(&facts.condition),
        format!("flipside status {system} --side upgrade"),
    ));
    items.push(item(
        "no restart is left to be done",
        restarts(&facts.condition),
        format!("flipside restart {system} --side upgrade"),
    ));
    items.push(item(
        "installed applications can be started and run",
        look(if live {
            "use them as their users do"
        } else {
            "as far as they need neither network nor data"
        }),
        format!("flipside ssh {system} --side upgrade"),
    ));
    // VC-08.
    items.push(item(
        "settings were not altered unexpectedly",
        look("takes minutes"),
        format!("flipside packages {system} --verify"),
    ));
    items
}

fn services(services: &Result<Vec<ServiceStatus>, String>, live: bool) -> (Outcome, String) {
    let services = match services {
        Ok(services) if services.is_empty() => {
            return (Outcome::Look, "no service is controlled".to_owned());
        }
        Ok(services) => services,
        Err(why) => return (Outcome::Wrong, why.clone()),
    };
    let wrong: Vec<&str> = services
        .iter()
        .filter(|s| !s.exists || s.active != live)
        .map(|s| s.unit.as_str())
        .collect();
    match (wrong.is_empty(), live) {
        (true, true) => (Outcome::Fine, format!("{} running", services.len())),
        (true, false) => (Outcome::Fine, format!("{} held", services.len())),
        (false, true) => (Outcome::Wrong, format!("not running: {}", wrong.join(", "))),
        (false, false) => (Outcome::Wrong, format!("not as held: {}", wrong.join(", "))),
    }
}

fn changes(changes: &Result<Vec<PackageChange>, String>) -> (Outcome, String) {
    match changes {
        Ok(changes) if changes.is_empty() => (Outcome::Look, "no package was changed".to_owned()),
        Ok(changes) => (Outcome::Look, format!("{} changed", changes.len())),
        Err(why) => (Outcome::Look, why.clone()),
    }
}

fn failures(condition: &Result<Condition, String>) -> (Outcome, String) {
    match condition {
        Ok(c) if c.failed_units.is_empty() => (Outcome::Fine, format!("{}, {}", c.state, c.kernel)),
        Ok(c) => (
            Outcome::Wrong,
            format!("failed: {}", c.failed_units.join(", ")),
        ),
        Err(why) => (Outcome::Wrong, why.clone()),
    }
}

fn restarts(condition: &Result<Condition, String>) -> (Outcome, String) {
    match condition {
        Ok(c) if c.restart_needed.is_empty() => (Outcome::Fine, String::new()),
        Ok(c) => (Outcome::Wrong, c.restart_needed.join("; ")),
        Err(why) => (Outcome::Wrong, why.clone()),
    }
}

/// What the answers lead to; VC-09, VC-10, US-30.
fn what_next(status: &Status) -> String {
    let system = &status.system;
    if status.upgrade_state == UpgradeState::Merge {
        return format!(
            "There is no limit of time. All is well: `flipside commit {system}`, which is irreversible. If not: `flipside abort \
             {system}`; it costs the users a brief outage, because the applications move back."
        );
    }
    format!(
        "There is no limit of time. All is well: `flipside merge {system}`. If not: `flipside abort {system}`, without an outage."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn service(unit: &str, active: bool) -> ServiceStatus {
        ServiceStatus {
            unit: unit.to_owned(),
            exists: true,
            active,
            startup: "enabled".to_owned(),
            held: false,
        }
    }

    fn facts() -> Facts {
        Facts {
            services: Ok(vec![service("a.service", true), service("b.service", true)]),
            condition: Ok(Condition {
                state: "running".to_owned(),
                kernel: "6.1".to_owned(),
                ..Condition::default()
            }),
            changes: Ok(Vec::new()),
        }
    }

    fn result(items: &[Item], part: &str) -> (Outcome, String) {
        let found = items.iter().find(|i| i.item.contains(part));
        let found = found.expect("an item");
        (found.result, found.found.clone())
    }

    // VC-03, VC-04, VC-05, VC-06, VC-07, VC-08: every item of the guide's checklist is there, with a command that shows it.
    #[test]
    fn every_item_of_the_checklist_has_a_command() {
        let mut status = sample();
        status.upgrade_state = UpgradeState::Merge;
        let items = list(&status, &facts());
        for part in [
            "critical applications run",
            "network and data disks",
            "clients can reach",
            "packages have the versions",
            "nothing has failed",
            "can be started and run",
            "settings were not altered",
        ] {
            assert!(items.iter().any(|i| i.item.contains(part)), "{part}");
        }
        assert!(
            items
                .iter()
                .all(|i| i.command.starts_with("flipside ") && i.command.contains("web"))
        );
        assert_eq!(
            result(&items, "run"),
            (Outcome::Fine, "2 running".to_owned())
        );
        // VC-09, VC-10.
        let next = what_next(&status);
        assert!(
            next.contains("no limit of time") && next.contains("costs the users a brief outage")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut status = sample();
        status.upgrade_state = UpgradeState::Merge;
        let mut wrong = facts();
        wrong.services = Ok(vec![service("a.service", false)]);
        if let Ok(condition) = &mut wrong.condition {
            condition.failed_units = vec!["x.service".to_owned()];
            condition.restart_needed = vec!["kernel 2 is installed".to_owned()];
        }
        let items = list(&status, &wrong);
        assert_eq!(
            result(&items, "critical"),
            (Outcome::Wrong, "not running: a.service".to_owned())
        );
        assert_eq!(
            result(&items, "nothing has failed"),
            (Outcome::Wrong, "failed: x.service".to_owned())
        );
        assert_eq!(
            result(&items, "restart"),
            (Outcome::Wrong, "kernel 2 is installed".to_owned())
        );
        let silent = Facts {
            services: Err("the guest does not answer".to_owned()),
            condition: Err("the guest does not answer".to_owned()),
            changes: Err("the guest does not answer".to_owned()),
        };
        let items = list(&status, &silent);
        assert!(items.iter().filter(|i| i.result == Outcome::Wrong).count() >= 3);
    }

    // US-29, US-30: in Split the applications are down, and that is right.
    #[test]
    fn before_the_merge_the_list_is_shorter() {
        let status = sample();
        let mut held = facts();
        held.services = Ok(vec![service("a.service", false)]);
        let items = list(&status, &held);
        assert_eq!(result(&items, "held"), (Outcome::Fine, "1 held".to_owned()));
        assert!(!items.iter().any(|i| i.item.contains("clients")));
        assert!(what_next(&status).contains("without an outage"));
    }
}

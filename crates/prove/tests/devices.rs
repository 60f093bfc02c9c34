//! A leg is replaced, cut or linked elsewhere between two steps of a session (SP-18, fault 22): at every step of every
//! core way, every leg of every disk.
//!
//! The simulation notes a violation when a changed leg is opened, or taken for what was copied. Whatever stops is told with
//! disk and leg; when the recorded file is back, the way ends as always, and the log names what was changed.

use flipside_model::{
    Command, DiskName, Leg, OperationalState as O, Problem, ProblemCode, Record, UpgradeState as S,
};
use flipside_prove::ways::{Way, all_is_well};
use flipside_prove::{Bench, End, run};
use std::collections::BTreeSet;
use std::time::Duration;

/// What can be seen of a changed leg.
const WHAT: &str = "is not the file that was recorded: it was replaced";

/// A leg that changes when the engine comes to a step.
struct Change {
    at: String,
    disk: DiskName,
    leg: Leg,
}

impl Change {
    fn heal(&self, bench: &Bench) {
        bench.world.change_leg(&self.disk, self.leg, None);
    }

    fn named(&self, text: &str) -> bool {
        text.contains(&format!("Leg {} of {}", self.leg, self.disk)) && text.contains(WHAT)
    }
}

/// Gives a command; what stops because of the changed leg goes on once the recorded file is back. Says whether whoever
/// asked was told of the leg.
async fn ends(
    bench: &mut Bench,
    command: Command,
    goal: S,
    change: Option<&Change>,
) -> Result<bool, String> {
    let (mut next, mut told) = (command, false);
    for _ in 0..4 {
        let end = bench.command(next).await;
        bench.check()?;
        match end {
            Ok(End::State(state, O::Ready, _)) if state == goal => return Ok(told),
            Ok(End::State(state, O::Broken, Some(why))) => {
                let Some(change) = change.filter(|c| bench.world.leg_changed(&c.disk, c.leg))
                else {
                    return Err(format!("{next} broke in {state} without a cause: {why}"));
                };
                // A readiness check counts its findings; the log names them.
                let counted = matches!(state, S::Idle | S::PrepareSplit);
                if !counted && !change.named(&why) {
                    return Err(format!(
                        "{next} broke in {state} and does not name it: {why}"
                    ));
                }
                told |= !counted;
                change.heal(bench);
                next = if state == S::Idle {
                    command
                } else {
                    Command::Retry
                };
            }
            Err(problem) if problem.code == ProblemCode::Mismatch => {
                let Some(change) = change.filter(|c| c.named(&problem.to_string())) else {
                    return Err(format!("{next} was refused: {problem}"));
                };
                told = true;
                change.heal(bench);
            }
            other => return Err(format!("{next} ended in {other:?}")),
        }
    }
    Err(format!("{command} never ends"))
}

async fn walk(way: Way, change: Option<&Change>) -> Result<Bench, String> {
    let (system, data) = way.disks();
    let mut bench = Bench::new(system, data).await;
    bench.power_on().await;
    if let Some(change) = change {
        let (at, disk) = (&change.at, &change.disk);
        bench.world.change_leg_at(at, disk, change.leg, WHAT);
    }
    let mut told = ends(&mut bench, Command::Split, S::Split, change).await?;
    if way != Way::AbortInSplit {
        let upgrade = bench.system().machine_for(None);
        let upgrade = upgrade.map_err(|p| p.to_string())?;
        let installed = bench.world.install(upgrade, "2.0");
        installed.map_err(|e| e.to_string())?;
        told |= ends(&mut bench, Command::Merge, S::Merge, change).await?;
    }
    let (last, state, version) = match way {
        Way::Commit => (Command::Commit, S::Commit, "2.0"),
        _ => (Command::Abort, S::Abort, "1.0"),
    };
    told |= ends(&mut bench, last, state, change).await?;
    told |= ends(&mut bench, Command::Finish, S::Idle, change).await?;
    if let Some(change) = change {
        if !told {
            is_in_the_log(&bench, change).await?;
        }
        change.heal(&bench);
    }
    all_is_well(&mut bench, version).await?;
    Ok(bench)
}

/// The change was seen while it was there, whether or not anything had to be opened.
async fn is_in_the_log(bench: &Bench, change: &Change) -> Result<(), String> {
    for _ in 0..100 {
        let log = bench.system().entries_after(0);
        let said = log.iter().any(|e| match &e.record {
            Record::Log { text, .. } => change.named(text),
            Record::Entered { problem, .. } => {
                problem.as_ref().is_some_and(|p| change.named(&p.message))
            }
            _ => false,
        });
        if said {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("nobody said that the leg was changed".to_owned())
}

/// Every step that a way comes to, as a label of the simulation.
async fn steps(way: Way) -> Result<BTreeSet<String>, String> {
    let bench = walk(way, None).await?;
    let entries = bench.system().entries_after(0);
    let steps = entries.into_iter().filter_map(|e| match e.record {
        Record::Intent { step, .. } => Some(format!("{}:intent", step.0)),
        _ => None,
    });
    Ok(steps.collect())
}

fn at_every_step(way: Way, disk: &str) {
    let (mut runs, mut failures) = (0, Vec::new());
    let steps = run(|| steps(way)).expect("without a change");
    for at in steps {
        for leg in Leg::BOTH {
            let change = Change {
                at: at.clone(),
                disk: DiskName::new(disk).expect("valid"),
                leg,
            };
            runs += 1;
            if let Err(why) = run(|| walk(way, Some(&change))) {
                failures.push(format!("{way:?}, {disk} leg {leg} at {at}: {why}"));
            }
        }
    }
    eprintln!("{way:?} {disk}: {runs} runs, {} failures", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// Fault 22, SP-18.
#[test]
fn a_system_leg_changes_at_every_step_to_the_commit() {
    at_every_step(Way::Commit, "system0");
}

// Fault 22, SP-18.
#[test]
fn a_data_leg_changes_at_every_step_to_the_commit() {
    at_every_step(Way::Commit, "data0");
}

// Fault 22, SP-18.
#[test]
fn a_system_leg_changes_at_every_step_to_an_abort_in_merge() {
    at_every_step(Way::AbortInMerge, "system0");
}

// Fault 22, SP-18.
#[test]
fn a_data_leg_changes_at_every_step_to_an_abort_in_merge() {
    at_every_step(Way::AbortInMerge, "data0");
}

// Fault 22, SP-18.
#[test]
fn a_leg_changes_at_every_step_to_an_abort_in_split() {
    at_every_step(Way::AbortInSplit, "system0");
    at_every_step(Way::AbortInSplit, "data0");
}

// Fault 22: the side that serves is the only one that still has the right file open, so nobody is taken from it.
#[test]
fn an_abort_is_refused_while_no_data_could_be_opened_again() {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        ends(&mut bench, Command::Split, S::Split, None)
            .await
            .expect("splits");
        ends(&mut bench, Command::Merge, S::Merge, None)
            .await
            .expect("merges");
        let data = DiskName::new("data0").expect("valid");
        let whole = |b: &Bench| b.world.book().disks[&data].duplexed();
        bench.until(Duration::from_secs(60), whole).await;
        for leg in Leg::BOTH {
            bench.world.change_leg(&data, leg, Some(WHAT));
        }
        let refused: Problem = bench.command(Command::Abort).await.expect_err("refused");
        assert_eq!(refused.code, ProblemCode::Mismatch);
        assert!(
            refused.to_string().contains(WHAT) && refused.advice.is_some(),
            "{refused:?}"
        );
        assert_eq!(bench.status().line(), "Fault Tolerant | Merge | Ready");
        assert!(bench.world.client_ok(), "the users go on being served");
        // One good leg is enough to go back; the other one is written anew when it is back.
        bench.world.change_leg(&data, Leg::B, None);
        ends(&mut bench, Command::Abort, S::Abort, None)
            .await
            .expect("aborts");
        ends(&mut bench, Command::Finish, S::Idle, None)
            .await
            .expect("finishes");
        bench.world.change_leg(&data, Leg::A, None);
        all_is_well(&mut bench, "1.0").await.expect("whole again");
    });
}

//! Kills the server at one crash point after the other and takes every operation to its end all the same.

use super::server::First;
use super::{Lab, NAME};
use flipside_model::{OperationalState as O, UpgradeState as S};
use std::time::{Duration, Instant};

/// Started again it names a state within a second.
const NAMED: Duration = Duration::from_secs(1);

/// Production serves while the server is dead: at least this fast.
const SERVED: Duration = Duration::from_secs(2);

/// The longest stage of the product is the split with its five minutes.
const STAGE: Duration = Duration::from_secs(310);

/// By how much those two may be longer: a night that runs beside other work says so with `FLIPSIDE_BUSY_HOST=N`. What is
/// true of the data stays as strict as ever.
fn busy_host() -> u32 {
    std::env::var("FLIPSIDE_BUSY_HOST").map_or(1, |n| n.parse().expect("a number"))
}

/// What was done to the server.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// The points at which it died.
    pub(crate) at: Vec<String>,
    /// The points that were not passed, because their step was found done already.
    pub(crate) passed_by: Vec<String>,
    /// How long it took until a new server named a state, in milliseconds.
    pub(crate) named_ms: Vec<u128>,
}

impl Kills {
    /// The figures.
    pub(crate) fn told(&self) -> String {
        let mut sorted = self.named_ms.clone();
        sorted.sort_unstable();
        format!(
            "{} kills; a state was named after {} ms (median), {} ms (worst)",
            self.at.len(),
            sorted.get(sorted.len() / 2).copied().unwrap_or(0),
            sorted.last().copied().unwrap_or(0)
        )
    }

    /// Starts the server again, to die at a point if one is named, and notes how fast it names a state. Nothing when it
    /// died before it could.
    #[track_caller]
    pub(crate) fn start_again(
        &mut self,
        lab: &mut Lab,
        point: Option<&str>,
    ) -> Option<Box<flipside_model::Status>> {
        lab.server.start(point);
        match lab.server.first() {
            First::Died => None,
            First::Said(status, after) => {
                self.named_ms.push(after.as_millis());
                let limit = NAMED * busy_host();
                assert!(after <= limit, "it took {after:?} until a state was named");
                Some(status)
            }
        }
    }

    /// Kills the server right now.
    #[track_caller]
    pub(crate) fn now(&mut self, lab: &mut Lab, when: &str) {
        lab.server.kill();
        lab.note(&format!("killed {when}"));
        self.at.push(when.to_owned());
    }

    /// Gives a command and takes it to its end, killing the server at every point on the way. Returns the points that
    /// were left when the end was reached without passing one.
    #[track_caller]
    pub(crate) fn walk(
        &mut self,
        lab: &mut Lab,
        command: &[&str],
        points: &[&str],
        goal: (S, O),
    ) -> Vec<String> {
        if points.is_empty() {
            // All of them are behind it: the command only leads on.
            lab.ok(command);
            lab.is_in(goal.0, goal.1);
            return Vec::new();
        }
        let moves = lab.status().upgrade_state != S::Split || command[0] == "merge";
        let mut asked = false;
        let mut left = Vec::new();
        lab.server.kill();
        for (index, point) in points.iter().enumerate() {
            let status = self.start_again(lab, Some(point));
            if let Some(status) = status {
                let here = (status.upgrade_state, status.operational_state);
                if !asked {
                    asked = true;
                    // It may die before it answers.
                    lab.run(&[command, &["--no-wait"]].concat());
                } else if status.operational_state == O::Broken {
                    lab.run(&["retry", NAME, "--no-wait"]);
                } else {
                    assert!(
                        status.operational_state == O::Busy || here == goal,
                        "{point}: {}",
                        status.line()
                    );
                }
            }
            // Before a retry is taken up, the status of before may still be seen.
            let began = Instant::now();
            let end = lab.server.until_dead(STAGE, |status| {
                let here = (status.upgrade_state, status.operational_state);
                let rests = here == goal || here.1 == O::Broken;
                (rests && began.elapsed() > Duration::from_secs(2))
                    .then(|| (here, status.problem.clone()))
            });
            if let Some((here, problem)) = end {
                assert_eq!(here, goal, "{point}: {problem:?}");
                self.passed_by.push((*point).to_owned());
                lab.note(&format!("not passed: {point}"));
                left = points[index + 1..]
                    .iter()
                    .map(|p| (*p).to_owned())
                    .collect();
                lab.server.kill();
                break;
            }
            lab.server.bury();
            lab.note(&format!("killed at {point}"));
            self.at.push((*point).to_owned());
            if must_serve(point, moves) {
                lab.serves(
                    SERVED * busy_host(),
                    &format!("while the server is dead at {point}"),
                );
            }
        }
        let status = self.start_again(lab, None).expect("nothing kills it now");
        let mut status = *status;
        let mut retries = 0;
        let began = Instant::now();
        while (status.upgrade_state, status.operational_state) != goal {
            assert!(began.elapsed() < STAGE, "{}", status.line());
            if status.operational_state == O::Broken {
                retries += 1;
                assert!(retries <= 1, "a retry failed: {:?}", status.problem);
                lab.ok(&["retry", NAME]);
            }
            super::moment(Duration::from_millis(50));
            status = lab.status();
        }
        left
    }
}

/// Says whether the users are served at a crash point: everywhere but while they are being moved.
fn must_serve(point: &str, moves: bool) -> bool {
    let (step, place) = point.split_once(':').expect("step:place");
    let before = matches!(place, "intent" | "act");
    let (stage, name) = step.split_once('.').expect("stage.step");
    if !moves || !matches!(stage, "merge" | "abort") {
        return true;
    }
    match name {
        "cancel_fork" | "end_upgrade" | "mirrors" => true,
        "hold_door" => before,
        "open_door" => !before,
        _ => false,
    }
}

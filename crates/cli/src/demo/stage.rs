//! What every chapter uses: the commands, the client, the place, and the figures that grow.

use super::figures::{Chapter, Figures};
use super::limits::{Limit, MERGE, SHORT};
use super::page::{self, Page};
use super::place::{Guest, Place, SYSTEM};
use super::runner::{Done, Runner, Show};
use super::teller::Teller;
use super::trouble::Trouble;
use super::visitors::Visitors;
use crate::client::Client;
use crate::failure::Failure;
use flipside_model::{Status, UpgradeState};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Soon enough for the eye, seldom enough for an emulated guest.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A stage of a session is noticed this soon, so that the client's phases are exact enough.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) quick: bool,
    pub(super) stop: bool,
    pub(super) figures: Option<PathBuf>,
    /// The command that ends this demo.
    pub(super) end: String,
}

/// The demo in progress.
pub(super) struct Stage {
    pub(super) teller: Teller,
    pub(super) place: Place,
    pub(super) guest: Guest,
    pub(super) options: Options,
    pub(super) runner: Runner,
    pub(super) visitors: Option<Visitors>,
    pub(super) figures: Figures,
    pub(super) http: u16,
    pub(super) postgres: u16,
    client: Client,
    began: Instant,
    chapter: Option<(String, Instant)>,
}

impl Stage {
    pub(super) fn new(
        teller: Teller,
        place: Place,
        exe: PathBuf,
        guest: Guest,
        options: Options,
    ) -> Self {
        let runner = Runner {
            exe,
            dir: place.dir.clone(),
            socket: place.socket(),
            teller: teller.clone(),
        };
        let figures = Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            quick: options.quick,
            ..Figures::default()
        };
        Self {
            client: Client::new(place.socket()),
            teller,
            place,
            guest,
            options,
            runner,
            visitors: None,
            figures,
            http: 0,
            postgres: 0,
            began: Instant::now(),
            chapter: None,
        }
    }

    /// Ends the chapter before and begins one.
    pub(super) fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        self.end_chapter();
        self.chapter = Some((title.to_owned(), Instant::now()));
        let number = self.figures.chapters.len() + 1;
        self.teller.chapter(&format!("{number}. {title}"))
    }

    pub(super) fn end_chapter(&mut self) {
        let tenths = |began: Instant| (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        if let Some((chapter, began)) = self.chapter.take() {
            self.figures.chapters.push(Chapter {
                chapter,
                seconds: tenths(began),
            });
        }
        self.figures.total_seconds = tenths(self.began);
    }

    /// Explains what comes next.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        self.teller.say(text)
    }

    pub(super) fn note(&self, text: &str) -> Result<(), Failure> {
        self.teller.note(text)
    }

    /// Runs a command whose output is live.
    pub(super) async fn live(&self, argv: &[&str], limit: Limit) -> Result<Done, Trouble> {
        self.runner.flipside(argv, limit, Show::Live).await
    }

    /// Runs a merge; the client's phase `moving` begins with the stage of that name, when the preparation is done.
    pub(super) async fn merge(&self, moving: &'static str) -> Result<Done, Trouble> {
        let begun = Cell::new(false);
        let begin = || {
            if !begun.replace(true) {
                self.phase(moving);
            }
        };
        let watch = async {
            let there = |status: Status| status.upgrade_state == UpgradeState::Merge;
            while !self.status().await.is_ok_and(there) {
                tokio::time::sleep(WATCH_EVERY).await;
            }
            begin();
            std::future::pending::<()>().await;
        };
        let done = tokio::select! {
            done = self.live(&["merge", "--yes", SYSTEM], MERGE) => done,
            () = watch => Err(Trouble::new("the merge was not watched")),
        };
        begin();
        done
    }

    /// Runs a short command whose output is needed.
    pub(super) async fn lines(&self, argv: &[&str]) -> Result<Done, Trouble> {
        self.runner.flipside(argv, SHORT, Show::Lines).await
    }

    /// Begins the next phase of the client.
    pub(super) fn phase(&self, name: &'static str) {
        if let Some(visitors) = &self.visitors {
            visitors.phase(name);
        }
    }

    /// Writes down that something that had to hold did not; the story goes on.
    pub(super) fn not_held(&mut self, what: String) -> Result<(), Failure> {
        self.teller.wrong(&format!("NOT HELD: {what}"))?;
        self.figures.not_held.push(what);
        Ok(())
    }

    /// Notes how many requests failed in some phases; there none may.
    pub(super) fn none_failed(&mut self, phases: &[&str]) -> Result<(), Failure> {
        let Some(visitors) = &self.visitors else {
            return Ok(());
        };
        let seen = visitors.seen().phases;
        let these = seen.iter().filter(|p| phases.contains(&p.phase));
        let (requests, failed) = these.fold((0, 0), |(r, f), p| (r + p.requests, f + p.failed));
        if failed > 0 {
            let names = phases.join(", ");
            return self.not_held(format!(
                "{failed} of {requests} requests failed in: {names}"
            ));
        }
        self.note(&format!(
            "the client: {requests} requests meanwhile, none failed"
        ))
    }

    /// Asks the server, without showing a command.
    pub(super) async fn status(&self) -> Result<Status, Trouble> {
        let path = format!("/v1/systems/{SYSTEM}");
        Ok(self.client.get(&path).await?)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the status is as it should be.
    pub(super) async fn until(
        &self,
        limit: Limit,
        is_so: impl Fn(&Status) -> bool,
    ) -> Result<Status, Trouble> {
        let deadline = Instant::now() + limit.after;
        loop {
            let status = self.status().await?;
            if is_so(&status) {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(late(limit, &status.line()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.http).into()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Fetches the page as a user would; it must answer in time.
    pub(super) async fn fetch(&self, limit: Limit) -> Result<(String, Page), Trouble> {
        let deadline = Instant::now() + limit.after;
        loop {
            let told = match page::get(self.address(), "/").await {
                Ok(text) => match Page::read(&text) {
                    Some(page) => return Ok((text, page)),
                    None => "another page".to_owned(),
                },
                Err(kind) => kind,
            };
            if Instant::now() >= deadline {
                return Err(late(limit, &told));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Shows the page as users see it now.
    pub(super) async fn show_page(&self) -> Result<Page, Trouble> {
        let (text, page) = self.fetch(SHORT).await?;
        self.note(&format!("{} says:", self.url()))?;
        for line in text.lines() {
            self.teller
                .line(&format!("   {}", flipside_activity::clean(line)))?;
        }
        Ok(page)
    }

    /// Compares the acknowledged writes with what the database has. Returns how many there are, and how many of them
    /// the database lacks.
    pub(super) async fn missing_writes(
        &self,
        acknowledged: &BTreeSet<u64>,
    ) -> Result<usize, Trouble> {
        let query = "psql -At -d demo -c 'SELECT id FROM visits'";
        let argv = [
            "run",
            "--side",
            "production",
            "--",
            "su",
            "postgres",
            "-c",
            query,
        ];
        self.teller.line("")?;
        self.teller
            .command(&format!("flipside {}", super::teller::typed(&argv)))?;
        let done = self.runner.flipside(&argv, SHORT, Show::Nothing).await?;
        let there: BTreeSet<u64> = done
            .out
            .iter()
            .filter_map(|l| l.trim().parse().ok())
            .collect();
        let missing = acknowledged.difference(&there).count();
        self.note(&format!(
            "{} ids in the database; the client had {} writes acknowledged, {missing} of them are missing",
            there.len(),
            acknowledged.len()
        ))?;
        Ok(missing)
    }

    /// Returns the end of the activity log, nothing when it cannot be had.
    pub(super) async fn log_tail(&self, lines: usize) -> Vec<String> {
        let log = self.runner.flipside(&["log", SYSTEM], SHORT, Show::Nothing);
        let mut out = log.await.map(|done| done.out).unwrap_or_default();
        out.split_off(out.len().saturating_sub(lines))
    }

    /// Names the logs there are.
    pub(super) fn logs(&self) -> Vec<(&'static str, PathBuf)> {
        let system = self.place.state().join("systems").join(SYSTEM);
        let mut logs = vec![
            ("server", self.place.server_log()),
            ("guard", system.join("guard.log")),
        ];
        let machines = std::fs::read_dir(&system).into_iter().flatten().flatten();
        for machine in machines.map(|entry| entry.path()) {
            logs.push(("QEMU", machine.join("qemu.log")));
            logs.push(("serial console", machine.join("serial.log")));
        }
        logs.retain(|(_, path)| path.is_file());
        logs
    }
}

pub(super) fn late(limit: Limit, last: &str) -> Trouble {
    let minutes = limit.after.as_secs() / 60;
    Trouble::new(format!(
        "the {} did not come within {minutes} minutes; the last answer was: {last}",
        limit.what
    ))
}

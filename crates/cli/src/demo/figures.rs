//! The figures of the story, as JSON and as a table.

use super::compare::Legs;
use super::stats::PhaseFigures;
use flipside_activity::{duration_ms, duration_us, size};
use flipside_model::Status;
use serde::Serialize;
use std::fmt::Write as _;

/// The goal of the issue: RDR copies at most this share of what changed.
const MOST_COPIED: f64 = 1.1;

/// What people write while it is copied is copied too, and was not yet counted as changed: some blocks of 64 KiB. On a
/// small disk that is more than a tenth.
const WRITTEN_MEANWHILE: f64 = 8.0 * 65_536.0;

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    pub(super) version: String,
    pub(super) accelerator: String,
    pub(super) quick: bool,
    pub(super) total_seconds: f64,
    /// How long each chapter took.
    pub(super) chapters: Vec<Chapter>,
    pub(super) split_pause_ms: Option<f64>,
    pub(super) second_split_pause_ms: Option<f64>,
    pub(super) old_kernel: String,
    pub(super) new_kernel: String,
    pub(super) merge: Option<Move>,
    pub(super) second_merge: Option<Move>,
    pub(super) abort: Option<Move>,
    /// Whether the abort left the running system as it was: no reboot.
    pub(super) abort_kept_boot: Option<bool>,
    /// What the resync copied after the commit, and after the abort.
    pub(super) commit_resync: Vec<Resync>,
    pub(super) abort_resync: Vec<Resync>,
    pub(super) writes: Option<Writes>,
    /// Empty when the system was left running.
    pub(super) legs: Vec<Legs>,
    pub(super) client: Vec<PhaseFigures>,
    /// The first failed requests, one by one.
    pub(super) failed_requests: Vec<String>,
    /// What had to hold and did not.
    pub(super) not_held: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Chapter {
    pub(super) chapter: String,
    pub(super) seconds: f64,
}

/// A move of the users to the other side.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Move {
    pub(super) outage_ms: Option<u64>,
    pub(super) outage_inside_ms: Option<u64>,
    pub(super) requests: u64,
    pub(super) failed_requests: u64,
}

impl Move {
    pub(super) fn of(status: &Status, phase: Option<PhaseFigures>) -> Self {
        let mut moved = Self {
            outage_ms: status.outage_ms,
            outage_inside_ms: status.outage_inside_ms,
            ..Self::default()
        };
        if let Some(phase) = phase {
            moved.count(&phase);
        }
        moved
    }

    fn count(&mut self, phase: &PhaseFigures) {
        self.requests = phase.requests;
        self.failed_requests = phase.failed;
    }

    pub(super) fn text(&self) -> String {
        let shown = |ms: Option<u64>| ms.map_or_else(|| "?".to_owned(), duration_ms);
        format!(
            "outage {} at the front door, {} inside; {} of {} requests failed",
            shown(self.outage_ms),
            shown(self.outage_inside_ms),
            self.failed_requests,
            self.requests
        )
    }
}

/// What one disk's resync copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Resync {
    pub(super) disk: String,
    pub(super) size: u64,
    /// Bytes that had changed on either side.
    pub(super) changed: u64,
    pub(super) copied: u64,
}

impl Resync {
    pub(super) fn of(status: &Status) -> Vec<Self> {
        let disks = status.disks.iter();
        disks
            .map(|disk| Self {
                disk: disk.name.to_string(),
                size: disk.size,
                changed: disk.resync_union,
                copied: disk.resync_copied,
            })
            .collect()
    }

    /// Returns copied bytes for every changed one.
    fn ratio(&self) -> Option<f64> {
        (self.changed > 0).then(|| self.copied as f64 / self.changed as f64)
    }

    /// Says whether more was copied than the goal allows.
    pub(super) fn is_too_much(&self) -> bool {
        self.copied as f64 > MOST_COPIED * self.changed as f64 + WRITTEN_MEANWHILE
    }

    pub(super) fn text(&self) -> String {
        let ratio = self
            .ratio()
            .map_or_else(String::new, |ratio| format!(" ({ratio:.2} times)"));
        format!(
            "{}: {} copied, {} had changed{ratio}, of {}",
            self.disk,
            size(self.copied),
            size(self.changed),
            size(self.size)
        )
    }
}

/// The acknowledged writes of the client, and how many of them the database has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Writes {
    pub(super) acknowledged: u64,
    pub(super) found: u64,
}

impl Figures {
    /// Takes what the client saw in all; answers that came late are counted for the moves too.
    pub(super) fn seen(&mut self, phases: Vec<PhaseFigures>, moves: [&str; 3]) {
        let of = |name: &str| phases.iter().find(|p| p.phase == name);
        let [merge, second, abort] = moves.map(of);
        for (moved, phase) in [
            (&mut self.merge, merge),
            (&mut self.second_merge, second),
            (&mut self.abort, abort),
        ] {
            if let (Some(moved), Some(phase)) = (moved, phase) {
                moved.count(phase);
            }
        }
        self.client = phases;
    }

    /// Renders what the story ends with.
    pub(super) fn table(&self) -> String {
        let mut out = self.client_table();
        out.push('\n');
        for (name, text) in self.rows() {
            let _ = writeln!(out, "{name:<16}  {text}");
        }
        out.push('\n');
        for chapter in &self.chapters {
            let _ = writeln!(
                out,
                "{:>10}  {}",
                seconds_text(chapter.seconds),
                chapter.chapter
            );
        }
        let _ = write!(out, "{:>10}  in all", seconds_text(self.total_seconds));
        out
    }

    fn client_table(&self) -> String {
        let width = self.client.iter().map(|p| p.phase.len()).max();
        let width = width.unwrap_or(0).max("CLIENT".len());
        let mut out = format!(
            "{:<width$}  {:>11}  {:>8}  {:>6}  {:>8}  {:>8}  {:>8}\n",
            "CLIENT", "TIME", "REQUESTS", "FAILED", "P50", "P95", "WORST"
        );
        let ms = |value: Option<f64>| {
            value.map_or_else(
                || "-".to_owned(),
                |ms| duration_us((ms * 1000.0).round() as u64),
            )
        };
        for phase in &self.client {
            let _ = writeln!(
                out,
                "{:<width$}  {:>11}  {:>8}  {:>6}  {:>8}  {:>8}  {:>8}",
                phase.phase,
                seconds_text(phase.seconds),
                phase.requests,
                phase.failed,
                ms(phase.p50_ms),
                ms(phase.p95_ms),
                ms(phase.worst_ms)
            );
        }
        out
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let pause = |ms: Option<f64>| {
            ms.map(|ms| {
                format!(
                    "production paused for {}",
                    duration_us((ms * 1000.0) as u64)
                )
            })
        };
        let moved = |moved: &Option<Move>| moved.as_ref().map(Move::text);
        let mut row = |name, text: Option<String>| {
            if let Some(text) = text {
                rows.push((name, text));
            }
        };
        row("split", pause(self.split_pause_ms));
        let kernels = (!self.new_kernel.is_empty())
            .then(|| format!("{} -> {}", self.old_kernel, self.new_kernel));
        row("kernel", kernels);
        row("merge", moved(&self.merge));
        for (i, resync) in self.commit_resync.iter().enumerate() {
            row(if i == 0 { "commit" } else { "" }, Some(resync.text()));
        }
        row("second split", pause(self.second_split_pause_ms));
        row("second merge", moved(&self.second_merge));
        row("abort", moved(&self.abort));
        let boot = |kept| if kept { "no reboot" } else { "REBOOTED" }.to_owned();
        row("", self.abort_kept_boot.map(boot));
        for (i, resync) in self.abort_resync.iter().enumerate() {
            let name = if i == 0 { "resync after it" } else { "" };
            row(name, Some(resync.text()));
        }
        let writes = self.writes.as_ref().map(|writes| {
            format!(
                "{} acknowledged, {} of them in the database",
                writes.acknowledged, writes.found
            )
        });
        row("writes", writes);
        for (i, legs) in self.legs.iter().enumerate() {
            let verdict = match legs.differs_at {
                None => "identical".to_owned(),
                Some(at) => format!("DIFFER at byte {at}"),
            };
            let text = format!("{}: {verdict}, {} compared", legs.disk, size(legs.compared));
            row(if i == 0 { "legs" } else { "" }, Some(text));
        }
        row("machine", Some(self.accelerator.clone()));
        rows
    }
}

fn seconds_text(seconds: f64) -> String {
    duration_us((seconds * 1_000_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn sample() -> Figures {
        let phase = |phase, requests, failed| PhaseFigures {
            phase,
            seconds: 12.3,
            requests,
            failed,
            failures: BTreeMap::new(),
            p50_ms: (requests > 0).then_some(21.04),
            p95_ms: (requests > 0).then_some(40.0),
            worst_ms: (requests > 0).then_some(1234.0),
        };
        Figures {
            accelerator: "tcg".to_owned(),
            total_seconds: 480.0,
            chapters: vec![Chapter {
                chapter: "split".to_owned(),
                seconds: 7.5,
            }],
            split_pause_ms: Some(74.3),
            merge: Some(Move {
                outage_ms: Some(4310),
                outage_inside_ms: None,
                requests: 60,
                failed_requests: 0,
            }),
            commit_resync: vec![Resync {
                disk: "system0".to_owned(),
                size: 3 << 30,
                changed: 100 << 20,
                copied: 104 << 20,
            }],
            abort_kept_boot: Some(true),
            writes: Some(Writes {
                acknowledged: 9,
                found: 9,
            }),
            legs: vec![Legs {
                disk: "system0".to_owned(),
                size: 3 << 30,
                compared: 1 << 30,
                differs_at: None,
            }],
            client: vec![phase("before the split", 120, 0), phase("merge", 0, 0)],
            ..Figures::default()
        }
    }

    #[test]
    fn the_table_reads_like_this() {
        let expected = "\
CLIENT                   TIME  REQUESTS  FAILED       P50       P95     WORST
before the split       12.3 s       120       0   21.0 ms   40.0 ms    1.23 s
merge                  12.3 s         0       0         -         -         -

split             production paused for 74.3 ms
merge             outage 4.31 s at the front door, ? inside; 0 of 60 requests failed
commit            system0: 104 MiB copied, 100 MiB had changed (1.04 times), of 3.0 GiB
                  no reboot
writes            9 acknowledged, 9 of them in the database
legs              system0: identical, 1.0 GiB compared
machine           tcg

     7.5 s  split
8 min 00 s  in all";
        assert_eq!(sample().table(), expected);
    }

    #[test]
    fn late_answers_count_for_the_move_they_belong_to() {
        let mut figures = sample();
        let mut phases = std::mem::take(&mut figures.client);
        phases[1].requests = 77;
        phases[1].failed = 3;
        figures.seen(phases, ["merge", "second merge", "abort"]);
        let merge = figures.merge.clone().expect("there");
        assert_eq!((merge.requests, merge.failed_requests), (77, 3));
        assert_eq!((figures.client.len(), figures.abort), (2, None));
    }

    #[test]
    fn copying_more_than_changed_is_noticed() {
        let resync = |changed, copied| Resync {
            disk: "data0".to_owned(),
            size: 1 << 30,
            changed,
            copied,
        };
        let (changed, meanwhile) = (1_000_000_000, 8 * 65_536);
        let most = 1_100_000_000 + meanwhile;
        assert!(!resync(changed, most).is_too_much());
        assert!(resync(changed, most + 1).is_too_much());
        assert!(!resync(0, 0).is_too_much());
        assert!(!resync(0, meanwhile).is_too_much());
        assert!(resync(0, meanwhile + 1).is_too_much());
    }

    #[test]
    fn the_figures_are_json() {
        let json = serde_json::to_value(sample()).expect("serialises");
        assert_eq!(json["split_pause_ms"], 74.3);
        assert_eq!(json["client"][0]["p50_ms"], 21.04);
        assert_eq!(json["legs"][0]["differs_at"], serde_json::Value::Null);
    }
}

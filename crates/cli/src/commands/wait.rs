//! `flipside wait --duplex`: until every mirror is in sync again.

use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{Patience, ended};
use crate::live::Live;
use crate::report::left_text;
use flipside_activity::{rate, size};
use flipside_model::{
    DiskName, DiskStatus, MirrorStatus, Problem, ProblemCode, Status, SystemName,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A rate over a shorter time jumps too much to be read.
const RATE_OVER: Duration = Duration::from_secs(1);

/// On a pipe, a line for every tenth part is enough.
const LINE_EVERY_PERCENT: u8 = 10;

const LONG: &str = "\
Waits until every mirror is None, that is until both legs of every disk are in sync. Commit and abort return when \
their resync (RDR, the resync of a mirror) has started; this waits for its end.";

const EXAMPLES: &str = "\
Examples:
  flipside wait web --duplex
  flipside wait web --duplex --timeout 3600 || echo 'still not in sync'";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// Until every mirror is None
    #[arg(long, required = true)]
    duplex: bool,
    /// Give up after this many seconds (exit status 1)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let mut watch = Watch {
        ctx,
        live: Live::new(ctx.json, ctx.color),
        rates: BTreeMap::new(),
        said: BTreeMap::new(),
    };
    let Some(seconds) = args.timeout else {
        return watch.follow(&system).await;
    };
    match tokio::time::timeout(Duration::from_secs(seconds), watch.follow(&system)).await {
        Ok(ended) => ended,
        Err(_) => Err(Problem::new(
            ProblemCode::TimedOut,
            format!("`{system}` is not duplexed after {seconds} seconds"),
        )
        .advise("the resync goes on without this command: `flipside status --watch`")
        .into()),
    }
}

struct Watch<'a> {
    ctx: &'a Context,
    live: Live,
    rates: BTreeMap<DiskName, Rate>,
    said: BTreeMap<DiskName, String>,
}

impl Watch<'_> {
    async fn follow(&mut self, system: &SystemName) -> Result<(), Failure> {
        let mut patience = Patience::default();
        let path = format!("/v1/systems/{system}/status?watch=true");
        loop {
            let failure = match self.ctx.client.watch::<Status>(&path).await {
                Err(failure) => failure,
                Ok(mut lines) => {
                    patience.found(&self.live);
                    loop {
                        match lines.next().await {
                            Ok(Some(status)) if self.seen(&status)? => return Ok(()),
                            Ok(Some(_)) => {}
                            Ok(None) => break ended(),
                            Err(failure) => break failure,
                        }
                    }
                }
            };
            patience.lost(&self.live, failure).await?;
        }
    }

    /// Shows one status; says whether the wait is over.
    fn seen(&mut self, status: &Status) -> Result<bool, Failure> {
        if !status.running {
            return Err(Failure::failed(format!(
                "`{}` is not running, so its mirrors cannot come into sync",
                status.system
            ))
            .advise(format!(
                "start it: `flipside system start {}`",
                status.system
            )));
        }
        if status.checkpoint_ms.is_some() {
            return Err(Failure::failed(format!(
                "the data disks of `{}` stay without a mirror: their second legs keep the data as they were at the merge",
                status.system
            ))
            .advise("`flipside commit` or `flipside abort` ends that"));
        }
        let mut texts = Vec::new();
        for disk in &status.disks {
            let (text, key) = self.disk_text(disk);
            let before = self.said.insert(disk.name.clone(), key.clone());
            if !self.live.moves() && before.as_ref() != Some(&key) {
                self.live.line(&text)?;
            }
            if disk.mirror != MirrorStatus::None {
                texts.push(text);
            }
        }
        self.live.message(texts.join("; "));
        if !texts.is_empty() {
            return Ok(false);
        }
        if self.ctx.json {
            self.ctx.object(status)?;
        } else {
            let text = format!("`{}`: every mirror is in sync", status.system);
            self.live.line(&text)?;
        }
        Ok(true)
    }

    /// Returns what is shown, and what has to change before it is shown again as a line.
    fn disk_text(&mut self, disk: &DiskStatus) -> (String, String) {
        let MirrorStatus::Resync(percent) = disk.mirror else {
            let text = format!("{} {}", disk.name, disk.mirror);
            return (text.clone(), text);
        };
        let speed = self
            .rates
            .entry(disk.name.clone())
            .or_default()
            .update(disk.resync_copied, Instant::now());
        let mut text = format!(
            "{} {}, {} of {}",
            disk.name,
            disk.mirror,
            size(disk.resync_copied),
            size(disk.resync_union)
        );
        if let Some(speed) = speed.filter(|speed| *speed > 0) {
            let left = disk.resync_union.saturating_sub(disk.resync_copied) / speed;
            text.push_str(&format!(", {}, {} left", rate(speed), left_text(left)));
        }
        (text, format!("{}", percent / LINE_EVERY_PERCENT))
    }
}

/// The rate of one disk, from two counts at least [`RATE_OVER`] apart.
#[derive(Default)]
struct Rate {
    from: Option<(u64, Instant)>,
    speed: Option<u64>,
}

impl Rate {
    fn update(&mut self, copied: u64, now: Instant) -> Option<u64> {
        match self.from {
            Some((before, then)) if copied >= before => {
                let passed = now.saturating_duration_since(then);
                if passed >= RATE_OVER {
                    self.speed = Some(((copied - before) as f64 / passed.as_secs_f64()) as u64);
                    self.from = Some((copied, now));
                }
            }
            // The first count, or a new resync that begins at zero.
            _ => {
                self.from = Some((copied, now));
                self.speed = None;
            }
        }
        self.speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_a_second_and_starts_again_with_a_new_resync() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::default();
        assert_eq!(rate.update(0, at(0)), None);
        assert_eq!(rate.update(500, at(500)), None);
        assert_eq!(rate.update(2000, at(2000)), Some(1000));
        assert_eq!(rate.update(2100, at(2100)), Some(1000));
        assert_eq!(rate.update(10, at(3000)), None);
    }
}

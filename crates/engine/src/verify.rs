//! Compares both legs of a disk while the system runs, and takes the one that differs out when asked to (fault 20).

use crate::context::Cx;
use crate::driver::System;
use flipside_model::api::VerifyOutcome;
use flipside_model::{
    DiskName, LegBook, LegRole, Problem, ProblemCode, Progress, Severity, StaleReason,
};
use flipside_platform::{DiskSource, RunState, Verified};
use tokio::time::Instant;

/// Reading is limited to this many bytes per second, as the resynchronisation is: users come first.
const RATE: u64 = 200_000_000;

/// The guard continues a machine that a dead server left paused in a swap after this many milliseconds; a swap takes ten.
const SWAP_PAUSE_MS: i64 = 2_000;

/// What is said of a leg that was taken out.
const DIFFERS: &str = "it differs from the leg that decides";

impl System {
    /// Compares both legs of a disk. With `repair` the leg that does not decide is taken out if they differ; the
    /// mirror keeper then compares it as a whole and writes what differs.
    ///
    /// # Errors
    /// `NotFound` without such a disk; `Refused` when the disk is not duplexed, or when that changed meanwhile.
    pub async fn verify(
        &self,
        disk: &DiskName,
        repair: bool,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<VerifyOutcome, Problem> {
        let cx = self.cx();
        let before = cx.book().await?;
        duplexed(&before, disk)?;
        cx.ledger.log(
            Severity::Information,
            format!("`{disk}`: both legs are compared"),
        )?;
        let began = Instant::now();
        let tell = |done: u64, total: u64| {
            let seconds = began.elapsed().as_secs_f64();
            let what = format!("Comparing {disk}");
            progress(Progress::after(seconds, what, done, total));
        };
        let found = cx.ports.disk.verify(disk, RATE, &tell).await?;
        let after = cx.book().await?;
        if after.generation != before.generation {
            return Err(Problem::new(
                ProblemCode::Refused,
                format!("the legs of `{disk}` were changed while they were compared, so the result says nothing"),
            )
            .about(disk.as_str())
            .advise("`flipside wait --duplex`, then compare again"));
        }
        let repairing = repair && found.different_bytes > 0;
        report(cx, disk, &found, repairing)?;
        let leg = after.disks.get(disk).map(|pair| pair.authority.other());
        if repairing {
            take_out(cx, disk).await?;
        }
        Ok(VerifyOutcome {
            disk: disk.clone(),
            compared_bytes: found.compared_bytes,
            different_bytes: found.different_bytes,
            first_difference: found.first_difference,
            repairing: leg.filter(|_| repairing),
        })
    }
}

fn duplexed(book: &LegBook, disk: &DiskName) -> Result<(), Problem> {
    let Some(pair) = book.disks.get(disk) else {
        let known: Vec<&str> = book.disks.keys().map(DiskName::as_str).collect();
        return Err(
            Problem::new(ProblemCode::NotFound, format!("there is no disk `{disk}`"))
                .about(disk.as_str())
                .advise(format!("the disks are {}", known.join(", "))),
        );
    };
    if pair.duplexed() {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::Refused,
        format!("`{disk}` is not duplexed, so there are no two legs to compare"),
    )
    .about(disk.as_str())
    .advise("`flipside wait --duplex`, or finish the session first"))
}

fn report(cx: &Cx, disk: &DiskName, found: &Verified, repairing: bool) -> Result<(), Problem> {
    let Some(first) = found.first_difference else {
        cx.ledger.log(
            Severity::Success,
            format!(
                "`{disk}`: both legs hold the same {} bytes",
                found.compared_bytes
            ),
        )?;
        return Ok(());
    };
    let text = format!(
        "`{disk}`: the legs differ in {} bytes, first at byte {first}",
        found.different_bytes
    );
    let advice = if repairing {
        "the leg that does not decide is rewritten now"
    } else {
        "`flipside disk verify --repair` rewrites the leg that does not decide; which of them is right, no mirror can say"
    };
    let problem = Problem::new(ProblemCode::Mismatch, text)
        .about(disk.as_str())
        .advise(advice);
    cx.ledger
        .write(flipside_model::Record::problem(Severity::Error, &problem))?;
    Ok(())
}

/// Takes the leg that does not decide out. The book says so first: a server that dies in between leaves both legs in the
/// machine, which is no worse than before, and the keeper corrects the record by what the machine proves.
async fn take_out(cx: &Cx, disk: &DiskName) -> Result<(), Problem> {
    let held = cx.exclusive().await?;
    let book = cx.book().await?;
    duplexed(&book, disk)?;
    let Some(authority) = book.disks.get(disk).map(|pair| pair.authority) else {
        return Ok(());
    };
    let swapped = match book.owner {
        Some(machine) => {
            let view = cx.view(machine).await?;
            let both = view.disks.get(disk).is_some_and(
                |plugged| matches!(&plugged.source, DiskSource::Legs(legs) if legs.len() == 2),
            );
            (view.run == RunState::Running && both).then_some(machine)
        }
        None => None,
    };
    let until = cx.ports.clock.now_ms() + SWAP_PAUSE_MS;
    cx.edit_book(&held, |book| {
        if let Some(pair) = book.disks.get_mut(disk) {
            pair.get_mut(authority.other()).role =
                LegRole::Stale(StaleReason::Failed(DIFFERS.to_owned()));
        }
        book.pause_until_ms = swapped.map(|_| until).or(book.pause_until_ms);
    })
    .await?;
    let Some(machine) = swapped else {
        return Ok(());
    };
    cx.ports.machine.pause(machine).await?;
    let set = cx.ports.disk.set_legs(machine, disk, &[authority]).await;
    cx.ports.machine.resume(machine).await?;
    cx.edit_book(&held, |book| book.pause_until_ms = None)
        .await?;
    Ok(set?)
}

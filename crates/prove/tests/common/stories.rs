//! Stories besides the three ways: what a way with one fault does not come to.

use super::Bench;
use super::story::whole_again;
use flipside_backend_sim::{At, Fault, FaultKind, LegFault, SimOptions};
use flipside_engine::Stamped;
use flipside_journal::{Fault as DiskFault, Journal, MemoryDisk, MemoryStorage};
use flipside_model::{
    Command, DiskName, Leg, OperationalState as O, ProblemCode, UpgradeState as S,
};
use flipside_platform::PortErrorKind;
use flipside_prove::{End, run};
use std::io::ErrorKind;
use std::time::Duration;

/// A story and its name.
pub type Story = (&'static str, fn() -> Result<(), String>);

pub const STORIES: &[Story] = &[
    ("unhealthy software gets no users", || {
        run(unhealthy_software_gets_no_users)
    }),
    ("a crash loop ends", || run(a_crash_loop_ends)),
    ("the target of a resync fails", || run(the_target_fails)),
    ("a leg fails during the fork", || {
        run(a_leg_fails_during_the_fork)
    }),
    ("a disk with one leg is not split", || {
        run(a_simplex_disk_is_not_split)
    }),
    ("the power fails in Idle", || run(the_power_fails)),
    ("the machine is killed in Idle", || {
        run(the_machine_is_killed)
    }),
    ("the machine is killed in a resync", || {
        run(the_machine_is_killed_in_a_resync)
    }),
    ("a merge while a data disk is resynchronised", || {
        run(a_merge_in_a_resync)
    }),
    ("the serving machine dies in a resync after a merge", || {
        run(the_serving_machine_dies_in_a_resync)
    }),
    ("the clock is set back in the pause of a split", || {
        run(the_clock_is_set_back)
    }),
    ("an old leg book is refused", || run(an_old_book_is_refused)),
    ("a leg is replaced in Split", || {
        run(a_leg_is_replaced_in_split)
    }),
    ("an older journal is put back", || {
        run(an_older_journal_is_put_back)
    }),
    ("the journal is full", || run(the_journal_is_full)),
    ("the journal's disk fails once", || {
        run(the_journals_disk_fails)
    }),
    ("the journal is damaged", || run(the_journal_is_damaged)),
    ("a socket starts its service again", || {
        run(super::sockets::a_socket_starts_its_service_again)
    }),
    ("what a disk is meant to be in a session", || {
        run(super::roles::what_a_disk_is_meant_to_be)
    }),
];

async fn at_work(change: impl FnOnce(&mut SimOptions)) -> Bench {
    let mut options = SimOptions {
        busy_guests: true,
        check_every_call: true,
        ..SimOptions::default()
    };
    change(&mut options);
    let mut bench = Bench::with(1, 1, options).await;
    bench.power_on().await;
    bench
}

/// Gives a command and demands where it ends.
async fn expect(bench: &mut Bench, command: Command, state: S, how: O) -> Result<(), String> {
    let end = bench.command(command).await.map_err(|p| p.to_string())?;
    bench.check()?;
    match &end {
        End::State(s, o, _) if (*s, *o) == (state, how) => Ok(()),
        _ => Err(format!("{command} ended in {end:?}, not {state} {how}")),
    }
}

/// Ends whatever session is open and demands that everything is well again.
async fn end_by_abort(bench: &mut Bench) -> Result<(), String> {
    bench.reach(Command::Abort, S::Abort).await?;
    bench.reach(Command::Finish, S::Idle).await?;
    whole_again(bench).await?;
    match bench.version().as_deref() {
        Some("1.0") => Ok(()),
        other => Err(format!("serves {other:?} after an abort")),
    }
}

/// Lets time pass, looking all the while.
async fn pass(bench: &Bench, time: Duration) -> Result<(), String> {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(250)).await;
        bench.check()?;
    }
    Ok(())
}

fn data() -> DiskName {
    DiskName::new("data0").expect("valid")
}

async fn unhealthy_software_gets_no_users() -> Result<(), String> {
    let mut bench = at_work(|o| {
        o.unhealthy_versions.insert("2.0".to_owned());
    })
    .await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.install("2.0")?;
    expect(&mut bench, Command::Merge, S::Merge, O::Broken).await?;
    pass(&bench, Duration::from_secs(2)).await?;
    end_by_abort(&mut bench).await
}

// Fault 68, invariant 23: the server dies in the pause, and then the recorded end of the pause is an hour away.
async fn the_clock_is_set_back() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    bench
        .world
        .plan(Fault::next("machine.fork_switch.*", FaultKind::CrashBefore));
    match bench.command(Command::Split).await {
        Ok(End::Crashed) => {}
        other => return Err(format!("the split ended in {other:?}")),
    }
    bench.world.jump_clock(-3_600_000);
    pass(&bench, Duration::from_secs(12)).await?;
    if !bench.world.client_ok() {
        return Err(format!("nobody is served: {:?}", bench.world.serving()));
    }
    bench.start_server().await.map_err(|p| p.to_string())?;
    bench.settled().await;
    end_by_abort(&mut bench).await
}

// Fault 3, invariant 24.
async fn a_crash_loop_ends() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.world.plan(Fault {
        call: At::Every("guest.open_data.*".to_owned()),
        kind: FaultKind::CrashBefore,
    });
    let _ = bench.command(Command::Merge).await;
    for _ in 0..8 {
        bench.start_server().await.map_err(|p| p.to_string())?;
        if bench.system.is_some() && bench.settled().await != End::Crashed {
            bench.world.clear_plan();
            return end_by_abort(&mut bench).await;
        }
    }
    Err("the server ends for ever".to_owned())
}

// Fault 17.
async fn the_target_fails() -> Result<(), String> {
    let mut bench = at_work(|o| o.resync_blocks_per_poll = 1).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.world.fail_leg(&data(), Leg::B, LegFault::Write);
    pass(&bench, Duration::from_secs(2)).await?;
    bench.world.heal_leg(&data(), Leg::B);
    bench.world.set_options(usual_speed);
    bench.duplex_data(&data()).await?;
    end_by_abort(&mut bench).await
}

async fn a_leg_fails_during_the_fork() -> Result<(), String> {
    let mut bench = at_work(|o| o.precopy_polls = 100).await;
    let world = bench.world.clone();
    let fails = async {
        while !world.trace().iter().any(|c| c.contains("fork_begin")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.fail_leg(&data(), Leg::B, LegFault::Read);
    };
    let (end, ()) = tokio::join!(bench.command(Command::Split), fails);
    bench.check()?;
    match end {
        Ok(End::State(S::Split, O::Broken, _)) => {}
        other => return Err(format!("a split with a failed leg ended in {other:?}")),
    }
    bench.world.heal_leg(&data(), Leg::B);
    end_by_abort(&mut bench).await
}

// RC-20, SM-29.
async fn a_simplex_disk_is_not_split() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    bench.world.fail_leg(&data(), Leg::B, LegFault::Write);
    pass(&bench, Duration::from_secs(2)).await?;
    expect(&mut bench, Command::Split, S::Idle, O::Broken).await?;
    bench.world.heal_leg(&data(), Leg::B);
    whole_again(&mut bench).await
}

/// Starts the system again when the server has noticed that it is off.
async fn on_again(bench: &mut Bench) -> Result<(), String> {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while bench.status().running {
        if tokio::time::Instant::now() > end {
            return Err("nobody noticed that the machine is gone".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.power_on().await;
    whole_again(bench).await
}

// Fault 7.
async fn the_power_fails() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    pass(&bench, Duration::from_secs(1)).await?;
    bench.world.power_cut();
    bench.bury();
    bench.start_server().await.map_err(|p| p.to_string())?;
    on_again(&mut bench).await
}

async fn kill(bench: &mut Bench) -> Result<(), String> {
    let serving = bench.world.serving()?;
    bench.world.kill_machine(serving);
    on_again(bench).await
}

async fn the_machine_is_killed() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    pass(&bench, Duration::from_secs(1)).await?;
    kill(&mut bench).await
}

async fn the_machine_is_killed_in_a_resync() -> Result<(), String> {
    let slow = |o: &mut SimOptions| (o.resync_blocks_per_poll, o.nearly_blocks) = (1, 0);
    let mut bench = at_work(slow).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.install("2.0")?;
    expect(&mut bench, Command::Abort, S::Abort, O::Ready).await?;
    expect(&mut bench, Command::Finish, S::Idle, O::Ready).await?;
    let serving = bench.world.serving()?;
    bench.world.kill_machine(serving);
    bench.world.set_options(usual_speed);
    on_again(&mut bench).await
}

fn usual_speed(options: &mut SimOptions) {
    let usual = SimOptions::default();
    options.resync_blocks_per_poll = usual.resync_blocks_per_poll;
    options.nearly_blocks = usual.nearly_blocks;
    options.latency = usual.latency;
}

// Design 3.8: what is left of a resynchronisation moves with the disk.
async fn a_merge_in_a_resync() -> Result<(), String> {
    let mut bench = merged_in_a_resync().await?;
    bench.world.set_options(usual_speed);
    bench.duplex_data(&data()).await?;
    expect(&mut bench, Command::Commit, S::Commit, O::Ready).await?;
    expect(&mut bench, Command::Finish, S::Idle, O::Ready).await?;
    whole_again(&mut bench).await
}

/// A merge that gave the resynchronisation of a data disk up: it is slower than the client writes, on a disk so large that a
/// block is rarely written twice, so most of what is left is known to it alone.
async fn merged_in_a_resync() -> Result<Bench, String> {
    let mut bench = at_work(|o| {
        (o.resync_blocks_per_poll, o.nearly_blocks) = (1, 0);
        (o.blocks, o.latency) = (1_024, Duration::from_millis(30));
        o.busy_guests = false;
    })
    .await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.install("2.0")?;
    pass(&bench, Duration::from_secs(2)).await?;
    expect(&mut bench, Command::Merge, S::Merge, O::Ready).await?;
    Ok(bench)
}

// Fault 28: what it wrote after the merge was in its own bitmap only, and that died with it.
async fn the_serving_machine_dies_in_a_resync() -> Result<(), String> {
    let mut bench = merged_in_a_resync().await?;
    pass(&bench, Duration::from_secs(2)).await?;
    let serving = bench.world.serving()?;
    bench.world.kill_machine(serving);
    bench.world.set_options(usual_speed);
    end_by_abort(&mut bench).await
}

// Invariant 10: who has read an old book writes nothing.
async fn an_old_book_is_refused() -> Result<(), String> {
    let bench = at_work(|_| {}).await;
    let legs = bench.world.ports().legs;
    let _lease = legs.lease().await.map_err(|e| e.to_string())?;
    let old = legs.load().await.map_err(|e| e.to_string())?;
    legs.store(&old).await.map_err(|e| e.to_string())?;
    match legs.store(&old).await {
        Err(error) if error.kind == PortErrorKind::Mismatch => Ok(()),
        other => Err(format!(
            "an old leg book: {:?}",
            other.map(|b| b.generation)
        )),
    }
}

// Fault 22, SP-18.
async fn a_leg_is_replaced_in_split() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.duplex_data(&data()).await?;
    bench.install("2.0")?;
    bench
        .world
        .change_leg(&data(), Leg::B, Some("was replaced"));
    expect(&mut bench, Command::Merge, S::PrepareMerge, O::Broken).await?;
    bench.world.change_leg(&data(), Leg::B, None);
    end_by_abort(&mut bench).await
}

// Fault 14: a backup of the journal, restored in the middle of a session; nothing is done with it, and the users stay.
async fn an_older_journal_is_put_back() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    let old = bench.disk.contents();
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    let new = bench.disk.contents();
    bench.world.crash_server();
    bench.bury();
    // This bench would notice by itself.
    (bench.shown, bench.believed) = (Vec::new(), None);
    bench.disk.set_contents(&old);
    match bench.start_server().await {
        Err(problem) if problem.code == ProblemCode::Mismatch => {}
        other => return Err(format!("an older journal: {other:?}")),
    }
    bench.served_within(Duration::from_secs(1)).await?;
    bench.disk.set_contents(&new);
    bench.start_server().await.map_err(|p| p.to_string())?;
    end_by_abort(&mut bench).await
}

// Fault 11: nothing is believed that cannot be written; with space it goes on.
async fn the_journal_is_full() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    bench.disk.set_space(Some(0));
    pass(&bench, Duration::from_secs(1)).await?;
    for _ in 0..200 {
        if bench.command(Command::Merge).await.is_err() {
            break;
        }
        let end = bench.command(Command::Retry).await;
        if end.is_err() {
            break;
        }
    }
    bench.world.crash_server();
    bench.bury();
    bench.disk.set_space(None);
    bench.start_server().await.map_err(|p| p.to_string())?;
    end_by_abort(&mut bench).await
}

// Design 3.11: after a failed sync nobody knows what the disk holds, so the server ends and reads.
async fn the_journals_disk_fails() -> Result<(), String> {
    for call in 1..=3 {
        let mut bench = at_work(|_| {}).await;
        let fault = DiskFault {
            kind: ErrorKind::Other,
            written: 0,
        };
        bench.disk.fail_call(bench.disk.calls() + call, fault);
        bench.reach(Command::Split, S::Split).await?;
        end_by_abort(&mut bench).await?;
        if bench.lives == 1 {
            return Err("the server went on after its disk had failed".to_owned());
        }
    }
    Ok(())
}

// Invariant 17: a damaged journal is refused, or is a prefix of what was written; at most its last record is missing.
async fn the_journal_is_damaged() -> Result<(), String> {
    let mut bench = at_work(|_| {}).await;
    expect(&mut bench, Command::Split, S::Split, O::Ready).await?;
    let good = bench.disk.contents();
    let lines: Vec<&[u8]> = good.split_inclusive(|b| *b == b'\n').collect();
    let whole = read(&good).map_err(|e| format!("the good journal: {e}"))?;
    for at in (0..good.len()).rev().step_by(1_499) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        judge(&bad, &whole, 1, &format!("a flipped bit at {at}"))?;
    }
    for at in (1..lines.len() - 1).step_by(9) {
        let lost = [&lines[..at], &lines[at + 1..]].concat().concat();
        judge(&lost, &whole, 0, &format!("line {at} lost"))?;
    }
    // A record of another journal, and one with a number too high: both are good lines in themselves.
    let last = lines[lines.len() - 1];
    let record = std::str::from_utf8(lines[1]).map_err(|e| e.to_string())?;
    let record = record.trim_end().splitn(4, ' ').nth(3).unwrap_or_default();
    let foreign = reworded(last, |words| {
        (words[1], words[2]) = ("00000000", record);
    });
    let skipped = reworded(last, |words| words[0] = "99999");
    for (name, line) in [("a foreign record", foreign), ("a gap", skipped)] {
        let bad = [&lines[..lines.len() - 1].concat()[..], &line].concat();
        judge(&bad, &whole, 1, name)?;
    }
    Ok(())
}

type Records = Vec<(u64, Stamped)>;

fn read(bytes: &[u8]) -> Result<Records, String> {
    let disk = MemoryDisk::default();
    disk.set_contents(bytes);
    let (_, opened) =
        Journal::<Stamped>::open(MemoryStorage::new(&disk)).map_err(|e| e.to_string())?;
    let records = opened.records.into_iter();
    Ok(records.map(|e| (e.seq, e.record)).collect())
}

fn judge(bad: &[u8], whole: &Records, may_lack: usize, what: &str) -> Result<(), String> {
    match read(bad) {
        Ok(found) if !whole.starts_with(&found) => Err(format!("{what}: read as if it were good")),
        Ok(found) if found.len() + may_lack < whole.len() => Err(format!(
            "{what}: {} acknowledged records were dropped",
            whole.len() - found.len()
        )),
        _ => Ok(()),
    }
}

/// Changes the words of a line (`number chain record`) and gives it a good checksum.
fn reworded<'a>(line: &'a [u8], change: impl FnOnce(&mut Vec<&'a str>)) -> Vec<u8> {
    let text = std::str::from_utf8(line).expect("text").trim_end();
    let mut words: Vec<&str> = text[9..].splitn(3, ' ').collect();
    change(&mut words);
    let body = words.join(" ");
    format!("{:08x} {body}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
}

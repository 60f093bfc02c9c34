//! Rows of the requirements that a whole session proves on the simulated backend: what each command enters, what it
//! touches and what it leaves alone.

mod actions;
mod actions_broken;
mod broken;
mod logs;
mod meanwhile;
mod mirrors;
#[cfg(feature = "planted")]
mod planted_actions;
mod readiness;
mod rehearsal;
mod roles;
mod sides;
mod states;
mod verify;

use flipside_backend_sim::{At, Fault, FaultKind, SimOptions};
use flipside_engine::Request;
use flipside_model::{
    Command, DiskName, DiskRole, Fact, Leg, MachineId, MirrorStatus, OperationalState as O, Record,
    Side, UpgradeState as S,
};
use flipside_platform::DiskSource;
use flipside_prove::ways::{Way, story};
use flipside_prove::{Bench, End, run};
use std::time::Duration;

fn ready(state: S) -> End {
    End::State(state, O::Ready, None)
}

/// Sends a command that must end well.
#[track_caller]
fn expect(end: Result<End, flipside_model::Problem>, state: S) {
    assert_eq!(end, Ok(ready(state)));
}

/// Sends a command that must break in this stage; returns the problem's text.
async fn breaks(bench: &mut Bench, command: Command, stage: S) -> String {
    match bench.command(command).await {
        Ok(End::State(state, O::Broken, Some(problem))) if state == stage => problem,
        other => panic!("{command} ended in {other:?}, not in {stage} Broken"),
    }
}

async fn duplexed() -> Bench {
    let mut bench = Bench::new(1, 1).await;
    bench.power_on().await;
    bench
}

fn upgrade_side(bench: &Bench) -> MachineId {
    bench.system().machine_for(None).expect("the Upgrade Side")
}

/// Splits, installs the new software, and merges.
async fn merged() -> (Bench, MachineId) {
    let mut bench = duplexed().await;
    expect(bench.command(Command::Split).await, S::Split);
    let upgrade = upgrade_side(&bench);
    bench.world.install(upgrade, "2.0").expect("installs");
    expect(bench.command(Command::Merge).await, S::Merge);
    (bench, upgrade)
}

/// Every stage and operational state that was entered, in order.
fn entered(bench: &Bench) -> Vec<(S, O)> {
    let entries = bench.system().entries_after(0);
    let states = entries.iter().filter_map(|e| match &e.record {
        Record::Entered {
            state, operational, ..
        } => Some((*state, *operational)),
        _ => None,
    });
    states.collect()
}

/// The calls since `clear_trace` that begin so and are about this machine.
fn touched(bench: &Bench, calls: &[&str], machine: MachineId) -> Vec<String> {
    let id = format!(".{machine}");
    let trace = bench.world.trace().into_iter();
    trace
        .filter(|name| calls.iter().any(|c| name.starts_with(c)))
        .filter(|name| name.contains(&id) || name.starts_with("network."))
        .collect()
}

/// The mirrors stand still from now on, so that what waits for them can be told from what does not.
fn stop_mirrors(bench: &Bench) {
    bench.world.set_options(|o| {
        o.resync_blocks_per_poll = 0;
        o.nearly_blocks = 0;
    });
}

fn let_mirrors_go_on(bench: &Bench) {
    let usual = SimOptions::default();
    bench.world.set_options(|o| {
        o.resync_blocks_per_poll = usual.resync_blocks_per_poll;
        o.nearly_blocks = usual.nearly_blocks;
    });
}

/// Which legs were rewritten from which, by role, each said once.
fn directions(bench: &Bench, after: u64) -> Vec<(DiskRole, Leg, Leg)> {
    let mut seen = Vec::new();
    for entry in bench.system().entries_after(after) {
        if let Record::Fact(Fact::Resyncing { disk, from, to, .. }) = entry.record {
            let role = bench.spec.disk(&disk).expect("a disk of the system").role;
            if !seen.contains(&(role, from, to)) {
                seen.push((role, from, to));
            }
        }
    }
    seen
}

/// The leg of data0 that a machine reads first, if it has the disk.
fn data_leg(bench: &Bench, machine: MachineId) -> Option<Leg> {
    let data = DiskName::numbered(DiskRole::Data, 0);
    match &bench.world.view(machine).disks.get(&data)?.source {
        DiskSource::Legs(legs) => legs.first().copied(),
        other => panic!("{machine} has no leg of it: {other:?}"),
    }
}

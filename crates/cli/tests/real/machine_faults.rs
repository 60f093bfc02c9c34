//! What else may happen to the sides of a real session: QEMU stops answering, a guest panics, the agent ends, Production dies.

use crate::real::figures::Figures;
use crate::real::{BOOT, Lab, NAME, client, processes, until};
use crate::{READY, SERVED, runs_the_old_software, split, taken_back};
use flipside_model::{PartnerState, UpgradeState as S};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// The monitor looks every second; a guest that panics needs a moment to say so.
const NOTICED: Duration = Duration::from_secs(60);

/// A command about a side that is stopped gives up by then (the agent's and QMP's own deadlines).
const GIVES_UP: Duration = Duration::from_secs(120);

/// Sends a signal to a machine of this laboratory.
fn signal(lab: &Lab, pid: i32, signal: Signal) {
    assert!(processes::names(pid, &lab.dir), "not ours: {pid}");
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("ours");
}

// Faults 29, 38 and 40: whatever the Upgrade Side does, Production serves, a merge is refused, an abort takes it back.
#[test]
#[ignore = "three sessions that end in trouble, four minutes: `./dev test --full`"]
fn an_upgrade_side_in_trouble_harms_nobody() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();

    let began = lab.client().settle();
    split(&lab, &mut figures);
    let [_, pid] = processes::sides(&lab.dir);
    signal(&lab, pid, Signal::STOP);
    let asked = Instant::now();
    let ended = lab.run(&["run", NAME, "--", "true"]);
    assert_ne!(ended.status, Some(0), "a stopped machine ran a program");
    assert!(asked.elapsed() < GIVES_UP, "{:?}", asked.elapsed());
    lab.serves(SERVED, "while the Upgrade Side is stopped");
    lab.is_in(S::Split, READY);
    signal(&lab, pid, Signal::CONT);
    until("the Upgrade Side answers again", NOTICED, || {
        (lab.try_sh(None, "true").status == Some(0)).then_some(())
    });
    taken_back(&lab, began, &mut figures);
    lab.note("QEMU stopped and continued");

    let began = lab.client().settle();
    split(&lab, &mut figures);
    // The answer is lost with the guest.
    let _ = lab.try_sh(
        None,
        "echo 1 >/proc/sys/kernel/sysrq; (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
    );
    until("the partner's silence is told", NOTICED, || {
        (lab.status().partner_state != Some(PartnerState::OsUp)).then_some(())
    });
    lab.refused(&["merge", NAME, "--yes"], 1, &[]);
    lab.serves(SERVED, "after the Upgrade Side's panic");
    taken_back(&lab, began, &mut figures);
    lab.note("a panic");

    let began = lab.client().settle();
    split(&lab, &mut figures);
    let _ = lab.try_sh(
        None,
        "systemctl mask --runtime --now qemu-guest-agent.service",
    );
    let merge = lab.run(&["merge", NAME, "--yes"]);
    assert_eq!(merge.status, Some(1), "{}{}", merge.out, merge.err);
    lab.serves(SERVED, "without an agent on the Upgrade Side");
    taken_back(&lab, began, &mut figures);
    lab.note("no agent");
    lab.stop_and_compare();
}

// Fault 25: Production dies while the system is divided. The Upgrade Side is never promoted by itself; an abort boots the
// old software from its own leg, with everything that was acknowledged.
#[test]
#[ignore = "a boot under emulation, two minutes: `./dev test --full`"]
fn production_that_dies_in_split_comes_back_by_an_abort() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    lab.sh(None, crate::MARK);
    let [production, _] = processes::sides(&lab.dir);
    processes::kill(production, &lab.dir);
    until("the death is told", NOTICED, || {
        let status = lab.status();
        (!status.running || status.problem.is_some()).then_some(())
    });
    assert_eq!(lab.status().upgrade_state, S::Split, "nothing is promoted");
    lab.ok(&["abort", NAME, "--yes"]);
    until("production serves again", BOOT, || {
        client::ask(lab.port, "/health", SERVED).ok()
    });
    assert_ne!(lab.boot_id(), first_boot);
    lab.finish();
    runs_the_old_software(&lab);
    lab.stop_and_compare();
}

// Fault 29: Production's QEMU stands still in Split. Nothing is promoted, no deadline fires wrongly; when it goes on, so does
// the session.
#[test]
#[ignore = "a whole session, two minutes: `./dev test --full`"]
fn a_production_that_stands_still_is_waited_for() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    lab.sh(None, crate::MARK);
    let [production, _] = processes::sides(&lab.dir);
    signal(&lab, production, Signal::STOP);
    until("the standstill is shown", NOTICED, || {
        (!lab.status().running).then_some(())
    });
    let ended = lab.run(&["run", NAME, "--side", "production", "--", "true"]);
    assert_ne!(ended.status, Some(0), "a stopped machine ran a program");
    lab.is_in(S::Split, READY);
    signal(&lab, production, Signal::CONT);
    lab.serves(NOTICED, "after the standstill");
    until("it is shown to run again", NOTICED, || {
        lab.status().running.then_some(())
    });
    crate::merge(&lab, &mut figures);
    crate::abort(&lab, &mut figures);
    assert_eq!(lab.boot_id(), first_boot);
    lab.finish();
    lab.stop_and_compare();
}

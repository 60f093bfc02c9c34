//! What an Upgrade Side may do to itself and to its agent in Split: Production serves on, nothing is merged that cannot
//! take over, and an abort takes it all back.

use crate::real::figures::Figures;
use crate::real::{BOOT, Lab, NAME, processes, until};
use crate::{READY, SERVED, split, taken_back};
use flipside_model::{PartnerState, UpgradeState as S};
use std::time::{Duration, Instant};

/// The monitor looks every second; a guest that ends needs a moment to say so.
const NOTICED: Duration = Duration::from_secs(60);

/// A command about a side that does not answer gives up by then (the agent's own deadlines).
const GIVES_UP: Duration = Duration::from_secs(120);

/// What the server may take up while an agent floods it: its buffers are a megabyte or less.
const BUFFERS_KIB: u64 = 24 * 1024;

/// The end of the channel that the agent has in the guest.
const CHANNEL: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";

/// Splits, lets `trouble` happen, checks that nobody noticed, and takes the Upgrade Side back.
#[track_caller]
fn in_split(lab: &Lab, figures: &mut Figures, what: &str, trouble: impl FnOnce(&Lab)) {
    let began = lab.client().settle();
    let first_boot = lab.boot_id();
    split(lab, figures);
    lab.note(what);
    trouble(lab);
    lab.serves(SERVED, what);
    // A merge that was refused is PrepareMerge | Broken; nobody was moved.
    let state = lab.status().upgrade_state;
    assert!(
        matches!(state, S::Split | S::PrepareMerge),
        "{what}: {state}"
    );
    taken_back(lab, began, figures);
    assert_eq!(lab.boot_id(), first_boot, "{what}");
    lab.note(&format!("{what}: taken back"));
}

/// Puts a program in the agent's place. It runs in a unit of its own, which does not end with the agent.
fn replace_agent(lab: &Lab, program: &str) {
    let line = format!(
        "systemd-run --quiet --no-block sh -c 'systemctl mask --runtime --now qemu-guest-agent.service; {program}'"
    );
    // The answer may be lost with the agent.
    let _ = lab.try_sh(None, &line);
}

/// A false agent on the Upgrade Side: commands end by their deadline and are refused, the server stays as it is.
#[track_caller]
fn false_agent(lab: &Lab, program: &str) {
    let server = i32::try_from(lab.server.pid()).expect("small");
    let before = processes::resident_kib(server);
    replace_agent(lab, program);
    until("the partner's silence is told", NOTICED, || {
        (lab.status().partner_state != Some(PartnerState::OsUp)).then_some(())
    });
    let asked = Instant::now();
    let ended = lab.run(&["run", NAME, "--", "true"]);
    assert_ne!(ended.status, Some(0), "a false agent ran a program");
    assert!(asked.elapsed() < GIVES_UP, "{:?}", asked.elapsed());
    lab.refused(&["merge", NAME, "--yes"], 1, &[]);
    let asked = Instant::now();
    lab.status();
    assert!(asked.elapsed() < SERVED, "{:?}", asked.elapsed());
    let after = processes::resident_kib(server);
    assert!(
        after <= before + BUFFERS_KIB,
        "the server grew from {before} to {after} KiB"
    );
}

// Fault 48: the whole system disk of the Upgrade Side is taken.
fn fills_its_disk(lab: &Lab) {
    let fill = "fallocate -l $(df --output=avail -B1 / | tail -1) /var/fill; echo x >/var/more; sync; test -s /var/fill";
    lab.sh(None, fill);
    let used = lab.sh(None, "df --output=pcent / | tail -1");
    assert_eq!(used.trim(), "100%");
    lab.sh(
        Some("production"),
        "echo x >/var/there-is-room && sync && rm /var/there-is-room",
    );
}

// Fault 41: what was installed does not boot. It is never said to be up, and nobody can merge it.
fn does_not_boot(lab: &Lab) {
    lab.sh(None, "rm /boot/initrd.img* /boot/vmlinuz* && sync");
    let _ = lab.run(&["restart", NAME, "--side", "upgrade", "--no-wait"]);
    until("the Upgrade Side is down", NOTICED, || {
        (lab.status().partner_state != Some(PartnerState::OsUp)).then_some(())
    });
    lab.refused(&["merge", NAME, "--yes"], 1, &[]);
    assert_ne!(lab.status().partner_state, Some(PartnerState::OsUp));
}

// Faults 38, 41 and 48.
#[test]
#[ignore = "four sessions that end in trouble, four minutes: `./dev test --full`"]
fn an_upgrade_side_that_spoils_itself_harms_nobody() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    in_split(&lab, &mut figures, "a full disk", fills_its_disk);
    in_split(&lab, &mut figures, "an agent that floods", |lab| {
        false_agent(lab, &format!("yes flood >{CHANNEL}"));
    });
    in_split(&lab, &mut figures, "an agent that lies", |lab| {
        let lie = r#"while read -r line <&3; do echo "{\"return\": 42}" >&3; done"#;
        false_agent(lab, &format!("exec 3<>{CHANNEL}; {lie}"));
    });
    in_split(
        &lab,
        &mut figures,
        "a system that does not boot",
        does_not_boot,
    );
    lab.is_in(S::Idle, READY);
    lab.stop_and_compare();
}

/// Moves the clock of a side; flipside itself sets it where a machine was paused or forked.
fn clock(lab: &Lab, side: &str, by: &str) {
    lab.sh(
        Some(side),
        &format!("date -s \"$(date -d '{by}' '+%F %T')\""),
    );
}

// Fault 47: no step depends on a guest's clock, neither one that is an hour ahead nor one that goes back.
#[test]
#[ignore = "a whole session, two minutes: `./dev test --full`"]
fn clocks_that_jump_harm_nobody() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    clock(&lab, "production", "-1 hour");
    lab.ok(&["split", NAME]);
    clock(&lab, "upgrade", "+1 hour");
    clock(&lab, "production", "+2 hours");
    lab.sh(None, crate::MARK);
    crate::merge(&lab, &mut figures);
    clock(&lab, "upgrade", "-2 hours");
    lab.ok(&["commit", NAME, "--yes"]);
    clock(&lab, "upgrade", "+3 hours");
    lab.finish();
    lab.serves(BOOT, "after clocks that jumped");
    lab.stop_and_compare();
}

use super::*;
use PartnerState as P;

const M: MachineId = MachineId(2);

struct Watch {
    partner: Partner,
    now: Instant,
    seen: Evidence,
}

impl Watch {
    /// A partner as a fork leaves it: up, with the boot of Production.
    fn up() -> Self {
        let mut watch = Self {
            partner: Partner::default(),
            now: Instant::now(),
            seen: Evidence {
                machine: M,
                run: RunState::Running,
                boot_id: Some("first".into()),
                signs: Signs {
                    resets: 0,
                    read_bytes: 1 << 30,
                    printed: 500,
                },
                going: None,
            },
        };
        assert_eq!(watch.look(), P::OsUp);
        watch
    }

    fn look(&mut self) -> P {
        self.partner.judge(&self.seen, self.now)
    }

    #[track_caller]
    fn becomes(&mut self, state: P, change: impl FnOnce(&mut Evidence)) {
        change(&mut self.seen);
        assert_eq!(self.look(), state);
        // It stays so.
        assert_eq!(self.look(), state);
    }

    #[track_caller]
    fn after(&mut self, limit: Duration, state: P) {
        self.now += limit - Duration::from_millis(1);
        assert_ne!(self.look(), state, "too early");
        self.now += Duration::from_millis(1);
        assert_eq!(self.look(), state);
    }
}

// PS-04, PS-06, PS-08, PS-10: an announced restart, step by step.
#[test]
fn a_restart_is_followed_through_all_its_phases() {
    let mut watch = Watch::up();
    // The agent still answers when the guest says what it will do.
    watch.becomes(P::OsRebooting, |e| e.going = Some(Going::Restart));
    watch.becomes(P::OsRebooting, |e| e.boot_id = None);
    watch.becomes(P::BiosPost, |e| {
        (e.signs.resets, e.signs.read_bytes) = (1, 512);
    });
    watch.becomes(P::OsBooting, |e| e.signs.read_bytes = LOADER_BYTES);
    // Its console still shows what it said before; that is over, and from then on it is not read again.
    watch.seen.boot_id = Some("second".into());
    assert_eq!(watch.look(), P::OsUp);
    watch.becomes(P::OsUp, |e| e.going = None);
    assert_eq!(watch.partner.boot_id.as_deref(), Some("second"));
    assert_eq!(watch.partner.printed(M), 500);
}

// PS-05, PS-07, PS-09, PS-11, PS-13: each phase has its limit, and not a moment less.
#[test]
fn every_phase_hangs_at_its_limit() {
    let mut watch = Watch::up();
    watch.becomes(P::OsRebooting, |e| {
        (e.boot_id, e.going) = (None, Some(Going::Restart));
    });
    watch.after(REBOOT_LIMIT, P::HungOsRebooting);
    watch.becomes(P::BiosPost, |e| {
        (e.signs.resets, e.signs.read_bytes) = (1, 0);
    });
    watch.after(POST_LIMIT, P::HungBiosPost);
    watch.becomes(P::OsBooting, |e| e.signs.read_bytes = 1 << 24);
    watch.after(BOOT_LIMIT, P::HungOsBooting);
    watch.becomes(P::OsUp, |e| {
        (e.boot_id, e.going) = (Some("second".into()), None);
    });
    watch.seen.boot_id = None;
    watch.after(HEARTBEAT, P::HungOsUp);
    watch.becomes(P::OsUp, |e| e.boot_id = Some("second".into()));
    watch.becomes(P::OsShuttingDown, |e| {
        (e.boot_id, e.going) = (None, Some(Going::ShutDown));
    });
    watch.after(SHUTDOWN_LIMIT, P::HungOsShuttingDown);
}

// PS-02, PS-03, PS-12, US-20.
#[test]
fn a_shutdown_ends_with_dc_on_and_dc_off() {
    let mut watch = Watch::up();
    watch.becomes(P::OsShuttingDown, |e| e.going = Some(Going::ShutDown));
    watch.becomes(P::DcOn, |e| {
        (e.run, e.boot_id) = (RunState::Shutdown, None);
    });
    watch.becomes(P::DcOff, |e| e.run = RunState::Absent);
}

// PS-14, PS-15.
#[test]
fn a_panic_is_answered_by_a_dump_and_a_reset() {
    let mut watch = Watch::up();
    watch.becomes(P::RecoveryNmi, |e| {
        (e.run, e.boot_id) = (RunState::Panicked, None);
    });
    watch.partner.recovery = Some(Recovery::Dump);
    watch.becomes(P::RecoveryNmi, |_| {});
    watch.partner.recovery = Some(Recovery::Reset);
    watch.becomes(P::RecoveryReset, |e| e.run = RunState::Running);
    watch.partner.recovery = None;
    watch.becomes(P::BiosPost, |e| {
        (e.signs.resets, e.signs.read_bytes) = (1, 0);
    });
}

// A guest that says nothing keeps its state; a QEMU that says nothing is hung; a machine that stands still for a step of
// ours is what it was. Our own restart needs no announcement.
#[test]
fn what_is_not_known_is_not_made_up() {
    let mut watch = Watch::up();
    watch.becomes(P::OsUp, |e| e.boot_id = None);
    watch.becomes(P::OsUp, |e| e.run = RunState::Paused);
    watch.becomes(P::HungOsUp, |e| e.run = RunState::Unresponsive);
    watch.becomes(P::HungOsUp, |e| e.run = RunState::IoError);
    let mut watch = Watch::up();
    watch.partner.told_to_restart = true;
    watch.becomes(P::OsRebooting, |e| e.boot_id = None);
}

// A server that starts while its partner boots has seen no reset: the disks tell it.
#[test]
fn a_new_server_finds_its_way() {
    let mut watch = Watch::up();
    watch.partner = Partner::default();
    watch.becomes(P::OsBooting, |e| e.boot_id = None);
    watch.becomes(P::OsUp, |e| e.boot_id = Some("any".into()));
}

#[test]
fn the_last_word_on_the_console_counts() {
    let said = |text: &str| going(text.as_bytes());
    assert_eq!(said("login: "), None);
    assert_eq!(
        said("flipside: this Upgrade Side is told to restart\n[  OK  ] Stopped x"),
        Some(Going::Restart)
    );
    let both =
        "reboot: Restarting system\nLinux\nflipside: this Upgrade Side is told to shut down\n";
    assert_eq!(said(both), Some(Going::ShutDown));
    assert_eq!(going(b"\xff\xfe reboot: Power down"), Some(Going::ShutDown));
}

// PS-01: the set is closed, and every one of its values is met by a test above.
#[test]
fn there_are_fourteen_values() {
    assert_eq!(P::ALL.len(), 14);
    let texts: std::collections::BTreeSet<String> = P::ALL.iter().map(P::to_string).collect();
    assert_eq!(texts.len(), 14);
    for state in P::ALL {
        let json = serde_json::to_string(&state).expect("JSON");
        assert_eq!(json, format!("\"{state}\""));
    }
}

//! Tells the state of the partner, the Upgrade Side, from what can be seen of it (PS-01 to PS-15). Pure: evidence and a
//! moment in, one of the fourteen values out.
//!
//! ```text
//!   OS Up ──announced──▶ OS Rebooting ──reset──▶ BIOS POST ──disks read──▶ OS Booting ──agent──▶ OS Up
//!     │  └──announced──▶ OS Shutting Down ──▶ DC On (shut down) ──▶ DC Off (no process)
//!     └──panic──▶ … Recovery: NMI issued ──memory saved──▶ … Recovery: Reset ──▶ BIOS POST
//! ```
//! Each phase that takes longer than its limit is `Hung: `. The agent's answer decides over everything else that a running
//! machine shows; a silent guest that has announced nothing keeps its state until it counts as hung.

use flipside_model::{MachineId, PartnerState};
use flipside_platform::{RunState, Signs};
use std::time::Duration;
use tokio::time::Instant;

/// Limits of the phases (gap 18).
const POST_LIMIT: Duration = Duration::from_secs(120);
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const REBOOT_LIMIT: Duration = Duration::from_secs(300);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(300);

/// Without a sign of life for this long a guest that had been up counts as hung. Gap 18 suggests a minute; half of it is
/// twenty questions that were not answered, and an administrator waits for this text.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Firmware reads a sector or, with UEFI, a few directories; a boot loader reads a kernel.
const LOADER_BYTES: u64 = 1 << 20;

/// Which way the guest has said that it goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    Restart,
    ShutDown,
}

/// What can be seen of the partner at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub machine: MachineId,
    pub run: RunState,
    /// The boot id that its agent gave, if it answered.
    pub boot_id: Option<String>,
    pub signs: Signs,
    /// What it has printed since it was up last says that it goes down.
    pub going: Option<Going>,
}

/// What a crash of the partner is answered with, while that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Its memory is being saved.
    Dump,
    /// It is being reset.
    Reset,
}

/// What is remembered of the partner between two looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partner {
    machine: Option<MachineId>,
    /// The state seen last.
    pub state: Option<PartnerState>,
    /// The boot that was up last.
    pub boot_id: Option<String>,
    /// The signs when it was up last: what came after them is news.
    up: Signs,
    heard: Option<Instant>,
    phase: Option<(PartnerState, Instant)>,
    /// We have restarted it.
    pub told_to_restart: bool,
    pub recovery: Option<Recovery>,
    /// Crashes since it was up last.
    pub crashes: u32,
}

impl Partner {
    /// How much it had printed when it was up last.
    pub(crate) fn printed(&self, machine: MachineId) -> u64 {
        if self.machine == Some(machine) {
            self.up.printed
        } else {
            0
        }
    }

    /// Says what the partner is doing.
    pub(crate) fn judge(&mut self, seen: &Evidence, now: Instant) -> PartnerState {
        if self.machine != Some(seen.machine) {
            *self = Self {
                machine: Some(seen.machine),
                up: Signs {
                    printed: 0,
                    ..seen.signs
                },
                ..Self::default()
            };
        }
        let state = match (seen.run, self.recovery) {
            (RunState::Absent, _) => PartnerState::DcOff,
            (_, Some(Recovery::Reset)) => PartnerState::RecoveryReset,
            (_, Some(Recovery::Dump)) | (RunState::Panicked, None) => PartnerState::RecoveryNmi,
            (RunState::Shutdown, None) => PartnerState::DcOn,
            (RunState::Unresponsive | RunState::IoError, None) => PartnerState::HungOsUp,
            (RunState::Running, None) => self.running(seen, now),
            // It stands still for a moment, for a fork or a step of ours.
            _ => self.state.unwrap_or(PartnerState::OsBooting),
        };
        self.state = Some(state);
        state
    }

    fn running(&mut self, seen: &Evidence, now: Instant) -> PartnerState {
        let reset = seen.signs.resets != self.up.resets;
        if let Some(boot_id) = &seen.boot_id {
            let same = self.boot_id.as_ref() == Some(boot_id) && !reset;
            self.heard = Some(now);
            if let (true, Some(going)) = (same, seen.going) {
                return self.going_down(going, now);
            }
            (self.boot_id, self.up) = (Some(boot_id.clone()), seen.signs);
            (self.told_to_restart, self.crashes) = (false, 0);
            return self.phase(PartnerState::OsUp, None, now);
        }
        if reset || self.boot_id.is_none() {
            return if seen.signs.read_bytes < LOADER_BYTES {
                let hung = (POST_LIMIT, PartnerState::HungBiosPost);
                self.phase(PartnerState::BiosPost, Some(hung), now)
            } else {
                let hung = (BOOT_LIMIT, PartnerState::HungOsBooting);
                self.phase(PartnerState::OsBooting, Some(hung), now)
            };
        }
        match seen.going {
            Some(going) => self.going_down(going, now),
            None if self.told_to_restart => self.going_down(Going::Restart, now),
            None => {
                let silent = self.heard.is_none_or(|at| now - at >= HEARTBEAT);
                if silent {
                    PartnerState::HungOsUp
                } else {
                    self.state.unwrap_or(PartnerState::OsUp)
                }
            }
        }
    }

    fn going_down(&mut self, going: Going, now: Instant) -> PartnerState {
        match going {
            Going::Restart => {
                let hung = (REBOOT_LIMIT, PartnerState::HungOsRebooting);
                self.phase(PartnerState::OsRebooting, Some(hung), now)
            }
            Going::ShutDown => {
                let hung = (SHUTDOWN_LIMIT, PartnerState::HungOsShuttingDown);
                self.phase(PartnerState::OsShuttingDown, Some(hung), now)
            }
        }
    }

    /// Stays in a phase or enters it; past its limit it is the other state.
    fn phase(
        &mut self,
        phase: PartnerState,
        hung: Option<(Duration, PartnerState)>,
        now: Instant,
    ) -> PartnerState {
        let since = match self.phase {
            Some((same, since)) if same == phase => since,
            _ => now,
        };
        self.phase = Some((phase, since));
        match hung {
            Some((limit, hung)) if now - since >= limit => hung,
            _ => phase,
        }
    }
}

/// Reads from the end of what the console printed which way the guest goes down: our own announcement, or systemd's and
/// the kernel's words. A guest may print anything; all that depends on this is one word of the status.
pub(crate) fn going(printed: &[u8]) -> Option<Going> {
    const WORDS: [(&str, Going); 8] = [
        ("this Upgrade Side is told to restart", Going::Restart),
        ("this Upgrade Side is told to shut down", Going::ShutDown),
        ("Reached target reboot.target", Going::Restart),
        ("Reached target poweroff.target", Going::ShutDown),
        ("reboot: Restarting system", Going::Restart),
        ("reboot: Power down", Going::ShutDown),
        ("systemd-shutdown[1]: Rebooting.", Going::Restart),
        ("systemd-shutdown[1]: Powering off.", Going::ShutDown),
    ];
    let text = String::from_utf8_lossy(printed);
    let last = |(word, going): &(&str, Going)| text.rfind(word).map(|at| (at, *going));
    let found = WORDS.iter().filter_map(last);
    found.max_by_key(|(at, _)| *at).map(|(_, going)| going)
}

#[cfg(test)]
#[path = "partner_tests.rs"]
mod tests;

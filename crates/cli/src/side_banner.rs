//! Makes clear which side a terminal shows (US-12, US-14, US-21): a banner, and the terminal's title as long as it lasts.

use crate::context::Context;
use flipside_model::{Side, Status, SystemName, UpgradeState};
use std::io::{IsTerminal as _, Write as _};

/// Which side a command without `--side` means, as the server decides it.
pub(crate) fn meant(status: &Status, side: Option<Side>) -> Side {
    side.unwrap_or(match status.upgrade_state {
        UpgradeState::Idle => Side::Production,
        _ => Side::Upgrade,
    })
}

/// What a side is called here and now.
fn label(status: &Status, side: Side) -> String {
    match status.upgrade_state {
        // One system: no side to be mistaken for another.
        UpgradeState::Idle => "system".to_owned(),
        _ => side.to_string(),
    }
}

/// The banner of a side.
fn banner(status: &Status, side: Side) -> String {
    let system = &status.system;
    let divided = matches!(
        status.upgrade_state,
        UpgradeState::Split | UpgradeState::PrepareMerge
    );
    match (side, status.upgrade_state) {
        (_, UpgradeState::Idle) => format!("System {system}: it is live, its users are on it."),
        (Side::Upgrade, _) if divided => format!(
            "Upgrade Side of {system}: no users, no network. Install here. Restart it, never shut it down."
        ),
        (Side::Upgrade, _) => {
            format!("Upgrade Side of {system}: it is LIVE, the users are on it.")
        }
        (Side::Production, _) if divided => format!(
            "Production Side of {system}: it is LIVE. Install nothing here, change no system file, do not restart it."
        ),
        (Side::Production, _) => format!("Production Side of {system}"),
    }
}

/// The title of a terminal, taken back when dropped.
pub(crate) struct Title(bool);

impl Title {
    /// Prints the banner and sets the title; nothing without a terminal.
    #[must_use]
    pub(crate) fn show(ctx: &Context, status: &Status, side: Side) -> Self {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if terminal {
            let mut err = std::io::stderr().lock();
            // The terminal keeps the old title on a stack of its own (xterm, and all that follow it).
            let title = title(&status.system, &label(status, side));
            let banner = banner(status, side);
            let (on, off) = match (ctx.color, side) {
                (false, _) => ("", ""),
                (true, Side::Upgrade) => ("\x1b[1;32m", "\x1b[0m"),
                (true, Side::Production) => ("\x1b[1;31m", "\x1b[0m"),
            };
            let _ = writeln!(err, "\x1b[22;0t\x1b]0;{title}\x07{on}{banner}{off}");
        }
        Self(terminal)
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        if self.0 {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\x1b[23;0t");
            let _ = err.flush();
        }
    }
}

fn title(system: &SystemName, label: &str) -> String {
    format!("{label} - {system} - flipside")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    // US-12, US-14, US-19, US-21, US-26.
    #[test]
    fn nobody_can_mistake_one_side_for_the_other() {
        let mut status = sample();
        let upgrade = banner(&status, Side::Upgrade);
        assert!(
            upgrade.starts_with("Upgrade Side of web:") && upgrade.contains("never shut it down")
        );
        let production = banner(&status, Side::Production);
        assert!(production.starts_with("Production Side of web: it is LIVE."));
        assert!(
            production.contains("Install nothing here") && production.contains("do not restart")
        );
        assert_eq!(
            title(&status.system, &label(&status, Side::Upgrade)),
            "Upgrade Side - web - flipside"
        );
        assert_eq!(meant(&status, None), Side::Upgrade);
        status.upgrade_state = UpgradeState::Merge;
        assert!(banner(&status, Side::Upgrade).contains("LIVE"));
        status.upgrade_state = UpgradeState::Idle;
        assert_eq!(meant(&status, None), Side::Production);
        assert!(banner(&status, Side::Production).starts_with("System web: it is live"));
        assert_eq!(label(&status, Side::Production), "system");
    }
}

//! Shows the activity log and the help on the Upgrade Side (US-13, US-31, AL-20, AL-24): a copy to read, no way to command.
//! It is renewed when the session has moved, after each restart of that side, and when the log has grown.

use crate::context::Cx;
use crate::monitor::Seen;
use flipside_activity::{Style, Tree, render};
use flipside_model::{MachineId, OperationalState, PartnerState, Record, SystemName, UpgradeState};
use flipside_platform::Notice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::debug;

/// How often a log that only grows is shown anew, and how soon a failure is tried again: each costs the guest a program.
const AGAIN: Duration = Duration::from_secs(15);

/// What was shown, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    machine: MachineId,
    boot_id: Option<String>,
    stage: (UpgradeState, OperationalState),
    seq: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Teller {
    last: Arc<Mutex<Option<(Shown, Instant, bool)>>>,
}

impl Teller {
    /// Shows what is new, if the guest can be asked now.
    pub(crate) async fn tell(&self, cx: &Cx, seen: &Seen) {
        let Some(wanted) = wanted(cx, seen) else {
            return;
        };
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((shown, at, ok)) = last {
            let moved = (shown.machine, &shown.boot_id, shown.stage)
                != (wanted.machine, &wanted.boot_id, wanted.stage);
            let grown = shown.seq != wanted.seq;
            let soon = at.elapsed() < AGAIN;
            if (ok && !moved && (!grown || soon)) || (!ok && soon) {
                return;
            }
        }
        // The clean-up at the end of a session waits for this, and nothing is shown after it.
        let _one = cx.telling().await;
        if self::wanted(cx, seen).as_ref() != Some(&wanted) {
            return;
        }
        let notice = Notice {
            log: session_log(cx),
            help: help(&cx.spec.name, wanted.stage.0, cx.facts().rehearsal),
        };
        let told = cx.ports.guest.publish(wanted.machine, &notice).await;
        if let Err(error) = &told {
            debug!(%error, "the log could not be shown on the Upgrade Side");
        }
        let now = (wanted, Instant::now(), told.is_ok());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }
}

/// What is to be shown where; nothing while an operation runs, for users may wait for that guest.
fn wanted(cx: &Cx, seen: &Seen) -> Option<Shown> {
    let state = cx.state();
    if state.operational == OperationalState::Busy {
        return None;
    }
    let there = match state.upgrade {
        UpgradeState::Split | UpgradeState::PrepareMerge => {
            state.facts.divided && seen.partner == Some(PartnerState::OsUp)
        }
        UpgradeState::Merge | UpgradeState::Commit => true,
        _ => false,
    };
    let machine = state.facts.upgrade.filter(|_| there)?;
    Some(Shown {
        machine,
        boot_id: seen.watch.boot_id.clone(),
        stage: (state.upgrade, state.operational),
        seq: state.last_seq,
    })
}

/// The log of this session, as `flipside log` shows it.
fn session_log(cx: &Cx) -> String {
    let entries = cx.ledger.entries_after(0);
    let opened = |record: &Record| matches!(record, Record::Session { .. });
    let from = entries.iter().rposition(|entry| opened(&entry.record));
    let tree = Tree::fold(&entries[from.unwrap_or(0)..]);
    render(&tree.lines(None), &Style::default())
}

/// The help that is shown on the Upgrade Side itself.
pub(crate) fn help(system: &SystemName, stage: UpgradeState, rehearsal: bool) -> String {
    let data = if rehearsal {
        "no users and no production network; its data disks are\ncopies of the split, which are thrown away when the merge begins \
         (rehearsal)."
    } else {
        "no users, no production network and no data disks."
    };
    let here = match stage {
        UpgradeState::Split | UpgradeState::PrepareMerge => format!(
            "This is the Upgrade Side of {system}. It has {data}\n\
             \n\
             What to do here\n\
             * Install and upgrade software, change settings, test what needs neither network nor data.\n\
             * Restart as often as needed: `systemctl reboot`, or `flipside restart {system} --side upgrade` on the host.\n\
             * When all is well: `flipside merge {system}` on the host. It moves the users here.\n\
             \n\
             What not to do here\n\
             * Do not shut this side down. It does not come back, and everything installed here is lost. Restart instead.\n\
             * Do not start applications that flipside holds, and do not touch their drop-ins (50-flipside-gate.conf).\n\
             \n\
             On the Production Side nothing is installed meanwhile, no system file is changed, and it is not restarted:\n\
             what is changed there on system disks is lost at the commit.\n"
        ),
        _ => format!(
            "This is the Upgrade Side of {system}, and it is live: the users are here.\n\
             \n\
             * Check the applications: `flipside verify-list {system}` on the host.\n\
             * All is well: `flipside commit {system}` makes it permanent. Not so: `flipside abort {system}` takes it back.\n\
             * Do not shut this side down, and do not restart it now.\n"
        ),
    };
    format!(
        "{here}\n\
         flipside-log   shows the log of this upgrade (to read only: it is commanded on the host)\n\
         flipside-help  shows this text again\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // US-13, US-14, US-17, US-19, US-20, US-21, US-26, US-27: what somebody on that side must know stands in its help.
    #[test]
    fn the_help_says_what_to_do_and_what_not() {
        let name = SystemName::new("web").expect("valid");
        let split = help(&name, UpgradeState::Split, false);
        for word in [
            "This is the Upgrade Side of web",
            "Do not shut this side down",
            "Restart instead",
            "flipside restart web --side upgrade",
            "On the Production Side nothing is installed meanwhile",
            "is lost at the commit",
            "flipside-log",
        ] {
            assert!(split.contains(word), "{word}\n{split}");
        }
        let merge = help(&name, UpgradeState::Merge, false);
        let rehearsal = help(&name, UpgradeState::Split, true);
        assert!(rehearsal.contains("copies of the split") && !rehearsal.contains("no data disks"));
        assert!(merge.contains("it is live") && merge.contains("flipside verify-list web"));
        assert!(
            split
                .lines()
                .chain(merge.lines())
                .all(|line| line.len() < 120)
        );
    }
}

//! Questions before what cannot be taken back, or costs something.

use crate::context::Context;
use crate::failure::Failure;
use crate::report;
use flipside_activity::clean;
use flipside_model::{Command, Status, SystemName, UpgradeState};
use std::io::{BufRead, IsTerminal as _, Write};

/// How a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// By typing this name.
    Name(&'a str),
    /// By `y`.
    Yes,
}

/// What is known of a session besides its status.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// It keeps a checkpoint of the data at the merge.
    pub(crate) checkpoint: bool,
    /// It kept copies of the data on the Upgrade Side.
    pub(crate) rehearsal: bool,
    /// The abort takes the data back to it.
    pub(crate) discard: bool,
    /// What a commit loses on the Production Side.
    pub(crate) changes: Option<String>,
}

/// Says whether a command asks before it acts.
pub(crate) fn is_asked(command: Command) -> bool {
    matches!(command, Command::Merge | Command::Commit | Command::Abort)
}

/// Makes sure that a question can be answered: by `--yes`, or on a terminal.
pub(crate) fn demand(ctx: &Context) -> Result<(), Failure> {
    if ctx.yes || std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(
        Failure::usage("this command asks before it acts, and there is no terminal to ask on")
            .advise("name the system and add `--yes`"),
    )
}

/// Asks about a session command on the terminal.
pub(crate) fn session(status: &Status, command: Command, told: &Told) -> Result<(), Failure> {
    let (checkpoint, discard) = (told.checkpoint, told.discard);
    let (text, by_name) = match command {
        Command::Merge => (merge_text(status, checkpoint, told.rehearsal), true),
        Command::Commit => (commit_text(status, told.changes.as_deref()), true),
        Command::Abort if status.upgrade_state == UpgradeState::Merge => {
            (abort_merge_text(status, checkpoint, discard), true)
        }
        Command::Abort => (abort_split_text(status), false),
        _ => return Ok(()),
    };
    let answer = if by_name {
        Answer::Name(status.system.as_str())
    } else {
        Answer::Yes
    };
    terminal(&format!("{}\n{text}", state_text(status)), answer)
}

/// Says where the system is before it is asked: the status bar, and what protects the disks.
fn state_text(status: &Status) -> String {
    format!(
        "{}\n{}\n",
        report::status_bar(status),
        report::protection(status)
    )
}

/// Asks on the terminal; a refusal is a failure that says so.
pub(crate) fn terminal(text: &str, answer: Answer<'_>) -> Result<(), Failure> {
    let agreed = ask(
        &mut std::io::stdin().lock(),
        &mut std::io::stderr(),
        text,
        answer,
    )?;
    if agreed {
        return Ok(());
    }
    Err(Failure::failed("not confirmed: nothing was done"))
}

fn ask(
    input: &mut impl BufRead,
    output: &mut impl Write,
    text: &str,
    answer: Answer<'_>,
) -> std::io::Result<bool> {
    match answer {
        Answer::Name(name) => write!(output, "{text}\nType `{name}` to go on: ")?,
        Answer::Yes => write!(output, "{text}\nGo on? [y/N] ")?,
    }
    output.flush()?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        writeln!(output)?;
    }
    Ok(match answer {
        Answer::Name(name) => line.trim() == name,
        Answer::Yes => matches!(line.trim(), "y" | "Y" | "yes" | "Yes"),
    })
}

/// Says what a split does; it does not ask (SP-09, SP-24).
pub(crate) fn split_note(system: &SystemName) -> String {
    format!(
        "Splitting `{system}` (not split-brain: the Upgrade Side is isolated).
  The Production Side keeps serving the users; it pauses for milliseconds.
  Packages for the upgrade must lie on a system disk, or come by `flipside copy`: the Upgrade Side reaches neither \
network nor data disks.
  Until commit or abort each side runs simplex: a failure of the Production Side is then an outage.
  Nothing is permanent: `flipside abort {system}` takes it back without downtime."
    )
}

/// MG-17, DK-28: what becomes of the data is said before they move.
fn merge_text(status: &Status, checkpoint: bool, rehearsal: bool) -> String {
    let system = &status.system;
    let kept = if checkpoint {
        "\n  What is kept: the data as they are at the merge (checkpoint), until commit or abort. Only \
`flipside abort --discard-data` takes them back. Until then each data disk has one leg: a failure of it is an outage, \
and only the checkpoint is left."
    } else {
        ""
    };
    let rehearsed = if rehearsal {
        "\n  What ends: the rehearsal. Its applications are stopped first, and its copies of the data are thrown away with \
all that was written to them."
    } else {
        ""
    };
    format!(
        "Merge moves the users of `{system}` to the Upgrade Side; no data is merged.
  What happens: the applications stop on the Production Side, data disks and network move, and they start on the \
Upgrade Side.
  What it costs: a brief outage, planned for now. New connections wait meanwhile.
  What stays: data written after the merge stays on the data disks, also after an abort.{kept}
  What can still be undone: everything else, until commit. `flipside abort {system}` moves the users back to the \
paused Production Side, with a brief outage and no reboot.{rehearsed}"
    )
}

/// CM-06, CM-11.
fn commit_text(status: &Status, changes: Option<&str>) -> String {
    let system = &status.system;
    let changes = changes.unwrap_or_default();
    let mut text = format!(
        "Commit makes the upgrade of `{system}` permanent. It is irreversible: from here on there is no abort.
  What happens: the old Production Side is ended, and the mirrors are resynchronised (RDR) from the Upgrade Side.
  What it costs: no downtime. Until the resync ends, the system has no redundancy.
  What is lost: everything changed on the system disks of the Production Side since the split, its logs included.{changes}
  What stays: the data disks, as they are now."
    );
    // LB-11
    if !status.not_saved.is_empty() {
        text.push_str("\n  WARNING: logs that were to be saved from the Production Side were not, and are lost:");
        for what in &status.not_saved {
            text.push_str(&format!("\n    {}", clean(what)));
        }
    }
    text
}

/// SM-30, AB-17: in split mode.
fn abort_split_text(status: &Status) -> String {
    let system = &status.system;
    format!(
        "Abort takes the upgrade of `{system}` back.
  What happens: the Upgrade Side is ended, and the mirrors are resynchronised (RDR) from the Production Side.
  What it costs: no downtime; the applications never left the Production Side.
  What is lost: everything installed or changed on the Upgrade Side. This cannot be undone."
    )
}

/// SM-30, AB-17, DK-28: in merge mode; the guide restarts the system here, flipside does not (design 7).
fn abort_merge_text(status: &Status, checkpoint: bool, discard: bool) -> String {
    let system = &status.system;
    let data = match (discard, checkpoint) {
        (true, _) => {
            "What is discarded: everything written to the data disks since the merge. They become what they were then \
(checkpoint). This cannot be undone."
        }
        (false, true) => {
            "What stays: the data disks are not rolled back. What was written since the merge stays, in the form in which \
the upgraded applications wrote it. The checkpoint of the merge is given up: only `flipside abort --discard-data`, instead \
of this, takes the data back to it."
        }
        (false, false) => {
            "What stays: the data disks are not rolled back. What was written since the merge stays, in the form in which \
the upgraded applications wrote it."
        }
    };
    format!(
        "Abort takes the upgrade of `{system}` back and moves the users back to the Production Side.
  What happens: the applications stop on the Upgrade Side, and the paused Production Side continues where it was: its \
clock is set, the data is mounted, and exactly what the merge stopped is started.
  What it costs: a brief outage without a reboot. Only if the paused machine is gone, it boots from its own disks.
  What is lost: everything installed or changed on the system disks of the Upgrade Side. This cannot be undone.
  {data}"
    )
}

/// Says what stopping a system costs.
pub(crate) fn stop_text(system: &SystemName, at_once: bool) -> String {
    let how = if at_once {
        "Its machine is ended at once: what the guest has not written yet is lost."
    } else {
        "The guest is shut down, then its machine is ended."
    };
    format!(
        "Stopping `{system}`: {how}
  What it costs: the users are not served until `flipside system start {system}`."
    )
}

/// Says what deleting a system costs.
pub(crate) fn delete_text(system: &SystemName) -> String {
    format!(
        "Deleting `{system}` removes its definition, its log and both legs of every disk.
  What is lost: everything on its disks. This cannot be undone."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(typed: &str, answer: Answer<'_>) -> bool {
        let mut said = Vec::new();
        let agreed = ask(&mut typed.as_bytes(), &mut said, "Costs.", answer).expect("asked");
        assert!(
            String::from_utf8(said)
                .expect("text")
                .starts_with("Costs.\n")
        );
        agreed
    }

    #[test]
    fn only_the_name_itself_confirms() {
        let name = Answer::Name("web");
        assert!(answered("web\n", name) && answered(" web \n", name));
        for typed in ["", "\n", "y\n", "yes\n", "Web\n", "web2\n"] {
            assert!(!answered(typed, name), "{typed:?}");
        }
    }

    #[test]
    fn no_is_the_default() {
        assert!(answered("y\n", Answer::Yes) && answered("yes\n", Answer::Yes));
        for typed in ["", "\n", "n\n", "ja\n", "web\n"] {
            assert!(!answered(typed, Answer::Yes), "{typed:?}");
        }
    }

    // The texts that the requirements ask for.
    #[test]
    fn every_text_says_what_must_be_said() {
        let status = crate::report::tests::sample();
        assert!(split_note(&status.system).contains("each side runs simplex")); // SP-24
        assert!(split_note(&status.system).contains("must lie on a system disk")); // SP-09
        let merge = merge_text(&status, false, false);
        // Design 3.5: what was tried on copies ends here, and that is said.
        let rehearsed = merge_text(&status, false, true);
        assert!(
            rehearsed.starts_with(&merge)
                && rehearsed.contains("copies of the data are thrown away")
        );
        assert!(merge.contains("stays on the data disks, also after an abort")); // DK-28
        assert!(merge.contains("brief outage") && merge.contains("no data is merged")); // MG-17
        let commit = commit_text(&status, Some("\n    /etc/motd (3 B)"));
        assert!(commit.contains("/etc/motd")); // CM-11
        assert!(commit.contains("irreversible")); // CM-06
        assert!(commit.contains("since the split, its logs included")); // CM-11
        assert!(!commit.contains("WARNING"));
        let mut lossy = status.clone();
        lossy.not_saved = vec!["/var/log/shop: no space".to_owned()];
        assert!(commit_text(&lossy, None).contains("WARNING")); // LB-11
        assert!(commit_text(&lossy, None).contains("/var/log/shop: no space")); // LB-11
        assert!(abort_split_text(&status).contains("no downtime")); // SM-30
        let abort = abort_merge_text(&status, false, false);
        assert!(abort.contains("brief outage without a reboot")); // SM-30
        assert!(abort.contains("not rolled back") && abort.contains("What is lost")); // DK-28, AB-17
        // DK-28, fault 46: with a checkpoint each text says which of the two will happen.
        let merge = merge_text(&status, true, false);
        assert!(merge.contains("flipside abort --discard-data") && merge.contains("one leg"));
        let keep = abort_merge_text(&status, true, false);
        assert!(
            keep.contains("not rolled back")
                && keep.contains("checkpoint of the merge is given up")
        );
        let discard = abort_merge_text(&status, true, true);
        assert!(!discard.contains("not rolled back") && discard.contains("What is discarded"));
    }
}

//! The status of a system as text.

use crate::failure::problem_text;
use flipside_activity::{clean, duration_ms, duration_us, rate, size};
use flipside_model::{
    Command, DiskStatus, MirrorStatus, OperationalState, Progress, Severity, Status,
};
use std::fmt::Write as _;

/// Returns the combined form in the spaced spelling of the status bar (SB-03, SM-32).
pub(crate) fn bar_line(status: &Status) -> String {
    format!(
        "{} | {} | {}",
        status.hardware_state, status.upgrade_state, status.operational_state
    )
}

/// Returns the five fields of the status bar in their order: configuration file, Hardware State, Upgrade State,
/// Operational State, Partner State (SB-02, SB-21).
pub(crate) fn bar_fields(status: &Status) -> [String; 5] {
    let config = status.config.as_deref().map(clean);
    let partner = status.partner_state.map(|partner| partner.to_string());
    [
        config.unwrap_or_else(|| "no configuration file".to_owned()),
        status.hardware_state.to_string(),
        status.upgrade_state.to_string(),
        status.operational_state.to_string(),
        partner.unwrap_or_else(|| "none".to_owned()),
    ]
}

/// Returns the status bar: the icon of the Operational State, then the five fields (SB-02, SB-03, SB-19, SB-20).
pub(crate) fn status_bar(status: &Status) -> String {
    let [config, hardware, upgrade, operational, partner] = bar_fields(status);
    let icon = operational_icon(status.operational_state);
    format!("{icon} {config} | {hardware} | {upgrade} | {operational} | Partner: {partner}")
}

/// Returns the icon of an Operational State (SB-19).
pub(crate) fn operational_icon(state: OperationalState) -> char {
    match state {
        OperationalState::Ready => '✔',
        OperationalState::Busy => '…',
        OperationalState::Broken => '✘',
    }
}

/// Says in one line what protects the data: how many disks are duplexed, and what is with the others.
pub(crate) fn protection(status: &Status) -> String {
    let duplexed = |disk: &&DiskStatus| disk.mirror == MirrorStatus::None;
    let open: Vec<String> = status
        .disks
        .iter()
        .filter(|disk| !duplexed(disk))
        .map(|disk| format!("{} {}", disk.name, disk.mirror))
        .collect();
    let all = status.disks.len();
    let duplexed = status.disks.iter().filter(duplexed).count();
    if open.is_empty() {
        return format!("all {all} disks duplexed");
    }
    format!("{duplexed} of {all} disks duplexed; {}", open.join(", "))
}

/// Says what a command would do now.
pub(crate) fn what_it_does(command: Command) -> &'static str {
    match command {
        Command::Check => "check whether the system is ready; changes nothing",
        Command::Split => "divide the system; the Production Side keeps serving",
        Command::Merge => "move the users to the Upgrade Side: a brief outage; no data is merged",
        Command::Commit => "make the upgrade permanent: irreversible",
        Command::Abort => "take the upgrade back",
        Command::Finish => "clean up and end the session",
        Command::Retry => "repeat the operation",
    }
}

/// Lists the commands that are legal now, in one line.
pub(crate) fn allowed_line(status: &Status) -> String {
    if status.allowed.is_empty() {
        return "allowed now: nothing; wait until the operation ends: `flipside status --watch`"
            .to_owned();
    }
    let verbs: Vec<String> = status.allowed.iter().map(|c| format!("`{c}`")).collect();
    format!("allowed now: {}", verbs.join(", "))
}

/// Says how far something is: bytes, rate, time left.
pub(crate) fn progress_text(progress: &Progress) -> String {
    let mut text = format!(
        "{}: {} of {}",
        clean(&progress.what),
        size(progress.done_bytes),
        size(progress.total_bytes)
    );
    if progress.rate > 0 {
        let _ = write!(text, ", {}", rate(progress.rate));
    }
    if let Some(left) = progress.left_seconds {
        let _ = write!(text, ", {} left", left_text(left));
    }
    text
}

/// Formats an estimate, which has no use for decimals.
pub(crate) fn left_text(seconds: u64) -> String {
    if seconds < 60 {
        return format!("{seconds} s");
    }
    duration_ms(seconds.saturating_mul(1000))
}

/// Renders everything about a system.
pub(crate) fn status_text(status: &Status, color: bool) -> String {
    let mut out = String::new();
    let bar = match (color, status.operational_state) {
        (true, OperationalState::Broken) => format!("\x1b[31m{}\x1b[0m", status_bar(status)),
        _ => status_bar(status),
    };
    let _ = writeln!(out, "{bar}");
    let running = if status.running {
        "running"
    } else {
        "not running"
    };
    let _ = write!(out, "System {}, {running}", status.system);
    if let Some(accelerator) = &status.accelerator {
        let _ = write!(out, ", {}", clean(accelerator));
    }
    for port in &status.published {
        let _ = write!(out, ", {}", clean(port));
    }
    out.push('\n');
    if let Some(step) = &status.step {
        let _ = writeln!(out, "Step: {}", clean(step));
    }
    if let Some(action) = &status.action {
        let _ = writeln!(out, "Action: {}", clean(action));
    }
    if let Some(progress) = &status.progress {
        let _ = writeln!(out, "      {}", progress_text(progress));
    }
    out.push('\n');
    disks(&mut out, &status.disks);
    if status.checkpoint_ms.is_some() {
        out.push_str(CHECKPOINT);
    }
    figures(&mut out, status);
    if !status.not_saved.is_empty() {
        let icon = flipside_activity::icon(Severity::Warning);
        let _ = writeln!(out, "\n{icon} Lost at commit, because it was not saved:");
        for what in &status.not_saved {
            let _ = writeln!(out, "    {}", clean(what));
        }
    }
    if let Some(problem) = &status.problem {
        let icon = flipside_activity::icon(Severity::Error);
        let _ = write!(out, "\n{}", problem_text(&format!("{icon} "), problem));
    }
    out.push('\n');
    if status.allowed.is_empty() {
        let _ = writeln!(out, "{}", allowed_line(status));
    } else {
        out.push_str("Allowed now:\n");
        for command in &status.allowed {
            let typed = format!("flipside {command} {}", status.system);
            let _ = writeln!(out, "  {typed:<28}  {}", what_it_does(*command));
        }
    }
    out
}

/// DK-28: what an abort does to the data is said as long as there are two ways.
const CHECKPOINT: &str = "\
The data are kept as they were at the merge (checkpoint); each data disk has one leg until commit or abort.
  `flipside abort` keeps what was written since, `flipside abort --discard-data` discards it.
";

fn disks(out: &mut String, disks: &[DiskStatus]) {
    let _ = writeln!(out, "{:<9} {:<7} {:>9}  MIRROR", "DISK", "ROLE", "SIZE");
    for disk in disks {
        let _ = writeln!(
            out,
            "{:<9} {:<7} {:>9}  {}",
            disk.name.to_string(),
            disk.role.to_string(),
            size(disk.size),
            disk.mirror
        );
        for leg in &disk.legs {
            let mark = if leg.authority { "*" } else { " " };
            let path = clean(&leg.path.to_string_lossy());
            let _ = write!(
                out,
                "  leg {}{mark}  {:<9}  {path}",
                leg.leg,
                clean(&leg.role)
            );
            if let Some(reason) = &leg.reason {
                let _ = write!(out, "  ({})", clean(reason));
            }
            out.push('\n');
        }
    }
}

fn figures(out: &mut String, status: &Status) {
    let mut lines = Vec::new();
    if status.errors + status.warnings > 0 {
        lines.push(format!(
            "Readiness: {} errors, {} warnings (`flipside log {} --severity Warning`)",
            status.errors, status.warnings, status.system
        ));
    }
    if let Some(pause) = status.pause_ms {
        lines.push(format!(
            "Last split: production paused for {}",
            duration_us((pause * 1000.0) as u64)
        ));
    }
    if let Some(outage) = status.outage_ms {
        let inside = status.outage_inside_ms.map_or_else(String::new, |inside| {
            format!(" ({} inside)", duration_ms(inside))
        });
        lines.push(format!(
            "Last move of the users: outage {} at the front door{inside}",
            duration_ms(outage)
        ));
    }
    for disk in status.disks.iter().filter(|d| d.resync_copied > 0) {
        lines.push(format!(
            "Last resync of {}: {} copied, {} had changed, of {}",
            disk.name,
            size(disk.resync_copied),
            size(disk.resync_union),
            size(disk.size)
        ));
    }
    if !lines.is_empty() {
        let _ = writeln!(out, "\n{}", lines.join("\n"));
    }
}

/// Sets rows in columns, two spaces apart; the last column is not filled up.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let filled: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        filled.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A split system, as the server would report it.
    pub(crate) fn sample() -> Status {
        serde_json::from_str(include_str!("../tests/status.json")).expect("a status")
    }

    // SB-02, SB-03, SB-20, SB-21, SM-32, CF-39: the name of the configuration is the first field.
    #[test]
    fn the_status_bar_has_five_fields_in_order() {
        let mut status = sample();
        assert_eq!(
            status_bar(&status),
            "✔ web.Config | Production Side | Split | Ready | Partner: OS Up"
        );
        status.config = None;
        status.partner_state = None;
        status.upgrade_state = flipside_model::UpgradeState::PrepareMerge;
        assert_eq!(
            status_bar(&status),
            "✔ no configuration file | Production Side | Prepare Merge | Ready | Partner: none"
        );
    }

    // SB-19: each Operational State has an icon of its own; RS-06, SB-07: mirrors are told apart from the bar.
    #[test]
    fn the_operational_states_differ_by_icon_and_each_disk_is_told() {
        let states = [
            OperationalState::Ready,
            OperationalState::Busy,
            OperationalState::Broken,
        ];
        let icons: std::collections::BTreeSet<char> =
            states.into_iter().map(operational_icon).collect();
        assert_eq!(icons.len(), 3);
        let mut status = sample();
        assert_eq!(
            protection(&status),
            "0 of 2 disks duplexed; system0 Simplex, data0 Resync 42%"
        );
        for disk in &mut status.disks {
            disk.mirror = MirrorStatus::None;
        }
        assert_eq!(protection(&status), "all 2 disks duplexed");
    }

    #[test]
    fn a_status_reads_like_this() {
        let expected = "\
✔ web.Config | Production Side | Split | Ready | Partner: OS Up
System web, running, tcg, 127.0.0.1:8080->80

DISK      ROLE         SIZE  MIRROR
system0   System    3.0 GiB  Simplex
  leg A*  original   /enc/a/system0.raw
  leg B   upgraded   /enc/b/system0.raw
data0     Data      1.0 GiB  Resync 42%
  leg A*  live       /enc/a/data0.raw
  leg B   stale      /enc/b/data0.raw  (session)

Readiness: 0 errors, 1 warnings (`flipside log web --severity Warning`)
Last split: production paused for 74.3 ms
Last resync of data0: 4.0 MiB copied, 10.0 MiB had changed, of 1.0 GiB

Allowed now:
  flipside merge web            move the users to the Upgrade Side: a brief outage; no data is merged
  flipside abort web            take the upgrade back
";
        assert_eq!(status_text(&sample(), false), expected);
    }

    #[test]
    fn progress_has_bytes_rate_and_time_left() {
        let progress = Progress {
            what: "memory".to_owned(),
            done_bytes: 120 << 20,
            total_bytes: 512 << 20,
            rate: 49 << 20,
            left_seconds: Some(8),
        };
        assert_eq!(
            progress_text(&progress),
            "memory: 120 MiB of 512 MiB, 49.0 MiB/s, 8 s left"
        );
    }
}

//! `flipside changes`: what the Production Side changed since the split, and a commit would lose.

use crate::context::Context;
use crate::failure::Failure;
use flipside_activity::{clean, size};
use flipside_model::{ChangeList, SystemName};
use std::fmt::Write as _;

const LONG: &str = "\
Lists the files on the Production Side's system disks that changed since the split. At Commit they are lost, but for those \
that a rule of the configuration (`carry`) carries over to the Upgrade Side; the list names the rule. Data disks move with \
the users and are not listed.

Logs are listed behind the others. What lives only while the system runs is left out: /run, /tmp, /var/tmp, /var/cache, PID \
and lock files. What was deleted is not listed. In Split the guest is asked; after the merge the Production Side is paused, \
and the list is the one that was taken before it, at most 200 files.";

const EXAMPLES: &str = "\
Examples:
  flipside changes web
  flipside changes web --limit 1000 --after /var/lib
  flipside changes web --json | jq -r '.files[] | select(.rule == null) | .path'";

/// Files that are listed when nothing else is said: a few screens.
const LIMIT: u16 = 200;

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// System; may be left out when there is one
    system: Option<SystemName>,
    /// List at most so many files (1 to 1000)
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Go on behind this path
    #[arg(long, value_name = "PATH", default_value = "")]
    after: String,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let system = ctx.system(args.system.as_ref()).await?;
    let list = ask(ctx, &system, &args.after, args.limit).await?;
    if ctx.json {
        return ctx.object(&list);
    }
    ctx.line(text(&list, &args.after).trim_end())
}

/// Asks the server for a page of the list.
pub(crate) async fn ask(
    ctx: &Context,
    system: &SystemName,
    after: &str,
    limit: u16,
) -> Result<ChangeList, Failure> {
    let mut path = format!("/v1/systems/{system}/changes?limit={limit}&after=");
    for byte in after.bytes() {
        let _ = write!(path, "%{byte:02X}");
    }
    ctx.client.get(&path).await
}

fn text(list: &ChangeList, after: &str) -> String {
    let mut out = String::new();
    let (logs, files): (Vec<_>, Vec<_>) = list.files.iter().partition(|file| file.log);
    for (title, files) in [("", files), ("Logs:\n", logs)] {
        if !files.is_empty() {
            out.push_str(title);
        }
        for file in files {
            let rule = file.rule.as_deref();
            let rule =
                rule.map_or_else(String::new, |r| format!("  carried over by `{}`", clean(r)));
            let _ = writeln!(out, "{:>9}  {}{rule}", size(file.bytes), clean(&file.path));
        }
    }
    let when = if list.before_merge {
        "before the merge"
    } else {
        "now"
    };
    let shown = list.files.len();
    let _ = writeln!(
        out,
        "{} changed on the Production Side's system disks between the split and {when}; {shown} shown.",
        if list.total == 1 {
            "1 file".to_owned()
        } else {
            format!("{} files", list.total)
        },
    );
    if let Some(last) = list
        .files
        .last()
        .filter(|_| after.is_empty() && (shown as u64) < list.listed)
    {
        let _ = writeln!(
            out,
            "More: `flipside changes --after {}`.",
            clean(&last.path)
        );
    }
    out
}

/// The first entries, for the question before a commit.
pub(crate) fn brief(list: &ChangeList) -> String {
    /// As many as can be taken in at a glance.
    const FIRST: usize = 5;
    let lost = list
        .files
        .iter()
        .filter(|file| !file.log && file.rule.is_none());
    let mut out = format!("\n  Changed there before the merge: {} file(s)", list.total);
    for file in lost.clone().take(FIRST) {
        let _ = write!(out, "\n    {} ({})", clean(&file.path), size(file.bytes));
    }
    if lost.count() > FIRST {
        out.push_str("\n    … `flipside changes` lists them");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_model::{ChangedFile, ChangedKind};

    fn file(path: &str, rule: Option<&str>) -> ChangedFile {
        ChangedFile {
            path: path.to_owned(),
            bytes: 1_000,
            kind: ChangedKind::File,
            log: path.starts_with("/var/log"),
            rule: rule.map(str::to_owned),
        }
    }

    // CM-11: what is lost is told with its rule; logs stand apart; nothing of a name reaches the terminal as an escape.
    #[test]
    fn a_list_says_what_is_lost_and_what_is_not() {
        let list = ChangeList {
            total: 9,
            listed: 9,
            files: vec![
                file("/etc/motd", None),
                file("/var/log/syslog", None),
                file("/var/spool/x\u{1b}[31m", Some("/var/spool")),
            ],
            ..ChangeList::default()
        };
        let text = text(&list, "");
        assert!(text.contains("/etc/motd\n"), "{text}");
        assert!(text.contains("carried over by `/var/spool`"), "{text}");
        assert!(text.find("Logs:") > text.find("/var/spool"), "{text}");
        assert!(
            text.contains("9 files changed") && text.contains("--after"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        let brief = brief(&list);
        assert!(
            brief.contains("9 file(s)") && brief.contains("/etc/motd"),
            "{brief}"
        );
        assert!(
            !brief.contains("syslog") && !brief.contains("spool"),
            "{brief}"
        );
    }
}

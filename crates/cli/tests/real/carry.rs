//! What the Production Side writes on its system disk after the split: listed, carried over, and told before a commit.

use crate::real::{CONFIG, Lab, NAME};
use crate::{MARK, READY};
use flipside_model::{ChangeList, OperationalState as O, UpgradeState as S};

/// A spool, a crontab and an account as they are at the split.
const BEFORE: &str = "mkdir -p /var/spool/app/sub; echo later >/var/spool/app/old; echo stays >/var/spool/app/same; \
     echo one >/etc/app.conf; sync";

/// What users do on the Production Side meanwhile: something comes, something goes, something has attributes.
const USERS: &str = "rm /var/spool/app/old; printf 'a mail' >/var/spool/app/new; chmod 0640 /var/spool/app/new; \
     chown 13:42 /var/spool/app/new; touch -d '2020-02-02 02:02:02 UTC' /var/spool/app/new; \
     ln -s new /var/spool/app/link; truncate -s 20M /var/spool/app/sparse; echo end >>/var/spool/app/sparse; \
     mkdir -m 0711 /var/spool/app/dir; echo deep >'/var/spool/app/dir/a b'; echo production >/etc/app.conf; \
     echo lost >/etc/lost.conf; sync";

/// What the upgrade changes itself.
const UPGRADE: &str = "echo upgraded >/etc/app.conf; sync";

fn list(lab: &Lab) -> ChangeList {
    let text = lab.ok(&["changes", NAME, "--json", "--limit", "1000"]);
    serde_json::from_str(&text).expect("a list")
}

fn rule_of<'a>(list: &'a ChangeList, path: &str) -> Option<&'a str> {
    let file = list.files.iter().find(|f| f.path == path);
    let file = file.unwrap_or_else(|| panic!("{path} is not in {list:#?}"));
    file.rule.as_deref()
}

// CM-11, design 3.5: what is lost is listed at any time, with the rule that carries it over; what is carried comes with owner,
// mode, times, links and holes; what changed on both sides is never overwritten.
#[test]
#[ignore = "a whole session, two minutes: `./dev test --full`"]
fn what_production_writes_after_the_split_is_listed_and_carried_over() {
    let Some(mut lab) = Lab::booted() else { return };
    let file = lab.dir.join("carry.Config");
    let text = format!("{CONFIG}carry = [\"/var/spool/app\", \"/etc/app.*\"]\n");
    std::fs::write(&file, text).expect("written");
    lab.sh(Some("production"), BEFORE);
    lab.refused(&["changes", NAME], 3, &["is not divided"]);
    lab.ok(&["split", NAME, "--config", &file.display().to_string()]);
    lab.is_in(S::Split, READY);
    lab.sh(None, MARK);
    lab.sh(None, UPGRADE);
    lab.sh(Some("production"), USERS);
    let before = list(&lab);
    assert!(!before.before_merge);
    assert_eq!(
        rule_of(&before, "/var/spool/app/new"),
        Some("/var/spool/app")
    );
    assert_eq!(rule_of(&before, "/etc/app.conf"), Some("/etc/app.*"));
    assert_eq!(rule_of(&before, "/etc/lost.conf"), None);
    assert!(before.files.iter().all(|f| f.path != "/var/spool/app/same"));
    assert!(!before.files.iter().any(|f| f.path.starts_with("/srv/data")));

    lab.ok(&["merge", NAME, "--yes"]);
    let status = lab.is_in(S::Merge, READY);
    lab.note(&format!(
        "merge with a carry-forward: outage {:?} ms",
        status.outage_ms
    ));
    let log = lab.ok(&["log", NAME]);
    assert!(
        log.contains("`/etc/app.conf` was changed on both sides"),
        "{log}"
    );
    let upgrade = |line: &str| lab.sh(Some("upgrade"), line);
    let new = upgrade("stat -c '%a %u %g %Y' /var/spool/app/new; cat /var/spool/app/new");
    assert_eq!(new, "640 13 42 1580608922\na mail");
    assert_eq!(upgrade("readlink /var/spool/app/link").trim(), "new");
    let sparse = upgrade("stat -c '%s %b' /var/spool/app/sparse");
    let (size, blocks) = sparse.trim().split_once(' ').expect("two numbers");
    assert_eq!(size, "20971524");
    assert!(blocks.parse::<u64>().expect("a number") < 1_000, "{sparse}");
    let deep = upgrade("stat -c %a /var/spool/app/dir; cat '/var/spool/app/dir/a b'");
    assert_eq!(deep, "711\ndeep\n");
    assert_eq!(
        upgrade("ls /var/spool/app").trim(),
        "dir\nlink\nnew\nsame\nsparse\nsub"
    );
    assert_eq!(upgrade("cat /etc/app.conf").trim(), "upgraded");
    let aside = upgrade("cat /var/lib/flipside/carried/etc/app.conf");
    assert_eq!(aside.trim(), "production");
    assert_eq!(upgrade("ls /etc/lost.conf || true").trim(), "");
    // The Production Side is paused: the list of before the merge is shown.
    let kept = list(&lab);
    assert!(kept.before_merge);
    assert_eq!(rule_of(&kept, "/etc/lost.conf"), None);

    lab.ok(&["commit", NAME, "--yes"]);
    lab.is_in(S::Commit, O::Ready);
    lab.finish();
    let left = lab.sh(
        Some("production"),
        "ls /var/lib/flipside; ls -d /dev/disk/by-id/*scratch* || true",
    );
    assert_eq!(
        left.trim(),
        "carried",
        "what lay beside stays, the rest is gone"
    );
    assert!(!lab.dir.join("state/systems/mini/scratch.raw").exists());
    lab.stop_and_compare();
}

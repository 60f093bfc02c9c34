//! What surrounds the path of the session: an action of every type, one of which fails and is retried; logs that are saved; a
//! spool that is carried over.

use crate::Shop;
use crate::real::NAME;
use flipside_model::{OperationalState as O, UpgradeState as S};

/// Added to the parent. Its own actions come after the child's.
pub(crate) const OF_PARENT: &str = r#"
carry = ["/var/spool/shop"]
[log_backup]
directory = "/srv/data/logs"
logs = ["system journal", "/var/log/shop.runs"]
[[action]]
file = "/usr/local/sbin/shop"
arguments = "advanced '%ACTIVE_UPGRADE_SIDE% Side'"
control_type = "Advanced"
[[action]]
file = "/usr/bin/cp"
arguments = "-a -- /etc/shop/prices /srv/data/prices-from-%ACTIVE_UPGRADE_SIDE%"
control_type = "Backup"
"#;

/// Added to the child that the parent calls.
pub(crate) const OF_CHILD: &str = r#"
[[action]]
file = "/usr/local/sbin/shop"
arguments = "ready"
control_type = "Readiness Check"
limit = 60
[[action]]
file = "/usr/local/sbin/shop"
arguments = "stop"
control_type = "Stop Application"
limit = 60
[[action]]
file = "/usr/local/sbin/shop"
arguments = "start"
control_type = "Start Application"
limit = 60
"#;

/// A program that writes down how it was called, and that refuses a merge until the prices were converted.
pub(crate) const INSTALL: &str = r#"
set -e
mkdir -p /etc/shop /var/spool/shop /srv/data/logs
touch /var/log/shop.runs
echo 10 >/etc/shop/prices
echo waiting >/var/spool/shop/order-1
cat >/usr/local/sbin/shop <<'END'
#!/bin/sh
echo "$ACTIVE_UPGRADE_SIDE $ACTIVE_UPGRADE_STATE $ACTIVE_UPGRADE_REQUEST $ACTIVE_UPGRADE_HW_SPLIT $*" | tee -a /var/log/shop.runs
if [ "$ACTIVE_UPGRADE_REQUEST $ACTIVE_UPGRADE_SIDE" = 'PrepareMerge Upgrade' ] && [ ! -e /etc/shop/converted ]; then
    echo 'the prices are not converted' >&2
    exit 3
fi
END
chmod 755 /usr/local/sbin/shop
sync
"#;

/// What users do on the Production Side while the Upgrade Side is prepared, besides a new price in each session.
const USERS: &str = "rm /var/spool/shop/order-1; echo new >/var/spool/shop/order-2; \
     chmod 600 /var/spool/shop/order-2; logger -t shop 'an order came in after the split'; sync";

/// Appendix B: the runs of the two sides in a session that is committed, after those on which both agree.
const BEFORE_THE_SPLIT: [&str; 3] = [
    "Production Idle CheckReadiness No ready",
    "Production Idle CheckReadiness No advanced Production Side",
    "Production PrepareSplit PrepareSplit No advanced Production Side",
];
const ON_PRODUCTION: [&str; 3] = [
    "Production Split ExecuteSplit Yes advanced Production Side",
    "Production PrepareMerge PrepareMerge Yes advanced Production Side",
    "Production Merge Stop Yes stop",
];
const ON_THE_UPGRADE_SIDE: [&str; 5] = [
    "Upgrade Split ExecuteSplit Yes advanced Upgrade Side",
    "Upgrade Split Stop Yes stop",
    "Upgrade PrepareMerge PrepareMerge Yes advanced Upgrade Side",
    "Upgrade Merge ExecuteMerge No advanced Upgrade Side",
    "Upgrade Merge Start No start",
];
const AFTER_THE_ABORT: [&str; 2] = [
    "Production Abort Start No start",
    "Production Abort Abort No advanced Production Side",
];

/// What users are asked to pay from this session on; 0 is before the first.
fn price_in(session: u32) -> String {
    format!("1{session}")
}

fn runs(shop: &Shop, side: &str) -> Vec<String> {
    let text = shop.says(side, "/var/log/shop.runs");
    text.lines().map(str::to_owned).collect()
}

/// Fails unless these runs happened in this order; others may lie between them.
#[track_caller]
fn happened(all: &[String], wanted: &[&str]) {
    let mut rest = all.iter();
    for run in wanted {
        assert!(
            rest.any(|seen| seen == run),
            "`{run}` did not happen in its place: {all:#?}"
        );
    }
}

// CA-09, CA-41, US-29: users work, an action finds that the merge may not begin yet, and the log says why in its own words.
#[track_caller]
pub(crate) fn refuses_the_merge_until_it_may(shop: &Shop, session: u32) {
    let lab = &shop.lab;
    let price = price_in(session);
    lab.sh(
        Some("production"),
        &format!("echo {price} >/etc/shop/prices; {USERS}"),
    );
    let before = lab.client().settle();
    let said = lab.refused(
        &["merge", NAME, "--yes"],
        1,
        &["Custom action failed with exit value 3"],
    );
    lab.note(&said);
    lab.is_in(S::PrepareMerge, O::Broken);
    let log = lab.ok(&["log", NAME]);
    assert!(log.contains("the prices are not converted"), "{log}");
    lab.client().settle();
    let failed = lab.client().failures_since(before);
    assert!(failed.is_empty(), "a refused merge cost users: {failed:#?}");
    lab.sh(Some("upgrade"), "touch /etc/shop/converted; sync");
}

// Appendix B, CA-11 to CA-16; LB-03 to LB-06; CM-11: after the merge everything is where it belongs.
#[track_caller]
pub(crate) fn hold_after_the_merge(shop: &Shop, session: u32) {
    let lab = &shop.lab;
    let there = runs(shop, "upgrade");
    happened(&there, &BEFORE_THE_SPLIT);
    happened(&there, &ON_THE_UPGRADE_SIDE);
    assert!(
        !there.iter().any(|run| run.starts_with("Production Merge")),
        "what Production ran is not here: {there:#?}"
    );

    let id = lab.status().session.expect("a session");
    let saved = format!("/srv/data/logs/flipside-{id}");
    let kept = shop.says("upgrade", &format!("{saved}/var/log/shop.runs"));
    let kept: Vec<String> = kept.lines().map(str::to_owned).collect();
    happened(&kept, &ON_PRODUCTION);
    let journal = lab.sh(
        Some("upgrade"),
        &format!("find {saved} -name '*.journal' -exec journalctl --no-pager -q --file {{}} -t shop -o cat \\;"),
    );
    assert!(
        journal.contains("an order came in after the split"),
        "{journal}"
    );
    let backup = shop.says("upgrade", "/srv/data/prices-from-Production");
    assert_eq!(backup, price_in(session));
    let price = shop.says("upgrade", "/etc/shop/prices");
    assert_eq!(price, price_in(session - 1), "nobody asked to carry it");
    let spool = lab.sh(
        Some("upgrade"),
        "cd /var/spool/shop; stat -c '%n %a' *; cat *",
    );
    assert_eq!(spool, "order-2 600\nnew\n");
}

// Appendix B: after an abort the Production Side has its own runs and nothing of the other.
#[track_caller]
pub(crate) fn hold_after_the_abort(shop: &Shop) {
    let here = runs(shop, "production");
    happened(&here, &BEFORE_THE_SPLIT);
    happened(&here, &ON_PRODUCTION);
    happened(&here, &AFTER_THE_ABORT);
    assert!(
        !here.iter().any(|run| run.starts_with("Upgrade")),
        "{here:#?}"
    );
    assert_eq!(shop.says("production", "/etc/shop/prices"), price_in(1));
    let spool = shop.lab.sh(Some("production"), "ls /var/spool/shop");
    assert_eq!(spool.trim(), "order-2");
}

// Appendix B: the commit runs its actions on the side that users are on.
#[track_caller]
pub(crate) fn hold_after_the_commit(shop: &Shop) {
    let here = runs(shop, "production");
    happened(&here, &["Upgrade Commit Commit No advanced Upgrade Side"]);
}

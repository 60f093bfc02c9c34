use super::super::tests::{book, good, spec};
use super::super::{count, judge};
use super::*;
use flipside_model::{LegRole, RemoteStorage, UpgradeConfig};

/// A guest that has nothing to be told.
pub(crate) fn fine() -> GuestSeen {
    let card = |name: &str, mac: &str| GuestCard {
        name: name.to_owned(),
        mac: mac.to_owned(),
        physical: true,
        addresses: vec!["192.0.2.7/24".to_owned()],
        ..GuestCard::default()
    };
    GuestSeen {
        around: Surroundings {
            cards: vec![card("eth0", &spec().mac), card("eth1", VTM_MAC)],
            logins: vec!["ssh.service".to_owned()],
            administrators: vec!["root".to_owned()],
            ..Surroundings::default()
        },
        renewals: vec![("eth0".to_owned(), Renewal::Renewed)],
        private_path: Some(true),
    }
}

/// What is found beyond successes: severity, text, component, advice.
fn found(change: impl FnOnce(&mut GuestSeen)) -> Vec<(Severity, String, String, String)> {
    let mut guest = fine();
    change(&mut guest);
    let (spec, config, book) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &book);
    seen.guest = Ok(guest);
    let findings = judge(&seen);
    let told = findings
        .into_iter()
        .filter(|f| f.severity != Severity::Success);
    told.map(|f| {
        let component = f.component.expect("a component");
        (f.severity, f.text, component, f.advice.expect("advice"))
    })
    .collect()
}

/// Fails unless exactly this is found, about a component that says so.
#[track_caller]
fn only(severity: Severity, text: &str, about: &str, change: impl FnOnce(&mut GuestSeen)) {
    let told = found(change);
    let [(level, said, component, _)] = told.as_slice() else {
        panic!("{text}: {told:#?}");
    };
    assert_eq!(*level, severity, "{said}");
    assert!(said.contains(text), "{said}");
    assert!(component.contains(about), "{component}");
}

fn one(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

// RC-08, RC-09, RC-51: each test of the guest can fail, alone, with its severity, component and advice.
#[test]
fn each_test_of_the_guest_fails_alone() {
    use Severity::{Error, Information, Warning};
    assert_eq!(found(|_| ()), []);
    // RC-26, RC-50
    let text = "No IP address on Upgrade ready team";
    only(Error, text, "eth0", |g| g.around.cards[0].addresses.clear());
    only(Error, text, "52:54:00:00:00:01", |g| {
        g.around.cards.remove(0);
    });
    // RC-28: one warning for each card.
    only(Warning, "none that flipside moves", "eth2", |g| {
        let other = GuestCard {
            name: "eth2".to_owned(),
            mac: "52:54:00:00:00:99".to_owned(),
            physical: true,
            ..GuestCard::default()
        };
        g.around.cards.push(other);
    });
    // RC-29, RC-50
    only(
        Warning,
        "Active Upgrade may fail. Check DHCP server.",
        "eth0",
        |g| {
            g.renewals[0].1 = Renewal::Silent;
        },
    );
    only(Warning, "could not be tried: no tool", "eth0", |g| {
        g.renewals[0].1 = Renewal::Untried("no tool".to_owned());
    });
    // RC-30, RC-50
    only(Warning, "Remote Desktop is not enabled", "ssh", |g| {
        g.around.logins.clear();
    });
    // RC-31, PR-20
    only(Warning, "a firewall may block it", "port 22", |g| {
        g.private_path = Some(false);
    });
    // RC-41
    only(Warning, "claims disks", "multipathd.service", |g| {
        g.around.blockers = one("multipathd.service");
    });
    only(Warning, "acts when its partners", "corosync.service", |g| {
        g.around.blockers = one("corosync.service");
    });
    // RC-42, PR-27
    only(Warning, "no local account", "root", |g| {
        g.around.administrators.clear();
    });
    // PR-30, PR-35
    only(Warning, "installs software by itself", "apt-daily", |g| {
        g.around.updaters = one("apt-daily-upgrade.timer");
    });
    // Design 3.5
    only(Warning, "names a disk by its place", "/etc/fstab", |g| {
        g.around.by_place = one("/dev/sdb1 on /srv");
    });
    only(Error, "needs a key to be typed", "/etc/crypttab", |g| {
        g.around.typed_keys = one("secret");
    });
    // PR-18
    only(
        Information,
        "external data: nfs4 `filer:/a` on `/srv/a`",
        "filer:/a",
        |g| {
            g.around.remote.push(RemoteStorage {
                kind: "nfs4".to_owned(),
                source: "filer:/a".to_owned(),
                target: "/srv/a".to_owned(),
            });
        },
    );
}

// RC-26: the address of a bond is that of its members.
#[test]
fn an_address_of_a_bond_counts_for_its_cards() {
    let told = found(|g| {
        g.around.cards[0].addresses.clear();
        g.around.cards[0].master = Some("bond0".to_owned());
        g.around.cards.push(GuestCard {
            name: "bond0".to_owned(),
            mac: spec().mac,
            addresses: one("192.0.2.7/24"),
            // A loop of masters must not be walked for ever.
            master: Some("eth0".to_owned()),
            ..GuestCard::default()
        });
    });
    assert_eq!(told, []);
}

// RC-31: the rules that block are named, three at most.
#[test]
fn the_rules_of_a_firewall_are_named() {
    let told = found(|g| {
        g.private_path = Some(false);
        g.around.blocking = (1..6).map(|n| format!("tcp dport {n} drop")).collect();
    });
    assert!(told[0].3.contains("`tcp dport 3 drop`"), "{told:?}");
    assert!(!told[0].3.contains("dport 4"), "{told:?}");
}

// RC-08: a guest that did not say is no success in any of its tests.
#[test]
fn what_the_guest_did_not_say_is_no_success() {
    let (spec, config, book) = (spec(), UpgradeConfig::none(), book(LegRole::Live));
    let mut seen = good(&spec, &config, &book);
    seen.guest = Err("it took too long".to_owned());
    let (warnings, errors) = count(&judge(&seen));
    assert_eq!(warnings + errors, RULES.len());
    assert_eq!(errors, 3, "address, keys and storage");
}

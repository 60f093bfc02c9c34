//! Readiness of the guest: how it is reached, what acts in it by itself, and what would keep it from starting again.
//!
//! What the guide calls prerequisites are Errors here, what it recommends are Warnings (gap G.2.24). Two differ: an account
//! is a Warning, because `flipside shell` needs none, and so are services that act on what a split does.

use super::{Finding, Observed, Rule, asked, error, finding, warning};
use flipside_model::{GuestCard, Renewal, Severity, Surroundings};

/// What was seen of the guest's surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestSeen {
    /// What the guest says.
    pub around: Surroundings,
    /// The leases that were renewed, by card.
    pub renewals: Vec<(String, Renewal)>,
    /// Whether somebody answers on the private path: none where it was not asked.
    pub private_path: Option<bool>,
}

/// What is not the production card and has this address is the private (VTM) card of every system.
const VTM_MAC: &str = "52:54:00:f1:75:01";

/// The tests of this theme.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("The production card has an address", address),
    ("Leases are renewed by their server", leases),
    ("Every network card takes part", other_cards),
    ("Remote access is enabled", remote_access),
    ("The private path is open", private_path),
    ("Nothing known stands in the way", blockers),
    ("Somebody can log in without a network", account),
    ("Nothing installs software by itself", updaters),
    ("Disks are mounted by what they are", by_place),
    ("The guest starts without a key being typed", keys),
    ("Storage over a network is known", remote_storage),
];

fn guest(
    seen: &Observed<'_>,
    (check, what, worst): (&'static str, &str, Severity),
    judge: impl FnOnce(&GuestSeen) -> Vec<Finding>,
) -> Vec<Finding> {
    asked(seen, &seen.guest, (check, what, worst), judge)
}

/// The production card and what it is a part of: its address may be that of a bond.
fn production<'a>(seen: &Observed<'_>, around: &'a Surroundings) -> Vec<&'a GuestCard> {
    let cards = &around.cards;
    let mut chain: Vec<&GuestCard> = Vec::new();
    let mut next = cards.iter().find(|c| c.physical && c.mac == seen.spec.mac);
    while let Some(card) = next.filter(|card| !chain.iter().any(|c| c.name == card.name)) {
        chain.push(card);
        let master = card.master.as_ref();
        next = master.and_then(|master| cards.iter().find(|c| &c.name == master));
    }
    chain
}

// RC-26
fn address(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("address", "the addresses of the guest", Severity::Error);
    guest(seen, test, |guest| {
        let chain = production(seen, &guest.around);
        if chain.iter().any(|card| !card.addresses.is_empty()) {
            return Vec::new();
        }
        let card = match chain.first() {
            Some(card) => format!("{} ({})", card.name, seen.spec.mac),
            None => format!("the card {}", seen.spec.mac),
        };
        vec![
            error("address", "No IP address on Upgrade ready team")
                .about(card)
                .advise("give it a static address in the guest, or renew its DHCP lease"),
        ]
    })
}

// RC-29, PR-19
fn leases(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("dhcp", "the DHCP leases of the guest", Severity::Warning);
    guest(seen, test, |guest| {
        let not = guest.renewals.iter().filter_map(|(card, renewal)| {
            let text = match renewal {
                Renewal::Renewed => return None,
                Renewal::Silent => "Active Upgrade may fail. Check DHCP server.".to_owned(),
                Renewal::Untried(why) => format!("the DHCP lease of `{card}` could not be tried: {why}"),
            };
            Some(warning("dhcp", text).about(card.clone()).advise(
                "see that the DHCP server answers before the split, or give the card a static address",
            ))
        });
        not.collect()
    })
}

// RC-28, PR-08
fn other_cards(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("cards", "the network cards of the guest", Severity::Warning);
    guest(seen, test, |guest| {
        let cards = guest.around.cards.iter();
        let other = cards.filter(|c| c.physical && c.mac != seen.spec.mac && c.mac != VTM_MAC);
        other
            .map(|card| {
                let text = format!(
                    "the network card `{}` is none that flipside moves: it is not teamed, and both sides would have it",
                    card.name
                );
                warning("cards", text)
                    .about(format!("{} ({})", card.name, card.mac))
                    .advise("take it out of the machine, or see that nothing needs it during the upgrade")
            })
            .collect()
    })
}

// RC-30, RC-50, PR-28
fn remote_access(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("remote", "remote access to the guest", Severity::Warning);
    guest(seen, test, |guest| {
        if !guest.around.logins.is_empty() {
            return Vec::new();
        }
        vec![
            warning("remote", "Remote Desktop is not enabled")
                .about("ssh.service, sshd.service, xrdp.service")
                .advise("in the guest: `systemctl enable --now ssh`; `flipside shell` reaches it without"),
        ]
    })
}

// RC-31, PR-20
fn private_path(seen: &Observed<'_>) -> Vec<Finding> {
    let test = (
        "firewall",
        "the private path to the guest",
        Severity::Warning,
    );
    guest(seen, test, |guest| {
        let ssh = guest.around.logins.iter().find(|u| u.starts_with("ssh"));
        let (Some(ssh), Some(false)) = (ssh, guest.private_path) else {
            return Vec::new();
        };
        let text = format!(
            "`{ssh}` runs, and nobody answers on the private path: a firewall may block it"
        );
        let rules: Vec<&str> = guest.around.blocking.iter().map(String::as_str).collect();
        let advice = match rules.as_slice() {
            [] => "allow port 22 on the private card in the guest".to_owned(),
            rules => format!(
                "allow port 22 on the private card in the guest; what its firewall drops: {}",
                rules
                    .iter()
                    .take(3)
                    .map(|r| format!("`{r}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        vec![
            warning("firewall", text)
                .about(format!("{VTM_MAC}, port 22"))
                .advise(advice),
        ]
    })
}

// RC-41, PR-22
fn blockers(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("blockers", "what may stand in the way", Severity::Warning);
    guest(seen, test, |guest| {
        let blockers = guest.around.blockers.iter();
        blockers
            .map(|unit| {
                let what = if unit.starts_with("multipath") {
                    "claims disks that the split must take away"
                } else {
                    "acts when its partners or its network are gone, which is so on the Upgrade Side"
                };
                warning("blockers", format!("`{unit}` runs: it {what}"))
                    .about(unit.clone())
                    .advise(format!("stop it for the session (`systemctl stop {unit}`), or name it in `quiesce`"))
            })
            .collect()
    })
}

// RC-42, PR-27; a Warning: see above
fn account(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("account", "the accounts of the guest", Severity::Warning);
    guest(seen, test, |guest| {
        if !guest.around.administrators.is_empty() {
            return Vec::new();
        }
        let text = "no local account with administrator's rights can log in, and the Upgrade Side reaches no directory";
        vec![warning("account", text).about("root").advise(
            "give root or a member of `sudo` a password or a key; `flipside shell` needs neither",
        )]
    })
}

// PR-30, PR-35
fn updaters(seen: &Observed<'_>) -> Vec<Finding> {
    let test = (
        "updates",
        "what installs software by itself",
        Severity::Warning,
    );
    guest(seen, test, |guest| {
        let updaters = guest.around.updaters.iter();
        updaters
            .map(|unit| {
                let text = format!(
                    "`{unit}` installs software by itself; what it installs on the Production Side during a session is lost at Commit"
                );
                warning("updates", text)
                    .about(unit.clone())
                    .advise(format!("let it only download: `systemctl stop {unit}` until the session is finished"))
            })
            .collect()
    })
}

// Design 3.5
fn by_place(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("places", "the mount table of the guest", Severity::Warning);
    guest(seen, test, |guest| {
        let lines = guest.around.by_place.iter();
        lines
            .map(|line| {
                let text = format!(
                    "`{line}` names a disk by its place, which may be another one's after the disks were moved"
                );
                warning("places", text)
                    .about(format!("/etc/fstab: {line}"))
                    .advise("name it by `LABEL=`, `UUID=` or `/dev/disk/by-id/…` in the guest's /etc/fstab")
            })
            .collect()
    })
}

// Design 3.5
fn keys(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("keys", "the encrypted disks of the guest", Severity::Error);
    guest(seen, test, |guest| {
        let names = guest.around.typed_keys.iter();
        names
            .map(|name| {
                let text = format!(
                    "the encrypted device `{name}` needs a key to be typed, so no side starts or takes its data by itself"
                );
                error("keys", text)
                    .about(format!("/etc/crypttab: {name}"))
                    .advise("give it a key file on a system disk, or `noauto` if no service needs it")
            })
            .collect()
    })
}

// Design 3.5, PR-18: external data.
fn remote_storage(seen: &Observed<'_>) -> Vec<Finding> {
    let test = ("external", "storage over a network", Severity::Error);
    guest(seen, test, |guest| {
        let remote = guest.around.remote.iter();
        remote
            .map(|storage| {
                let at = match storage.target.as_str() {
                    "" => String::new(),
                    target => format!(" on `{target}`"),
                };
                let text = format!(
                    "external data: {} `{}`{at}; a merge begins only when the Upgrade Side has let go of it",
                    storage.kind, storage.source
                );
                finding(Severity::Information, "external", text)
                    .about(storage.source.clone())
                    .advise("after the split unmount it there, and log out: its network is down, so nothing can be lost by it")
            })
            .collect()
    })
}

#[cfg(test)]
#[path = "guest_tests.rs"]
pub(super) mod tests;

//! What a guest says of its surroundings: cards, remote access, firewall, what installs or acts by itself, storage over the
//! network.

use super::escape::words;
use super::link::Script;
use super::{LinuxGuest, limits, records, script};
use flipside_model::{GuestCard, MachineId, RemoteStorage, Renewal, Surroundings};
use flipside_platform::{PortError, PortResult};
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

static SURROUNDINGS: Script = script!("look at the guest's surroundings", "surroundings");
static RENEW: Script = script!("renew a DHCP lease", "renew");

/// The most that is taken over of any one kind: a guest may say a lot, and people read it.
const MOST: usize = 64;

impl LinuxGuest {
    pub(super) async fn look_around(&self, id: MachineId) -> PortResult<Surroundings> {
        let out = self
            .link
            .script(id, &SURROUNDINGS, &[], limits::LOOK)
            .await?;
        let mut seen = read(&String::from_utf8_lossy(&out));
        // The agent has them without a program of the guest.
        let client = self.link.reach(id, limits::PING).await?;
        let command = "guest-network-get-interfaces";
        let interfaces: Vec<Interface> = self.link.call(id, &client, command, Value::Null).await?;
        add_addresses(&mut seen, &interfaces);
        Ok(seen)
    }

    pub(super) async fn renew(&self, id: MachineId, card: &str) -> PortResult<Renewal> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
        if card.is_empty() || card.starts_with(['-', '.']) || !card.chars().all(plain) {
            return Err(PortError::failed(format!(
                "`{}` is not the name of a card",
                card.escape_debug()
            )));
        }
        let wait = limits::RENEW.as_secs().to_string();
        let arguments = [card.to_owned(), wait];
        let limit = limits::RENEW + limits::MARGIN;
        let out = self.link.script(id, &RENEW, &arguments, limit).await?;
        let said = String::from_utf8_lossy(&out).trim().to_owned();
        Ok(match said.split_once(' ') {
            None if said == "renewed" => Renewal::Renewed,
            None if said == "silent" => Renewal::Silent,
            Some(("untried", why)) => Renewal::Untried(words(why.as_bytes())),
            _ => Renewal::Untried("the guest said something else than was asked".to_owned()),
        })
    }
}

/// A network interface, as the agent describes it.
#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default, rename = "ip-addresses")]
    addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(rename = "ip-address")]
    address: String,
    prefix: u32,
}

/// Gives the cards the addresses with which others reach them: not those that only work on one wire.
fn add_addresses(seen: &mut Surroundings, interfaces: &[Interface]) {
    for interface in interfaces {
        let name = words(interface.name.as_bytes());
        let Some(card) = seen.cards.iter_mut().find(|c| c.name == name) else {
            continue;
        };
        for Address { address, prefix } in interface.addresses.iter().take(MOST) {
            let everywhere = match address.parse() {
                Ok(IpAddr::V4(v4)) => !v4.is_link_local() && !v4.is_loopback(),
                Ok(IpAddr::V6(v6)) => !v6.is_unicast_link_local() && !v6.is_loopback(),
                Err(_) => false,
            };
            if everywhere {
                card.addresses.push(format!("{address}/{prefix}"));
            }
        }
    }
}

/// Reads what the script printed; lines that are none of its own are left out.
fn read(text: &str) -> Surroundings {
    let mut seen = Surroundings::default();
    for record in records(text) {
        let field = |n: usize| words(record.get(n).copied().unwrap_or_default().as_bytes());
        let list = match record.first().copied() {
            Some("card") => {
                if seen.cards.len() < MOST {
                    seen.cards.push(GuestCard {
                        name: field(1),
                        mac: field(2).to_ascii_lowercase(),
                        physical: record.get(3) == Some(&"card"),
                        master: Some(field(4)).filter(|m| !m.is_empty()),
                        ..GuestCard::default()
                    });
                }
                continue;
            }
            Some("lease") => {
                for card in seen.cards.iter_mut().filter(|c| c.name == field(1)) {
                    card.dhcp = true;
                }
                continue;
            }
            Some("remote") => {
                if seen.remote.len() < MOST {
                    seen.remote.push(RemoteStorage {
                        kind: field(1),
                        source: field(2),
                        target: field(3),
                    });
                }
                continue;
            }
            Some("login") => &mut seen.logins,
            Some("drop") => &mut seen.blocking,
            Some("updater") => &mut seen.updaters,
            Some("blocker") => &mut seen.blockers,
            Some("account") => &mut seen.administrators,
            Some("place") => {
                if seen.by_place.len() < MOST {
                    seen.by_place.push(format!("{} on {}", field(1), field(2)));
                }
                continue;
            }
            Some("key") => &mut seen.typed_keys,
            _ => continue,
        };
        let what = field(1);
        if !what.is_empty() && list.len() < MOST && !list.contains(&what) {
            list.push(what);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_of_its_surroundings_is_read() {
        let mut seen = read(
            "card\teth0\t52:54:00:AA:00:01\tcard\tbond0\ncard\tbond0\t52:54:00:aa:00:01\tmade\t\n\
             lease\tbond0\t\t\nlease\tnobody\t\t\nlogin\tssh.service\t\t\n\
             drop\ttcp dport 22 drop\t\t\nupdater\tapt-daily-upgrade.timer\t\t\nblocker\tmultipathd.service\t\t\n\
             account\troot\tpassword\t\naccount\troot\tkey\t\nremote\tnfs4\tfiler:/a\t/srv/a\nremote\tiscsi\tiqn.x\t\t\n\
             place\t/dev/sdb1\t/srv\t\nkey\tdata\t/dev/sdc\t\n\nnonsense\tx\n",
        );
        let said = r#"[{"name":"bond0","ip-addresses":[{"ip-address":"10.0.0.2","prefix":24,"ip-address-type":"ipv4"},
            {"ip-address":"fe80::1","prefix":64},{"ip-address":"169.254.1.1","prefix":16},{"ip-address":"x","prefix":1}]},
            {"name":"other","ip-addresses":[{"ip-address":"10.0.0.3","prefix":24}]},{"name":"eth0"}]"#;
        let interfaces: Vec<Interface> = serde_json::from_str(said).expect("as the agent says it");
        add_addresses(&mut seen, &interfaces);
        assert_eq!(seen.cards.len(), 2);
        assert_eq!(seen.cards[0].mac, "52:54:00:aa:00:01");
        assert!(seen.cards[0].physical && !seen.cards[1].physical);
        assert_eq!(seen.cards[0].master.as_deref(), Some("bond0"));
        assert_eq!(seen.cards[1].addresses, ["10.0.0.2/24"]);
        assert!(seen.cards[1].dhcp);
        assert_eq!(seen.logins, ["ssh.service"]);
        assert_eq!(seen.blocking, ["tcp dport 22 drop"]);
        assert_eq!(seen.administrators, ["root"]);
        assert_eq!(seen.remote.len(), 2);
        assert_eq!(seen.remote[0].target, "/srv/a");
        assert_eq!(seen.by_place, ["/dev/sdb1 on /srv"]);
        assert_eq!(seen.typed_keys, ["data"]);
    }

    // Hostile guests: bounded, and no control characters.
    #[test]
    fn a_guest_that_says_too_much_is_cut_short() {
        let many = "card\te\u{1b}[31m\tm\tcard\t\n".repeat(10_000);
        let seen = read(&many);
        assert_eq!(seen.cards.len(), MOST);
        assert!(!seen.cards[0].name.contains('\u{1b}'));
    }
}

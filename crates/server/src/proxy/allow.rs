//! Which hosts a package proxy reaches: those that were named, and no others.

use flipside_model::{Problem, ProblemCode};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ports of a host that was named without one: HTTP and HTTPS.
const USUAL_PORTS: [u16; 2] = [80, 443];

/// The most hosts of one list: more is a mistake, not a list.
const MOST_HOSTS: usize = 64;

/// The longest name of a host (RFC 1035).
const MOST_NAME: usize = 253;

/// A list of hosts and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowed {
    targets: BTreeSet<(String, u16)>,
}

impl Allowed {
    /// Reads `HOST` or `HOST:PORT`, separated by commas. An address that is not public counts only if it stands here itself.
    pub(crate) fn parse(list: &str) -> Result<Self, Problem> {
        let wrong = |text: String| {
            Problem::new(ProblemCode::Usage, text).advise(
                "name hosts, perhaps with a port, such as `packages.example.org,security.example.org:443`",
            )
        };
        let mut targets = BTreeSet::new();
        let words: Vec<&str> = list.split(',').map(str::trim).collect();
        if words.len() > MOST_HOSTS {
            return Err(wrong(format!("more than {MOST_HOSTS} hosts are named")));
        }
        for word in words {
            let shown = word.escape_debug();
            let (host, port) = authority(word)
                .ok_or_else(|| wrong(format!("`{shown}` is no host, and no host with a port")))?;
            match port {
                Some(port) => drop(targets.insert((host, port))),
                None => targets.extend(USUAL_PORTS.map(|port| (host.clone(), port))),
            }
        }
        Ok(Self { targets })
    }

    /// Says whether a host was named with this port.
    pub(crate) fn names(&self, host: &str, port: u16) -> bool {
        self.targets.contains(&(host.to_owned(), port))
    }

    /// Says whether a connection to an address that a named host has may be made: one on the Internet, or one that was
    /// itself named. So a name server cannot lead the proxy into the host or its own network (DNS rebinding).
    pub(crate) fn reaches(&self, address: IpAddr, port: u16) -> bool {
        let plain = unmapped(address);
        is_public(plain) || self.names(&plain.to_string(), port)
    }

    /// Lists what was named, for the log.
    pub(crate) fn shown(&self) -> String {
        let targets = self.targets.iter();
        let shown: Vec<String> = targets
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        shown.join(", ")
    }
}

/// Reads a host with or without a port; nothing else, such as an account, is allowed in it. Names become lower case.
pub(crate) fn authority(word: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match word.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']')?;
            let address: Ipv6Addr = inner.parse().ok()?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return None,
            };
            (unmapped(IpAddr::V6(address)).to_string(), port)
        }
        None => match word.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(word)?, None),
        },
    };
    let Some(port) = port else {
        return Some((host, None));
    };
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = digits.then(|| port.parse().ok())??;
    (port != 0).then_some((host, Some(port)))
}

/// A name of letters, digits, hyphens and dots, or an IPv4 address in its usual form. `127.1` and `0x7f000001` are addresses
/// to some resolvers, so a name whose last part is a number is no name.
fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    let label = |part: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty() && part.len() <= 63 && part.bytes().all(word) && !part.starts_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.starts_with(|c: char| c.is_ascii_digit());
    (host.len() <= MOST_NAME && host.split('.').all(label) && !number).then_some(host)
}

/// An IPv4 address that is written as IPv6 is that IPv4 address.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Says whether an address belongs to the Internet: not to this machine, a private network or a special purpose (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            let special = a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b));
            !(special
                || four.is_loopback()
                || four.is_private()
                || four.is_link_local()
                || four.is_multicast()
                || four.is_documentation())
        }
        // Global unicast without the ranges that lead to IPv4 (6to4, Teredo) or are for documentation.
        IpAddr::V6(six) => {
            let [first, second, ..] = six.segments();
            (0x2000..0x4000).contains(&first)
                && first != 0x2002
                && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_written_or_refused() {
        let allowed =
            Allowed::parse("Packages.Example.org., 10.1.2.3:8080,[fd00::1]:80").expect("valid");
        assert!(
            allowed.names("packages.example.org", 80) && allowed.names("packages.example.org", 443)
        );
        assert!(!allowed.names("packages.example.org", 22) && !allowed.names("debian.org", 80));
        assert!(allowed.names("10.1.2.3", 8080) && !allowed.names("10.1.2.3", 80));
        for bad in [
            "",
            ",",
            "a b",
            "http://a",
            "a/b",
            "a@b",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:90",
            "*.org",
            "127.1",
            "0x7f.1",
            "2130706433",
            "a..b",
            "-a.org",
            "[::1",
            "[::1]80",
            "::1",
            "a\nb",
        ] {
            let problem = Allowed::parse(bad).expect_err(bad);
            assert_eq!(problem.code, ProblemCode::Usage, "{bad}");
        }
        assert!(Allowed::parse(&vec!["a.org"; 65].join(",")).is_err());
    }

    // A named host may have any address on the Internet; any other one must be named itself.
    #[test]
    fn addresses_of_this_machine_and_its_networks_are_not_reached() {
        let allowed = Allowed::parse("packages.example.org,10.1.2.3").expect("valid");
        for public in ["151.101.2.132", "2a04:4e42::644", "::ffff:151.101.2.132"] {
            assert!(
                allowed.reaches(public.parse().expect("an address"), 80),
                "{public}"
            );
        }
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.3.2",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.4",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(
                !allowed.reaches(inside.parse().expect("an address"), 80),
                "{inside}"
            );
        }
        assert!(allowed.reaches("10.1.2.3".parse().expect("an address"), 80));
        assert!(allowed.reaches("::ffff:10.1.2.3".parse().expect("an address"), 80));
        assert!(!allowed.reaches("10.1.2.3".parse().expect("an address"), 22));
    }
}

//! Where the console listens, and under which names it may be asked for.

use anyhow::bail;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The names by which the server may be asked for. Others are refused, whatever a browser was told: otherwise a page of
/// somebody else could have its own name point here and read everything (DNS rebinding).
#[derive(Debug, Clone)]
pub(crate) struct Names {
    hosts: BTreeSet<String>,
    scheme: &'static str,
}

impl Names {
    /// Collects the names of a server that listens on an address: the address, `localhost` for a loopback one, and those
    /// that were given.
    pub(crate) fn new(listen: SocketAddr, tls: bool, given: &[String]) -> Self {
        let port = listen.port();
        let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
        let mut bare = vec![host(listen)];
        if listen.ip().is_loopback() {
            bare.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        bare.extend(given.iter().map(|name| name.to_lowercase()));
        let mut hosts = BTreeSet::new();
        for name in bare {
            hosts.insert(format!("{name}:{port}"));
            if port == usual {
                hosts.insert(name);
            }
        }
        Self { hosts, scheme }
    }

    /// Says whether a `Host` header names this server.
    pub(crate) fn is_host(&self, host: &str) -> bool {
        self.hosts.contains(&host.to_lowercase())
    }

    /// Says whether an `Origin` header is that of a page of this server.
    pub(crate) fn is_origin(&self, origin: &str) -> bool {
        let rest = origin
            .strip_prefix(self.scheme)
            .and_then(|rest| rest.strip_prefix("://"));
        rest.is_some_and(|host| self.is_host(host))
    }
}

fn host(listen: SocketAddr) -> String {
    if listen.is_ipv6() {
        format!("[{}]", listen.ip())
    } else {
        listen.ip().to_string()
    }
}

/// Returns the address to open in a browser.
pub(crate) fn url(listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}:{}/", host(listen), listen.port())
}

/// Refuses an address that others can reach when nothing would keep them from reading along.
pub(crate) fn check(listen: SocketAddr, tls: bool) -> anyhow::Result<()> {
    if listen.ip().is_loopback() || tls {
        return Ok(());
    }
    bail!(
        "the console is not served on `{listen}` without TLS: passwords could be read on the way; give `--tls-cert` and \
         `--tls-key`, or listen on 127.0.0.1 and come through SSH: `ssh -L {port}:127.0.0.1:{port} HOST`",
        port = listen.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listen: &str, tls: bool, given: &[&str]) -> Names {
        let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
        Names::new(listen.parse().expect("address"), tls, &given)
    }

    // Security 10.
    #[test]
    fn only_our_own_names_are_answered() {
        let names = names("127.0.0.1:7070", false, &[]);
        for host in ["127.0.0.1:7070", "LOCALHOST:7070", "[::1]:7070"] {
            assert!(names.is_host(host), "{host}");
            assert!(names.is_origin(&format!("http://{host}")), "{host}");
        }
        for host in [
            "evil.example:7070",
            "127.0.0.1",
            "localhost:7071",
            "",
            "localhost:7070.evil.example",
        ] {
            assert!(!names.is_host(host), "{host}");
            assert!(!names.is_origin(&format!("http://{host}")), "{host}");
        }
        for origin in [
            "https://localhost:7070",
            "null",
            "localhost:7070",
            "http:/localhost:7070",
        ] {
            assert!(!names.is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn names_that_were_given_are_answered_too() {
        let names = names("192.0.2.7:443", true, &["Flip.Example"]);
        assert!(names.is_host("flip.example") && names.is_host("flip.example:443"));
        assert!(names.is_host("192.0.2.7") && names.is_origin("https://flip.example"));
        assert!(!names.is_host("localhost") && !names.is_origin("http://flip.example"));
    }

    // Security 6.
    #[test]
    fn an_address_that_others_reach_needs_tls() {
        for (listen, tls, fine) in [
            ("127.0.0.1:7070", false, true),
            ("[::1]:7070", false, true),
            ("0.0.0.0:7070", false, false),
            ("[::]:7070", false, false),
            ("192.0.2.7:7070", false, false),
            ("192.0.2.7:7070", true, true),
        ] {
            let checked = check(listen.parse().expect("address"), tls);
            assert_eq!(checked.is_ok(), fine, "{listen} {tls}: {checked:?}");
        }
    }
}

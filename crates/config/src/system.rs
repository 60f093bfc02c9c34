//! The values of a system definition as they are typed.

use flipside_model::{NetworkSpec, Problem, ProblemCode, Publish};
use std::net::{IpAddr, Ipv4Addr};

fn usage(message: String) -> Problem {
    Problem::new(ProblemCode::Usage, message)
}

/// Parses a size such as `8G`, `512M`, `100MiB` or bytes; units are binary. Zero is refused.
pub fn parse_size(given: &str) -> Result<u64, Problem> {
    let refuse = |why: &str| {
        usage(format!("`{}` is not a size: {why}", given.escape_debug()))
            .advise("write a whole number with K, M, G or T, such as `8G`")
    };
    let digits = given.len() - given.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = given.split_at(digits);
    if number.is_empty() {
        return Err(refuse("it does not begin with a digit"));
    }
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(refuse("its unit is unknown")),
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| refuse("it is too large"))?;
    if bytes == 0 {
        return Err(refuse("it is zero"));
    }
    Ok(bytes)
}

/// Parses `[ADDR:]HOSTPORT:GUESTPORT`; without an address it is 127.0.0.1. IPv6 stands in brackets.
pub fn parse_publish(given: &str) -> Result<Publish, Problem> {
    let refuse = |why: String| {
        usage(format!(
            "`{}` is not a port to publish: {why}",
            given.escape_debug()
        ))
        .advise("write `HOSTPORT:GUESTPORT` or `ADDRESS:HOSTPORT:GUESTPORT`")
    };
    let (rest, guest) = given
        .rsplit_once(':')
        .ok_or_else(|| refuse("the port of the guest is missing".to_owned()))?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|p| *p != 0 && text.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| {
                refuse(format!(
                    "`{}` is not a port from 1 to 65535",
                    text.escape_debug()
                ))
            })
    };
    let address = match address {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => {
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            let parsed = match bare {
                Some(v6) => v6.parse().map(IpAddr::V6).ok(),
                None => text.parse().map(IpAddr::V4).ok(),
            };
            parsed
                .ok_or_else(|| refuse(format!("`{}` is not an IP address", text.escape_debug())))?
        }
    };
    Ok(Publish {
        address,
        host_port: port(host)?,
        guest_port: port(guest)?,
    })
}

/// Parses a MAC address of one card, such as `52:54:00:12:34:56`; returns it in lower case.
pub fn parse_mac(given: &str) -> Result<String, Problem> {
    let octets: Vec<u8> = given
        .split(':')
        .filter(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()))
        .filter_map(|o| u8::from_str_radix(o, 16).ok())
        .collect();
    if octets.len() != 6 || given.split(':').count() != 6 {
        let message = format!("`{}` is not a MAC address", given.escape_debug());
        return Err(usage(message).advise("write six pairs, such as `52:54:00:12:34:56`"));
    }
    if octets[0] & 1 == 1 || octets.iter().all(|o| *o == 0) {
        return Err(
            usage(format!("`{given}` cannot be the address of a network card"))
                .advise("the first pair must be even, and not all may be zero"),
        );
    }
    Ok(given.to_ascii_lowercase())
}

/// The longest name of a network device, in bytes, as the kernel has it.
const MAX_DEVICE_NAME: usize = 15;

/// Parses a production network: `user`, or `bridge=BR` with the name of a bridge of the host.
pub fn parse_network(given: &str) -> Result<NetworkSpec, Problem> {
    let refuse = |why: &str| {
        usage(format!(
            "`{}` is not a network: {why}",
            given.escape_debug()
        ))
        .advise("write `user`, or `bridge=BR` with the name of a bridge of the host, such as `bridge=br0`")
    };
    match given.split_once('=') {
        None if given == "user" => Ok(NetworkSpec::User),
        Some(("bridge", name)) => {
            let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.is_empty() || name.len() > MAX_DEVICE_NAME {
                return Err(refuse("the name of a bridge has 1 to 15 characters"));
            }
            if !name.chars().all(letters) || name.starts_with(['-', '.']) {
                return Err(refuse(
                    "the name of a bridge has letters, digits, `.`, `_` and `-`",
                ));
            }
            Ok(NetworkSpec::Bridge(name.to_owned()))
        }
        _ => Err(refuse("it is neither")),
    }
}

//! Names of units: which are allowed, and which belongs to a path.

use flipside_platform::{PortError, PortErrorKind, PortResult};

/// Types of units that flipside stops, starts or gates.
const SUFFIXES: [&str; 8] = [
    ".service",
    ".socket",
    ".timer",
    ".path",
    ".target",
    ".mount",
    ".automount",
    ".scope",
];

/// Returns the name of the unit for a path, as `systemd-escape --path` makes it.
pub(super) fn unit_of_path(path: &str, suffix: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if parts.is_empty() {
        return format!("-{suffix}");
    }
    let joined = parts.join("/");
    let mut name = String::with_capacity(joined.len() + suffix.len());
    for (index, byte) in joined.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    name + suffix
}

/// Tells whether this is the full name of a unit.
pub(super) fn is_unit(name: &str) -> bool {
    let stem = SUFFIXES.iter().find_map(|s| name.strip_suffix(s));
    stem.is_some_and(|s| !s.is_empty())
        && name.len() <= 255
        && name.bytes().all(is_unit_byte)
        // An option, a hidden file, the parent folder.
        && !name.starts_with(['-', '.'])
        || name == "-.mount"
}

/// Tells whether this is a pattern as `systemctl list-units` takes it.
pub(super) fn is_pattern(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|b| is_unit_byte(b) || matches!(b, b'*' | b'?' | b'[' | b']' | b'!'))
}

fn is_unit_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.' | b'\\' | b'@' | b'-')
}

/// Checks names before they become arguments.
pub(super) fn check_units<'a>(units: impl IntoIterator<Item = &'a String>) -> PortResult<()> {
    let mut count = 0;
    for unit in units {
        if !is_unit(unit) {
            return Err(PortError::new(
                PortErrorKind::Mismatch,
                format!("`{}` is not the name of a unit", words(unit.as_bytes())),
            )
            .advise(
                "use the full name that `systemctl list-units` shows, such as `nginx.service`",
            ));
        }
        count += 1;
    }
    if count > super::limits::UNITS {
        return Err(PortError::failed(format!(
            "{count} units are more than the {} that can be handled at once",
            super::limits::UNITS
        )));
    }
    Ok(())
}

/// Makes the guest's words fit to be shown: bounded, without control characters.
pub(super) fn words(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(super::limits::WORDS)];
    let text = String::from_utf8_lossy(cut);
    let mut shown = String::with_capacity(text.len());
    for character in text.trim().chars() {
        match character {
            '\n' => shown.push('\n'),
            '\t' => shown.push(' '),
            c if c.is_control() => shown.push('?'),
            c => shown.push(c),
        }
    }
    if cut.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values by `systemd-escape --path --suffix=mount`.
    #[test]
    fn paths_become_units_as_systemd_names_them() {
        for (path, unit) in [
            ("/", "-.mount"),
            ("/srv/data", "srv-data.mount"),
            ("//srv//data/", "srv-data.mount"),
            ("/srv/my-data", "srv-my\\x2ddata.mount"),
            ("/srv/a b", "srv-a\\x20b.mount"),
            ("/.hidden/x", "\\x2ehidden-x.mount"),
            ("/srv/.x", "srv-.x.mount"),
            ("/srv/ä", "srv-\\xc3\\xa4.mount"),
            ("/var/lib/postgresql/15", "var-lib-postgresql-15.mount"),
            ("/a:b_c.d@e", "a:b_c.d\\x40e.mount"),
        ] {
            assert_eq!(unit_of_path(path, ".mount"), unit, "{path}");
        }
    }

    #[test]
    fn what_could_be_an_option_a_pattern_or_a_path_is_no_unit() {
        for bad in [
            "",
            "nginx",
            "-x.service",
            "a/b.service",
            "a b.service",
            "*.service",
            ".service",
            "a\n.service",
            "..service",
            "a$b.service",
            "a;b.service",
        ] {
            assert!(!is_unit(bad), "{bad:?}");
        }
        for good in [
            "nginx.service",
            "postgresql@15-main.service",
            "srv-my\\x2ddata.mount",
            "-.mount",
        ] {
            assert!(is_unit(good), "{good:?}");
        }
        assert!(is_pattern("*.timer") && is_pattern("postfix@*.service"));
        assert!(!is_pattern("--all") && !is_pattern("a b") && !is_pattern("$(x)"));
        assert!(check_units(&["x".to_owned()]).is_err());
    }

    #[test]
    fn the_guests_words_are_bounded_and_harmless() {
        assert_eq!(words(b" a\x1b[31m\xff\tb\n"), "a?[31m\u{fffd} b");
        assert!(words(&vec![b'x'; 10_000]).chars().count() <= super::super::limits::WORDS + 1);
    }
}

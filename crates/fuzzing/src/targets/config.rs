//! Configuration files, names and the values that are typed for a system.

use crate::oracle::{fit_to_show, one_line, survives_json};
use flipside_backend_qemu::fuzzing::{is_pattern, is_unit};
use flipside_config::{
    MAX_DEPTH, MAX_FILES, Resolved, nearest, parse, parse_mac, parse_network, parse_publish,
    parse_size, resolve, with_extension,
};
use flipside_model::api::ConfigText;
use flipside_model::{
    ConfigFile, DiskName, MAX_TIMEOUT_SECONDS, ProblemCode, ServiceName, SystemName, UpgradeConfig,
};
use std::path::Path;

/// Parses a configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse(Path::new("fuzz.Config"), text) {
        Ok(config) => can_be_used(&config),
        Err(problem) => {
            assert_eq!(problem.code, ProblemCode::Usage);
            fit_to_show(&problem);
            names_its_place(&problem.message, text);
        }
    }
}

/// Reads the bytes as several files, the first one and those it may call, as a server gets them.
///
/// A line `--- NAME` begins the next file.
pub fn nested(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.split("--- ");
    let given = ConfigText {
        path: "fuzz.Config".into(),
        text: parts.next().unwrap_or_default().to_owned(),
        children: parts.map(named_file).collect(),
    };
    match resolve(&given) {
        Ok(resolved) => holds_together(&given, &resolved),
        Err(problem) => {
            assert_eq!(problem.code, ProblemCode::Usage);
            fit_to_show(&problem);
        }
    }
}

fn named_file(part: &str) -> ConfigFile {
    let (name, text) = part.split_once('\n').unwrap_or((part, ""));
    ConfigFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

/// Everything that was sent is used and kept, every value has an origin that is there, and the limits hold.
fn holds_together(given: &ConfigText, resolved: &Resolved) {
    can_be_used(&resolved.config);
    let mut sent: Vec<&str> = given.children.iter().map(|c| c.name.as_str()).collect();
    let mut used: Vec<&str> = resolved.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(used.remove(0), "fuzz.Config");
    sent.sort_unstable();
    used.sort_unstable();
    assert_eq!(sent, used, "a file is used once, or refused");
    assert!(resolved.files.len() <= MAX_FILES);
    for file in &resolved.files {
        assert!((1..=MAX_DEPTH).contains(&file.chain.len()));
        assert!(!file.name.contains('/'), "{}", file.name);
    }
    for origin in resolved.origins.iter().chain(&resolved.not_taken_over) {
        let Some(name) = &origin.file else {
            continue;
        };
        let child = given.children.iter().find(|c| &c.name == name);
        let text = child.map_or(given.text.as_str(), |c| c.text.as_str());
        let line = origin.line.expect("a file has lines");
        assert!((1..=text.split('\n').count()).contains(&line), "{origin:?}");
    }
    if let Ok(staged) = resolved.staged() {
        survives_json(&staged);
        assert_eq!(staged.files.len(), resolved.files.len());
    }
}

/// What the check of a file accepts is not refused later, in the middle of a session.
fn can_be_used(config: &UpgradeConfig) {
    survives_json(config);
    let mut units: Vec<String> = config.services.iter().map(ServiceName::unit).collect();
    for unit in &units {
        assert!(
            is_unit(unit),
            "the guest's port refuses the service `{unit}`"
        );
        assert!(!config.quiesce.contains(unit), "`{unit}` is held twice");
    }
    units.sort();
    units.dedup();
    assert_eq!(
        units.len(),
        config.services.len(),
        "a service is listed twice"
    );
    for pattern in &config.quiesce {
        assert!(
            is_pattern(pattern),
            "the guest's port refuses the pattern `{pattern}`"
        );
    }
    let accepted = config.accept_loss.iter().map(|loss| &loss.0);
    for path in config.data_paths.iter().chain(accepted) {
        assert!(
            path.starts_with('/') && !path.chars().any(char::is_control),
            "{path:?}"
        );
        assert!(
            !path.split('/').any(|part| matches!(part, "." | "..")),
            "{path}"
        );
    }
    for check in &config.health {
        assert!(check.command[0].starts_with('/'));
        assert!(!check.command.iter().any(|word| word.contains('\0')));
    }
    let t = &config.timeouts;
    for seconds in [
        t.split, t.prepare, t.merge, t.commit, t.abort, t.finish, t.service, t.health, t.drain,
    ] {
        assert!((1..=MAX_TIMEOUT_SECONDS).contains(&seconds));
    }
}

/// `FILE:LINE:COLUMN: …` with a place that is in the file; a file that is too long has none.
fn names_its_place(message: &str, text: &str) {
    let mut parts = message.splitn(4, ':');
    assert_eq!(parts.next(), Some("fuzz.Config"), "{message}");
    if text.len() > flipside_config::MAX_FILE_BYTES {
        return;
    }
    let mut number = || parts.next().and_then(|n| n.parse::<usize>().ok());
    let (line, column) = (number().expect("a line"), number().expect("a column"));
    let there = text.split('\n').nth(line - 1).expect("a line of the file");
    assert!(
        (1..=there.chars().count() + 1).contains(&column),
        "{message}"
    );
}

/// Checks a text as every kind of name and value.
pub fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    numbers(text);
    names(text);
    let words = ["services", "title", "accept_loss", ""];
    assert!(nearest(text, words).is_none_or(|near| words.contains(&near)));
    let named = with_extension(Path::new(text));
    assert_eq!(with_extension(&named), named, "an extension is added once");
}

fn numbers(text: &str) {
    match parse_size(text) {
        Ok(size) => assert!(size > 0 && parse_size(&size.to_string()) == Ok(size)),
        Err(problem) => fit_to_show(&problem),
    }
    match parse_publish(text) {
        Ok(port) => {
            assert!(port.host_port > 0 && port.guest_port > 0);
            let address = match port.address {
                std::net::IpAddr::V4(v4) => v4.to_string(),
                std::net::IpAddr::V6(v6) => format!("[{v6}]"),
            };
            let again = format!("{address}:{}:{}", port.host_port, port.guest_port);
            assert_eq!(parse_publish(&again), Ok(port), "{again}");
        }
        Err(problem) => fit_to_show(&problem),
    }
    match parse_mac(text) {
        Ok(mac) => {
            assert_eq!(mac.len(), 17);
            assert_eq!(parse_mac(&mac), Ok(mac.clone()));
        }
        Err(problem) => fit_to_show(&problem),
    }
    if let Err(problem) = parse_network(text) {
        fit_to_show(&problem);
    }
}

/// Security checklist 19: a name is no option, no path, and nothing that a terminal obeys.
fn names(text: &str) {
    let harmless = |name: &str| {
        assert!(!name.starts_with(['-', '.']) && !name.contains(['/', '\0', '\n', ' ']));
        assert!(!name.is_empty() && name.len() <= 255 && name.is_ascii());
    };
    let refused = [
        SystemName::new(text)
            .map(|name| harmless(name.as_str()))
            .err(),
        DiskName::new(text)
            .map(|name| harmless(name.as_str()))
            .err(),
        ServiceName::new(text)
            .map(|name| {
                harmless(name.as_str());
                assert!(
                    is_unit(&name.unit()),
                    "`{name}` is no unit for the guest's port"
                );
            })
            .err(),
    ];
    for error in refused.into_iter().flatten() {
        let shown = error.to_string();
        let control = shown.chars().find(|c| c.is_control());
        assert!(control.is_none() && shown.len() < 1000, "{shown:?}");
    }
    if is_unit(text) {
        one_line(text, "a unit's name");
    }
}

//! Reads what QEMU says by itself: which leg failed, and that something about a disk happened.

use flipside_model::{DiskName, Leg};
use flipside_platform::guard::{FaultKind, Suspect};
use flipside_qmp::Event;
use serde_json::Value;

/// Most characters of QEMU's words that are repeated in a record.
const WORDS_MAX: usize = 200;

/// What an event means to the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A leg failed.
    Suspect(Suspect),
    /// Look at the machine at once.
    Look,
}

/// Reads an event; none if it says nothing to the guard.
pub(crate) fn read(event: &Event) -> Option<Signal> {
    match event.name.as_str() {
        "QUORUM_REPORT_BAD" => Some(suspect(&event.data).map_or(Signal::Look, Signal::Suspect)),
        "QUORUM_FAILURE" | "BLOCK_IO_ERROR" | "BLOCK_JOB_ERROR" | "STOP" | "RESUME" => {
            Some(Signal::Look)
        }
        _ => None,
    }
}

/// A report that names another node, such as the filter of a running copy, names no leg.
fn suspect(data: &Value) -> Option<Suspect> {
    let text = |key: &str| data.get(key).and_then(Value::as_str);
    let (disk, leg) = read_leg(text("node-name")?)?;
    let kind = match text("type")? {
        "read" => FaultKind::Read,
        "write" => FaultKind::Write,
        "flush" => FaultKind::Flush,
        _ => return None,
    };
    let words = text("error").unwrap_or("no reason given");
    let error = words
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS_MAX)
        .collect();
    Some(Suspect {
        disk,
        leg,
        kind,
        error,
    })
}

/// Reads the name of a leg's node (`nodes.rs` makes it).
fn read_leg(node: &str) -> Option<(DiskName, Leg)> {
    let (disk, letter) = node.strip_prefix("leg-")?.rsplit_once('-')?;
    let leg = match letter {
        "a" => Leg::A,
        "b" => Leg::B,
        _ => return None,
    };
    Some((DiskName::new(disk).ok()?, leg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes;
    use serde_json::json;

    fn event(name: &str, data: Value) -> Event {
        Event {
            name: name.to_owned(),
            data,
            seconds: 0,
            microseconds: 0,
        }
    }

    #[test]
    fn a_report_names_the_leg_by_its_node() {
        let disk = DiskName::new("data1").expect("valid");
        for leg in Leg::BOTH {
            let data = json!({
                "type": "write", "node-name": nodes::leg(&disk, leg), "sector-num": 0, "sectors-count": 8,
                "error": "No space left\n on device",
            });
            let expected = Suspect {
                disk: disk.clone(),
                leg,
                kind: FaultKind::Write,
                error: "No space left on device".to_owned(),
            };
            assert_eq!(
                read(&event("QUORUM_REPORT_BAD", data)),
                Some(Signal::Suspect(expected))
            );
        }
    }

    #[test]
    fn what_names_no_leg_is_only_a_reason_to_look() {
        for data in [
            json!({ "type": "write", "node-name": "#block123" }),
            json!({ "type": "write", "node-name": "leg-data0-c" }),
            json!({ "type": "erase", "node-name": "leg-data0-a" }),
            json!({ "node-name": "leg-data0-a" }),
            json!(null),
        ] {
            assert_eq!(read(&event("QUORUM_REPORT_BAD", data)), Some(Signal::Look));
        }
        assert_eq!(
            read(&event("BLOCK_IO_ERROR", json!({}))),
            Some(Signal::Look)
        );
        assert_eq!(read(&event("RTC_CHANGE", json!({}))), None);
    }
}

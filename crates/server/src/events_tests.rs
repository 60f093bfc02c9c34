use super::*;
use flipside_model::{OperationalState, Record, SessionId, Severity, UpgradeConfig, UpgradeState};

fn entries(records: Vec<Record>) -> Vec<Entry> {
    let numbered = (1..).zip(records);
    numbered
        .map(|(seq, record)| Entry {
            seq,
            at_ms: 1000 * seq.cast_signed(),
            record,
        })
        .collect()
}

fn entered(state: UpgradeState, operational: OperationalState) -> Record {
    Record::Entered {
        state,
        operational,
        problem: None,
    }
}

fn session() -> Record {
    Record::Session {
        id: SessionId(uuid::Uuid::new_v4()),
        config_name: None,
        config: Box::new(UpgradeConfig::none()),
    }
}

fn history() -> Vec<Entry> {
    use OperationalState::{Busy, Ready};
    use UpgradeState::{Abort, Finish, Idle, PrepareSplit, Split};
    entries(vec![
        Record::log(Severity::Information, "before"),
        session(),
        entered(PrepareSplit, Busy),
        Record::log(Severity::Warning, "<b>one</b>"),
        entered(PrepareSplit, Ready),
        entered(Split, Busy),
        Record::log(Severity::Error, "two"),
        entered(Split, Ready),
        entered(Abort, Busy),
        entered(Abort, Ready),
        entered(Finish, Busy),
        entered(Idle, Ready),
        session(),
        entered(PrepareSplit, Busy),
        Record::log(Severity::Information, "three"),
    ])
}

fn reader(cursor: Option<Cursor>) -> Log {
    Log {
        name: SystemName::new("web").expect("name"),
        cursor,
        told: HashMap::new(),
    }
}

/// What a page does with events.
fn merged(known: &mut BTreeMap<u64, LogLine>, event: LogEvent) {
    if event.reset {
        known.clear();
    }
    known.extend(event.lines.into_iter().map(|line| (line.node, line)));
}

fn whole(entries: &[Entry]) -> BTreeMap<u64, LogLine> {
    let mut known = BTreeMap::new();
    let (_, event) = reader(None).advance(entries).expect("an event");
    merged(&mut known, event);
    known
}

// Whoever leaves after any record and comes back after any other knows exactly what one knows who was there all the time.
#[test]
fn a_reader_that_comes_back_misses_nothing() {
    let history = history();
    for left in 1..=history.len() {
        let mut known = whole(&history[..left]);
        let mut first = reader(None);
        let (id, _) = first.advance(&history[..left]).expect("an event");
        for back in left..=history.len() {
            let mut again = reader(Cursor::parse(&id));
            let mut seen = known.clone();
            if let Some((_, event)) = again.advance(&history[..back]) {
                merged(&mut seen, event);
            }
            assert_eq!(seen, whole(&history[..back]), "left {left}, back {back}");
        }
        if left < history.len()
            && let Some((_, event)) = first.advance(&history[..=left])
        {
            merged(&mut known, event);
            assert_eq!(known, whole(&history[..=left]), "stayed over {left}");
        }
    }
}

#[test]
fn a_cursor_that_cannot_be_begins_anew() {
    let history = history();
    for cursor in ["", "x", "1", "1-", "-1", "1-99999", "77-78"] {
        let mut reader = reader(Cursor::parse(cursor));
        let (_, event) = reader.advance(&history).expect("an event");
        assert!(event.reset, "{cursor}");
    }
}

#[test]
fn an_event_is_one_line_of_data_whatever_is_in_it() {
    let text = event("log", Some("1-2"), &"a\n\ndata: x\r\n");
    assert_eq!(text.lines().count(), 4, "{text:?}");
    assert!(text.ends_with("\n\n") && text.starts_with("event: log\nid: 1-2\ndata: \""));
}

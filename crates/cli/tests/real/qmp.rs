//! QEMU's own answers, asked on a machine's QMP socket while the server is dead and does not hold it.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// QEMU answers at once, even emulating on a busy host.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks one machine one question.
#[track_caller]
pub(crate) fn ask(folder: &Path, question: &str) -> Value {
    let mut stream = UnixStream::connect(folder.join("qmp.sock")).expect("QEMU listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a time-out");
    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("an answer").expect("an answer in time");
        serde_json::from_str(&line).expect("JSON")
    };
    assert!(next().get("QMP").is_some(), "no greeting");
    for command in ["qmp_capabilities", question] {
        let line = json!({ "execute": command, "id": command });
        writeln!(stream, "{line}").expect("asked");
        loop {
            let answer = next();
            if answer["id"] != command {
                continue; // an event
            }
            let value = answer.get("return").unwrap_or_else(|| panic!("{answer}"));
            if command == question {
                return value.clone();
            }
            break;
        }
    }
    unreachable!("the question is the last command")
}

/// Every file below `dir/enclosures` that the block layer of a machine names anywhere.
#[track_caller]
pub(crate) fn legs(folder: &Path, dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for question in ["query-named-block-nodes", "query-block"] {
        collect(&ask(folder, question), &dir.join("enclosures"), &mut found);
    }
    found
}

fn collect(value: &Value, below: &Path, found: &mut BTreeSet<PathBuf>) {
    match value {
        Value::String(text) => {
            let wanted = below.display().to_string();
            // A path, or a path within a JSON description of a node.
            for (at, _) in text.match_indices(&wanted) {
                let end = text[at..].find('"').map_or(text.len(), |end| at + end);
                found.insert(PathBuf::from(&text[at..end]));
            }
        }
        Value::Array(all) => all.iter().for_each(|v| collect(v, below, found)),
        Value::Object(all) => all.values().for_each(|v| collect(v, below, found)),
        _ => {}
    }
}

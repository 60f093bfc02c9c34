//! The bytes of both protocols: lines, messages and the agent's resynchronisation, within their limits.

use crate::oracle::{depth, has_fraction};
use flipside_qmp::wire::{
    AgentReply, Failure, Framer, Limits, QmpMessage, SENTINEL, SYNC_REPLY_BYTES, SyncScanner, parse,
};
use flipside_qmp::{AgentInfo, NetworkInterface, OsInfo, RunState, Schema, Version};
use serde_json::{Map, Value, json};

/// A line limit that inputs reach.
const LINE: usize = 512;

/// The limits of a message, small enough to be reached; the product's own are larger.
const LIMITS: Limits = Limits {
    depth: 16,
    elements: 64,
};

/// The longest line that the agent's channel takes.
const AGENT_LINE: usize = 48 * 1024 * 1024;

/// Reads the bytes as what QEMU sends: the first one says in which pieces they arrive.
pub fn qmp(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let whole = lines(stream, stream.len().max(1));
    assert_eq!(
        lines(stream, usize::from(*first).max(1)),
        whole,
        "pieces make a difference"
    );
    for line in whole.0 {
        if let Ok(message) = QmpMessage::read(&line, LIMITS) {
            message_is_read_again(&line, &message);
        }
        typed(&line);
    }
}

/// Cuts a stream that arrives in pieces; says whether it was given up for a line that is too long.
fn lines(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut framer = Framer::new(LINE);
    let mut lines = Vec::new();
    for bytes in stream.chunks(piece) {
        framer.push(bytes);
        loop {
            match framer.next_line() {
                Ok(Some(line)) => {
                    assert!(!line.is_empty() && line.len() <= LINE && !line.contains(&b'\n'));
                    lines.push(line.to_vec());
                }
                Ok(None) => break,
                // The connection is given up here.
                Err(_) => return (lines, true),
            }
        }
        assert!(framer.len() <= LINE, "more is kept than a line");
    }
    (lines, false)
}

fn message_is_read_again(line: &[u8], message: &QmpMessage) {
    let value = parse(line, LIMITS).expect("it was read");
    assert!(depth(&value) <= LIMITS.depth, "deeper than allowed");
    if has_fraction(&value) {
        return;
    }
    let again = match message {
        QmpMessage::Greeting { version } => json!({"QMP": {"version": version}}),
        QmpMessage::Event {
            name,
            data,
            seconds,
            microseconds,
        } => json!({
            "event": name, "data": data,
            "timestamp": {"seconds": seconds, "microseconds": microseconds},
        }),
        QmpMessage::Reply { id, outcome } => reply(id.as_ref(), outcome),
        other => panic!("a kind of message that is not known here: {other:?}"),
    };
    let read = QmpMessage::read(again.to_string().as_bytes(), Limits::default());
    assert_eq!(&read.expect("what was read can be written"), message);
}

fn reply(id: Option<&Value>, outcome: &Result<Value, Failure>) -> Value {
    let mut reply = Map::new();
    if let Some(id) = id {
        reply.insert("id".to_owned(), id.clone());
    }
    match outcome {
        Ok(value) => reply.insert("return".to_owned(), value.clone()),
        Err(Failure { class, desc }) => {
            reply.insert("error".to_owned(), json!({"class": class, "desc": desc}))
        }
    };
    Value::Object(reply)
}

/// The typed replies; each takes any value or refuses it.
fn typed(line: &[u8]) {
    if let Ok(schema) = serde_json::from_slice::<Schema>(line) {
        let values = schema.argument_values("blockdev-add", "driver");
        assert!(values.is_empty() || schema.has_argument("blockdev-add", "driver"));
        assert!(
            !schema.has_argument("blockdev-add", "driver") || schema.has_command("blockdev-add")
        );
    }
    let _ = serde_json::from_slice::<Version>(line);
    let _ = serde_json::from_slice::<RunState>(line);
    let _ = serde_json::from_slice::<AgentInfo>(line).map(|info| info.has_command("guest-exec"));
    let _ = serde_json::from_slice::<OsInfo>(line);
    let _ = serde_json::from_slice::<Vec<NetworkInterface>>(line);
}

/// Reads the bytes as what an agent sends; the first two say in which pieces they arrive and which answer is looked for.
pub fn agent(data: &[u8]) {
    let [first, id, stream @ ..] = data else {
        return;
    };
    let (piece, id) = (usize::from(*first).max(1), u64::from(*id));
    for line in lines(stream, piece).0 {
        if let Ok(reply) = AgentReply::read(&line, LIMITS) {
            let value = parse(&line, LIMITS).expect("it was read");
            if !has_fraction(&value) {
                let again = self::reply(None, &reply.outcome).to_string();
                let read = AgentReply::read(again.as_bytes(), Limits::default());
                assert_eq!(read.expect("what was read can be written"), reply);
            }
        }
    }
    // Without the byte that cannot be in an answer's text nothing is taken for the answer.
    let silent: Vec<u8> = stream.iter().copied().filter(|b| *b != SENTINEL).collect();
    assert!(
        !scan(&silent, piece, id),
        "an answer without its mark was taken"
    );
    // Behind anything at all the true answer is found.
    let answer = [
        &[SENTINEL][..],
        format!("{{\"return\": {id}}}\n").as_bytes(),
    ]
    .concat();
    assert!(
        scan(&[stream, &answer].concat(), piece, id),
        "the answer was not found"
    );
}

fn scan(stream: &[u8], piece: usize, id: u64) -> bool {
    let mut framer = Framer::new(AGENT_LINE);
    let mut scanner = SyncScanner::new(id);
    stream.chunks(piece).any(|bytes| {
        framer.push(bytes);
        let found = scanner.scan(&mut framer);
        assert!(
            found || framer.len() <= SYNC_REPLY_BYTES,
            "junk is collected"
        );
        found
    })
}

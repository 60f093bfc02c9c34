//! Peers that mean harm, or are so broken that it makes no difference: every call ends by its deadline, with an error that
//! says what happened, and memory stays bounded however much the peer sends.

mod common;

use common::{LONG, Link, MEDIUM, Peer, SHORT};
use flipside_qmp::{AgentClient, AgentError, Exec, QmpClient, QmpError, RunState};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

/// A call that has to end after [`MEDIUM`] has ended by then, also on a loaded machine; one that waited for the flood to end
/// never would.
const LATE: Duration = Duration::from_secs(60);

/// What a flood may leave in memory: the longest line allowed (16 or 48 MiB), its copy while the buffer grows, and the
/// buffer of events with what the allocator keeps of it. A flood sends a gigabyte in the same time.
const BOUND_KIB: u64 = 192 * 1024;

/// Most memory this process ever had, in KiB. Each test is a process of its own under nextest; in one process together
/// the tests share the bound.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let field = line.and_then(|l| l.split_ascii_whitespace().next());
    field.and_then(|n| n.parse().ok()).expect("a number")
}

/// Sends the same bytes until the client leaves.
async fn flood(link: &mut Link, bytes: &[u8]) -> usize {
    let block = bytes.repeat((256 * 1024 / bytes.len()).max(1));
    let mut sent = 0;
    while link.writer.write_all(&block).await.is_ok() {
        sent += block.len();
    }
    sent
}

async fn qmp<F>(script: impl FnOnce(Link) -> F + Send + 'static) -> (QmpClient, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(script);
    let (client, _) = QmpClient::connect(&path, LONG).await.expect("greeted");
    (client, script)
}

/// Connects to an agent that plays a script; each call has this time-out. There is one handle only, so that the script
/// notices when it is dropped.
async fn agent<F>(
    call_timeout: Duration,
    script: impl FnOnce(Link) -> F + Send + 'static,
) -> (AgentClient, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::new();
    let path = peer.path.clone();
    let script = peer.play(script);
    let client = AgentClient::connect(&path).await.expect("a connection");
    (client.with_call_timeout(call_timeout), script)
}

// Faults 29 and 32: events, replies nobody asked for, and blank lines, for ever and as fast as the socket takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qmp_peer_that_never_stops_talking_costs_a_deadline_and_no_memory() {
    let floods: [&'static [u8]; 4] = [
        b"{\"event\": \"STOP\", \"data\": {\"long\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}\n",
        b"{\"return\": {\"status\": \"running\"}, \"id\": \"somebody's\"}\n",
        b"{\"return\": {\"status\": \"running\"}}\n",
        b"\r\n",
    ];
    for lines in floods {
        let (client, script) = qmp(move |mut link| async move {
            link.handshake().await;
            link.command("query-status").await;
            let sent = flood(&mut link, lines).await;
            assert!(sent > 1024 * 1024, "only {sent} bytes were taken");
        })
        .await;
        let begun = Instant::now();
        let late = client.execute("query-status", Value::Null, MEDIUM).await;
        let late = late.expect_err("no reply to us");
        assert!(matches!(late, QmpError::TimedOut { .. }), "{late}");
        assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
        drop(client);
        script.await.unwrap();
    }
    assert!(peak_kib() < BOUND_KIB, "{} KiB", peak_kib());
}

// Fault 29: half a line and then silence is a time-out; when the rest comes the connection is as good as before.
#[tokio::test]
async fn half_a_reply_is_waited_for_until_the_deadline_and_used_when_it_comes() {
    let (client, script) = qmp(|mut link| async move {
        link.handshake().await;
        let first = link.command("query-status").await;
        let reply = json!({"return": {"status": "running"}, "id": first["id"]}).to_string();
        let (head, tail) = reply.split_at(reply.len() - 3);
        link.send(head).await;
        let second = link.command("query-status").await;
        link.send(format!("{tail}\n")).await;
        link.reply(&second, json!({"status": "paused"})).await;
        link.gone().await;
    })
    .await;
    let late = client.execute("query-status", Value::Null, SHORT).await;
    assert!(matches!(late, Err(QmpError::TimedOut { .. })));
    // The late reply is dropped, not taken for this one's.
    assert_eq!(client.query_status().await.unwrap(), RunState::Paused);
    assert_eq!(client.dropped_replies(), 1);
    drop(client);
    script.await.unwrap();
}

// Fault 29: a reply byte by byte, slower than the deadline allows.
#[tokio::test]
async fn a_reply_in_single_bytes_does_not_hold_a_deadline_up() {
    let (client, script) = qmp(|mut link| async move {
        link.handshake().await;
        link.command("stop").await;
        // Never a line end: each byte is progress of the wire, and none of the command.
        while link.writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let begun = Instant::now();
    let late = client.execute("stop", Value::Null, MEDIUM).await;
    assert!(matches!(late, Err(QmpError::TimedOut { .. })));
    assert!(begun.elapsed() >= MEDIUM && begun.elapsed() < LATE);
    drop(client);
    script.await.unwrap();
}

// Fault 32: events in another order, twice, with times that go backwards: all are handed out as they came.
#[tokio::test]
async fn events_are_neither_ordered_nor_counted_for_the_peer() {
    let (client, script) = qmp(|mut link| async move {
        link.handshake().await;
        let command = link.command("query-status").await;
        for (name, at) in [("RESUME", 5), ("STOP", 4), ("STOP", 4), ("RESUME", -9)] {
            let stamp = json!({"seconds": at, "microseconds": 0});
            link.send_json(json!({"event": name, "timestamp": stamp}))
                .await;
        }
        link.reply(&command, json!({"status": "running"})).await;
        link.gone().await;
    })
    .await;
    let mut events = client.subscribe();
    assert_eq!(client.query_status().await.unwrap(), RunState::Running);
    for wanted in [("RESUME", 5), ("STOP", 4), ("STOP", 4), ("RESUME", -9)] {
        let event = events.try_recv().unwrap().expect("there");
        assert_eq!((event.name.as_str(), event.seconds), wanted);
    }
    drop(client);
    script.await.unwrap();
}

// Fault 38: an agent that never stops talking, before or after the question, in or out of its protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_never_stops_talking_costs_a_deadline_and_no_memory() {
    let floods: [&'static [u8]; 6] = [
        b"{\"return\": {}}\n",
        b"\xFF{\"return\": 1}\n",
        b"\xFF",
        b"\xFF\n",
        b"x",
        b"\xC3\x28{\"error\": [}\n",
    ];
    for bytes in floods {
        // Instead of the answer to the synchronisation.
        let (client, script) = agent(MEDIUM, move |mut link| async move {
            link.sync_request().await;
            flood(&mut link, bytes).await;
        })
        .await;
        let begun = Instant::now();
        let error = client.ping().await.expect_err("no answer to us");
        assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
        assert!(!error.outcome_unknown(), "nothing was sent");
        assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
        drop(client);
        script.await.unwrap();
    }
    assert!(peak_kib() < BOUND_KIB, "{} KiB", peak_kib());
}

// Fault 38: after the question the first line is the answer, and an endless one is refused at the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_answers_without_end_is_refused() {
    for (bytes, blank) in [(&b"x"[..], false), (b"\n", true), (b"\xFF", false)] {
        let patience = if blank { MEDIUM } else { LATE };
        let (client, script) = agent(patience, move |mut link| async move {
            link.sync().await;
            link.command("guest-ping").await;
            flood(&mut link, bytes).await;
        })
        .await;
        let begun = Instant::now();
        let error = client.ping().await.expect_err("no reply");
        match &error {
            AgentError::TimedOut { .. } => assert!(blank, "{error}"),
            AgentError::Protocol { .. } => assert!(!blank, "{error}"),
            _ => panic!("{error}"),
        }
        assert!(error.outcome_unknown());
        assert!(begun.elapsed() < LATE + LATE, "{:?}", begun.elapsed());
        // It goes on talking: the next call finds no answer of its own.
        let again = client.with_call_timeout(MEDIUM);
        let error = again.ping().await.expect_err("still talking");
        assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
        drop((client, again));
        script.await.unwrap();
    }
    assert!(peak_kib() < BOUND_KIB, "{} KiB", peak_kib());
}

// Fault 38: replies that nobody asked for are never taken for the next command's.
#[tokio::test]
async fn a_reply_before_its_question_answers_nothing() {
    let (client, script) = agent(LONG, |mut link| async move {
        link.sync().await;
        link.answer("guest-get-host-name", json!({"host-name": "one"}))
            .await;
        for _ in 0..1000 {
            link.send_json(json!({"return": {"host-name": "lie"}}))
                .await;
        }
        link.sync().await;
        link.answer("guest-get-host-name", json!({"host-name": "two"}))
            .await;
        link.gone().await;
    })
    .await;
    assert_eq!(client.host_name().await.unwrap(), "one");
    // The lies may still be on their way: whenever they come, they answer nothing.
    let second = client.host_name().await.unwrap();
    assert_eq!(second, "two");
    drop(client);
    script.await.unwrap();
}

// Fault 38: numbers of another synchronisation, of other types, or too large for any integer.
#[tokio::test]
async fn a_synchronisation_is_answered_by_its_own_number_only() {
    let (client, script) = agent(MEDIUM, |mut link| async move {
        let id = link.sync_request().await;
        for wrong in [
            json!(id ^ 1),
            json!(id as f64 + 0.5),
            json!(id.to_string()),
            json!(-1),
            json!(1e300),
            json!([id]),
            json!({ "id": id }),
            Value::Null,
        ] {
            link.send(b"\xFF").await;
            link.send_json(json!({ "return": wrong })).await;
        }
        link.gone().await;
    })
    .await;
    let error = client.ping().await.expect_err("never its number");
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
    drop(client);
    script.await.unwrap();
}

// Fault 38: an agent that starts again forgets its processes: the one that was started is not reported as well done.
#[tokio::test]
async fn a_program_of_an_agent_that_starts_again_is_unknown() {
    let (client, script) = agent(MEDIUM, |mut link| async move {
        link.sync().await;
        link.answer("guest-exec", json!({"pid": 7})).await;
        link.answer("guest-exec-status", json!({"exited": false}))
            .await;
        // Started again: it says so by nothing at all, and then knows no process 7.
        link.command("guest-exec-status").await;
        link.sync().await;
        link.command("guest-exec-status").await;
        link.send_json(json!({"error": {
            "class": "GenericError", "desc": "Invalid parameter 'pid'",
        }}))
        .await;
        link.gone().await;
    })
    .await;
    let exec = Exec::new("sleep", ["1"]);
    let error = client.exec_wait(&exec, LONG).await.expect_err("forgotten");
    let said =
        |e: &AgentError| matches!(e, AgentError::Command { desc, .. } if desc.contains("pid"));
    assert!(said(&error), "{error}");
    drop(client);
    script.await.unwrap();
}

// Fault 38: statuses that cannot be.
#[tokio::test]
async fn a_status_out_of_any_range_is_no_success() {
    let lies = [
        json!({"exited": true, "exitcode": 1e30}),
        json!({"exited": true, "exitcode": 0.5}),
        json!({"exited": true, "exitcode": "0"}),
        json!({"exited": true, "exitcode": 18_446_744_073_709_551_615u64}),
        json!({"exited": "yes", "exitcode": 0}),
        json!({"exited": 1, "exitcode": 0}),
        json!({"exited": true, "exitcode": 0, "out-data": 5}),
        json!([{"exited": true, "exitcode": 0, "extra": [true]}]),
        json!(true),
        Value::Null,
    ];
    for lie in lies {
        let told = lie.clone();
        let (client, script) = agent(LONG, |mut link| async move {
            link.sync().await;
            link.answer("guest-exec-status", lie).await;
            // It may be the reply to something else: the next call makes sure.
            link.sync().await;
            link.answer("guest-ping", json!({})).await;
            link.gone().await;
        })
        .await;
        let error = client.exec_status(1).await.expect_err("a lie");
        let unexpected = matches!(error, AgentError::UnexpectedReply { .. });
        assert!(unexpected, "{told}: {error}");
        client.ping().await.unwrap();
        drop(client);
        script.await.unwrap();
    }
    // These have the right form, and say nothing good.
    for poor in [
        json!({}),
        json!({"exited": true}),
        json!({"exited": false, "exitcode": 0}),
        json!({"exited": true, "exitcode": 0, "signal": 9}),
        json!({"exited": true, "exitcode": -9_223_372_036_854_775_808i64}),
        json!({"exited": true, "exitcode": 256}),
    ] {
        let told = poor.clone();
        let (client, script) = agent(LONG, |mut link| async move {
            link.sync().await;
            link.answer("guest-exec-status", poor).await;
            link.gone().await;
        })
        .await;
        let status = client.exec_status(1).await.unwrap();
        assert!(!status.success(), "{told}");
        drop(client);
        script.await.unwrap();
    }
}

// Fault 38: a process number that never was.
#[tokio::test]
async fn a_program_that_never_was_is_not_waited_for() {
    for pid in [json!(-1), json!(0), json!(i64::MAX)] {
        let (client, script) = agent(LONG, |mut link| async move {
            link.sync().await;
            link.answer("guest-exec", json!({ "pid": pid })).await;
            let asked = link.command("guest-exec-status").await;
            assert_eq!(asked["arguments"]["pid"], pid);
            link.send_json(json!({"error": {"class": "GenericError", "desc": "no such pid"}}))
                .await;
            link.gone().await;
        })
        .await;
        let exec = Exec::new("true", Vec::<String>::new());
        let begun = Instant::now();
        let error = client.exec_wait(&exec, LONG).await.expect_err("unknown");
        assert!(matches!(error, AgentError::Command { .. }), "{error}");
        assert!(begun.elapsed() < LONG);
        drop(client);
        script.await.unwrap();
    }
}

// Fault 38: an agent that always says "not yet", and one that says nothing, end with the program's own time-out.
#[tokio::test]
async fn a_program_that_is_never_done_ends_with_its_time_out() {
    for silent in [false, true] {
        let (client, script) = agent(MEDIUM, move |mut link| async move {
            link.sync().await;
            link.answer("guest-exec", json!({"pid": 7})).await;
            while let Some(line) = link.line().await {
                if !silent && !line.starts_with(b"\xFF") {
                    let more = json!({"return": {"exited": false}});
                    let more = format!("{more}\n");
                    if link.writer.write_all(more.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let exec = Exec::new("sleep", ["9"]);
        let begun = Instant::now();
        let error = client.exec_wait(&exec, MEDIUM).await.expect_err("never");
        assert!(
            matches!(error, AgentError::StillRunning { pid: 7, .. }),
            "{error}"
        );
        assert!(begun.elapsed() < LATE);
        drop(client);
        script.await.unwrap();
    }
}

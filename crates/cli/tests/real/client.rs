//! The users: a client that asks through the published port all the time, a new connection for every request.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// New connections are held for 30 s at most while the users move; a request behind that takes its time as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two requests: without it the emulated guest does nothing else.
const THINKING: Duration = Duration::from_millis(30);

/// One request as the client saw it.
#[derive(Debug, Clone)]
struct Request {
    began: Instant,
    ended: Instant,
    /// The key that was to be written, if it was a write.
    key: Option<String>,
    failed: Option<String>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

/// The client and its notes.
pub(crate) struct Client {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Asks once; anything but a complete answer of status 200 is an error.
pub(crate) fn ask(port: u16, path: &str, patience: Duration) -> Result<String, String> {
    let began = Instant::now();
    let told = |what: &str, error: &dyn std::fmt::Display| {
        format!("{what} after {:?}: {error}", began.elapsed())
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream =
        TcpStream::connect_timeout(&address, patience).map_err(|e| told("no connection", &e))?;
    stream
        .set_read_timeout(Some(patience))
        .map_err(|e| told("no time-out", &e))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: mini\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|e| told("not sent", &e))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| told("no answer", &e))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| told("cut short", &format!("{answer:?}")))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(told("refused", &format!("{head:?} {body:?}")));
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    if length.is_some_and(|length| length.trim() != body.len().to_string()) {
        return Err(told("cut short", &format!("{head:?} {body:?}")));
    }
    Ok(body.to_owned())
}

impl Client {
    /// Begins to ask.
    pub(crate) fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let ours = shared.clone();
        let thread = std::thread::spawn(move || {
            for number in 0_u64.. {
                if ours.stop.load(Ordering::Acquire) {
                    return;
                }
                let key = (number % 2 == 1).then(|| format!("k{number}"));
                let path = key
                    .as_ref()
                    .map_or_else(|| "/".to_owned(), |key| format!("/write?n={key}"));
                let began = Instant::now();
                let answer = ask(port, &path, PATIENCE);
                let request = Request {
                    began,
                    ended: Instant::now(),
                    key,
                    failed: answer.err(),
                };
                ours.requests.lock().expect("no panic").push(request);
                super::moment(THINKING);
            }
        });
        Self { shared, thread }
    }

    fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// Waits until a request that begins now has been answered, so that none of before is still on its way.
    #[track_caller]
    pub(crate) fn settle(&self) -> Instant {
        let now = Instant::now();
        super::until("the client is answered", PATIENCE * 2, || {
            let requests = self.shared.requests.lock().expect("no panic");
            requests.last().filter(|r| r.began >= now).map(|r| r.ended)
        })
    }

    /// The failures of requests that were on their way after this moment.
    pub(crate) fn failures_since(&self, moment: Instant) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter(|request| request.ended >= moment)
            .filter_map(|request| request.failed)
            .collect()
    }

    /// How long the slowest request took that was on its way after this moment, in milliseconds.
    pub(crate) fn slowest_since(&self, moment: Instant) -> u128 {
        self.requests()
            .iter()
            .filter(|request| request.ended >= moment)
            .map(|request| (request.ended - request.began).as_millis())
            .max()
            .unwrap_or(0)
    }

    /// The keys of all writes that were acknowledged.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter(|request| request.failed.is_none())
            .filter_map(|request| request.key)
            .collect()
    }

    /// Says how many writes were acknowledged that began after this moment.
    pub(crate) fn acknowledged_since(&self, moment: Instant) -> usize {
        self.requests()
            .iter()
            .filter(|r| r.began >= moment && r.failed.is_none() && r.key.is_some())
            .count()
    }

    /// Stops asking; returns the figures.
    pub(crate) fn stop(self) -> String {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
        let requests = self.shared.requests.lock().expect("no panic");
        let mut took: Vec<u128> = requests
            .iter()
            .map(|r| (r.ended - r.began).as_millis())
            .collect();
        took.sort_unstable();
        let failed = requests.iter().filter(|r| r.failed.is_some()).count();
        let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or(0);
        format!(
            "client: {} requests, {failed} failed; median {} ms, 95th percentile {} ms, slowest {} ms",
            requests.len(),
            at(50),
            at(95),
            took.last().copied().unwrap_or(0)
        )
    }
}

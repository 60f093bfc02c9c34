//! A production network of its own: two network namespaces, a host with a bridge and a client, a cable between them, and
//! watchers who see everything that happens on the bridge.

use super::{Ended, ended, moment};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changing a network takes milliseconds.
const CHANGED: Duration = Duration::from_secs(20);

/// The bridge.
pub(crate) const BRIDGE: &str = "br0";

/// The guest's address on the bridge, and the client's.
pub(crate) const GUEST: &str = "10.99.0.2";
const CLIENT: &str = "10.99.0.1";

/// Every so often the client opens a new connection.
const EVERY: Duration = Duration::from_millis(50);

/// How long the client waits for its connection and for its answer: longer than any move of the users.
const PATIENCE: Duration = Duration::from_secs(90);

/// What an emulated guest on a busy host may need to answer a packet; 0.2 to 0.8 s were measured.
const SLACK: Duration = Duration::from_secs(2);

/// One connection as the client saw it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) began: Instant,
    /// When the three packets of its opening were through.
    pub(crate) opened: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) failed: Option<String>,
    pub(crate) refused: bool,
}

/// What was seen on the bridge, line by line.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// A tap joined the bridge, or left it.
    Port { tap: String, on: bool },
    /// New connections are held, or let through again.
    Held(bool),
}

type Story = Arc<Mutex<Vec<(Instant, Seen)>>>;

/// The network; it is gone with this value.
pub(crate) struct Wire {
    host: String,
    client: String,
    story: Story,
    children: Vec<Child>,
    watchers: Vec<JoinHandle<()>>,
    capture: PathBuf,
    asking: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

/// Runs a tool that must succeed; returns what it printed.
#[track_caller]
fn tool(line: &str) -> String {
    let ended = try_tool(line);
    assert_eq!(ended.status, Some(0), "{line}: {}", ended.err);
    ended.out
}

fn try_tool(line: &str) -> Ended {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).stdin(Stdio::null());
    ended(command, CHANGED, &[line])
}

impl Wire {
    /// Says why it cannot be made here; nothing else may keep a test from it.
    pub(crate) fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("only root may make networks".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("there is no /dev/net/tun".to_owned());
        }
        let name = format!("fst{}p", std::process::id());
        let made = try_tool(&format!("ip netns add {name}"));
        if made.status != Some(0) {
            return Some(format!("no network namespace can be made: {}", made.err));
        }
        let bridge = try_tool(&format!("ip -n {name} link add {BRIDGE} type bridge"));
        let filter = try_tool(&format!("ip netns exec {name} nft add table bridge t"));
        tool(&format!("ip netns delete {name}"));
        let failed = [bridge, filter].into_iter().find(|e| e.status != Some(0));
        failed.map(|ended| ended.err)
    }

    /// Makes it; what is captured on the bridge goes into a file in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let [host, client] = ["h", "c"].map(|end| format!("fst{}{end}", std::process::id()));
        for name in [&host, &client] {
            // Of a test with the same process id that was killed.
            let _ = try_tool(&format!("ip netns delete {name}"));
            tool(&format!("ip netns add {name}"));
            tool(&format!("ip -n {name} link set lo up"));
        }
        tool(&format!("ip -n {host} link add {BRIDGE} type bridge"));
        tool(&format!("ip -n {host} link set {BRIDGE} up"));
        tool(&format!(
            "ip -n {host} link add up0 type veth peer name eth0 netns {client}"
        ));
        tool(&format!("ip -n {host} link set up0 master {BRIDGE} up"));
        tool(&format!("ip -n {client} addr add {CLIENT}/24 dev eth0"));
        tool(&format!("ip -n {client} link set eth0 up"));
        let mut wire = Self {
            capture: dir.join("bridge.pcap"),
            host,
            client,
            story: Story::default(),
            children: Vec::new(),
            watchers: Vec::new(),
            asking: None,
            connections: Arc::default(),
        };
        let host = wire.host.clone();
        wire.watch(&format!("bridge -n {host} monitor link"), port);
        wire.watch(&format!("ip netns exec {host} nft monitor"), held);
        let capture = wire.capture.display().to_string();
        let line =
            format!("ip netns exec {host} tcpdump -q -U -n -Z root -i {BRIDGE} -w {capture}");
        wire.spawn(&line, Stdio::null());
        super::until("the capture begins", CHANGED, || {
            wire.capture.exists().then_some(())
        });
        wire
    }

    fn spawn(&mut self, line: &str, out: Stdio) -> &mut Child {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        let child = command
            .args(words)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn();
        self.children.push(child.expect("it starts"));
        self.children.last_mut().expect("just pushed")
    }

    fn watch(&mut self, line: &str, read: fn(&str) -> Option<Seen>) {
        let out = self.spawn(line, Stdio::piped()).stdout.take();
        let story = self.story.clone();
        self.watchers.push(std::thread::spawn(move || {
            for line in BufReader::new(out.expect("a pipe")).lines() {
                let Ok(line) = line else { return };
                if let Some(seen) = read(&line) {
                    story.lock().expect("no panic").push((Instant::now(), seen));
                }
            }
        }));
    }

    /// The namespace that is the host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Does something on the host.
    #[track_caller]
    pub(crate) fn on_host(&self, line: &str) -> String {
        tool(&format!("ip netns exec {} {line}", self.host))
    }

    /// The taps that exist.
    pub(crate) fn taps(&self) -> Vec<String> {
        let links = self.on_host("ip -o link show");
        let names = links.lines().filter_map(|l| l.split(": ").nth(1));
        let taps = names.filter(|n| n.starts_with("fs"));
        taps.map(str::to_owned).collect()
    }

    /// Says whether two machines of the system were ever on the bridge at once, or which.
    pub(crate) fn two_at_once(&self) -> Option<Vec<String>> {
        let mut on = std::collections::BTreeSet::new();
        for (_, seen) in self.story.lock().expect("no panic").iter() {
            if let Seen::Port { tap, on: joined } = seen {
                if *joined {
                    on.insert(tap.clone());
                } else {
                    on.remove(tap);
                }
            }
            if on.len() > 1 {
                return Some(on.into_iter().collect());
            }
        }
        None
    }

    /// The taps that joined the bridge since this moment.
    pub(crate) fn joined_since(&self, moment: Instant) -> Vec<String> {
        let mut on = std::collections::BTreeSet::new();
        let mut joined = Vec::new();
        for (at, seen) in self.story.lock().expect("no panic").iter() {
            match seen {
                Seen::Port { tap, on: true } => {
                    if on.insert(tap.clone()) && *at >= moment {
                        joined.push(tap.clone());
                    }
                }
                Seen::Port { tap, on: false } => {
                    on.remove(tap);
                }
                Seen::Held(_) => {}
            }
        }
        joined
    }

    /// From when to when new connections were held: the last time since this moment.
    pub(crate) fn hold_since(&self, moment: Instant) -> Option<(Instant, Instant)> {
        let story = self.story.lock().expect("no panic");
        let at = |held: bool| {
            let mut times = story
                .iter()
                .filter(|(_, seen)| matches!(seen, Seen::Held(h) if *h == held));
            times.rfind(|(at, _)| *at >= moment).map(|(at, _)| *at)
        };
        Some((at(true)?, at(false)?))
    }

    /// How often this text was seen in a frame on the bridge.
    pub(crate) fn frames_with(&self, text: &str) -> usize {
        let bytes = std::fs::read(&self.capture).expect("the capture");
        let text = text.as_bytes();
        bytes.windows(text.len()).filter(|w| *w == text).count()
    }

    // --- the client -----------------------------------------------------------------------------------------------

    /// Begins to open connections, one after the other, without waiting for the one before.
    pub(crate) fn ask_all_the_time(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let (ours, connections) = (stop.clone(), self.connections.clone());
        let namespace = Path::new("/run/netns").join(&self.client);
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            while !ours.load(Ordering::Acquire) {
                let connections = connections.clone();
                // A thread is in the network namespace of the one that made it.
                std::thread::spawn(move || {
                    let connection = ask();
                    connections.lock().expect("no panic").push(connection);
                });
                moment(EVERY);
            }
        });
        self.asking = Some((stop, thread));
    }

    /// What became of the connections that began or ended after this moment.
    pub(crate) fn connections_since(&self, moment: Instant) -> Vec<Connection> {
        let all = self.connections.lock().expect("no panic").clone();
        all.into_iter().filter(|c| c.ended >= moment).collect()
    }

    /// Waits until a connection that begins now was served.
    #[track_caller]
    pub(crate) fn settle(&self) -> Instant {
        let now = Instant::now();
        super::until("the client is served", PATIENCE * 2, || {
            let all = self.connections.lock().expect("no panic");
            let fresh = all.iter().find(|c| c.began >= now && c.failed.is_none());
            fresh.map(|c| c.ended)
        })
    }

    /// When the kernel sends the first packet of a connection again, counted from its beginning.
    fn tries(&self) -> Vec<Duration> {
        let linear = try_tool(&format!(
            "ip netns exec {} cat /proc/sys/net/ipv4/tcp_syn_linear_timeouts",
            self.client
        ));
        // Before Linux 6.5 the time doubled from the beginning.
        let linear: u64 = linear.out.trim().parse().unwrap_or(0);
        let (mut at, mut wait) = (0, 1);
        let mut tries = vec![Duration::ZERO];
        while at < 60 {
            at += wait;
            tries.push(Duration::from_secs(at));
            if at > linear {
                wait *= 2;
            }
        }
        tries
    }

    /// How much later than its next try a connection was opened that was held: the worst, and how many were held.
    pub(crate) fn late(&self, since: Instant) -> (Duration, usize) {
        let (held, opened) = self.hold_since(since).expect("connections were held");
        let tries = self.tries();
        let mut worst = Duration::ZERO;
        let mut count = 0;
        for connection in self.connections_since(since) {
            let Some(through) = connection.opened else {
                continue;
            };
            if connection.began < held || connection.began > opened {
                continue;
            }
            count += 1;
            let due = tries.iter().map(|t| connection.began + *t);
            let due = due.into_iter().find(|at| *at >= opened).expect("a try");
            worst = worst.max(through.saturating_duration_since(due));
        }
        (worst, count)
    }

    /// Fails unless every connection since this moment was served, the held ones at their next try.
    #[track_caller]
    pub(crate) fn nobody_was_refused(&self, since: Instant, what: &str) -> String {
        let connections = self.connections_since(since);
        let refused: Vec<_> = connections.iter().filter(|c| c.refused).collect();
        assert!(refused.is_empty(), "{what}: {refused:#?}");
        let failed: Vec<_> = connections.iter().filter(|c| c.failed.is_some()).collect();
        let (late, held) = self.late(since);
        assert!(late <= SLACK, "{what}: {late:?} after its next try");
        assert!(held > 0, "{what}: nobody was held");
        let slowest = connections
            .iter()
            .map(|c| c.opened.unwrap_or(c.ended) - c.began)
            .max();
        let (from, to) = self.hold_since(since).expect("held");
        format!(
            "{what}: {} connections, 0 refused, {} failed, {held} held for {:?}; opened {late:?} after the next try at worst, \
             {slowest:?} after the first: {failed:?}",
            connections.len(),
            failed.len(),
            to - from
        )
    }
}

/// Moves this thread into a network namespace.
fn enter(namespace: &Path) {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let file = std::fs::File::open(namespace).expect("a namespace");
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .expect("entered");
}

/// Opens one connection, asks, and waits for the answer.
fn ask() -> Connection {
    let began = Instant::now();
    let guest: Ipv4Addr = GUEST.parse().expect("an address");
    let mut opened = None;
    let mut refused = false;
    let mut talk = || -> Result<(), String> {
        let address = SocketAddr::from((guest, 80));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| {
            refused = e.kind() == std::io::ErrorKind::ConnectionRefused;
            format!("no connection: {e}")
        })?;
        opened = Some(Instant::now());
        let told = |what: &str, e: std::io::Error| format!("{what}: {e}");
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(|e| told("no time-out", e))?;
        let request = "GET /health HTTP/1.0\r\nHost: mini\r\nConnection: close\r\n\r\n";
        stream
            .write_all(request.as_bytes())
            .map_err(|e| told("not sent", e))?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|e| told("no answer", e))?;
        match answer.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    };
    let failed = talk().err();
    Connection {
        began,
        opened,
        ended: Instant::now(),
        failed,
        refused,
    }
}

/// Reads a line of `bridge monitor link`: frames of a port flow while it is up and has a master.
fn port(line: &str) -> Option<Seen> {
    let (gone, rest) = match line.strip_prefix("Deleted ") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let mut parts = rest.splitn(3, ": ");
    let tap = parts.nth(1)?.to_owned();
    if !tap.starts_with("fs") {
        return None;
    }
    let state = parts.next()?;
    let up = state.split(['<', ',', '>']).any(|flag| flag == "UP");
    let on = !gone && up && state.contains(&format!("master {BRIDGE} "));
    Some(Seen::Port { tap, on })
}

/// Reads a line of `nft monitor`: the table is there while connections are held.
fn held(line: &str) -> Option<Seen> {
    let ours = line.contains("table bridge flipside-");
    match line.split(' ').next()? {
        "add" if ours && line.starts_with("add table") => Some(Seen::Held(true)),
        "delete" if ours && line.starts_with("delete table") => Some(Seen::Held(false)),
        _ => None,
    }
}

impl Wire {
    /// Lets the client open no more connections; those that wait are left to themselves.
    pub(crate) fn stop_asking(&mut self) {
        if let Some((stop, thread)) = self.asking.take() {
            stop.store(true, Ordering::Release);
            let _ = thread.join();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop_asking();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for watcher in self.watchers.drain(..) {
            let _ = watcher.join();
        }
        for name in [&self.host, &self.client] {
            let _ = try_tool(&format!("ip netns delete {name}"));
        }
    }
}

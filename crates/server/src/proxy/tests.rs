//! The package proxy between a client and a small origin on loopback.

use super::*;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An origin that answers every request with its request, and says to what it was connected.
async fn origin() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                let body = format!("origin got:\n{head}");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: X-Hop\r\nX-Hop: secret\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Bench {
    proxy: Proxy,
    told: Arc<Mutex<Vec<Told>>>,
    open: watch::Sender<bool>,
}

/// A proxy to which these names have these addresses.
fn bench(allowed: &str, names: &[(&str, &[&str])]) -> Bench {
    let names: BTreeMap<String, Vec<IpAddr>> = names
        .iter()
        .map(|(name, list)| {
            let list = list.iter().map(|a| a.parse().expect("an address"));
            ((*name).to_owned(), list.collect())
        })
        .collect();
    let names = Arc::new(names);
    let resolver: Resolver = Arc::new(move |host, _| {
        let found = names.get(&host).cloned();
        let literal = host.parse().ok().map(|address| vec![address]);
        Box::pin(async move { found.or(literal).ok_or(io::ErrorKind::NotFound.into()) })
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&told);
    let teller: Teller = Arc::new(move |what| into.lock().expect("unpoisoned").push(what));
    let allowed = Allowed::parse(allowed).expect("valid");
    let (open, seen) = watch::channel(true);
    Bench {
        proxy: Proxy::new(allowed, resolver, teller, seen),
        told,
        open,
    }
}

impl Bench {
    async fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(64 << 10);
        let permit = self.proxy.permit().expect("one is left");
        tokio::spawn(self.proxy.clone().serve(server, permit));
        client
    }

    /// Sends a request and returns everything that comes back until the end.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        // The end of the answer is the end of the connection.
        let (head, _) = request.split_once("\r\n\r\n").expect("a head");
        let request = format!("{head}\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, client.read_to_end(&mut answer)).await;
        read.expect("in time").expect("read");
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().expect("unpoisoned").clone()
    }
}

#[tokio::test]
async fn a_named_host_is_fetched_from_and_told_once() {
    let port = origin().await;
    let named = format!("mirror.test:{port},127.0.0.1:{port}");
    let bench = bench(&named, &[("mirror.test", &["127.0.0.1"])]);
    let request = format!(
        "GET http://mirror.test:{port}/debian/x?y HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic eA==\r\n\
         Connection: close, X-Secret\r\nX-Secret: s\r\nUser-Agent: apt\r\n\r\n"
    );
    for _ in 0..3 {
        let answer = bench.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(answer.contains("GET /debian/x?y HTTP/1.1"), "{answer}");
        // The host of the request line is asked for, whatever the header said.
        assert!(
            lower.contains(&format!("host: mirror.test:{port}")),
            "{answer}"
        );
        assert!(lower.contains("user-agent: apt"), "{answer}");
        for hidden in ["other.test", "proxy-authorization", "x-secret", "x-hop"] {
            assert!(!lower.contains(hidden), "{hidden}: {answer}");
        }
    }
    assert_eq!(bench.told(), [Told::Reached(format!("mirror.test:{port}"))]);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let port = origin().await;
    let bench = bench(&format!("127.0.0.1:{port}"), &[]);
    let mut client = bench.connect().await;
    let connect = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    client.write_all(connect.as_bytes()).await.expect("sent");
    let answer = timeout(PATIENCE, head(&mut client)).await.expect("in time");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    client.write_all(b"anything\r\n\r\n").await.expect("sent");
    let mut all = String::new();
    let read = timeout(PATIENCE, client.read_to_string(&mut all)).await;
    read.expect("in time").expect("read");
    assert!(all.contains("origin got:\nanything"), "{all}");
}

// When the proxy is closed, nothing goes on: neither a connection that waits nor a tunnel. Until then a tunnel counts.
#[tokio::test]
async fn a_closed_proxy_carries_nothing_more() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let bench = bench(&format!("127.0.0.1:{port}"), &[]);
    let mut waiting = bench.connect().await;
    let mut tunnel = bench.connect().await;
    let connect = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n");
    tunnel.write_all(connect.as_bytes()).await.expect("sent");
    let answer = timeout(PATIENCE, head(&mut tunnel)).await.expect("in time");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (mut origin, _) = listener.accept().await.expect("connected");
    tunnel.write_all(b"x").await.expect("sent");
    assert_eq!(origin.read_u8().await.expect("arrives"), b'x');
    let held: Vec<_> = std::iter::from_fn(|| bench.proxy.permit()).collect();
    assert_eq!(held.len(), MOST_CONNECTIONS - 2);
    bench.open.send_replace(false);
    for stream in [&mut waiting, &mut tunnel] {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        ended.expect("in time").expect("ended");
    }
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, origin.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
}

// Whatever a hostile guest writes: the origin is never asked, the answer is a refusal, and the log says so.
#[tokio::test]
async fn what_was_not_named_is_refused_and_told() {
    let port = origin().await;
    let bench = bench(
        &format!("mirror.test:{port},mirror.test"),
        &[
            ("mirror.test", &["127.0.0.1"]),
            ("evil.test", &["127.0.0.1"]),
        ],
    );
    let requests = [
        // Another host, another port, an address instead of the name.
        format!("GET http://evil.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        "GET http://mirror.test:22/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n".to_owned(),
        format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: mirror.test:{port}\r\n\r\n"),
        format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("GET http://127.1:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("GET http://2130706433:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        // An account in the address, which some read as the host.
        format!("GET http://mirror.test:{port}@evil.test/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("GET http://mirror.test@evil.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("GET http://x@mirror.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        // No address, another scheme, another method, no port.
        format!("GET / HTTP/1.1\r\nHost: mirror.test:{port}\r\n\r\n"),
        format!("GET https://mirror.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!("GET ftp://mirror.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
        format!(
            "POST http://mirror.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\nContent-Length: 0\r\n\r\n"
        ),
        "CONNECT mirror.test HTTP/1.1\r\nHost: mirror.test\r\n\r\n".to_owned(),
        format!("GET http://mirror.test.evil.test:{port}/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"),
    ];
    for request in &requests {
        let before = bench.told().len();
        let answer = bench.ask(request).await;
        let refused = answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 400");
        assert!(
            refused && !answer.contains("origin got"),
            "{request}\n{answer}"
        );
        // One that cannot even be read is answered by the parser, before anybody could be told.
        let told = bench.told().len() > before || answer.starts_with("HTTP/1.1 400");
        assert!(told, "{request} was not told");
    }
    let all = bench.told();
    assert!(
        all.iter().all(|t| matches!(t, Told::Refused(..))),
        "{all:?}"
    );
    assert!(all.len() > 10, "{all:?}");
}

// A name server that leads a named host to this machine or its network is not believed, not even for one of several.
#[tokio::test]
async fn a_named_host_that_leads_inside_is_refused() {
    let port = origin().await;
    for inside in [
        &["127.0.0.1"][..],
        &["10.0.3.2"],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["151.101.2.132", "127.0.0.1"],
    ] {
        let bench = bench(&format!("mirror.test:{port}"), &[("mirror.test", inside)]);
        for request in [
            format!("GET http://mirror.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            format!("CONNECT mirror.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ] {
            let answer = bench.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{inside:?}: {answer}");
        }
        assert!(
            matches!(&bench.told()[..], [Told::Refused(_, why), ..] if why.contains("was not named"))
        );
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_a_bad_gateway_and_told() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.expect("listens");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let bench = bench(&format!("127.0.0.1:{port},gone.test:{port}"), &[]);
    for host in ["127.0.0.1", "gone.test"] {
        let answer = bench
            .ask(&format!(
                "GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
    assert!(bench.told().iter().all(|t| matches!(t, Told::Failed(..))));
    assert_eq!(bench.told().len(), 2);
}

// A head without an end, or one that is too large, costs a bounded time and bounded memory.
#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_too_much_is_let_go() {
    let bench = bench("mirror.test", &[]);
    let mut silent = bench.connect().await;
    silent
        .write_all(b"GET http://mirror.test/ HTTP/1.1\r\n")
        .await
        .expect("sent");
    let mut all = Vec::new();
    let began = tokio::time::Instant::now();
    silent.read_to_end(&mut all).await.expect("it is closed");
    assert!(
        began.elapsed() <= IDLE + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let mut large = bench.connect().await;
    let much = format!(
        "GET http://mirror.test/ HTTP/1.1\r\nX: {}\r\n\r\n",
        "y".repeat(MOST_HEAD * 4)
    );
    let _ = large.write_all(much.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = large.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert!(bench.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_nothing_moves_and_when_too_much_does() {
    let (mut near, far) = duplex(1024);
    let mut bounded = Bounded::new(far, Duration::from_secs(5), 10);
    near.write_all(b"12345678").await.expect("sent");
    let mut bytes = [0; 8];
    bounded.read_exact(&mut bytes).await.expect("read");
    let late = bounded.read_u8().await.expect_err("nothing comes");
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    near.write_all(b"abc").await.expect("sent");
    let mut rest = [0; 3];
    let much = bounded
        .read_exact(&mut rest)
        .await
        .expect_err("eleven bytes");
    assert_eq!(much.kind(), io::ErrorKind::QuotaExceeded);
}

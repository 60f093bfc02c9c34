//! The page of the guest: one request on a connection of its own, and what its answer says.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A user would have gone by then; far above what a merge costs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The page is a few hundred bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Asks for a page on a new connection. The error is the kind of failure, in a few words.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, exchange(address, path)).await {
        Ok(Ok(bytes)) => body(&bytes),
        Ok(Err(error)) => Err(kind(&error)),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: shop\r\nUser-Agent: flipside-demo\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn kind(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => "refused".to_owned(),
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => "reset".to_owned(),
        K::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns the body of a whole answer with status 200.
fn body(answer: &[u8]) -> Result<String, String> {
    if answer.is_empty() {
        return Err("closed without an answer".to_owned());
    }
    let cut = || "answer cut off".to_owned();
    let text = std::str::from_utf8(answer).map_err(|_| cut())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .ok_or_else(cut)?;
    if status != "200" {
        return Err(format!("status {status}"));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let ours = name.eq_ignore_ascii_case("content-length");
        ours.then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(cut());
    }
    Ok(body.to_owned())
}

/// What the page says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) release: String,
    pub(super) kernel: String,
    pub(super) visits: u64,
}

impl Page {
    /// Reads the page; none when it lacks something, also the row of the data disk.
    pub(super) fn read(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .map(str::trim)
        };
        field("page").filter(|row| row.contains("data disk"))?;
        Some(Self {
            release: field("release")?.to_owned(),
            kernel: field("kernel")?.to_owned(),
            visits: field("visits")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "flipside demo page\nrelease 1.0\nhost demo\nkernel 6.1.0-25-cloud-amd64\ndatabase 150008\n\
                        page This row lives on the data disk.\nvisits 12\n";

    #[test]
    fn the_page_is_read_only_when_it_is_whole() {
        let page = Page::read(PAGE).expect("a page");
        assert_eq!(page.release, "1.0");
        assert_eq!(page.kernel, "6.1.0-25-cloud-amd64");
        assert_eq!(page.visits, 12);
        for part in ["release", "kernel", "data disk", "visits"] {
            assert_eq!(Page::read(&PAGE.replace(part, "x")), None, "{part}");
        }
    }

    #[test]
    fn only_a_whole_answer_with_status_200_is_good() {
        let told = |answer: &str| body(answer.as_bytes());
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(told(&format!("{head}ok")), Ok("ok".to_owned()));
        assert_eq!(told("HTTP/1.1 200 OK\r\n\r\nok"), Ok("ok".to_owned()));
        assert_eq!(told(&format!("{head}o")), Err("answer cut off".to_owned()));
        assert_eq!(told("HTTP/1.1 20"), Err("answer cut off".to_owned()));
        assert_eq!(told(""), Err("closed without an answer".to_owned()));
        let bad = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(told(bad), Err("status 502".to_owned()));
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        assert_eq!(get(address, "/").await, Err("refused".to_owned()));
    }
}

//! The client: people who use the page all the time, through the front door, a new connection for every request.
//!
//! Requests begin by the clock, whether earlier ones were answered or not: a pause of the server is felt by everybody
//! who comes meanwhile, and is counted so.

use super::page::{self, Page};
use super::stats::{Phase, PhaseFigures};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// About ten requests a second: noticed by everything that goes wrong, no load even for an emulated guest.
const EVERY: Duration = Duration::from_millis(100);

/// So many may wait at once; then nobody comes until one was answered.
const MOST_WAITING: usize = 256;

/// So many failures of one kind are told one by one in a phase; the others are counted.
const MOST_TOLD: u64 = 3;

/// The client while it runs.
pub(super) struct Visitors {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    book: Mutex<Book>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Book {
    phases: Vec<Phase>,
    /// Ids of the writes that were acknowledged.
    acknowledged: BTreeSet<u64>,
    /// When, in which phase, what was asked, how it failed.
    told: Vec<String>,
}

/// What the client saw in all.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) phases: Vec<PhaseFigures>,
    pub(super) acknowledged: BTreeSet<u64>,
    pub(super) told: Vec<String>,
}

impl Visitors {
    /// Starts asking; the first phase begins.
    pub(super) fn start(address: SocketAddr, phase: &'static str) -> Self {
        let shared = Arc::new(Shared {
            address,
            book: Mutex::new(Book {
                phases: vec![Phase::new(phase, Instant::now())],
                ..Book::default()
            }),
            places: Arc::new(Semaphore::new(MOST_WAITING)),
        });
        let task = tokio::spawn(ask_forever(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Begins the next phase. A request counts for the phase in which it began.
    pub(super) fn phase(&self, name: &'static str) {
        let now = Instant::now();
        self.shared.with(|book| {
            if let Some(last) = book.phases.last_mut() {
                last.end(now);
            }
            book.phases.push(Phase::new(name, now));
        });
    }

    /// Returns what was seen so far.
    pub(super) fn seen(&self) -> Seen {
        let now = Instant::now();
        self.shared.with(|book| Seen {
            phases: book.phases.iter().map(|p| p.figures(now)).collect(),
            acknowledged: book.acknowledged.clone(),
            told: book.told.clone(),
        })
    }

    /// Returns the figures of one phase so far.
    pub(super) fn figures(&self, name: &str) -> Option<PhaseFigures> {
        self.seen().phases.into_iter().find(|p| p.phase == name)
    }

    /// Asks no more, and waits for the answers that are due.
    pub(super) async fn finish(&self) -> Seen {
        self.task.abort();
        let most = u32::try_from(MOST_WAITING).unwrap_or(u32::MAX);
        // Every request ends within its patience; the rest is slack.
        let all = self.shared.places.acquire_many(most);
        let _ = tokio::time::timeout(page::PATIENCE + Duration::from_secs(5), all).await;
        let now = Instant::now();
        self.shared
            .with(|book| book.phases.iter_mut().for_each(|phase| phase.end(now)));
        self.seen()
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn with<T>(&self, what: impl FnOnce(&mut Book) -> T) -> T {
        // A panic while it is held leaves counters, at worst one behind.
        what(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ask_forever(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes = false;
    loop {
        clock.tick().await;
        let Ok(place) = Arc::clone(&shared.places).acquire_owned().await else {
            return;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            ask(&shared, writes).await;
            drop(place);
        });
        writes = !writes;
    }
}

async fn ask(shared: &Shared, writes: bool) {
    let (phase, known) = shared.with(|book| (book.phases.len() - 1, book.acknowledged.len()));
    let path = if writes { "/write?n=demo" } else { "/" };
    let began = Instant::now();
    let answer = page::get(shared.address, path).await;
    let took = began.elapsed();
    let judged = answer.and_then(|text| judge(writes, &text, known as u64));
    shared.with(|book| {
        let Some(phase) = book.phases.get_mut(phase) else {
            return;
        };
        match judged {
            Ok(id) => {
                phase.answered(took);
                book.acknowledged.extend(id);
            }
            Err(kind) => {
                if phase.failed(kind.clone()) <= MOST_TOLD {
                    let seconds = took.as_secs_f64();
                    let line = format!("{}: GET {path}: {kind} after {seconds:.2} s", phase.name);
                    book.told.push(line);
                }
            }
        }
    });
}

/// Returns the id of a write, or checks the page: it must know every visit that was acknowledged before.
fn judge(writes: bool, text: &str, known: u64) -> Result<Option<u64>, String> {
    if writes {
        let id = text.trim().parse();
        return id.map(Some).map_err(|_| "not an id".to_owned());
    }
    match Page::read(text) {
        None => Err("not the page".to_owned()),
        Some(page) if page.visits < known => Err("lacks acknowledged writes".to_owned()),
        Some(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const PAGE: &str = "release 1.0\nkernel 6\npage This row lives on the data disk.\nvisits 3\n";

    #[test]
    fn a_page_that_forgot_a_write_is_a_failure() {
        assert_eq!(judge(false, PAGE, 3), Ok(None));
        assert_eq!(
            judge(false, PAGE, 4),
            Err("lacks acknowledged writes".to_owned())
        );
        assert_eq!(judge(false, "oops", 0), Err("not the page".to_owned()));
        assert_eq!(judge(true, "17\n", 0), Ok(Some(17)));
        assert_eq!(judge(true, "oops", 0), Err("not an id".to_owned()));
    }

    /// Answers like the page, one connection per request; every fifth is refused an answer.
    async fn server(listener: TcpListener) {
        let (mut asked, mut visits) = (0u64, 0u64);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            asked += 1;
            if asked % 5 == 0 {
                continue;
            }
            let body = if request[..read].starts_with(b"GET /write") {
                visits += 1;
                format!("{visits}\n")
            } else {
                PAGE.replace("visits 3", &format!("visits {visits}"))
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    #[tokio::test]
    async fn phases_hold_what_began_in_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(server(listener));
        let visitors = Visitors::start(address, "one");
        let deadline = Instant::now() + Duration::from_secs(20);
        while visitors.figures("one").is_none_or(|p| p.requests < 6) {
            assert!(Instant::now() < deadline, "nothing was asked");
            tokio::time::sleep(EVERY).await;
        }
        visitors.phase("two");
        let seen = visitors.finish().await;
        server.abort();
        let one = &seen.phases[0];
        assert!(one.requests >= 6 && one.failed >= 1, "{one:?}");
        assert!(one.p50_ms.is_some() && one.failed < one.requests);
        assert_eq!(seen.phases[1].phase, "two");
        assert!(seen.acknowledged.len() >= 2);
        assert!(seen.told[0].starts_with("one: GET "), "{:?}", seen.told);
    }
}

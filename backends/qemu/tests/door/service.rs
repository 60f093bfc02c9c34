//! A little server, and what every test of the door needs.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use flipside_backend_qemu::door::{Door, DoorLimits, DoorStatus, PublishedPort, Targets};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

pub(crate) const PORT: u16 = 80;
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// A service that answers each line `ID` with `NAME ID`, counts every ID, and lets lines that begin with `slow` wait.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    pub(crate) accepted: Arc<AtomicUsize>,
    /// While set, connections are reset as soon as they are accepted.
    pub(crate) refusing: Arc<AtomicBool>,
    pub(crate) slow: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    pub(crate) fn start(name: &'static str, backlog: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(local()).unwrap();
        let listener = socket.listen(backlog).unwrap();
        let (seen, accepted) = (
            Arc::<Mutex<HashMap<_, _>>>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let (refusing, slow) = (Arc::<AtomicBool>::default(), Arc::new(Semaphore::new(0)));
        let addr = listener.local_addr().unwrap();
        let shared = (
            seen.clone(),
            accepted.clone(),
            refusing.clone(),
            slow.clone(),
        );
        let task = tokio::spawn(async move {
            let (seen, accepted, refusing, slow) = shared;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, SeqCst);
                if refusing.load(SeqCst) {
                    stream.set_zero_linger().unwrap();
                    continue;
                }
                tokio::spawn(answer(stream, name, seen.clone(), slow.clone()));
            }
        });
        Self {
            addr,
            seen,
            accepted,
            refusing,
            slow,
            task,
        }
    }

    pub(crate) fn targets(&self) -> Targets {
        BTreeMap::from([(PORT, self.addr)])
    }

    pub(crate) fn times(&self, id: &str) -> usize {
        self.seen.lock().unwrap().get(id).copied().unwrap_or(0)
    }
}

async fn answer(
    stream: TcpStream,
    name: &'static str,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    slow: Arc<Semaphore>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(id) = lines.next_line().await? {
        *seen.lock().unwrap().entry(id.clone()).or_default() += 1;
        if id.starts_with("slow") {
            slow.acquire().await.unwrap().forget();
        }
        write.write_all(format!("{name} {id}\n").as_bytes()).await?;
    }
    Ok(())
}

pub(crate) fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) async fn door_with(limits: DoorLimits) -> (Door, SocketAddr) {
    let door = Door::bind_with(
        vec![PublishedPort {
            listen: local(),
            guest_port: PORT,
        }],
        limits,
    )
    .await
    .unwrap();
    let addr = door.ports()[0].listen;
    (door, addr)
}

pub(crate) async fn new_door() -> (Door, SocketAddr) {
    door_with(DoorLimits::default()).await
}

pub(crate) async fn ask(stream: &mut TcpStream, id: &str) -> io::Result<String> {
    stream.write_all(format!("{id}\n").as_bytes()).await?;
    hear(stream).await
}

pub(crate) async fn hear(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(io::Error::other),
            byte => line.push(byte),
        }
    }
}

pub(crate) async fn request(addr: SocketAddr, id: &str) -> io::Result<String> {
    ask(&mut TcpStream::connect(addr).await?, id).await
}

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(BOUND, what).await.expect("took too long")
}

/// Waits until the door's status fulfils the condition.
pub(crate) async fn until(door: &Door, condition: impl Fn(&DoorStatus) -> bool) {
    let waiting = async {
        while !condition(&door.status()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(BOUND, waiting).await.is_err() {
        panic!("never came: {:#?}", door.status());
    }
}

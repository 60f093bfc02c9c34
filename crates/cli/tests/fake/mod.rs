//! A server that says what a test wants it to say, on a Unix socket of its own.

use bytes::Bytes;
use flipside_model::api::{Accepted, SessionRequest};
use flipside_model::{
    Command, Entry, OperationalState, Problem, ProblemCode, Record, Status, UpgradeState,
};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// How often a stream looks for something new; far below anything a test waits for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// No test command may take longer: then something waits for ever.
const TEST_DEADLINE: Duration = Duration::from_secs(30);

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What the server knows and was asked.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) systems: Vec<Status>,
    pub(crate) entries: Vec<Entry>,
    /// Records that appear once a session command was accepted.
    pub(crate) script: Vec<Record>,
    /// Refuses every request that changes something.
    pub(crate) refuse: Option<Problem>,
    /// Lines that answer `run` and `create`.
    pub(crate) events: Vec<String>,
    /// Method, path and body of every request.
    pub(crate) asked: Vec<(String, String, String)>,
}

impl World {
    pub(crate) fn record(&mut self, record: Record) {
        let seq = self.entries.len() as u64 + 1;
        for system in &mut self.systems {
            system.last_seq = seq;
            if let Record::Entered {
                state,
                operational,
                problem,
            } = &record
            {
                system.upgrade_state = *state;
                system.operational_state = *operational;
                system.problem.clone_from(problem);
            }
        }
        let at_ms = 1_700_000_000_000 + seq as i64;
        self.entries.push(Entry { seq, at_ms, record });
    }

    pub(crate) fn bodies(&self, method: &str) -> Vec<String> {
        let asked = self.asked.iter().filter(|(m, _, _)| m == method);
        asked.map(|(_, _, body)| body.clone()).collect()
    }
}

pub(crate) fn entered(state: UpgradeState, operational: OperationalState) -> Record {
    Record::Entered {
        state,
        operational,
        problem: None,
    }
}

pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fake {
    /// Starts a server with one system called `web`, Idle and Ready.
    pub(crate) fn start() -> Self {
        let mut fake = Self {
            dir: tempfile::tempdir().expect("a directory"),
            world: Arc::default(),
            runtime: None,
        };
        fake.world().systems = vec![idle("web")];
        fake.listen();
        fake
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panicked with it")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("f.sock")
    }

    pub(crate) fn listen(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let _ = std::fs::remove_file(self.socket());
        let _inside = runtime.enter();
        let listener = UnixListener::bind(self.socket()).expect("bound");
        let world = Arc::clone(&self.world);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let world = Arc::clone(&world);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let world = Arc::clone(&world);
                        async move { Ok::<_, Infallible>(answer(&world, request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        self.runtime = Some(runtime);
    }

    /// Ends the server as a kill would: every connection is cut.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = flipside(args);
        command.env("FLIPSIDE_SOCKET", self.socket());
        command.current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run(self.command(args))
    }

    /// Runs a command with something on standard input.
    pub(crate) fn feed(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        child.wait_with_output().expect("ended")
    }

    /// Waits until the server has seen a request for a path that contains this.
    pub(crate) fn wait_asked(&self, part: &str) {
        let began = std::time::Instant::now();
        while !self
            .world()
            .asked
            .iter()
            .any(|(_, path, _)| path.contains(part))
        {
            assert!(began.elapsed() < TEST_DEADLINE, "nobody asked for {part}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes a command with a clean environment; its input is empty and no terminal.
pub(crate) fn flipside(args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flipside"));
    for name in ["FLIPSIDE_SOCKET", "FLIPSIDE_STATE_DIR", "VISUAL", "EDITOR"] {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").stdin(Stdio::null()).args(args);
    command
}

pub(crate) fn run(mut command: std::process::Command) -> Output {
    command.output().expect("the binary runs")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[track_caller]
pub(crate) fn ends(output: &Output, status: i32) {
    assert_eq!(
        output.status.code(),
        Some(status),
        "stdout:\n{}\nstderr:\n{}",
        out(output),
        err(output)
    );
}

/// The sample status with everything in sync and no session.
pub(crate) fn idle(name: &str) -> Status {
    let mut status: Status =
        serde_json::from_str(include_str!("../status.json")).expect("a status");
    status.system = name.parse().expect("a name");
    status.hardware_state = flipside_model::HardwareState::FaultTolerant;
    status.upgrade_state = UpgradeState::Idle;
    status.partner_state = None;
    status.session = None;
    status.allowed = vec![Command::Check, Command::Split];
    status.last_seq = 0;
    for disk in &mut status.disks {
        disk.mirror = flipside_model::MirrorStatus::None;
    }
    status
}

async fn answer(world: &Arc<Mutex<World>>, request: Request<Incoming>) -> Answer {
    let method = request.method().as_str().to_owned();
    let uri = request.uri().to_string();
    if uri.contains("/shell") {
        world
            .lock()
            .expect("held")
            .asked
            .push((method, uri, String::new()));
        return echo(request);
    }
    let body = request.into_body().collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut now = world.lock().expect("held");
    now.asked.push((method.clone(), uri.clone(), text));
    let path = uri.split('?').next().unwrap_or_default();
    let rest: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let system = rest.get(1).map(|name| {
        let found = now.systems.iter().find(|s| s.system.as_str() == *name);
        found.cloned().ok_or_else(|| {
            let message = format!("there is no system `{name}`");
            problem(&Problem::new(ProblemCode::NotFound, message))
        })
    });
    let system = match system {
        Some(Err(missing)) => return missing,
        Some(Ok(status)) => Some(status),
        None => None,
    };
    if method != "GET"
        && let Some(refused) = &now.refuse
    {
        return problem(refused);
    }
    match (method.as_str(), rest.get(2).copied(), system) {
        ("GET", None, None) => json(&now.systems),
        ("POST", None, None) | ("POST", Some("run"), _) => lines(&now.events),
        ("GET", None, Some(status)) | ("POST", Some("power" | "restart"), Some(status)) => {
            json(&status)
        }
        ("DELETE", ..) => reply(StatusCode::NO_CONTENT, Vec::new()),
        ("PUT", ..) => json(&serde_json::json!({ "bytes": body.len() })),
        ("POST", Some("session"), _) => {
            let request: SessionRequest = serde_json::from_slice(&body).expect("a request");
            let accepted = Accepted {
                after: now.entries.len() as u64,
                config: request.config.and_then(|c| {
                    let name = c.path.file_name()?;
                    Some(name.to_string_lossy().into_owned())
                }),
            };
            now.record(Record::Accepted {
                command: request.command,
            });
            for record in std::mem::take(&mut now.script) {
                now.record(record);
            }
            json(&accepted)
        }
        ("GET", Some("log"), _) => {
            let after = uri.split("after=").nth(1).and_then(|t| t.split('&').next());
            let after = after.and_then(|n| n.parse().ok()).unwrap_or(0);
            stream(world, uri.contains("follow=true"), after, |world, from| {
                let new = world.entries.iter().skip(from);
                new.map(|e| serde_json::to_string(e).expect("json"))
                    .collect()
            })
        }
        ("GET", Some("status"), Some(status)) => {
            let mut last = String::new();
            stream(world, true, 0, move |world, _| {
                let found = world.systems.iter().find(|s| s.system == status.system);
                let now = serde_json::to_string(&found).expect("json");
                if now == last {
                    return Vec::new();
                }
                last.clone_from(&now);
                vec![now]
            })
        }
        other => reply(
            StatusCode::NOT_IMPLEMENTED,
            format!("{other:?}").into_bytes(),
        ),
    }
}

fn reply(status: StatusCode, bytes: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(bytes)).boxed());
    *response.status_mut() = status;
    response
}

fn json(value: &impl Serialize) -> Answer {
    reply(StatusCode::OK, serde_json::to_vec(value).expect("json"))
}

fn lines(events: &[String]) -> Answer {
    reply(StatusCode::OK, events.join("\n").into_bytes())
}

fn problem(problem: &Problem) -> Answer {
    let status = match problem.code {
        ProblemCode::Usage => StatusCode::BAD_REQUEST,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Refused | ProblemCode::InUse => StatusCode::CONFLICT,
        ProblemCode::NotReady => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    reply(status, serde_json::to_vec(problem).expect("json"))
}

/// Streams what `new` returns, given how much was sent before.
fn stream(
    world: &Arc<Mutex<World>>,
    follow: bool,
    from: usize,
    mut new: impl FnMut(&World, usize) -> Vec<String> + Send + Sync + 'static,
) -> Answer {
    let world = Arc::clone(world);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut sent = from;
        loop {
            let lines = new(&world.lock().expect("held"), sent);
            sent += lines.len();
            for line in lines {
                let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line + "\n")));
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            if !follow {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let body = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Response::new(http_body_util::BodyExt::boxed(StreamBody::new(body)))
}

/// Answers an upgrade with a guest that repeats what is typed.
fn echo(mut request: Request<Incoming>) -> Answer {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
        let mut stream = TokioIo::new(upgraded);
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..read]).await.expect("echoed");
        }
        let _ = stream.shutdown().await;
    });
    let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, Vec::new());
    let headers = response.headers_mut();
    headers.insert("connection", "upgrade".parse().expect("valid"));
    headers.insert("upgrade", "flipside-shell".parse().expect("valid"));
    response
}

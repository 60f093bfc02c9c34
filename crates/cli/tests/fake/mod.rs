//! A server that says what a test wants it to say, on a Unix socket of its own.
#![allow(dead_code, reason = "each test uses a part of it")]

mod answers;

use answers::answer;
use flipside_model::{Command, Entry, OperationalState, Problem, Record, Status, UpgradeState};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UnixListener;

/// No test command may take longer: then something waits for ever.
const TEST_DEADLINE: Duration = Duration::from_secs(30);

/// What the server knows and was asked.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) systems: Vec<Status>,
    pub(crate) entries: Vec<Entry>,
    /// Records that appear once a session command was accepted.
    pub(crate) script: Vec<Record>,
    /// Refuses every request that changes something.
    pub(crate) refuse: Option<Problem>,
    /// What `config` answers.
    pub(crate) staged: Option<flipside_model::api::StagedConfig>,
    /// Answers by method and the path below the system, such as `GET access`.
    pub(crate) canned: std::collections::BTreeMap<String, String>,
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
    // Nobody's memory of directories is touched: none can be there.
    for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, "/dev/null/none");
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

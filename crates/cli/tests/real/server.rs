//! The server under test: a child of the test, started, killed and started again.

use super::{NAME, moment, until};
use flipside_model::Status;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The signal of `kill -9`.
const KILL: i32 = 9;

/// No answer of the server takes longer.
const ANSWER: Duration = Duration::from_secs(20);

/// What a server said first.
pub(crate) enum First {
    /// This, after so long.
    Said(Box<Status>, Duration),
    /// Nothing: it died before.
    Died,
}

/// The server and how it is reached.
pub(crate) struct Server {
    dir: PathBuf,
    program: PathBuf,
    /// What `FLIPSIDE_TEST_CHAIN` says.
    chain: Option<String>,
    /// The network namespace that it is started in.
    namespace: Option<String>,
    child: Option<Child>,
    started: Instant,
}

impl Server {
    pub(crate) fn new(dir: &Path, chain: Option<String>, namespace: Option<String>) -> Self {
        // A copy of our own: a build that goes on meanwhile must not change what is tested.
        let program = dir.join("flipside");
        std::fs::copy(env!("CARGO_BIN_EXE_flipside"), &program).expect("copied");
        Self {
            dir: dir.to_owned(),
            program,
            chain,
            namespace,
            child: None,
            started: Instant::now(),
        }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// What is between the legs and their files from its next start on, wherever a leg is opened anew.
    pub(crate) fn set_chain(&mut self, chain: Option<String>) {
        self.chain = chain;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it, to die at a crash point if one is named.
    pub(crate) fn start(&mut self, crash_at: Option<&str>) {
        assert!(self.child.is_none(), "it runs already");
        let log = || {
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true);
            Stdio::from(file.open(self.dir.join("server.log")).expect("a log"))
        };
        let mut command = match &self.namespace {
            None => Command::new(&self.program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", namespace])
                    .arg(&self.program);
                command
            }
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
            .arg(&self.dir)
            .arg("--socket")
            .arg(self.socket())
            .env_remove("FLIPSIDE_CRASH_AT")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        if std::env::var_os("FLIPSIDE_ACCEL").is_none() {
            command.env("FLIPSIDE_ACCEL", "tcg");
        }
        if let Some(chain) = &self.chain {
            command.env("FLIPSIDE_TEST_CHAIN", chain);
        }
        if let Some(point) = crash_at {
            command.env("FLIPSIDE_CRASH_AT", point);
        }
        self.started = Instant::now();
        self.child = Some(command.spawn().expect("the server starts"));
        until("the server listens", ANSWER, || {
            (self.died().is_some() || self.get("/v1/version").is_ok()).then_some(())
        });
    }

    /// Waits for its first word about the system, counted from its start.
    pub(crate) fn first(&mut self) -> First {
        until("the server names a state", ANSWER, || {
            if let Ok(status) = self.status() {
                let after = self.started.elapsed();
                return Some(First::Said(Box::new(status), after));
            }
            self.died().is_some().then_some(First::Died)
        })
    }

    /// Kills it, and nothing else, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }

    /// Says how it died, if it did.
    pub(crate) fn died(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our child")
    }

    /// Takes note of its death by a crash point.
    #[track_caller]
    pub(crate) fn bury(&mut self) {
        let status = self.died().expect("it died");
        self.child = None;
        assert_eq!(
            status.signal(),
            Some(KILL),
            "the server ended by itself: {status}"
        );
    }

    /// What it says of the system; an error when it does not answer.
    pub(crate) fn status(&self) -> Result<Status, String> {
        let body = self.get(&format!("/v1/systems/{NAME}"))?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// Asks the API itself: a client process for every look would take the time that is measured.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let asked = || -> std::io::Result<Vec<u8>> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(ANSWER))?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: flipside\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().map_err(|error| error.to_string())?;
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .ok_or("no answer")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let body = answer[end + 4..].to_vec();
        if head.starts_with("HTTP/1.1 200") {
            return Ok(body);
        }
        Err(format!("{head}\n{}", String::from_utf8_lossy(&body)))
    }

    /// Waits until it has died, or until `look` finds something else that ends the wait.
    #[track_caller]
    pub(crate) fn until_dead<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&Status) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        loop {
            if self.died().is_some() {
                return None;
            }
            if let Some(found) = self.status().ok().as_ref().and_then(&mut look) {
                // It may have died between the two looks.
                return self.died().is_none().then_some(found);
            }
            assert!(Instant::now() < deadline, "the server lives on");
            moment(Duration::from_millis(100));
        }
    }
}

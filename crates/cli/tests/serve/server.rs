//! The server under test and how it is spoken to.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Everything asked here is done in milliseconds; a busy host is not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The system that tests create.
pub(crate) const NAME: &str = "web";

/// A state directory with its server, which is killed at the end of the test.
pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
    /// Through this path a server in a mount namespace of its own is reached.
    root: PathBuf,
}

/// What an HTTP request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) fn flipside() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipside"));
    for name in ["FLIPSIDE_SOCKET", "FLIPSIDE_STATE_DIR", "FLIPSIDE_CRASH_AT"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Server {
    /// Prepares a state directory; nothing runs yet.
    pub(crate) fn prepare() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            child: None,
            root: PathBuf::new(),
        }
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        let mut server = Self::prepare();
        server.again();
        server
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/s")
    }

    /// A file of the system's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.state().join("systems").join(NAME).join(name)
    }

    /// The command that serves here, with another socket if one is named.
    pub(crate) fn command(&self, socket: &Path) -> Command {
        let mut command = flipside();
        command.args(self.arguments(socket));
        command
    }

    pub(crate) fn arguments(&self, socket: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        ["serve", "--listen", "127.0.0.1:0", "--state-dir"]
            .map(str::to_owned)
            .into_iter()
            .chain([text(&self.state()), "--socket".to_owned(), text(socket)])
            .collect()
    }

    /// Starts the server again.
    pub(crate) fn again(&mut self) {
        let command = self.command(&self.socket());
        self.run(command, PathBuf::new());
    }

    /// Starts this command, which becomes the server.
    pub(crate) fn run(&mut self, mut command: Command, root: PathBuf) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.root = root;
        until("the server answers", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log());
            }
            self.try_ask("GET", "/v1/version", "").ok()
        });
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        until("the server ends", || child.try_wait().unwrap())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn connect(&self) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(self.root.join(self.socket().strip_prefix("/").unwrap()))
            .or_else(|_| UnixStream::connect(self.socket()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = self.connect()?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: flipside\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        // One that refuses early does not read the rest.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        // What was not read of a request resets the connection, after the answer.
        let end = stream.read_to_end(&mut answer);
        match parsed(&answer) {
            Some(answer) => Ok(answer),
            None => Err(end
                .err()
                .unwrap_or_else(|| std::io::Error::other("no answer"))),
        }
    }

    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_ask(method, path, body).unwrap()
    }

    /// The answer to what must succeed, as JSON.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The status of the system.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.get(&format!("/v1/systems/{NAME}"))
    }

    /// Asks for the next step of a session.
    pub(crate) fn session(&self, command: &str, seen: Option<u64>) -> Answer {
        let body = serde_json::json!({ "command": command, "no_config": true, "seen": seen });
        self.ask(
            "POST",
            &format!("/v1/systems/{NAME}/session"),
            &body.to_string(),
        )
    }

    /// Waits until no operation runs.
    #[track_caller]
    pub(crate) fn settled(&self) -> Value {
        until("nothing is Busy", || {
            Some(self.status()).filter(|status| status["operational_state"] != "Busy")
        })
    }

    /// Runs a command of the client.
    pub(crate) fn client(&self, args: &[&str]) -> Output {
        let mut command = flipside();
        command.env("FLIPSIDE_SOCKET", self.socket()).args(args);
        command.output().unwrap()
    }

    /// Creates the system `web`, of two small disks; nothing is started.
    #[track_caller]
    pub(crate) fn create(&self) {
        let image = self.dir.path().join("image.raw");
        std::fs::write(&image, vec![7; 1 << 20]).unwrap();
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let (image, a, b) = (path("image.raw"), path("a"), path("b"));
        let output = self.client(&[
            "system",
            "create",
            NAME,
            "--system-disk",
            &image,
            "--data-disk",
            "1M",
            "--memory",
            "128M",
            "--enclosure",
            &a,
            "--enclosure",
            &b,
        ]);
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn parsed(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        let lines = body.split("\r\n").skip(1).step_by(2);
        lines.collect()
    } else {
        body.to_owned()
    };
    Some(Answer { status, body })
}

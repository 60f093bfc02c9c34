//! A laboratory for the tests on real machines: a server with a state directory of its own, one real guest, a client
//! that never stops asking, and a watcher that never stops looking who writes to the legs.
//!
//! Whatever happens, also in a panic, the machines and the guard of this state directory end with it, and no others.

mod bad_input;
pub(crate) mod client;
pub(crate) mod figures;
pub(crate) mod kills;
pub(crate) mod legs;
pub(crate) mod processes;
pub(crate) mod qmp;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod state_disk;
pub(crate) mod wire;
pub(crate) mod write_log;

use client::Client;
use flipside_model::{MirrorStatus, OperationalState, Status, UpgradeState};
use legs::Watcher;
use server::Server;
use state_disk::StateDisk;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name of the only system.
pub(crate) const NAME: &str = "mini";

/// The memory of the guest: less is slower, more is copied longer at a split.
const MEMORY: &str = "384M";

/// A boot under emulation takes 5 to 10 s on a quiet host; other tests may have the processors meanwhile.
pub(crate) const BOOT: Duration = Duration::from_secs(240);

/// No command may take longer than the longest stage of the product (five minutes for a split).
const COMMAND: Duration = Duration::from_secs(310);

/// The file in a laboratory's directory that holds the process id of the test it belongs to.
const OWNER: &str = "owner";

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A configuration that controls the one application.
pub(crate) const CONFIG: &str =
    "version = 1\ntitle = \"mini\"\nservices = [\"mini-writer.service\"]\n";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Waits a moment between two looks at a condition; nothing may be built on how long it is.
pub(crate) fn moment(long: Duration) {
    std::thread::park_timeout(long);
}

/// Looks until there is something, or fails saying what did not come.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "it took longer than {limit:?} until {what}"
        );
        moment(LOOK_EVERY);
    }
}

/// Finds the images of the small guest; none when this test is to be skipped without them.
pub(crate) fn images() -> Option<PathBuf> {
    let folder = std::env::var_os("FLIPSIDE_GUEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest"),
        PathBuf::from,
    );
    let missing = ["mini.raw", "mini-data.raw"]
        .map(|image| folder.join(image))
        .into_iter()
        .find(|image| !image.is_file());
    let Some(missing) = missing else {
        return Some(folder.canonicalize().expect("a folder"));
    };
    // A test that skips itself in silence is worth nothing.
    assert!(
        std::env::var_os("FLIPSIDE_SKIP_GUEST").is_some(),
        "`{}` is missing: run `guest/build.sh --only mini`, or set FLIPSIDE_SKIP_GUEST to skip this test",
        missing.display()
    );
    println!("skipped: `{}` is missing", missing.display());
    None
}

/// One guest at a time, also for who runs all tests in one process.
static ONE: Mutex<()> = Mutex::new(());

/// What a test puts below flipside, to be broken.
#[derive(Default)]
pub(crate) struct Extras {
    /// Nodes of QEMU between the legs and their files: `FLIPSIDE_TEST_CHAIN`.
    pub(crate) chain: Option<String>,
    pub(crate) state_disk: Option<StateDisk>,
    /// Sizes of further, empty data disks: `data1`, `data2` and so on.
    pub(crate) data_disks: Vec<&'static str>,
    /// The network namespace in which server and machines are.
    pub(crate) namespace: Option<String>,
}

/// The laboratory.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) server: Server,
    pub(crate) port: u16,
    began: Instant,
    client: Option<Client>,
    watcher: Option<Watcher>,
    /// The file system of what flipside keeps of its systems, where it is one of its own.
    pub(crate) state_disk: Option<StateDisk>,
    keep: Option<tempfile::TempDir>,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// Makes a state directory and starts a server on it.
    pub(crate) fn new() -> Self {
        Self::with(|_| Extras::default())
    }

    /// As `new`, with what a test puts below flipside.
    pub(crate) fn with(extras: impl FnOnce(&Path) -> Extras) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        sweep();
        let keep = directory();
        std::fs::write(keep.path().join(OWNER), std::process::id().to_string()).expect("written");
        let dir = keep.path().to_owned();
        let extras = extras(&dir);
        let server = Server::new(&dir, extras.chain, extras.namespace);
        let mut lab = Self {
            port: free_port(),
            server,
            began: Instant::now(),
            client: None,
            watcher: Some(Watcher::start(&dir)),
            state_disk: extras.state_disk,
            keep: Some(keep),
            _alone: alone,
            dir,
        };
        std::fs::write(lab.dir.join("mini.Config"), CONFIG).expect("written");
        lab.server.start(None);
        lab
    }

    /// Makes a system of the small guest, boots it, checks it, and sends the client. None without the images.
    pub(crate) fn booted() -> Option<Self> {
        Self::booted_with(|_| Extras::default())
    }

    /// As `booted`, with what a test puts below flipside.
    pub(crate) fn booted_with(extras: impl FnOnce(&Path) -> Extras) -> Option<Self> {
        let images = images()?;
        let mut further = Vec::new();
        let mut lab = Self::with(|dir| {
            let mut extras = extras(dir);
            further = std::mem::take(&mut extras.data_disks);
            extras
        });
        let image = |name: &str| images.join(name).display().to_string();
        let (system, data) = (image("mini.raw"), image("mini-data.raw"));
        let publish = format!("{}:80", lab.port);
        let mut create = vec!["system", "create", NAME, "--system-disk", &system];
        create.extend(["--data-disk", &data]);
        create.extend(further.iter().flat_map(|size| ["--data-disk", size]));
        create.extend(["--memory", MEMORY, "--publish", &publish]);
        lab.ok(&create);
        lab.ok(&["system", "start", NAME]);
        lab.is_ready();
        lab.client = Some(Client::start(lab.port));
        Some(lab)
    }

    /// Waits until a system that was started serves and is ready for a session.
    #[track_caller]
    pub(crate) fn is_ready(&self) {
        until("the application answers after the boot", BOOT, || {
            client::ask(self.port, "/health", Duration::from_secs(5)).ok()
        });
        self.note("booted");
        // The agent answers early, but what boots still may run: readiness says when all is there.
        until("the readiness check passes", BOOT, || {
            let ended = self.run(&["check", NAME, "--config", &self.config()]);
            (ended.status == Some(0)).then_some(())
        });
    }

    /// The path of the configuration file.
    pub(crate) fn config(&self) -> String {
        self.dir.join("mini.Config").display().to_string()
    }

    /// Tells how far the test is; shown when it fails, or with `--no-capture`.
    pub(crate) fn note(&self, text: &str) {
        println!("[{:7.2}] {text}", self.began.elapsed().as_secs_f64());
    }

    // --- commands -------------------------------------------------------------------------------------------------

    /// A command of this laboratory's server, with a clean environment and no terminal.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.server.program());
        for name in ["FLIPSIDE_STATE_DIR", "FLIPSIDE_CRASH_AT", "FLIPSIDE_LOG"] {
            command.env_remove(name);
        }
        command
            .env("FLIPSIDE_SOCKET", self.server.socket())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args), COMMAND, args)
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.note(&format!("flipside {}", args.join(" ")));
        let ended = self.run(args);
        assert_eq!(
            ended.status,
            Some(0),
            "{args:?}\n{}{}",
            ended.out,
            ended.err
        );
        ended.out
    }

    /// Runs a command that must be refused with this exit status, saying all of this.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str], status: i32, says: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(
            ended.status,
            Some(status),
            "{args:?}\n{}{}",
            ended.out,
            ended.err
        );
        for text in says {
            assert!(
                ended.err.contains(text),
                "{args:?} does not say `{text}`:\n{}",
                ended.err
            );
        }
        ended.err
    }

    /// Runs a shell line on a side; fails if it does.
    #[track_caller]
    pub(crate) fn sh(&self, side: Option<&str>, line: &str) -> String {
        let ended = self.try_sh(side, line);
        assert_eq!(
            ended.status,
            Some(0),
            "{side:?} {line}\n{}{}",
            ended.out,
            ended.err
        );
        ended.out
    }

    /// Runs a shell line on a side.
    #[track_caller]
    pub(crate) fn try_sh(&self, side: Option<&str>, line: &str) -> Ended {
        let mut args = vec!["run", NAME];
        if let Some(side) = side {
            args.extend(["--side", side]);
        }
        args.extend(["--", "sh", "-c", line]);
        self.run(&args)
    }

    // --- looking --------------------------------------------------------------------------------------------------

    /// What the server says of the system.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        self.server.status().expect("the server answers")
    }

    /// Fails unless the session is here.
    #[track_caller]
    pub(crate) fn is_in(&self, state: UpgradeState, operational: OperationalState) -> Status {
        let status = self.status();
        assert_eq!(
            (status.upgrade_state, status.operational_state),
            (state, operational),
            "{:?}",
            status.problem
        );
        status
    }

    /// The client that never stops asking.
    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("the guest was booted")
    }

    /// The watcher of the legs.
    pub(crate) fn watcher(&self) -> &Watcher {
        self.watcher.as_ref().expect("until the end")
    }

    /// The boot id that the users see.
    #[track_caller]
    pub(crate) fn boot_id(&self) -> String {
        let page = client::ask(self.port, "/", Duration::from_secs(30)).expect("a page");
        let line = page.lines().find_map(|line| line.strip_prefix("boot "));
        line.expect("a boot id").to_owned()
    }

    /// Fails unless a request succeeds within this time.
    #[track_caller]
    pub(crate) fn serves(&self, within: Duration, when: &str) {
        let began = Instant::now();
        let last = loop {
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                break None;
            }
            match client::ask(self.port, "/health", left) {
                Ok(_) => return,
                Err(error) => {
                    self.note(&format!("{when}: {error}"));
                    moment(LOOK_EVERY);
                }
            }
            if began.elapsed() >= within {
                break Some(());
            }
        };
        panic!("production did not serve within {within:?} {when} {last:?}");
    }

    /// Waits until the Upgrade Side answers after a restart, with another boot id.
    #[track_caller]
    pub(crate) fn upgrade_side_is_up_again(&self, before: &str) {
        until("the Upgrade Side is up again", BOOT, || {
            let ended = self.try_sh(None, "cat /proc/sys/kernel/random/boot_id");
            (ended.status == Some(0) && ended.out.trim() != before).then_some(())
        });
    }

    // --- ends -----------------------------------------------------------------------------------------------------

    /// Brings the session to its end and the mirrors into sync, and checks that nothing was lost on the way.
    #[track_caller]
    pub(crate) fn finish(&self) -> Status {
        self.ok(&["finish", NAME, "--yes"]);
        let status = self.is_in(UpgradeState::Idle, OperationalState::Ready);
        assert_eq!(status.session, None);
        let status = self.duplex();
        // Fault 73: nothing of a session is left.
        let left = processes::leftovers(&self.dir);
        assert!(left.is_empty(), "{left:?}");
        status
    }

    /// Waits until every mirror is in sync.
    #[track_caller]
    pub(crate) fn duplex(&self) -> Status {
        self.ok(&["wait", NAME, "--duplex", "--timeout", "300"]);
        let status = self.status();
        for disk in &status.disks {
            assert_eq!(disk.mirror, MirrorStatus::None, "{}", disk.name);
        }
        self.nothing_is_lost();
        status
    }

    /// Checks that every write that was acknowledged to the client is in the guest's file.
    #[track_caller]
    pub(crate) fn nothing_is_lost(&self) {
        let acknowledged = self.client().acknowledged();
        let file = self.sh(Some("production"), "cat /srv/data/writes.log");
        let held: std::collections::HashSet<&str> = file
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        let lost: Vec<&String> = acknowledged
            .iter()
            .filter(|key| !held.contains(key.as_str()))
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
        self.note(&format!(
            "{} acknowledged writes are there",
            acknowledged.len()
        ));
    }

    /// Stops the system; then both legs of every disk must be the same, byte for byte.
    #[track_caller]
    pub(crate) fn stop_and_compare(&mut self) {
        let status = self.status();
        if let Some(client) = self.client.take() {
            let figures = client.stop();
            self.note(&figures);
        }
        self.ok(&["system", "stop", NAME, "--yes"]);
        assert!(!self.status().running);
        until("the machines have ended", Duration::from_secs(20), || {
            processes::machines(&self.dir).is_empty().then_some(())
        });
        for disk in &status.disks {
            let [a, b] = disk.legs.as_slice() else {
                panic!("{} has {} legs", disk.name, disk.legs.len());
            };
            let compared = legs::identical(&a.path, &b.path);
            self.note(&format!("{}: {compared} bytes are identical", disk.name));
        }
        self.watcher().all_is_well();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            self.tell();
        }
        if let Some(client) = self.client.take() {
            client.stop();
        }
        self.end();
        if let Some(watcher) = self.watcher.take() {
            watcher.stop();
        }
        drop(self.state_disk.take());
        let wanted = failed && std::env::var_os("FLIPSIDE_TEST_KEEP").is_some();
        if let Some(keep) = self.keep.take().filter(|_| wanted) {
            println!("kept: {}", keep.keep().display());
        }
    }
}

impl Lab {
    /// Ends the server, the guard and every machine.
    pub(crate) fn end(&mut self) {
        self.server.kill();
        processes::end_all(&self.dir);
    }

    /// Prints what helps to understand a failure.
    fn tell(&self) {
        for file in ["server.log", "systems/mini/guard.log"] {
            let text = std::fs::read_to_string(self.dir.join(file)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            println!("--- the end of {file}:\n{}", tail.join("\n"));
        }
        if let Ok(status) = self.server.status() {
            println!("--- {}: {:?}", status.line(), status.problem);
            let log = self
                .command(&["log", NAME])
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(80)..];
            println!("--- the end of the activity log:\n{}", tail.join("\n"));
        }
    }
}

/// Runs a command to its end, with a deadline.
#[track_caller]
pub(crate) fn ended(mut command: Command, limit: Duration, what: &[&str]) -> Ended {
    let mut out = tempfile::tempfile().expect("a file");
    let mut err = tempfile::tempfile().expect("a file");
    let handle = |file: &File| Stdio::from(file.try_clone().expect("a handle"));
    command.stdout(handle(&out)).stderr(handle(&err));
    let mut child = command.spawn().expect("the binary starts");
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().expect("our child");
            child.wait().expect("our child");
            break None;
        }
        moment(LOOK_EVERY);
    };
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().expect("a file");
        file.read_to_end(&mut bytes).expect("a file");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ended = Ended {
        status: status.and_then(|status| status.code()),
        out: read(&mut out),
        err: read(&mut err),
    };
    assert!(
        status.is_some(),
        "{what:?} did not end within {limit:?}\n{}{}",
        ended.out,
        ended.err
    );
    ended
}

/// Ends what a test left that was itself ended with no time to clean up.
fn sweep() {
    let entries = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR"));
    for dir in entries.into_iter().flatten().flatten().map(|e| e.path()) {
        let Ok(owner) = std::fs::read_to_string(dir.join(OWNER)) else {
            continue;
        };
        if !Path::new("/proc").join(&owner).join("exe").exists() {
            processes::end_all(&dir);
            std::fs::remove_dir_all(&dir).expect("ours");
        }
    }
}

/// A directory with a path so short that the sockets of machines fit into it.
fn directory() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("r").rand_bytes(5);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = if target.as_os_str().len() < 60 {
        builder.tempdir_in(target)
    } else {
        builder.tempdir()
    };
    made.expect("a directory")
}

/// A port below those that the kernel gives to outgoing connections.
pub(crate) fn free_port() -> u16 {
    let from = u16::try_from(std::process::id() % 9000).expect("small");
    (0..9000)
        .map(|step| 20_000 + (from + step) % 9000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

use super::*;
use crate::system::Options;
use flipside_model::{
    DiskName, DiskRole, DiskSpec, Firmware, LegPaths, NetworkSpec, SystemName, SystemSpec,
};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn system(dir: &Path) -> QemuSystem {
    let spec = SystemSpec {
        version: SystemSpec::VERSION,
        layout: SystemSpec::LAYOUT,
        name: SystemName::new("act").expect("valid"),
        uuid: uuid::Uuid::new_v4(),
        memory_mib: 64,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:f1:1b:01".to_owned(),
        publish: Vec::new(),
        enclosures: [dir.join("a"), dir.join("b")],
        disks: vec![DiskSpec {
            name: DiskName::new("system0").expect("valid"),
            role: DiskRole::System,
            size: 1 << 20,
            legs: LegPaths {
                a: dir.join("a/system0.raw"),
                b: dir.join("b/system0.raw"),
            },
        }],
    };
    QemuSystem::open(spec, dir, Options::default()).expect("opens")
}

/// Writes a script that may be run.
fn script(dir: &Path, text: &str) -> String {
    let path = dir.join("action.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    path.to_str().expect("UTF-8").to_owned()
}

fn request(program: &str, arguments: &[&str]) -> ActionRequest {
    let handle = uuid::Uuid::new_v4().as_u64_pair().0 >> 12;
    ActionRequest {
        handle,
        argv: std::iter::once(program)
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect(),
        env: vec![
            ("ACTIVE_UPGRADE_SIDE".to_owned(), "Upgrade".to_owned()),
            ("PATH".to_owned(), flipside_model::ACTION_PATH.to_owned()),
            (MARK.to_owned(), handle.to_string()),
        ],
        keep: 1000,
    }
}

async fn end(system: &QemuSystem, handle: u64) -> (String, String, i32) {
    let until = Instant::now() + PATIENCE;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let more = system.poll_on_host(handle).expect("polled");
        out.extend(more.out);
        err.extend(more.err);
        if let Some(exit) = more.exit {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return (text(&out), text(&err), exit);
        }
        assert!(Instant::now() < until, "it does not end");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(text: &str, arguments: &[&str]) -> (String, String, i32) {
    let dir = TempDir::new().expect("a directory");
    let system = system(dir.path());
    let request = request(&script(dir.path(), text), arguments);
    system.start_on_host(&request).await.expect("starts");
    // Twice is once.
    system.start_on_host(&request).await.expect("is there");
    let ended = end(&system, request.handle).await;
    assert!(
        !system.action_folder(request.handle).exists(),
        "nothing is left"
    );
    ended
}

// CA-09, CA-32, CA-34, CA-35, CA-38: arguments, environment, both streams and the exit value; security checklist 22, 23: no
// shell looks at a value, nothing of our environment, an own session, no file of ours, and its own directory.
#[tokio::test]
async fn an_action_gets_its_words_and_nothing_else() {
    let text = "echo \"$# [$1] [$2]\"; env | sort; ls /proc/self/fd | tr '\\n' ' '; pwd; ps -o sid= -p $$ >/dev/null 2>&1; \
                cut -d' ' -f6 /proc/$$/stat; echo told >&2; exit 3";
    let hostile = "$(touch /tmp/never) `x` ;";
    let (out, err, exit) = run(text, &[hostile, "b c"]).await;
    assert_eq!((err.as_str(), exit), ("told\n", 3));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], format!("2 [{hostile}] [b c]"));
    assert!(lines.contains(&"ACTIVE_UPGRADE_SIDE=Upgrade"));
    for line in &lines {
        let ours = ["CARGO", "HOME=", "RUST", "USER="];
        assert!(!ours.iter().any(|name| line.starts_with(name)), "{line}");
    }
    // 3 is the directory that `ls` reads.
    assert!(
        lines.iter().any(|l| l.starts_with("0 1 2 3 /")),
        "{lines:?}"
    );
    let session = lines.last().and_then(|l| l.parse::<i32>().ok());
    let own = fs::read_to_string("/proc/self/stat").expect("read");
    let own = own
        .rsplit(')')
        .next()
        .and_then(|r| r.split(' ').nth(4)?.parse().ok());
    assert_ne!(session, own);
    let none = run("true", &[]).await;
    assert_eq!(none, (String::new(), String::new(), 0));
}

// Fault 57: a gigabyte fills nothing and ends; what is kept is the beginning, and one byte more than asked for.
#[tokio::test]
async fn endless_output_is_cut_and_the_action_goes_on() {
    let (out, err, exit) = run(
        "printf 'begin\\n'; head -c 300000000 /dev/zero; echo end >&2; exit 5",
        &[],
    )
    .await;
    assert!(
        out.starts_with("begin\n") && out.len() == 1001,
        "{}",
        out.len()
    );
    assert_eq!((err.as_str(), exit), ("end\n", 5));
}

// CA-11: what an action starts in the background lives on, keeps nobody waiting, and is not ended by a closed pipe.
#[tokio::test]
async fn a_program_in_the_background_lives_on() {
    let dir = TempDir::new().expect("a directory");
    let system = system(dir.path());
    let text = "( while :; do echo tick; sleep 0.05; done ) & echo $! ; exit 0";
    let request = request(&script(dir.path(), text), &[]);
    system.start_on_host(&request).await.expect("starts");
    let (out, _, exit) = end(&system, request.handle).await;
    assert_eq!(exit, 0);
    // The first tick may come before the number.
    let child: i32 = out
        .lines()
        .find_map(|l| l.parse().ok())
        .expect("its number");
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        assert!(
            Path::new(&format!("/proc/{child}")).exists(),
            "it was ended"
        );
        tokio::time::sleep(PAUSE).await;
    }
    system.kill_on_host(request.handle).await.expect("ended");
    assert!(members(request.handle).is_empty());
}

// Fault 57: an action that ignores the request to end, and a child of a child in a session of its own, are ended; what
// was printed is kept.
#[tokio::test]
async fn a_stubborn_action_is_ended_with_all_its_children() {
    let dir = TempDir::new().expect("a directory");
    let system = system(dir.path());
    let text = "trap '' TERM; setsid sh -c \"trap '' TERM; ( trap '' TERM; sleep 1000 ) & sleep 1000\" & echo begun; sleep 1000";
    let request = request(&script(dir.path(), text), &[]);
    system.start_on_host(&request).await.expect("starts");
    let until = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    // The wrapper, its readers, the action, and its children.
    while out.is_empty() || members(request.handle).len() < 8 {
        assert!(Instant::now() < until, "it does not begin");
        out.extend(system.poll_on_host(request.handle).expect("polled").out);
        tokio::time::sleep(PAUSE).await;
    }
    system.kill_on_host(request.handle).await.expect("ended");
    assert_eq!(members(request.handle), [0; 0]);
    let (_, _, exit) = end(&system, request.handle).await;
    assert!(exit > 128, "{exit}");
    assert_eq!(out, b"begun\n");
    system
        .kill_on_host(request.handle)
        .await
        .expect("twice is once");
}

// Fault 58: another life of the server finds it by its number and is told everything; what never was is Absent.
#[tokio::test]
async fn another_server_follows_it_on() {
    let dir = TempDir::new().expect("a directory");
    let first = system(dir.path());
    let go = dir.path().join("go");
    let text = format!(
        "echo one; until [ -e {} ]; do sleep 0.05; done; echo two; exit 4",
        go.display()
    );
    let request = request(&script(dir.path(), &text), &[]);
    first.start_on_host(&request).await.expect("starts");
    let until = Instant::now() + PATIENCE;
    while first
        .poll_on_host(request.handle)
        .expect("polled")
        .out
        .is_empty()
    {
        assert!(Instant::now() < until, "it does not begin");
        tokio::time::sleep(PAUSE).await;
    }
    drop(first);
    let second = system(dir.path());
    fs::write(&go, "").expect("written");
    let (out, _, exit) = end(&second, request.handle).await;
    assert_eq!((out.as_str(), exit), ("one\ntwo\n", 4));
    let error = second.poll_on_host(request.handle).expect_err("gone");
    assert_eq!(error.kind, PortErrorKind::Absent);
}

// Security checklist 22: not there, not executable, changeable by others itself or through a directory on its way.
#[test]
fn a_program_that_others_could_change_is_told() {
    let dir = TempDir::new().expect("a directory");
    let path = script(dir.path(), "true");
    let look = || describe(&path).expect("described");
    let good = look();
    assert!(
        good.executable && good.flaw.is_none() && good.sha256.len() == 64,
        "{good:?}"
    );
    fs::write(&path, "#!/bin/sh\nfalse\n").expect("written");
    assert_ne!(look().sha256, good.sha256);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    set(Path::new(&path), 0o757);
    assert!(look().flaw.is_some_and(|f| f.contains("action.sh")));
    set(Path::new(&path), 0o775);
    assert!(look().flaw.is_some());
    set(Path::new(&path), 0o644);
    assert!(!look().executable);
    set(Path::new(&path), 0o755);
    set(dir.path(), 0o777);
    assert!(look().flaw.is_some());
    set(dir.path(), 0o700);
    assert!(look().flaw.is_none());
    // A link is judged by both its places.
    let link = dir.path().join("open/link");
    fs::create_dir(link.parent().expect("a parent")).expect("made");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    set(&dir.path().join("open"), 0o777);
    let linked = describe(link.to_str().expect("UTF-8")).expect("described");
    assert!(linked.flaw.is_some_and(|f| f.contains("open")));
    let missing = describe("/no/such/file").expect("described");
    assert_eq!(missing.kind, FileKind::Missing);
    assert_eq!(
        describe("/usr").expect("described").kind,
        FileKind::Directory
    );
    assert!(describe("relative").is_err());
}

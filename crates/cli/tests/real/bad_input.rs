//! What is wrong is told clearly, ends with the right status, and changes nothing. No guest is booted.

use super::{Lab, NAME, ended};
use flipside_model::{OperationalState, UpgradeState};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The exit statuses of design section 6.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

/// A refusal is immediate; a busy host is not.
const QUICK: Duration = Duration::from_secs(60);

/// Everything in the state directory but the logs of this test.
fn everything(lab: &Lab) -> BTreeMap<PathBuf, u64> {
    fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, u64>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let meta = std::fs::symlink_metadata(entry.path()).expect("there");
            found.insert(entry.path(), if meta.is_dir() { 0 } else { meta.len() });
            if meta.is_dir() {
                collect(&entry.path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&lab.dir, &mut found);
    found.remove(&lab.dir.join("server.log"));
    found
}

/// Runs what must be refused, and checks that it left nothing.
#[track_caller]
fn nothing_comes_of(lab: &Lab, args: &[&str], status: i32, says: &[&str]) {
    let before = everything(lab);
    let said = lab.refused(args, status, says);
    lab.note(&format!("{status} {args:?}\n{said}"));
    assert!(said.starts_with("error: "), "{args:?}: {said}");
    assert_eq!(everything(lab), before, "{args:?} left something behind");
}

fn made(what: &mut Command) {
    let output = what.output().expect("the program starts");
    assert!(output.status.success(), "{what:?}: {output:?}");
}

#[test]
fn bad_input() {
    let mut lab = Lab::new();
    let work = lab.dir.join("work");
    std::fs::create_dir(&work).expect("made");
    let path = |name: &str| work.join(name).display().to_string();
    let small = path("small.raw");
    std::fs::write(&small, vec![7; 1 << 20]).expect("written");

    systems_that_do_not_exist(&lab);
    images(&lab, &work, &small);
    enclosures(&lab, &work, &small);
    ports(&lab, &small);
    a_full_disk(&lab, &work, &small);
    configurations(&lab);
    a_second_server(&lab);
    a_system_that_rests(&mut lab, &small);
}

fn systems_that_do_not_exist(lab: &Lab) {
    for args in [
        &["status", "nosuch"][..],
        &["check", "nosuch"],
        &["split", "nosuch"],
        &["merge", "nosuch", "--yes"],
        &["commit", "nosuch", "--yes"],
        &["abort", "nosuch", "--yes"],
        &["finish", "nosuch"],
        &["retry", "nosuch"],
        &["wait", "nosuch", "--duplex"],
        &["log", "nosuch"],
        &["restart", "nosuch", "--side", "upgrade"],
        &["system", "start", "nosuch"],
        &["system", "stop", "nosuch", "--yes"],
        &["system", "show", "nosuch"],
        &["system", "delete", "nosuch", "--yes"],
    ] {
        nothing_comes_of(lab, args, USAGE, &["nosuch", "advice: "]);
    }
    nothing_comes_of(lab, &["run", "nosuch", "--", "true"], 125, &["nosuch"]);
}

fn create<'a>(image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["system", "create", NAME, "--system-disk", image];
    args.extend_from_slice(more);
    args
}

fn images(lab: &Lab, work: &Path, small: &str) {
    let path = |name: &str| work.join(name).display().to_string();
    nothing_comes_of(
        lab,
        &create(&path("none"), &[]),
        USAGE,
        &["none", "does not exist"],
    );
    nothing_comes_of(lab, &create(&path(""), &[]), FAILED, &["is a directory"]);
    let text = path("text");
    std::fs::write(&text, "this is no disk\n").expect("written");
    nothing_comes_of(lab, &create(&text, &[]), FAILED, &["512-byte sectors"]);
    let empty = path("empty");
    std::fs::write(&empty, "").expect("written");
    nothing_comes_of(lab, &create(&empty, &[]), FAILED, &["is empty"]);

    let backed = path("backed.qcow2");
    made(Command::new("qemu-img").args([
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", small, &backed,
    ]));
    nothing_comes_of(lab, &create(&backed, &[]), FAILED, &["backing file"]);
    let whole = path("whole.qcow2");
    made(Command::new("qemu-img").args(["convert", "-O", "qcow2", small, &whole]));
    let bytes = std::fs::read(&whole).expect("read");
    for (name, length) in [("head.qcow2", 60), ("half.qcow2", bytes.len() / 2)] {
        let cut = path(name);
        std::fs::write(&cut, &bytes[..length]).expect("written");
        nothing_comes_of(lab, &create(&cut, &[]), FAILED, &[name]);
    }
    // A good system disk does not make up for a bad data disk.
    nothing_comes_of(
        lab,
        &create(small, &["--data-disk", &backed]),
        FAILED,
        &["backing file"],
    );
    nothing_comes_of(lab, &create(small, &["--data-disk", "5X"]), USAGE, &["5X"]);
}

fn enclosures(lab: &Lab, work: &Path, small: &str) {
    let (one, inside, link) = (work.join("one"), work.join("one/inside"), work.join("link"));
    std::fs::create_dir_all(&inside).expect("made");
    std::os::unix::fs::symlink(&one, &link).expect("made");
    let text = |path: &Path| path.display().to_string();
    let (one, inside, link) = (text(&one), text(&inside), text(&link));
    for (a, b, status, says) in [
        (&one, &one, USAGE, "same directory"),
        (&one, &link, USAGE, "same directory"),
        (&one, &inside, USAGE, "lies inside"),
        (&inside, &one, USAGE, "lies inside"),
    ] {
        let args = create(small, &["--enclosure", a, "--enclosure", b]);
        nothing_comes_of(lab, &args, status, &[says]);
    }
    nothing_comes_of(
        lab,
        &create(small, &["--enclosure", &one]),
        USAGE,
        &["given twice"],
    );
}

fn ports(lab: &Lab, small: &str) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let used = format!("{port}:80");
    nothing_comes_of(
        lab,
        &create(small, &["--publish", &used]),
        FAILED,
        &[&port.to_string(), "in use", "advice: "],
    );
    drop(listener);
    let twice = create(small, &["--publish", &used, "--publish", &used]);
    nothing_comes_of(lab, &twice, USAGE, &["published twice"]);
    nothing_comes_of(lab, &create(small, &["--publish", "80"]), USAGE, &["80"]);
}

/// A file system with too little room, if this user may mount one.
fn a_full_disk(lab: &Lab, work: &Path, small: &str) {
    let full = work.join("full");
    std::fs::create_dir(&full).expect("made");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=100M", "flipside-test"])
        .arg(&full)
        .output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: a full disk, for nothing can be mounted here: {mounted:?}");
        return;
    }
    let _unmounted = Mounted(full.clone());
    let (a, b) = (full.join("a"), full.join("b"));
    std::fs::create_dir(&a).expect("made");
    std::fs::create_dir(&b).expect("made");
    let (a, b) = (a.display().to_string(), b.display().to_string());
    let big = work.join("big.raw");
    std::fs::write(&big, vec![9; 80 << 20]).expect("written");
    let big = big.display().to_string();
    let enclosures = ["--enclosure", &a, "--enclosure", &b];
    // The image itself, and a data disk after a system disk that was made already.
    nothing_comes_of(lab, &create(&big, &enclosures), FAILED, &["space"]);
    let more = [&enclosures[..], &["--data-disk", &big]].concat();
    nothing_comes_of(lab, &create(small, &more), FAILED, &["space"]);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn configurations(lab: &Lab) {
    for (name, text, says) in [
        (
            "key.Config",
            "version = 1\ntitle = \"x\"\nservises = []\n",
            "key.Config:3",
        ),
        (
            "newer.Config",
            "version = 999\ntitle = \"x\"\n",
            "newer.Config:1",
        ),
        ("none.Config", "title = \"x\"\n", "version"),
        (
            "broken.Config",
            "version = 1\ntitle = \n",
            "broken.Config:2",
        ),
    ] {
        let file = lab.dir.join(name);
        std::fs::write(&file, text).expect("written");
        let file = file.display().to_string();
        nothing_comes_of(lab, &["config", "check", &file], USAGE, &[says]);
    }
}

// Fault 5.
fn a_second_server(lab: &Lab) {
    let other = lab.dir.join("other.sock").display().to_string();
    let dir = lab.dir.display().to_string();
    let serve = [
        "serve",
        "--state-dir",
        &dir,
        "--listen",
        "127.0.0.1:0",
        "--socket",
    ];
    for (socket, says) in [
        (other.as_str(), "another flipside server"),
        (&lab.server.socket().display().to_string(), "another"),
    ] {
        let args = [&serve[..], &[socket]].concat();
        let end = ended(lab.command(&args), QUICK, &args);
        assert_eq!(end.status, Some(FAILED), "{}", end.err);
        assert!(end.err.contains(says), "{}", end.err);
        lab.note(&end.err);
        assert!(!Path::new(&other).exists());
        assert!(
            lab.server.get("/v1/version").is_ok(),
            "the first one serves on"
        );
    }
}

/// A system that was created and never started: what it does not allow, and what does not even ask.
fn a_system_that_rests(lab: &mut Lab, small: &str) {
    let before = everything(lab);
    lab.ok(&create(small, &["--data-disk", "1M"]));
    let made = everything(lab);
    lab.refused(&create(small, &[]), FAILED, &["already"]);
    for file in ["key.Config", "newer.Config"] {
        let config = lab.dir.join(file).display().to_string();
        for verb in ["check", "split"] {
            lab.refused(
                &[verb, NAME, "--config", &config],
                USAGE,
                &[&format!("{file}:")],
            );
        }
    }
    for verb in ["merge", "commit", "abort", "finish"] {
        let said = lab.refused(
            &[verb, NAME, "--yes"],
            REFUSED,
            &["is refused in Idle | Ready"],
        );
        assert!(
            said.contains("allowed now: `check`, `retry`, `split`"),
            "{said}"
        );
    }
    for verb in ["merge", "commit", "abort"] {
        lab.refused(&[verb, "--yes"], USAGE, &["system"]);
        lab.refused(&[verb, NAME], USAGE, &["--yes"]);
    }
    for verb in ["stop", "delete"] {
        lab.refused(&["system", verb, NAME], USAGE, &["--yes"]);
    }
    lab.refused(&["restart", NAME, "--side", "upgrade"], REFUSED, &["Idle"]);
    lab.refused(
        &["restart", NAME, "--side", "production"],
        REFUSED,
        &["never"],
    );
    lab.refused(&["run", NAME, "--", "true"], 125, &["Split"]);
    lab.refused(&["wait", NAME, "--duplex"], FAILED, &["not running"]);
    lab.is_in(UpgradeState::Idle, OperationalState::Ready);
    let same = |mut all: BTreeMap<PathBuf, u64>| {
        all.retain(|path, _| !path.components().any(|part| part.as_os_str() == "journal"));
        all
    };
    assert_eq!(
        same(everything(lab)),
        same(made),
        "refusals left something behind"
    );
    lab.ok(&["system", "delete", NAME, "--yes"]);
    let mut after = everything(lab);
    // The directories of all systems stay.
    after.retain(|path, _| before.contains_key(path) || !path.is_dir());
    assert_eq!(after, before);
}

//! A session seen from its Upgrade Side: SSH and console, help and log, partner states through restarts, a panic and a
//! shutdown, the CD drive, dump files.

use crate::READY;
use crate::real::figures::Figures;
use crate::real::{BOOT, Ended, Lab, NAME, until};
use crate::split;
use flipside_model::{Dump, PartnerState, UpgradeState as S};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The monitor looks four times a second; a busy host needs longer.
const NOTICED: Duration = Duration::from_secs(60);

/// A shutdown of systemd under emulation.
const DOWN: Duration = Duration::from_secs(120);

/// Runs `flipside ssh` with a key of the laboratory's and host keys kept there.
fn ssh(lab: &Lab, side: &str, command: &str) -> Ended {
    let key = lab.dir.join("key").display().to_string();
    let line = format!(
        "HOME={0} XDG_STATE_HOME={0} exec \"$FLIPSIDE\" ssh {NAME} --side {side} -- -i {key} -o BatchMode=yes {command}",
        lab.dir.join("home").display()
    );
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", &line])
        .env("FLIPSIDE", lab.server.program())
        .env("FLIPSIDE_SOCKET", lab.server.socket())
        .stdin(Stdio::null());
    let output = shell.output().expect("runs");
    Ended {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Makes a key that the guest's root accepts, and starts its SSH server, before the split: then both sides have them.
fn open_ssh(lab: &Lab) {
    let key = lab.dir.join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .expect("ssh-keygen runs");
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("a key");
    let line = format!(
        "mkdir -p -m 700 ~root/.ssh && echo '{}' >~root/.ssh/authorized_keys && systemctl start ssh.service",
        public.trim()
    );
    lab.sh(Some("production"), &line);
}

/// The image of a disc that holds nothing but a word that tells it from others.
fn disc(lab: &Lab, name: &str) -> String {
    let mut bytes = vec![0; 400 * 2048];
    bytes[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
    bytes[16 * 2048 + 40..][..name.len()].copy_from_slice(name.as_bytes());
    let path = lab.dir.join(name);
    std::fs::write(&path, bytes).expect("written");
    path.display().to_string()
}

/// What the guest reads as the name of the disc.
fn disc_in(lab: &Lab, side: &str) -> String {
    let line = "modprobe sr_mod; udevadm settle; dd if=/dev/sr0 bs=1 skip=32808 count=7 2>/dev/null || echo none";
    lab.sh(Some(side), line)
        .trim_matches(['\0', '\n'])
        .to_owned()
}

/// Everything that the log has said of the partner, in order.
fn partners(lab: &Lab) -> Vec<String> {
    let entries = lab.ok(&["log", NAME, "--json"]);
    let lines = entries.lines().filter_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = value["text"].as_str()?.to_owned();
        text.strip_prefix("Partner: ").map(str::to_owned)
    });
    lines.collect()
}

#[track_caller]
fn partner_is(lab: &Lab, state: PartnerState, within: Duration) {
    until(&format!("the partner is {state}"), within, || {
        (lab.status().partner_state == Some(state)).then_some(())
    });
}

/// The states from one place in the list of them on contain these, in this order.
#[track_caller]
fn passed_through(told: &[String], wanted: &[&str]) {
    let mut rest = told.iter();
    for state in wanted {
        assert!(
            rest.any(|t| t == state),
            "no `{state}` in its place: {told:?}"
        );
    }
}

/// An open console, and what it has shown.
struct Console {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    fn open(lab: &Lab) -> Self {
        let mut child = lab
            .command(&["console", NAME])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut out = child.stdout.take().expect("piped");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut chunk) {
                ear.lock().expect("whole").extend(&chunk[..read]);
            }
        });
        Self { child, shown }
    }

    fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(text.as_bytes()).expect("typed");
    }

    #[track_caller]
    fn shows(&self, text: &str, within: Duration) {
        until(&format!("the console shows `{text}`"), within, || {
            let shown = self.shown.lock().expect("whole");
            String::from_utf8_lossy(&shown).contains(text).then_some(())
        });
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dumps(lab: &Lab) -> Vec<Dump> {
    let text = lab.ok(&["dumps", NAME, "--json"]);
    let dump = |line: &str| serde_json::from_str(line).expect("a dump");
    text.lines().map(dump).collect()
}

fn begins_with(path: &Path, word: &[u8]) -> bool {
    let mut begin = vec![0; word.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == word
}

// US-09, US-12, US-13, US-17, US-20, US-22, US-24, US-31, PS-02, PS-04, PS-06, PS-08, PS-10, PS-12, PS-14, PS-15, PS-17, AB-11,
// AB-12, VC-03, VC-07.
#[test]
#[ignore = "a session with three boots under emulation, six minutes: `./dev test --full`"]
fn the_upgrade_side_in_a_session() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    open_ssh(&lab);
    lab.refused(
        &["media", "insert", &lab.config(), NAME],
        1,
        &["neither an ISO 9660 nor a UDF"],
    );
    lab.ok(&["media", "insert", &disc(&lab, "one.iso"), NAME]);
    assert_eq!(disc_in(&lab, "production"), "one.iso");
    split(&lab, &mut figures);
    partner_is(&lab, PartnerState::OsUp, NOTICED);

    lab.note("SSH to both sides, on the private cards");
    let words = "'touch /run/by-ssh && cat /proc/sys/kernel/hostname'";
    let ended = ssh(&lab, "upgrade", words);
    assert_eq!(
        (ended.status, ended.out.trim()),
        (Some(0), "mini"),
        "{}",
        ended.err
    );
    assert_eq!(lab.try_sh(None, "test -e /run/by-ssh").status, Some(0));
    let there = lab.try_sh(Some("production"), "test -e /run/by-ssh");
    assert_eq!(there.status, Some(1), "it was the Upgrade Side");
    assert_eq!(ssh(&lab, "production", "true").status, Some(0));
    assert_eq!(ssh(&lab, "upgrade", "'exit 7'").status, Some(7));
    assert!(
        lab.ok(&["ssh", NAME, "--print"])
            .contains("Upgrade Side: SSH at 127.0.0.1 port ")
    );

    lab.note("help, log, what to verify");
    until("the help is shown", NOTICED, || {
        let help = lab.try_sh(None, "flipside-help");
        help.out
            .contains("Do not shut this side down")
            .then_some(())
    });
    assert!(
        lab.sh(None, "flipside-log")
            .contains("Fork the running system")
    );
    let motd = lab.sh(None, "cat /run/motd.d/flipside");
    assert!(motd.contains("This is the Upgrade Side of mini"));
    assert_eq!(
        lab.try_sh(Some("production"), "command -v flipside-log")
            .status,
        Some(127)
    );
    let list = lab.ok(&["verify-list", NAME]);
    assert!(
        list.contains("1 held") && list.contains("--verify"),
        "{list}"
    );
    let condition = lab.ok(&["status", NAME, "--side", "upgrade"]);
    assert!(condition.contains("failed units     none"), "{condition}");

    lab.note("the CD drive");
    assert_eq!(disc_in(&lab, "upgrade"), "none", "its drive is empty");
    lab.ok(&["media", "insert", &disc(&lab, "two.iso"), NAME]);
    assert_eq!(disc_in(&lab, "upgrade"), "two.iso");
    assert_eq!(disc_in(&lab, "production"), "one.iso");
    lab.refused(
        &["media", "eject", NAME, "--side", "production"],
        3,
        &["in Split"],
    );
    lab.sh(None, "(sleep 1000 </dev/sr0 >/dev/null 2>&1 &) ; sleep 0.5");
    lab.refused(&["media", "eject", NAME], 1, &["locked the drive"]);
    lab.ok(&["media", "eject", NAME, "--force"]);
    lab.sh(None, "pkill -x sleep; true");

    lab.note("a restart from inside, seen on the console");
    let mut console = Console::open(&lab);
    console.type_in("\n");
    console.shows("login:", NOTICED);
    lab.refused(&["console", NAME], 1, &["open already"]);
    let before = partners(&lab).len();
    let boot_id = lab.sh(None, "cat /proc/sys/kernel/random/boot_id");
    let _ = lab.try_sh(None, "systemctl --no-block reboot");
    lab.upgrade_side_is_up_again(boot_id.trim());
    partner_is(&lab, PartnerState::OsUp, NOTICED);
    console.shows("flipside: this Upgrade Side is told to restart", NOTICED);
    drop(console);
    passed_through(
        &partners(&lab)[before..],
        &["OS Rebooting", "BIOS POST", "OS Booting", "OS Up"],
    );
    lab.is_in(S::Split, READY);
    until("the help is shown again", NOTICED, || {
        let help = lab.try_sh(None, "flipside-help");
        help.out
            .contains("Do not shut this side down")
            .then_some(())
    });
    lab.refused(
        &["keys", "ctrl-alt-del", NAME, "--side", "production"],
        3,
        &["never restarted"],
    );

    lab.note("a panic");
    let before = partners(&lab).len();
    let _ = lab.try_sh(
        None,
        "echo 1 >/proc/sys/kernel/sysrq; (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
    );
    until("the crash is told", NOTICED, || {
        partners(&lab)[before..]
            .iter()
            .any(|p| p == "State Sensitive Recovery: NMI issued")
            .then_some(())
    });
    partner_is(&lab, PartnerState::OsUp, BOOT);
    let kept = dumps(&lab);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].name, "Memory1.dmp");
    // A compressed kdump in its flattened form, as QEMU writes it and `crash` reads it.
    assert!(begins_with(&kept[0].path, b"makedumpfile"), "{kept:?}");
    lab.note(&format!("the memory was saved in {} bytes", kept[0].bytes));
    let log = lab.ok(&["log", NAME, "--severity", "Warning"]);
    assert!(
        log.contains("sysrq triggered crash"),
        "the console's end: {log}"
    );

    lab.note("the abort collects what crashes left");
    lab.sh(None, "mkdir -p /var/crash && head -c 5000000 /dev/urandom >/var/crash/app.core && md5sum /var/crash/app.core");
    lab.ok(&["abort", NAME, "--yes"]);
    lab.is_in(S::Abort, READY);
    let names: Vec<String> = dumps(&lab).into_iter().map(|d| d.name).collect();
    assert_eq!(names, ["Memory1.dmp", "Crash1-app.core"]);
    let crash = dumps(&lab).pop().expect("it");
    assert_eq!(crash.bytes, 5_000_000);
    lab.finish();
    assert_eq!(disc_in(&lab, "production"), "one.iso");

    lab.note("a shutdown");
    split(&lab, &mut figures);
    let before = partners(&lab).len();
    until("it announces", NOTICED, || {
        (lab.try_sh(None, "systemctl is-active -q flipside-announce")
            .status
            == Some(0))
        .then_some(())
    });
    let _ = lab.try_sh(None, "systemctl --no-block poweroff");
    partner_is(&lab, PartnerState::DcOn, DOWN);
    passed_through(&partners(&lab)[before..], &["OS Shutting Down", "DC On"]);
    lab.refused(&["merge", NAME, "--yes"], 1, &["flipside abort"]);
    lab.ok(&["abort", NAME, "--yes"]);
    lab.finish();
    assert_eq!(dumps(&lab).len(), 2, "dump files outlive sessions");
    lab.stop_and_compare();
}

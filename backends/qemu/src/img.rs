//! Runs `qemu-img`, always with absolute paths, written-out formats and a deadline.

use flipside_platform::{PortError, PortErrorKind, PortResult};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long making an empty image may take: it writes a few hundred KiB.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Prepares `qemu-img` with nothing of our environment and no way to outlive the call.
pub(crate) fn command() -> Command {
    let mut command = Command::new("qemu-img");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Says that `qemu-img` is not there, or what else kept it from starting.
pub(crate) fn not_started(error: &std::io::Error) -> PortError {
    PortError::failed("cannot start `qemu-img`")
        .because(error)
        .advise("Install it (Debian: qemu-utils)")
}

/// Makes a port error of what `qemu-img` complained about.
pub(crate) fn refused(what: &str, path: &Path, complaint: &[u8]) -> PortError {
    let text = String::from_utf8_lossy(complaint);
    let kind = if text.contains("No space left") {
        PortErrorKind::NoSpace
    } else {
        PortErrorKind::Failed
    };
    let mut failed = PortError::new(kind, format!("cannot {what} `{}`", path.display()))
        .about(path.display().to_string());
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    failed.causes = lines
        .take(5)
        .map(|l| l.chars().take(400).collect())
        .collect();
    failed
}

/// Makes an empty qcow2 that refers to no other file. One that exists is overwritten.
pub(crate) async fn create_empty(path: &Path, size: u64) -> PortResult<()> {
    let mut command = command();
    command
        .args(["create", "-q", "-f", "qcow2", "--"])
        .arg(path)
        .arg(size.to_string());
    let made = tokio::time::timeout(CREATE_TIMEOUT, command.output()).await;
    let output = match made {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(not_started(&e)),
        Err(_) => {
            return Err(PortError::timed_out(format!(
                "making `{}` did not end in time",
                path.display()
            )));
        }
    };
    if !output.status.success() {
        return Err(refused("make", path, &output.stderr));
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| crate::error::file(&e, "close", path))
}

/// Lets the file of an overlay end where its window ends, without using space: QEMU wants it to be there.
pub(crate) fn bound(path: &Path, limit: u64) -> PortResult<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| {
        let long = file.metadata()?.len().max(limit);
        file.set_len(long)
    })
    .map_err(|e| crate::error::file(&e, "bound", path))
}

/// How long checking an image may take: it reads the tables only, about 1 GiB of them for the largest disk.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);

/// What `qemu-img check` ends with when clusters are only lost, which harms nobody who reads.
const LEAKS: i32 = 3;

/// Refuses a qcow2 image whose tables lead nowhere. A conversion would not: it takes what was cut off for zeroes.
pub(crate) async fn check_whole(path: &Path) -> PortResult<()> {
    let mut command = command();
    command.args(["check", "-f", "qcow2", "--"]).arg(path);
    let output = match tokio::time::timeout(CHECK_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(not_started(&e)),
        Err(_) => {
            let late = format!("checking `{}` did not end in time", path.display());
            return Err(PortError::timed_out(late));
        }
    };
    if output.status.success() || output.status.code() == Some(LEAKS) {
        return Ok(());
    }
    let mut failure = refused("use", path, &output.stderr);
    failure.message = format!("the image `{}` is damaged or cut short", path.display());
    Err(failure.advise("Check how it was copied; `qemu-img check` tells more"))
}

/// How long looking at a file may take: it reads nothing but its size.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Refuses a leg that some QEMU writes to. `qemu-img` needs the shared lock for that, as any other reader.
pub(crate) async fn check_unused(path: &Path) -> PortResult<()> {
    let mut command = command();
    command
        .args(["info", "-f", "raw", "--output=json", "--"])
        .arg(path);
    let output = match tokio::time::timeout(LOOK_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(not_started(&e)),
        Err(_) => {
            let late = format!("looking at `{}` did not end in time", path.display());
            return Err(PortError::timed_out(late));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let mut failure = refused("use", path, &output.stderr);
    if failure.causes.iter().any(|cause| cause.contains("lock")) {
        failure.kind = PortErrorKind::InUse;
        failure.advice = Some("Another process uses the file; end it".into());
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{LegOpen, leg_node, overlay_node};
    use flipside_model::{DiskName, Leg};
    use serde_json::Value;

    const MIB: u64 = 1 << 20;

    /// Runs `qemu-io` on a node: QEMU's own block layer without a machine.
    fn io(node: &Value, commands: &[&str]) -> String {
        let mut command = std::process::Command::new("qemu-io");
        for words in commands {
            command.args(["-c", words]);
        }
        let output = command
            .arg(format!("json:{node}"))
            .output()
            .expect("qemu-io");
        let (out, err) = (output.stdout, output.stderr);
        format!(
            "{}{}",
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&err)
        )
    }

    // Design 3.5: the copy of a rehearsal takes so much and no more, says so to who writes, and stays readable; the leg below
    // is not touched by any of it.
    #[tokio::test]
    async fn a_bounded_copy_fails_writes_when_it_is_full_and_spares_the_leg() {
        let dir = tempfile::tempdir().expect("a directory");
        let (leg, copy) = (dir.path().join("leg.raw"), dir.path().join("copy.qcow2"));
        std::fs::write(&leg, vec![7; 64 << 20]).expect("written");
        create_empty(&copy, 64 * MIB).await.expect("made");
        bound(&copy, 16 * MIB).expect("bounded");
        bound(&copy, MIB).expect("never cut");
        assert_eq!(std::fs::metadata(&copy).expect("there").len(), 16 * MIB);
        let disk = DiskName::new("data0").expect("valid");
        let open = LegOpen {
            path: &leg,
            direct: false,
            read_only: true,
            waits: false,
            fault: None,
        };
        let mut node = overlay_node(&disk, Leg::B, &copy, Some(16 * MIB));
        node["backing"] = leg_node(&disk, Leg::B, open);
        let told = io(
            &node,
            &[
                "write -P 9 0 8M",
                "write -P 9 8M 32M",
                "read -P 9 0 8M",
                "read -P 7 60M 1M",
            ],
        );
        assert!(told.contains("No space left on device"), "{told}");
        assert!(told.contains("wrote 8388608/8388608"), "{told}");
        assert!(!told.contains("Pattern verification failed"), "{told}");
        assert_eq!(told.matches("read ").count(), 2, "{told}");
        let held = std::fs::metadata(&copy).expect("there").len();
        assert_eq!(held, 16 * MIB, "it did not grow");
        let below = std::fs::read(&leg).expect("read");
        assert!(below.iter().all(|byte| *byte == 7), "the leg was written");
        // Without a bound it grows.
        create_empty(&copy, 64 * MIB).await.expect("made");
        let mut node = overlay_node(&disk, Leg::B, &copy, None);
        node["backing"] = leg_node(&disk, Leg::B, open);
        let told = io(&node, &["write -P 9 0 40M"]);
        assert!(told.contains("wrote 41943040/41943040"), "{told}");
    }
}

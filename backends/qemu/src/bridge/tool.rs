//! Runs `ip`, `bridge` and `nft`: argument vectors, with nothing of our environment and a deadline.

use flipside_platform::{PortError, PortErrorKind, PortResult};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long one of them may take: each is a few messages to the kernel, which may wait for others that change links.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What may be done about a missing right.
const RIGHTS: &str = "run `flipside serve` as root, or give its service `AmbientCapabilities=CAP_NET_ADMIN`; \
                      `--network user` needs no right";

/// Runs a program with this input; returns what it printed, or what it complained about.
pub(super) async fn run(program: &str, arguments: &[&str], input: &str) -> PortResult<String> {
    let what = || format!("`{program} {}` failed", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            PortError::failed(format!("cannot start `{program}`"))
                .because(&e)
                .advise("install it (Debian: iproute2, nftables)")
        })?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read all says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TIMEOUT, talk)
        .await
        .map_err(|_| PortError::timed_out(format!("`{program}` does not end")))?
        .map_err(|e| PortError::failed(what()).because(&e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut failed = PortError::new(kind_of(&said), what());
    failed.causes = said
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .take(3)
        .map(|l| l.chars().take(300).collect())
        .collect();
    Err(if said.contains("Operation not permitted") {
        failed.advise(RIGHTS)
    } else {
        failed
    })
}

fn kind_of(said: &str) -> PortErrorKind {
    if said.contains("busy") || said.contains("File exists") {
        PortErrorKind::InUse
    } else if said.contains("does not exist") || said.contains("Cannot find device") {
        PortErrorKind::Absent
    } else {
        PortErrorKind::Failed
    }
}

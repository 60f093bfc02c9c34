//! The host port: what readiness asks of the host.

use crate::accel;
use crate::error;
use crate::host_action;
use crate::layout::Accelerator;
use crate::leg_file::leg_problem;
use crate::system::QemuSystem;
use async_trait::async_trait;
use flipside_model::{FileView, Leg};
use flipside_platform::{
    ActionRequest, ExecOutput, HostFacts, HostPort, LegChange, LegPort, PortError, PortResult,
};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long QEMU may take to say its version or its drivers: it opens nothing.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The oldest QEMU whose fork and swap were measured.
const OLDEST: (u32, u32) = (7, 2);

#[async_trait]
impl HostPort for QemuSystem {
    async fn facts(&self) -> PortResult<HostFacts> {
        let inner = &self.inner;
        let program = &inner.options.program;
        let version = version(program).await?;
        let hypervisor_bad = match judge(&version) {
            Some(bad) => Some(bad),
            None => lacks_quorum(program).await?,
        };
        let accelerator = match inner.options.accelerator {
            Some(chosen) => chosen,
            None => accel::choose(program, inner.paths.state()).await?,
        };
        let [a, b] = &inner.spec.enclosures;
        Ok(HostFacts {
            memory_available_mib: memory_available()?,
            state_free_bytes: free_bytes(inner.paths.state())?,
            hypervisor: format!("QEMU {version}"),
            running_hypervisor: self.running_version().await,
            hypervisor_bad,
            one_device: device_of(a)? == device_of(b)?,
            cpu_model: accelerator.cpu().to_owned(),
            not_forkable: (accelerator == Accelerator::Tcg && accelerator.cpu() == "max")
                .then(|| "the CPU model `max` was seen to corrupt memory in forks".to_owned()),
        })
    }

    async fn check_legs(&self) -> PortResult<Vec<LegChange>> {
        let book = self.load().await?;
        let mut changed = Vec::new();
        for disk in &self.inner.spec.disks {
            let pair = book.disks.get(&disk.name);
            for leg in Leg::BOTH {
                let path = disk.legs.get(leg);
                let problem = match pair.map(|pair| pair.get(leg)) {
                    None => Some("is not in the leg book".to_owned()),
                    Some(entry) if entry.path != *path => {
                        Some(format!("is `{}` in the leg book", entry.path.display()))
                    }
                    Some(entry) => leg_problem(path, entry.inode, disk.size),
                };
                changed.extend(problem.map(|problem| LegChange {
                    disk: disk.name.clone(),
                    leg,
                    text: format!(
                        "Leg {leg} of {} (`{}`) {problem}.",
                        disk.name,
                        path.display()
                    ),
                }));
            }
        }
        Ok(changed)
    }

    async fn look_at(&self, paths: &[String]) -> PortResult<Vec<FileView>> {
        paths
            .iter()
            .map(|path| host_action::describe(path))
            .collect()
    }

    async fn action_start(&self, request: &ActionRequest) -> PortResult<()> {
        self.start_on_host(request).await
    }

    async fn action_poll(&self, handle: u64) -> PortResult<ExecOutput> {
        self.poll_on_host(handle)
    }

    async fn action_kill(&self, handle: u64) -> PortResult<()> {
        self.kill_on_host(handle).await
    }
}

impl QemuSystem {
    /// The version of the QEMU in which the oldest machine of this system runs: the Production Side's.
    async fn running_version(&self) -> Option<String> {
        let id = *self.running().ok()?.first()?;
        let conn = self.conn(id).await.ok()?;
        let said = conn.query("query-version").await.ok()?;
        let part = |name: &str| said.pointer(&format!("/qemu/{name}"))?.as_u64();
        let (major, minor, micro) = (part("major")?, part("minor")?, part("micro")?);
        Some(format!("QEMU {major}.{minor}.{micro}"))
    }
}

/// Says whether a leg's file system refuses to bypass the host's cache (tmpfs before Linux 6.6).
pub(crate) fn refuses_direct(path: &Path) -> PortResult<bool> {
    let open = |flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    // Only for reading: a machine may be writing to it right now.
    match open(OFlags::RDONLY | OFlags::DIRECT) {
        Ok(_) => Ok(false),
        Err(rustix::io::Errno::INVAL) => Ok(true),
        Err(e) => Err(error::file(&e.into(), "open the leg", path)),
    }
}

async fn ask(program: &Path, arguments: &[&str]) -> PortResult<String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let failed = || PortError::failed(format!("cannot ask `{}` what it can do", program.display()));
    let output = tokio::time::timeout(ASK_TIMEOUT, command.output())
        .await
        .map_err(|_| PortError::timed_out(format!("`{}` does not answer", program.display())))?
        .map_err(|e| {
            failed()
                .because(&e)
                .advise("Install QEMU (Debian: qemu-system-x86)")
        })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks QEMU for its version, such as `7.2.22`.
pub(crate) async fn version(program: &Path) -> PortResult<String> {
    let said = ask(program, &["--version"]).await?;
    let version = said.split("version ").nth(1).and_then(|rest| {
        let rest = rest.split([' ', '(', '\n']).next()?;
        rest.starts_with(|c: char| c.is_ascii_digit())
            .then(|| rest.to_owned())
    });
    version.ok_or_else(|| {
        error::mismatch(format!(
            "`{}` does not say a QEMU version",
            program.display()
        ))
    })
}

/// The known bad releases concern mirror jobs (qemu.md, pitfall 13), which are not used here; too old is what
/// remains.
fn judge(version: &str) -> Option<String> {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ((major, minor) < OLDEST).then(|| {
        format!("QEMU {version} is too old; 7.2 is the first version flipside was proved with")
    })
}

async fn lacks_quorum(program: &Path) -> PortResult<Option<String>> {
    let said = ask(
        program,
        &["-machine", "none", "-drive", "if=none,file=x,format=help"],
    )
    .await?;
    let has = said.split_ascii_whitespace().any(|word| word == "quorum");
    Ok((!has).then(|| {
        "this QEMU was built without the `quorum` block driver, which keeps both legs equal".into()
    }))
}

fn memory_available() -> PortResult<u64> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(|e| error::file(&e, "read", path))?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|k| k / 1024)
        .ok_or_else(|| PortError::failed("the kernel does not say how much memory is available"))
}

/// Free bytes on the file system of a path, or of the nearest directory above it that exists.
pub(crate) fn free_bytes(path: &Path) -> PortResult<u64> {
    let existing = path
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .map_err(|e| error::file(&e.into(), "examine the file system of", existing))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Names the physical device below a directory: partitions of one disk are one device.
fn device_of(path: &Path) -> PortResult<PathBuf> {
    let meta = fs::metadata(path).map_err(|e| error::file(&e, "examine the enclosure", path))?;
    let device = meta.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let Ok(mut found) = fs::canonicalize(&link) else {
        // Not on a block device (tmpfs, network): the file system itself is the device.
        return Ok(link);
    };
    if found.join("partition").exists() {
        found.pop();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 37.
    #[test]
    fn old_versions_are_refused_and_later_ones_are_not() {
        for bad in ["7.1.0", "6.2.0", "0", ""] {
            assert!(judge(bad).is_some(), "{bad}");
        }
        for good in ["7.2.0", "7.2.22", "8.1.5", "10.0.3"] {
            assert!(judge(good).is_none(), "{good}");
        }
    }
}

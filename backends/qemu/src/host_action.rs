//! Custom actions on the host (`where = "host"`, our addition).
//!
//! An action gets nothing of the server: its environment is what it is given, its standard input is empty, no other file
//! is open in it, and it has a session of its own. It is never our child, so it outlives the server; what it printed and
//! how it ended lies in a folder named by its handle. Everything it started is known by a variable of its environment,
//! and is ended with it. Its file, and every directory above it, can be changed by nobody but root and the server's user.

use crate::action::{ACTION, action_words, check_request};
use crate::error;
use crate::process::{environment_has, processes};
use crate::system::QemuSystem;
use flipside_model::{FileKind, FileView};
use flipside_platform::{ActionRequest, ExecOutput, PortError, PortErrorKind, PortResult};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

/// The variable that marks every process of an action.
const MARK: &str = "FLIPSIDE_ACTION";

/// How long `setsid` may take to fork.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the processes of an action have to end when they are asked to: as in a guest.
const ASKED: Duration = Duration::from_secs(5);

/// How long killed processes may take to go; one on hung storage never does.
const KILLED: Duration = Duration::from_secs(5);

/// Between two looks for them.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of output read at a time.
const READ: u64 = 256 << 10;

/// The largest program whose contents are fingerprinted; a larger one is no script, and reading it would take long.
const MAX_PROGRAM: u64 = 256 << 20;

impl QemuSystem {
    fn action_folder(&self, handle: u64) -> PathBuf {
        let actions = self.inner.paths.root().join("actions");
        actions.join(format!("{handle:016x}"))
    }

    pub(crate) async fn start_on_host(&self, request: &ActionRequest) -> PortResult<()> {
        check_request(request)?;
        let folder = self.action_folder(request.handle);
        let made = fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(folder.parent().unwrap_or(Path::new("/")));
        made.map_err(|e| error::file(&e, "make", &folder))?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            // It was started already.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(e) => return Err(error::file(&e, "make", &folder)),
        }
        // Whoever started the server may have left files open in it.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let mut command = tokio::process::Command::new("setsid");
        command
            .args(["--fork", "/bin/sh", "-c", ACTION, "flipside"])
            .arg(&folder)
            .args(action_words(request))
            .env_clear()
            .env("PATH", flipside_model::ACTION_PATH)
            .env(MARK, request.handle.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let failed = |e: &io::Error| {
            PortError::failed("cannot start a custom action on the host")
                .because(e)
                .advise("install util-linux and coreutils on the host")
        };
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        match tokio::time::timeout(FORK_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(PortError::failed(format!(
                "cannot start a custom action on the host: setsid ended with {status}"
            ))),
            Ok(Err(e)) => Err(failed(&e)),
            Err(_) => Err(PortError::timed_out(
                "starting a custom action did not return in time",
            )),
        }
    }

    pub(crate) fn poll_on_host(&self, handle: u64) -> PortResult<ExecOutput> {
        let folder = self.action_folder(handle);
        // First whether it ended, then its output: nothing can be printed after.
        let mut exit = exit_of(&folder);
        if exit.is_none() && members(handle).is_empty() {
            // It may have ended between the two looks.
            exit = exit_of(&folder);
            if exit.is_none() {
                let text = "the custom action is not there any more, or it was never started";
                return Err(PortError::absent(text));
            }
        }
        let mut told = self.told(handle);
        let (out, out_end) = increment(&folder.join("out"), &mut told.0)?;
        let (err, err_end) = increment(&folder.join("err"), &mut told.1)?;
        let ended = exit.filter(|_| out_end && err_end);
        match ended {
            None => self.tell(handle, Some(told)),
            Some(_) => {
                self.tell(handle, None);
                if let Err(e) = fs::remove_dir_all(&folder) {
                    tracing::debug!(%e, folder = %folder.display(), "what an action left stays");
                }
            }
        }
        Ok(ExecOutput {
            out,
            err,
            exit: ended,
        })
    }

    pub(crate) async fn kill_on_host(&self, handle: u64) -> PortResult<()> {
        let folder = self.action_folder(handle);
        if !folder.exists() && members(handle).is_empty() {
            return Ok(());
        }
        for (signal, time) in [(Signal::TERM, ASKED), (Signal::KILL, KILLED)] {
            let until = Instant::now() + time;
            let mut asked = Vec::new();
            loop {
                let left = members(handle);
                if left.is_empty() {
                    write_killed(&folder)?;
                    return Ok(());
                }
                // Whoever appears meanwhile is told too; the one who waits for the others is left to write the end.
                for pid in left {
                    if !asked.contains(&pid) {
                        send(pid, handle, signal);
                        asked.push(pid);
                    }
                }
                if Instant::now() >= until {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        write_killed(&folder)?;
        Err(
            PortError::timed_out("a process of the custom action was killed and is still there")
                .advise("it waits for storage of the host that does not answer"),
        )
    }
}

/// The processes of an action, whatever session they are in.
fn members(handle: u64) -> Vec<i32> {
    let mark = format!("{MARK}={handle}");
    processes()
        .filter(|pid| environment_has(*pid, mark.as_bytes()))
        .collect()
}

/// Signals this very process: the handle is opened before it is looked at again.
fn send(pid: i32, handle: u64, signal: Signal) {
    let mark = format!("{MARK}={handle}");
    let Some(process) = Pid::from_raw(pid) else {
        return;
    };
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else {
        return;
    };
    if environment_has(pid, mark.as_bytes())
        && let Err(e) = pidfd_send_signal(&process, signal)
    {
        tracing::debug!(pid, %e, "a process of a custom action was not signalled");
    }
}

fn exit_of(folder: &Path) -> Option<i32> {
    let text = fs::read_to_string(folder.join("exit")).ok()?;
    Some(text.trim().parse::<u8>().map_or(137, i32::from))
}

/// Says how it ended when it could not say so itself.
fn write_killed(folder: &Path) -> PortResult<()> {
    let exit = folder.join("exit");
    if exit.exists() || !folder.exists() {
        return Ok(());
    }
    fs::write(&exit, "137\n").map_err(|e| error::file(&e, "write", &exit))
}

/// Reads what came since the last look, and says whether that was all for now.
fn increment(path: &Path, told: &mut u64) -> PortResult<(Vec<u8>, bool)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
        Err(e) => return Err(error::file(&e, "read", path)),
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(*told))
        .and_then(|_| file.take(READ).read_to_end(&mut bytes))
        .map_err(|e| error::file(&e, "read", path))?;
    *told += bytes.len() as u64;
    Ok((bytes.clone(), (bytes.len() as u64) < READ))
}

/// Describes a file of the host.
pub(crate) fn describe(path: &str) -> PortResult<FileView> {
    let at = Path::new(path);
    if !at.is_absolute() {
        return Err(PortError::new(
            PortErrorKind::Mismatch,
            format!("`{path}` is not an absolute path"),
        ));
    }
    let real = match fs::canonicalize(at) {
        Ok(real) => real,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(FileView::missing(path));
        }
        Err(e) => return Err(error::file(&e, "look at", at)),
    };
    let meta = fs::metadata(&real).map_err(|e| error::file(&e, "look at", at))?;
    let kind = match () {
        () if meta.is_file() => FileKind::Regular,
        () if meta.is_dir() => FileKind::Directory,
        () => FileKind::Other,
    };
    let executable = kind == FileKind::Regular && meta.mode() & 0o111 != 0;
    Ok(FileView {
        path: path.to_owned(),
        kind,
        executable,
        writable: meta.mode() & 0o222 != 0,
        sha256: if executable {
            sum(&real)?
        } else {
            String::new()
        },
        disk: String::new(),
        filesystem: String::new(),
        flaw: if kind == FileKind::Regular {
            flaw(at, &real)?
        } else {
            None
        },
    })
}

fn sum(path: &Path) -> PortResult<String> {
    let failed = |e: io::Error| error::file(&e, "read", path);
    let file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let copied = io::copy(&mut file.take(MAX_PROGRAM + 1), &mut hash).map_err(failed)?;
    if copied > MAX_PROGRAM {
        return Err(PortError::failed(format!(
            "`{}` has more than {} MiB: it is no program for a custom action",
            path.display(),
            MAX_PROGRAM >> 20
        )));
    }
    let mut digits = String::new();
    for byte in hash.finalize() {
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}

/// Security checklist 22: says who else could change a program or a directory on its way, as it is named and as it is.
fn flaw(named: &Path, real: &Path) -> PortResult<Option<String>> {
    let own = rustix::process::geteuid().as_raw();
    let above = named.parent().into_iter().flat_map(Path::ancestors);
    for path in real.ancestors().chain(above) {
        let meta = fs::metadata(path).map_err(|e| error::file(&e, "look at", path))?;
        let shown = path.display();
        // A directory for everybody in which only owners may rename, such as /tmp, lets nobody replace what is another's.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if meta.uid() != 0 && meta.uid() != own {
            return Ok(Some(format!("`{shown}` belongs to user {}", meta.uid())));
        }
        if meta.mode() & 0o022 != 0 && !sticky {
            return Ok(Some(format!(
                "`{shown}` may be written to by its group or by everybody"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "host_action_tests.rs"]
mod tests;

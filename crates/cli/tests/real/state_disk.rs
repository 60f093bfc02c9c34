//! A file system of its own for what flipside keeps of its systems, whose power can be cut: an ext4 image behind QEMU's
//! `blklogwrites`, exported as a file by `qemu-storage-daemon` and mounted through a loop device.

use super::write_log;
use super::{ended, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Room for the journal with its reserve, and for what ext4 itself needs.
const SIZE: u64 = 32 * 1024 * 1024;

/// The export is there after some milliseconds, on a busy host too.
const EXPORTED: Duration = Duration::from_secs(20);

/// Mounting and unmounting a small file system, with what it still has to write.
const MOUNTED: Duration = Duration::from_secs(30);

/// The mounted file system; it is unmounted and its process ends with this value.
pub(crate) struct StateDisk {
    dir: PathBuf,
    mount: PathBuf,
    device: Option<String>,
    daemon: Option<Child>,
}

/// Runs a tool that must succeed; returns what it printed.
#[track_caller]
fn tool(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args);
    let ended = ended(command, MOUNTED, &[program]);
    assert_eq!(ended.status, Some(0), "{program} {args:?}: {}", ended.err);
    ended.out
}

fn text(path: &Path) -> &str {
    path.to_str().expect("our own paths are text")
}

impl StateDisk {
    /// Says why it cannot be made here; nothing else may keep a test from it.
    pub(crate) fn missing() -> Option<String> {
        let missing =
            |path: &str| (!Path::new(path).exists()).then(|| format!("there is no {path}"));
        if !rustix::process::geteuid().is_root() {
            return Some("only root may mount".to_owned());
        }
        missing("/dev/fuse").or_else(|| missing("/dev/loop-control"))
    }

    /// Makes it below `dir` and mounts it at `mount`.
    pub(crate) fn mounted(dir: &Path, mount: &Path) -> Self {
        let mut disk = Self {
            dir: dir.to_owned(),
            mount: mount.to_owned(),
            device: None,
            daemon: None,
        };
        std::fs::File::create(disk.image())
            .and_then(|file| file.set_len(SIZE))
            .expect("an image");
        tool("mkfs.ext4", &["-q", text(&disk.image())]);
        write_log::sparse_copy(&disk.image(), &disk.before());
        write_log::create(&disk.log());
        disk.export();
        let device = tool("losetup", &["--find", "--show", text(&disk.exported())]);
        let device = disk.device.insert(device.trim().to_owned()).clone();
        std::fs::create_dir_all(mount).expect("a folder");
        tool("mount", &[&device, text(mount)]);
        std::fs::remove_dir(mount.join("lost+found")).expect("ext4 makes it");
        disk
    }

    fn export(&mut self) {
        std::fs::write(self.exported(), "").expect("a file to mount over");
        let node = |name: &str, path: &Path| {
            let path = text(path);
            [
                "--blockdev".to_owned(),
                format!("driver=file,node-name={name},filename={path}"),
            ]
        };
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(node("image", &self.image()))
            .args(node("log", &self.log()))
            .args([
                "--blockdev",
                "driver=blklogwrites,node-name=logged,file=image,log=log,log-append=on",
            ])
            .args([
                "--export",
                &format!(
                    "type=fuse,id=export,node-name=logged,writable=on,mountpoint={}",
                    text(&self.exported())
                ),
            ])
            .stdin(Stdio::null());
        self.daemon = Some(command.spawn().expect("of Debian's qemu-system-common"));
        until("the file system's image is exported", EXPORTED, || {
            let size = std::fs::metadata(self.exported()).map(|meta| meta.len());
            size.is_ok_and(|size| size == SIZE).then_some(())
        });
    }

    fn image(&self) -> PathBuf {
        self.dir.join("state.img")
    }

    fn exported(&self) -> PathBuf {
        self.dir.join("state.export")
    }

    /// The image as it was before the first entry of the log.
    pub(crate) fn before(&self) -> PathBuf {
        self.dir.join("state.before")
    }

    /// The log of everything that was written to it.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("state.writes")
    }

    /// Unmounts it, so that the log is complete.
    pub(crate) fn unmount(&mut self) {
        if let Some(device) = self.device.take() {
            tool("umount", &[text(&self.mount)]);
            tool("losetup", &["--detach", &device]);
        }
        self.end_daemon();
    }

    fn end_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            // SIGTERM, so that the export is unmounted and the log's superblock is written.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let ended = std::time::Instant::now() + EXPORTED;
            while matches!(daemon.try_wait(), Ok(None)) && std::time::Instant::now() < ended {
                super::moment(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Drop for StateDisk {
    /// Runs in a panic too, and when the unmounting is over: nothing here may fail.
    fn drop(&mut self) {
        let quiet = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            let command = command
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let _ = command.status();
        };
        if let Some(device) = self.device.take() {
            quiet("umount", &["--lazy", text(&self.mount)]);
            quiet("losetup", &["--detach", &device]);
        }
        self.end_daemon();
    }
}

/// An image of a power cut, mounted as a boot would mount it; unmounted with this value.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Fails with what `mount` says when the file system cannot be mounted.
    pub(crate) fn new(image: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-o", "loop", text(image), text(at)]);
        let ended = ended(command, MOUNTED, &["mount"]);
        if ended.status != Some(0) {
            return Err(format!("mount: {}", ended.err));
        }
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

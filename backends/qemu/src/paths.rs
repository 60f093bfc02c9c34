//! Where everything of one system lies on the host.
//!
//! ```text
//! STATE/systems/NAME/            0700
//!   legs.json  lease.lock        the leg book and the lease (book.rs)
//!   accel.json                   what was found out about KVM (accel.rs; in STATE itself)
//!   vars/m<N>.fd                 UEFI variables of each machine; they outlive its process
//!   sradumps/                    dump files of crashed guests; they outlive everything (dumps.rs)
//!   carried/DISK.qcow2 .json     change bitmaps on their way from one machine to another
//!   m<N>/                        one machine process, 0700, gone when the machine is ended
//!     qmp.sock guard.sock agent.sock shell.sock vnc.sock tty.sock
//!     serial.log serial.old qemu.log pid launch.json link
//!     data0.overlay.qcow2  fork.sock (only while a fork connects)
//! ```

use crate::error;
use flipside_model::{DiskName, MachineId, SystemName};
use flipside_platform::files::{SmallFiles, replace};
use flipside_platform::{PortError, PortResult};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket: `sun_path` has 108 bytes and ends with a zero.
const MAX_SOCKET_PATH: usize = 107;

/// The longest socket name in a machine's directory.
const LONGEST_SOCKET: &str = "guard.sock";

/// The directories of one system.
#[derive(Debug, Clone)]
pub struct SystemPaths {
    state: PathBuf,
    root: PathBuf,
}

impl SystemPaths {
    /// Names the directories of a system below a state directory; refuses one whose sockets would have paths
    /// that the kernel does not take.
    pub fn new(state_dir: &Path, name: &SystemName) -> PortResult<Self> {
        let root = state_dir.join("systems").join(name.as_str());
        let paths = Self {
            state: state_dir.to_owned(),
            root,
        };
        // The highest machine id anybody will see has five digits.
        let longest = paths.machine(MachineId(99_999)).dir.join(LONGEST_SOCKET);
        let length = longest.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(PortError::failed(format!(
                "the state directory `{}` is too long: sockets in it would have paths of {length} bytes, \
                 and the kernel takes {MAX_SOCKET_PATH}",
                state_dir.display()
            ))
            .about(state_dir.display().to_string())
            .advise(format!(
                "Choose a state directory that is {} bytes shorter, or a shorter system name",
                length - MAX_SOCKET_PATH
            )));
        }
        if !state_dir.is_absolute() || longest.to_str().is_none() {
            return Err(PortError::failed(format!(
                "the state directory `{}` is not an absolute path in UTF-8",
                state_dir.display()
            )));
        }
        Ok(paths)
    }

    /// The state directory of the server.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory of the system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The leg book.
    pub fn book(&self) -> PathBuf {
        self.root.join("legs.json")
    }

    /// The file whose lock is the lease.
    pub fn lease(&self) -> PathBuf {
        self.root.join("lease.lock")
    }

    /// The UEFI variables of a machine.
    pub fn vars(&self, id: MachineId) -> PathBuf {
        self.root.join("vars").join(format!("{id}.fd"))
    }

    /// The dump files.
    pub fn dumps(&self) -> PathBuf {
        self.root.join("sradumps")
    }

    /// The scratch disk.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch.raw")
    }

    /// The carrier of a disk's change bitmap.
    pub fn carrier(&self, disk: &DiskName) -> PathBuf {
        self.root.join("carried").join(format!("{disk}.qcow2"))
    }

    /// What the carrier must hold.
    pub fn carrier_note(&self, disk: &DiskName) -> PathBuf {
        self.root.join("carried").join(format!("{disk}.json"))
    }

    /// The directory of one machine process.
    pub fn machine(&self, id: MachineId) -> MachinePaths {
        MachinePaths {
            dir: self.root.join(id.to_string()),
        }
    }

    /// Lists the machines that have a directory, whether they run or not.
    pub fn machines(&self) -> PortResult<Vec<MachineId>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error::file(&error, "list", &self.root)),
        };
        let mut found: Vec<MachineId> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| machine_id(entry.file_name().to_str()?))
            .collect();
        found.sort();
        Ok(found)
    }
}

fn machine_id(name: &str) -> Option<MachineId> {
    let number = name.strip_prefix('m')?;
    let id = MachineId(number.parse().ok()?);
    (id.to_string() == name).then_some(id)
}

/// The files of one machine process.
#[derive(Debug, Clone)]
pub struct MachinePaths {
    dir: PathBuf,
}

impl MachinePaths {
    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The server's QMP socket.
    pub fn qmp(&self) -> PathBuf {
        self.dir.join("qmp.sock")
    }
    /// The guard's QMP socket.
    pub fn guard(&self) -> PathBuf {
        self.dir.join("guard.sock")
    }
    /// The guest agent's channel.
    pub fn agent(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }
    /// The shell's channel (`org.flipside.shell`).
    pub fn shell(&self) -> PathBuf {
        self.dir.join("shell.sock")
    }
    /// The screen.
    pub fn vnc(&self) -> PathBuf {
        self.dir.join("vnc.sock")
    }
    /// Where a fork connects, for the moment it takes.
    pub fn fork(&self) -> PathBuf {
        self.dir.join("fork.sock")
    }
    /// The serial console, from layout 2 on.
    pub fn tty(&self) -> PathBuf {
        self.dir.join("tty.sock")
    }
    /// The end of what it printed before its log was cut.
    pub fn old_serial(&self) -> PathBuf {
        self.dir.join("serial.old")
    }
    /// What the guest's serial console printed.
    pub fn serial(&self) -> PathBuf {
        self.dir.join("serial.log")
    }
    /// What QEMU itself printed.
    pub fn log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }
    /// QEMU's process id, written by QEMU.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }
    /// How the process was started and how it is recognised.
    pub fn launch(&self) -> PathBuf {
        self.dir.join("launch.json")
    }
    /// Whether the production card's link may be up.
    pub fn link(&self) -> PathBuf {
        self.dir.join("link")
    }
    /// The throw-away overlay of a data disk.
    pub fn overlay(&self, disk: &DiskName) -> PathBuf {
        self.dir.join(format!("{disk}.overlay.qcow2"))
    }
    /// Everything in it that is a socket; the console's only from layout 2 on.
    pub fn sockets(&self) -> [PathBuf; 6] {
        [
            self.tty(),
            self.qmp(),
            self.guard(),
            self.agent(),
            self.shell(),
            self.vnc(),
        ]
    }
}

/// Makes a directory only its owner can enter. One that exists must be ours and closed to others; it is closed
/// if it is only too open.
pub(crate) fn private_dir(path: &Path) -> PortResult<()> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(|e| error::file(&e, "make the directory", path))?;
    let meta = fs::symlink_metadata(path).map_err(|e| error::file(&e, "examine", path))?;
    let ours = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != ours {
        return Err(error::mismatch(format!(
            "`{}` is not a directory of this user",
            path.display()
        ))
        .about(path.display().to_string()));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| error::file(&e, "close", path))?;
    }
    Ok(())
}

/// Syncs a directory, so that names made or removed in it survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> PortResult<()> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| error::file(&e, "sync the directory", path))
}

/// Writes a small file so that after a crash either the old or the new one is there: a temporary file, synced,
/// renamed, and the directory synced.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> PortResult<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| PortError::failed("a file without a name cannot be written"))?;
    replace(&mut Directory(dir), name, bytes).map_err(|e| error::file(&e, "write", path))
}

/// A real directory.
struct Directory<'a>(&'a Path);

impl SmallFiles for Directory<'_> {
    type File = fs::File;

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn create(&mut self, name: &str) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(self.0.join(name))
    }

    fn write(&mut self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &mut fs::File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        fs::File::open(self.0)?.sync_all()
    }
}

/// Removes a file; one that is not there is removed.
pub(crate) fn remove_file(path: &Path) -> PortResult<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error::file(&error, "remove", path))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_too_long_for_sockets_is_refused_with_advice() {
        let name = SystemName::new("web").expect("valid");
        assert!(SystemPaths::new(Path::new("/var/lib/flipside"), &name).is_ok());
        let long = format!("/{}", "x".repeat(90));
        let refused = SystemPaths::new(Path::new(&long), &name).expect_err("too long");
        assert!(refused.message.contains("too long"), "{refused}");
        assert!(refused.advice.is_some_and(|a| a.contains("shorter")));
        assert!(SystemPaths::new(Path::new("relative"), &name).is_err());
    }

    #[test]
    fn only_exact_names_are_machines() {
        assert_eq!(machine_id("m7"), Some(MachineId(7)));
        for other in ["m07", "m", "mx", "7", "m-1", "m7.old"] {
            assert_eq!(machine_id(other), None, "{other}");
        }
    }

    #[test]
    fn an_atomic_write_leaves_one_private_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("book");
        write_atomically(&path, b"one").expect("written");
        write_atomically(&path, b"two").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}

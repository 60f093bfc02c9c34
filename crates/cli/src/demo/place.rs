//! Where the demo lives and what it needs: its directory, the guest's images, free ports, QEMU, space.

use super::trouble::{Trouble, cannot};
use flipside_activity::size;
use rustix::fs::{FlockOperation, flock, statvfs};
use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Name of the system of the demo.
pub(super) const SYSTEM: &str = "shop";

/// Memory of the guest in bytes; a split needs it twice.
pub(super) const MEMORY: u64 = 1 << 30;

/// Room for what both legs of every disk grow by in two upgrades, and for overlays and logs.
const GROWTH: u64 = 4 << 30;

/// The kernel's limit for the path of a socket, and the longest socket below the state directory.
const MAX_SOCKET: usize = 107;
const LONGEST_SOCKET: &str = "state/systems/shop/guard-control.sock";

/// Ports tried after the preferred one before any free one is taken.
const NEIGHBOURS: u16 = 20;

/// The files that `guest/build.sh` makes.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) system: PathBuf,
    pub(super) data: PathBuf,
    /// The packages of the upgrade, as one archive.
    pub(super) upgrade: PathBuf,
    /// The page's new release alone.
    pub(super) page: PathBuf,
}

impl Guest {
    fn in_dir(dir: &Path) -> Self {
        Self {
            system: dir.join("demo.raw"),
            data: dir.join("demo-data.raw"),
            upgrade: dir.join("upgrade.tar"),
            page: dir.join("upgrade/flipside-demo-page_2.0_all.deb"),
        }
    }

    /// Finds the images: where they were said to be, below the current directory, or beside the executable.
    pub(super) fn find(named: Option<&Path>, exe: &Path) -> Result<Self, Trouble> {
        let places: Vec<PathBuf> = match named {
            Some(dir) => vec![dir.to_owned()],
            None => {
                let beside = exe.ancestors().filter(|dir| dir.ends_with("target"));
                let mut places = vec![PathBuf::from("target/guest")];
                places.extend(beside.map(|target| target.join("guest")));
                places
            }
        };
        for place in &places {
            let guest = Self::in_dir(&absolute(place)?);
            if guest.missing().is_none() {
                return Ok(guest);
            }
        }
        let dirs: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let first = Self::in_dir(&places[0]);
        let missing = first.missing().unwrap_or(&first.system);
        let name = missing.file_name().unwrap_or_default().to_string_lossy();
        Err(Trouble::new(format!(
            "the guest of the demo is not there: no `{name}` in `{}`",
            dirs.join("`, `")
        ))
        .advise(
            "build it in a checkout, as root: `guest/build.sh --only demo` (some minutes; `./dev demo` does it), \
             or say where it is: `--guest DIR` or FLIPSIDE_GUEST",
        ))
    }

    fn missing(&self) -> Option<&PathBuf> {
        [&self.system, &self.data, &self.upgrade, &self.page]
            .into_iter()
            .find(|file| !file.is_file())
    }

    /// Returns how many bytes the images really occupy.
    fn occupied(&self) -> u64 {
        let blocks = |file: &PathBuf| std::fs::metadata(file).map_or(0, |meta| meta.blocks());
        (blocks(&self.system) + blocks(&self.data)) * 512
    }
}

/// The directory of the demo, locked while the demo is at work.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes the directory and locks it.
    pub(super) fn take(named: Option<&Path>) -> Result<Self, Trouble> {
        let dir = match named {
            Some(dir) => absolute(dir)?,
            None => default_dir()?,
        };
        let longest = dir.join(LONGEST_SOCKET);
        let length = longest.as_os_str().len();
        if length > MAX_SOCKET {
            let over = length - MAX_SOCKET;
            return Err(Trouble::new(format!(
                "the directory `{}` is too long for sockets in it, by {over} bytes",
                dir.display()
            ))
            .advise("choose a shorter one: `--dir DIR`"));
        }
        let make = || DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        make().map_err(cannot(format!("make the directory `{}`", dir.display())))?;
        let path = dir.join("demo.lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(cannot(format!("open `{}`", path.display())))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Trouble::new(format!(
                "another `flipside demo` is at work in `{}`",
                dir.display()
            ))
            .advise("wait for its end or interrupt it, or choose another directory: `--dir DIR`")
        })?;
        let dir = std::fs::canonicalize(&dir)
            .map_err(cannot(format!("resolve the path `{}`", dir.display())))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path("flipside.sock")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(super) fn server_log(&self) -> PathBuf {
        self.path("server.log")
    }

    /// Names what this machine lacks.
    pub(super) fn check_needs(&self, guest: &Guest) -> Result<(), Trouble> {
        for (program, package) in [
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("qemu-img", "qemu-utils"),
            ("setsid", "util-linux"),
        ] {
            if !in_path(program) {
                return Err(Trouble::new(format!("`{program}` is not installed"))
                    .advise(format!("install it: `apt-get install {package}`")));
            }
        }
        let needed = 2 * guest.occupied() + GROWTH;
        // A file system that does not tell is tried.
        let free = statvfs(&self.dir).map_or(u64::MAX, |fs| fs.f_bavail * fs.f_frsize);
        if free < needed {
            return Err(Trouble::new(format!(
                "`{}` has {} free, the demo needs {}",
                self.dir.display(),
                size(free),
                size(needed)
            ))
            .advise("make room, or choose another directory: `--dir DIR`"));
        }
        let needed = 2 * MEMORY + (512 << 20);
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        let free = memory.and_then(|text| available(&text)).unwrap_or(u64::MAX);
        if free < needed {
            return Err(Trouble::new(format!(
                "this machine has {} of free memory; both sides together need {}",
                size(free),
                size(needed)
            ))
            .advise("end what needs the memory, and try again"));
        }
        Ok(())
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn absolute(path: &Path) -> Result<PathBuf, Trouble> {
    std::path::absolute(path).map_err(cannot(format!("use the path `{}`", path.display())))
}

fn default_dir() -> Result<PathBuf, Trouble> {
    if Path::new("Cargo.toml").is_file() && Path::new("guest/build.sh").is_file() {
        return absolute(Path::new("target/demo"));
    }
    let dir = |name: &str| {
        let dir = PathBuf::from(std::env::var_os(name)?);
        dir.is_absolute().then_some(dir)
    };
    let state = dir("XDG_STATE_HOME").or_else(|| Some(dir("HOME")?.join(".local/state")));
    state.map(|dir| dir.join("flipside-demo")).ok_or_else(|| {
        Trouble::new("there is no home directory for the demo")
            .advise("name a directory: `--dir DIR`")
    })
}

/// Finds a free port of the loopback: the preferred one, one of its neighbours, or any.
pub(super) fn free_port(preferred: u16) -> Result<u16, Trouble> {
    let free = |port: u16| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(listener.local_addr().ok()?.port())
    };
    (preferred..preferred.saturating_add(NEIGHBOURS))
        .find_map(free)
        .or_else(|| free(0))
        .ok_or_else(|| Trouble::new("there is no free port on 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let other = free_port(port).expect("another");
        assert_ne!(other, port);
    }

    #[test]
    fn missing_images_are_named_with_the_way_to_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = Guest::find(Some(dir.path()), Path::new("/x")).expect_err("none there");
        assert!(refused.message.contains("no `demo.raw` in"), "{refused:?}");
        assert!(refused.advice.is_some_and(|a| a.contains("guest/build.sh")));
        std::fs::create_dir(dir.path().join("upgrade")).expect("made");
        let guest = Guest::in_dir(dir.path());
        for file in [&guest.system, &guest.data, &guest.upgrade, &guest.page] {
            std::fs::write(file, "x").expect("written");
        }
        assert!(Guest::find(Some(dir.path()), Path::new("/x")).is_ok());
    }

    #[test]
    fn one_demo_at_a_time_in_one_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Place::take(Some(dir.path())).expect("free");
        let refused = Place::take(Some(dir.path())).expect_err("taken");
        assert!(refused.message.contains("at work"), "{refused:?}");
        drop(first);
        Place::take(Some(dir.path())).expect("free again");
        let long = dir.path().join("x".repeat(100));
        assert!(Place::take(Some(&long)).is_err());
    }

    #[test]
    fn free_memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:  24685348 kB\nMemAvailable:   22232 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(22232 * 1024));
        assert_eq!(available(""), None);
    }
}

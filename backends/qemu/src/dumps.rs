//! Dump files: the memory of a crashed guest, and what its crashes left in it (AB-11, AB-12).
//!
//! `STATE/systems/NAME/sradumps/MemoryN.dmp` and `CrashN-NAME`; N is the lowest free number, and no file is ever written
//! over. What is being written has another name, so that a half file is never taken for a dump.

use crate::conn::{Conn, QUERY_TIMEOUT};
use crate::error;
use crate::host::free_bytes;
use crate::paths::{private_dir, remove_file, sync_dir};
use crate::system::QemuSystem;
use flipside_model::{Dump, MachineId};
use flipside_platform::{PortError, PortErrorKind, PortResult};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

/// What must stay free on the state directory's file system: journal and leg book are worth more than any dump.
const RESERVE: u64 = 1 << 30;

/// How many dump files are kept; the oldest one goes when there are more.
const KEPT: usize = 10;

/// How long QEMU may take to write a guest's memory: it writes some 100 MB a second.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Between two looks at a dump that is being written.
const LOOK: Duration = Duration::from_millis(100);

/// A dump that QEMU is writing, and a file that is being collected.
const MEMORY_PART: &str = ".memory.part";
const FILE_PART: &str = ".file.part";

/// The longest name that a collected file keeps.
const NAME_MOST: usize = 100;

/// The folder of one system's dump files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Lists the dump files, oldest first.
    pub(crate) fn list(&self) -> PortResult<Vec<Dump>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(error::file(&e, "list", &self.0)),
        };
        let dump = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let since = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            (!name.starts_with('.')).then(|| Dump {
                path: entry.path(),
                name,
                bytes: meta.len(),
                at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            })
        };
        let mut found: Vec<Dump> = entries.flatten().filter_map(dump).collect();
        found.sort_by(|a, b| (a.at_ms, &a.name).cmp(&(b.at_ms, &b.name)));
        Ok(found)
    }

    fn ready(&self) -> PortResult<()> {
        private_dir(&self.0)
    }

    /// Refuses what would leave the file system too full.
    fn room_for(&self, bytes: u64) -> PortResult<()> {
        let free = free_bytes(&self.0)?;
        if free >= bytes.saturating_add(RESERVE) {
            return Ok(());
        }
        Err(PortError::new(
            PortErrorKind::NoSpace,
            format!(
                "a dump of up to {} MiB would leave less than {} MiB free in `{}`",
                bytes >> 20,
                RESERVE >> 20,
                self.0.display()
            ),
        )
        .about(self.0.display().to_string())
        .advise("free space there, or move the dump files that `flipside dumps` lists elsewhere"))
    }

    pub(crate) fn part(&self, offset: u64, bytes: &[u8]) -> PortResult<()> {
        self.ready()?;
        self.room_for(bytes.len() as u64)?;
        let path = self.0.join(FILE_PART);
        if offset == 0 {
            remove_file(&path)?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).mode(0o600).create_new(offset == 0);
        let written = options.open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        });
        written.map_err(|e| error::file(&e, "write", &path))
    }

    pub(crate) fn keep_part(&self, name: Option<&str>) -> PortResult<Dump> {
        self.keep(FILE_PART, name)
    }

    /// Gives a finished file its name: a link, because that fails when the name is taken.
    fn keep(&self, part: &str, name: Option<&str>) -> PortResult<Dump> {
        let from = self.0.join(part);
        fs::File::open(&from)
            .and_then(|file| file.sync_all())
            .map_err(|e| error::file(&e, "sync", &from))?;
        let mut number = 1_u32;
        let kept = loop {
            let to = self.0.join(match name {
                None => format!("Memory{number}.dmp"),
                Some(name) => format!("Crash{number}-{}", plain(name)),
            });
            match fs::hard_link(&from, &to) {
                Ok(()) => break to,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(error::file(&e, "write", &to)),
            }
        };
        remove_file(&from)?;
        sync_dir(&self.0)?;
        let all = self.list()?;
        for old in all.iter().take(all.len().saturating_sub(KEPT)) {
            if old.path != kept {
                remove_file(&old.path)?;
            }
        }
        let dump = all.into_iter().find(|dump| dump.path == kept);
        dump.ok_or_else(|| PortError::absent(format!("`{}` is gone again", kept.display())))
    }
}

/// The last part of a guest's path as a name on the host: nothing in it can lead elsewhere or hide.
fn plain(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    let made: String = last
        .chars()
        .take(NAME_MOST)
        .map(|c| if fine(c) { c } else { '_' })
        .collect();
    if made.is_empty() {
        "file".to_owned()
    } else {
        made
    }
}

impl QemuSystem {
    pub(crate) fn dump_folder(&self) -> Folder {
        Folder(self.inner.paths.dumps())
    }

    pub(crate) async fn write_memory_dump(&self, id: MachineId) -> PortResult<Dump> {
        let folder = self.dump_folder();
        folder.ready()?;
        folder.room_for(u64::from(self.inner.spec.memory_mib) << 20)?;
        let conn = self.conn(id).await?;
        let path = folder.0.join(MEMORY_PART);
        if !writing(&conn).await? {
            remove_file(&path)?;
            let arguments = json!({
                "paging": false,
                "protocol": format!("file:{}", path.display()),
                "detach": true,
                "format": format(&conn).await?,
            });
            conn.run("dump-guest-memory", arguments).await?;
        }
        finished(&conn).await?;
        private(&path)?;
        folder.keep(MEMORY_PART, None)
    }
}

fn private(path: &Path) -> PortResult<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|e| error::file(&e, "close", path))
}

/// Compressed where this QEMU can: most of a guest's memory is zero.
async fn format(conn: &Conn) -> PortResult<&'static str> {
    let can = conn.query("query-dump-guest-memory-capability").await?;
    let formats = can.get("formats").and_then(Value::as_array);
    let zlib = formats.is_some_and(|f| f.iter().any(|f| f == "kdump-zlib"));
    Ok(if zlib { "kdump-zlib" } else { "elf" })
}

async fn writing(conn: &Conn) -> PortResult<bool> {
    let dump = conn.query("query-dump").await?;
    Ok(dump.get("status").and_then(Value::as_str) == Some("active"))
}

async fn finished(conn: &Conn) -> PortResult<()> {
    let deadline = Instant::now() + WRITE_TIMEOUT;
    loop {
        let dump = conn.run_for("query-dump", json!({}), QUERY_TIMEOUT).await?;
        match dump.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("active") if Instant::now() < deadline => sleep(LOOK).await,
            Some("active") => {
                return Err(PortError::timed_out(
                    "the guest's memory was not written in time",
                ));
            }
            other => {
                return Err(PortError::failed(format!(
                    "QEMU could not write the guest's memory ({})",
                    other.unwrap_or("it does not say why")
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // AB-12, gap 58: the lowest free number, and nothing is written over. `Memory1.dmp` of an earlier crash stays.
    #[test]
    fn numbers_are_the_lowest_free_ones_and_no_dump_is_written_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Folder(dir.path().join("sradumps"));
        assert_eq!(folder.list().expect("none").len(), 0);
        let take = |text: &[u8], name: Option<&str>| {
            folder.part(0, b"old").expect("begun");
            folder.part(0, &text[..1]).expect("begun anew");
            folder.part(1, &text[1..]).expect("a piece");
            folder.keep_part(name).expect("kept")
        };
        assert_eq!(take(b"first", None).name, "Memory1.dmp");
        assert_eq!(take(b"second", None).name, "Memory2.dmp");
        let crash = take(b"core", Some("/var/crash/../x y\u{202e}.core"));
        assert_eq!(crash.name, "Crash1-x_y_.core");
        fs::remove_file(folder.0.join("Memory1.dmp")).expect("removed");
        assert_eq!(take(b"third", None).name, "Memory1.dmp");
        assert_eq!(
            fs::read(folder.0.join("Memory2.dmp")).expect("there"),
            b"second"
        );
        assert_eq!(folder.list().expect("listed").len(), 3);
        assert!(folder.keep_part(None).is_err(), "nothing was collected");
    }

    #[test]
    fn only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Folder(dir.path().to_owned());
        for round in 0..KEPT + 3 {
            folder.part(0, &[1]).expect("written");
            let kept = folder.keep_part(Some(&format!("f{round}"))).expect("kept");
            assert!(kept.path.exists());
        }
        assert_eq!(folder.list().expect("listed").len(), KEPT);
    }

    #[test]
    fn names_of_guests_lead_nowhere_else() {
        for (given, made) in [
            ("../../etc/passwd", "passwd"),
            ("/a/", "file"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(plain(given), made);
        }
    }

    #[test]
    fn a_dump_that_would_fill_the_disk_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Folder(dir.path().to_owned());
        let refused = folder.room_for(1 << 60).expect_err("no such disk");
        assert_eq!(refused.kind, PortErrorKind::NoSpace);
        assert!(refused.advice.is_some_and(|a| a.contains("flipside dumps")));
    }
}

//! The CD drive that every layout has: images are put in read-only, and only what a drive could read is taken.

use crate::error;
use crate::system::QemuSystem;
use flipside_model::MachineId;
use flipside_platform::{Medium, PortError, PortErrorKind, PortResult};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The id of the drive in the layout.
const DRIVE: &str = "cd0";

/// A sector of a CD.
const SECTOR: u64 = 2048;

/// The first sector of the volume descriptors, in ISO 9660 and in UDF.
const DESCRIPTORS: u64 = 16;

/// How many descriptors are looked at; a Windows image has its UDF ones after three or four of ISO 9660.
const LOOKED_AT: u64 = 16;

/// The words that begin a descriptor, after one byte.
const SIGNATURES: [&[u8; 5]; 3] = [b"CD001", b"BEA01", b"NSR02"];

/// Says whether a file is an image of a CD or DVD; returns its size.
pub(crate) fn check(image: &Path) -> PortResult<u64> {
    let no = |why: &str| {
        PortError::new(
            PortErrorKind::Mismatch,
            format!("`{}` {why}", image.display()),
        )
        .about(image.display().to_string())
        .advise("name the image of a CD or DVD: a regular file in ISO 9660 or UDF format")
    };
    if !image.is_absolute() || image.to_str().is_none() {
        return Err(no("is not an absolute path in UTF-8"));
    }
    // Not blocking: somebody may name a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(image, flags, Mode::empty())
        .map_err(|e| error::file(&e.into(), "open the image", image))?;
    let mut file = std::fs::File::from(file);
    let meta = file
        .metadata()
        .map_err(|e| error::file(&e, "examine the image", image))?;
    if !meta.is_file() {
        return Err(no("is not a regular file"));
    }
    let mut descriptors = Vec::new();
    file.seek(SeekFrom::Start(DESCRIPTORS * SECTOR))
        .and_then(|_| {
            (&mut file)
                .take(LOOKED_AT * SECTOR)
                .read_to_end(&mut descriptors)
        })
        .map_err(|e| error::file(&e, "read the image", image))?;
    let sectors = usize::try_from(SECTOR).unwrap_or(2048);
    let known = descriptors.chunks(sectors).any(|sector| {
        let word = sector.get(1..6);
        SIGNATURES.iter().any(|s| word == Some(s.as_slice()))
    });
    if known {
        Ok(meta.len())
    } else {
        Err(no("has neither an ISO 9660 nor a UDF signature"))
    }
}

impl QemuSystem {
    pub(crate) async fn look_into_drive(&self, id: MachineId) -> PortResult<Medium> {
        let conn = self.conn(id).await?;
        Ok(drive(&conn.query("query-block").await?))
    }

    pub(crate) async fn insert_medium(&self, id: MachineId, image: &Path) -> PortResult<()> {
        check(image)?;
        let conn = self.conn(id).await?;
        let here = drive(&conn.query("query-block").await?).image;
        if here.as_deref() == Some(image) {
            return Ok(());
        }
        // An empty drive holds nothing that could be pulled away, though its tray may be locked: the lock of Production's
        // drive crosses the fork, its disc does not.
        let arguments = json!({
            "id": DRIVE, "filename": image, "format": "raw", "read-only-mode": "read-only",
            "force": here.is_none(),
        });
        let changed = conn.run("blockdev-change-medium", arguments).await;
        changed.map(drop).map_err(|e| locked(id, e))
    }

    pub(crate) async fn eject_medium(&self, id: MachineId, force: bool) -> PortResult<()> {
        let conn = self.conn(id).await?;
        if drive(&conn.query("query-block").await?).image.is_none() {
            return Ok(());
        }
        let arguments = json!({ "id": DRIVE, "force": force });
        conn.run("eject", arguments)
            .await
            .map(drop)
            .map_err(|e| locked(id, e))
    }
}

/// A tray that the guest has locked; it has been asked to let go of it.
fn locked(id: MachineId, failure: PortError) -> PortError {
    if !failure.causes.iter().any(|c| c.contains("is locked")) {
        return failure;
    }
    PortError {
        causes: failure.causes,
        ..PortError::new(
            PortErrorKind::InUse,
            format!("the guest of {id} uses the CD and has locked the drive"),
        )
        .about("cd0")
        .advise("unmount it there (`umount /dev/sr0`), then try again; `--force` pulls it out")
    }
}

/// Finds the drive in what QEMU says.
fn drive(block: &Value) -> Medium {
    let devices = block.as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = |entry: &&Value| {
        let qdev = entry.get("qdev").and_then(Value::as_str);
        qdev.and_then(|q| q.rsplit('/').next()) == Some(DRIVE)
    };
    let Some(entry) = devices.iter().find(ours) else {
        return Medium::default();
    };
    let file = entry
        .get("inserted")
        .and_then(|i| i.get("file"))
        .and_then(Value::as_str);
    Medium {
        image: file.map(PathBuf::from),
        locked: entry.get("locked").and_then(Value::as_bool) == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_discs_are_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = |at: usize, word: &[u8]| {
            let path = dir.path().join("x.iso");
            let mut bytes = vec![0; 40 * 2048];
            bytes[at..at + word.len()].copy_from_slice(word);
            std::fs::write(&path, bytes).expect("written");
            check(&path)
        };
        assert_eq!(image(16 * 2048 + 1, b"CD001").expect("ISO 9660"), 40 * 2048);
        assert!(image(18 * 2048 + 1, b"BEA01").is_ok(), "UDF");
        let refused = image(0, b"CD001").expect_err("no signature where one belongs");
        assert!(refused.message.contains("x.iso"), "{refused}");
        assert!(check(dir.path()).is_err(), "a directory");
        assert!(check(&dir.path().join("gone")).is_err());
        assert!(check(Path::new("relative.iso")).is_err());
        std::fs::write(dir.path().join("short"), b"x").expect("written");
        assert!(check(&dir.path().join("short")).is_err());
    }

    #[test]
    fn the_drive_is_found_and_read() {
        let said = json!([
            { "qdev": "dev-system0", "inserted": { "file": "/a" } },
            { "qdev": "cd0", "locked": true, "inserted": { "file": "/x.iso" } },
        ]);
        let medium = Medium {
            image: Some("/x.iso".into()),
            locked: true,
        };
        assert_eq!(drive(&said), medium);
        assert_eq!(drive(&json!([{ "qdev": "cd0" }])), Medium::default());
        assert_eq!(drive(&json!(null)), Medium::default());
    }
}

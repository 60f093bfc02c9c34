//! Whether a leg's file is the one that was recorded (fault 22).
//!
//! A leg is opened by its name, and a name can lead elsewhere by now: the file was replaced by a copy, cut short, or a
//! link was put in its place. What was written to the machine since is not in such a file, so it is refused before
//! anything opens it: at the start of a machine, when a disk is plugged or gets a leg, on both sides of a
//! resynchronisation, and when legs are compared. A machine that runs has its files open already and goes on with them.

use crate::error;
use crate::system::QemuSystem;
use flipside_model::{DiskSpec, Leg};
use flipside_platform::{PortErrorKind, PortResult};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

impl QemuSystem {
    /// Refuses a leg whose file is not the recorded one. A system without a leg book (its first one is stored when it is
    /// created) has recorded nothing but the size.
    pub(crate) fn check_leg(&self, disk: &DiskSpec, leg: Leg) -> PortResult<()> {
        let recorded = match crate::book::read(&self.inner.paths.book()) {
            Ok(book) => book.disks.get(&disk.name).map(|pair| pair.get(leg).clone()),
            Err(e) if e.kind == PortErrorKind::Absent => None,
            Err(e) => return Err(e),
        };
        let path = disk.legs.get(leg);
        let problem = match &recorded {
            Some(entry) if entry.path != *path => {
                Some("is another file in the system's definition".to_owned())
            }
            _ => wrong_file(path, recorded.map(|entry| entry.inode), disk.size).err(),
        };
        let Some(problem) = problem else {
            return Ok(());
        };
        let shown = path.display();
        Err(
            error::mismatch(format!("leg {leg} of {} (`{shown}`) {problem}", disk.name))
                .about(disk.name.to_string())
                .advise(
                    "Put the original file back; flipside never uses a leg that it does not know",
                ),
        )
    }
}

/// Says what is wrong with a leg's file, its access rights included.
pub(crate) fn leg_problem(path: &Path, inode: u64, size: u64) -> Option<String> {
    match wrong_file(path, Some(inode), size) {
        Err(problem) => Some(problem),
        Ok(meta) if meta.is_file() && meta.mode() & 0o022 != 0 => {
            Some("can be written by others".into())
        }
        Ok(_) => None,
    }
}

/// Examines a leg's file without opening it; an error says why it is not the recorded one.
fn wrong_file(path: &Path, inode: Option<u64>, size: u64) -> Result<Metadata, String> {
    let meta = fs::symlink_metadata(path).map_err(|e| format!("cannot be examined: {e}"))?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        return Err("is a symbolic link".into());
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err("is neither a file nor a block device".into());
    }
    if inode.is_some_and(|inode| meta.ino() != inode) {
        return Err("is not the file that was recorded: it was replaced".into());
    }
    if kind.is_file() && meta.len() != size {
        return Err(format!("has {} bytes instead of {size}", meta.len()));
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 22.
    #[test]
    fn a_leg_that_is_not_the_recorded_file_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("leg");
        let make = || {
            let file = fs::File::create(&path).expect("made");
            file.set_len(65_536).expect("sized");
        };
        make();
        let inode = fs::metadata(&path).expect("there").ino();
        assert_eq!(leg_problem(&path, inode, 65_536), None);
        assert!(
            leg_problem(&path, inode, 131_072)
                .expect("wrong")
                .contains("bytes instead")
        );
        assert!(
            leg_problem(&path, inode + 1, 65_536)
                .expect("wrong")
                .contains("replaced")
        );
        fs::rename(&path, dir.path().join("kept")).expect("moved");
        std::os::unix::fs::symlink(dir.path().join("kept"), &path).expect("linked");
        assert!(
            leg_problem(&path, inode, 65_536)
                .expect("wrong")
                .contains("symbolic link")
        );
        fs::remove_file(&path).expect("removed");
        assert!(
            leg_problem(&path, inode, 65_536)
                .expect("wrong")
                .contains("examined")
        );
    }
}

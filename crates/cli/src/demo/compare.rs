//! Compares both legs of a disk, byte for byte; holes on both sides are skipped.

use super::limits::COMPARE;
use super::trouble::{Trouble, cannot};
use flipside_model::DiskStatus;
use rustix::fs::{SeekFrom, seek};
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Large enough to be fast.
const CHUNK: u64 = 1 << 20;

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Legs {
    pub(super) disk: String,
    pub(super) size: u64,
    /// Bytes that were read and compared; the rest are holes in both legs.
    pub(super) compared: u64,
    /// The first byte that differs, none when the legs are identical.
    pub(super) differs_at: Option<u64>,
}

/// Compares the legs of one disk, which nobody may be writing to.
pub(super) async fn disk(disk: &DiskStatus) -> Result<Legs, Trouble> {
    let name = disk.name.to_string();
    let [a, b] = disk.legs.as_slice() else {
        return Err(Trouble::new(format!(
            "{name} has {} legs instead of two",
            disk.legs.len()
        )));
    };
    let (a, b, size) = (a.path.clone(), b.path.clone(), disk.size);
    let work = move || files(&name, &a, &b, size);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Trouble::new(format!("the comparison ended: {error}")))?
}

fn files(disk: &str, a: &PathBuf, b: &PathBuf, size: u64) -> Result<Legs, Trouble> {
    let open = |path: &PathBuf| {
        let file = File::open(path).map_err(cannot(format!("open `{}`", path.display())))?;
        let meta = file.metadata();
        let length = meta.map_err(cannot(format!("examine `{}`", path.display())))?;
        Ok::<_, Trouble>((file, length.len()))
    };
    let ((file_a, len_a), (file_b, len_b)) = (open(a)?, open(b)?);
    let mut legs = Legs {
        disk: disk.to_owned(),
        size,
        compared: 0,
        differs_at: None,
    };
    if len_a != len_b {
        legs.differs_at = Some(len_a.min(len_b));
        return Ok(legs);
    }
    let deadline = Instant::now() + COMPARE.after;
    let (mut left, mut right) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let mut at = 0;
    while let Some(from) = next_data(&file_a, at, len_a)
        .into_iter()
        .chain(next_data(&file_b, at, len_a))
        .min()
    {
        if Instant::now() >= deadline {
            return Err(Trouble::new(format!(
                "the {} did not end in time",
                COMPARE.what
            )));
        }
        let count = CHUNK.min(len_a - from) as usize;
        read(&file_a, a, &mut left[..count], from)?;
        read(&file_b, b, &mut right[..count], from)?;
        if left[..count] != right[..count] {
            let same = left.iter().zip(&right).take_while(|(l, r)| l == r).count();
            legs.differs_at = Some(from + same as u64);
            return Ok(legs);
        }
        legs.compared += count as u64;
        at = from + count as u64;
    }
    Ok(legs)
}

/// Finds the next byte that is not in a hole; a file system that knows no holes has data everywhere.
fn next_data(file: &File, at: u64, length: u64) -> Option<u64> {
    if at >= length {
        return None;
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(found) => (found < length).then_some(found),
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some(at),
    }
}

fn read(file: &File, path: &Path, into: &mut [u8], at: u64) -> Result<(), Trouble> {
    file.read_exact_at(into, at)
        .map_err(cannot(format!("read `{}`", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 8 << 20;

    fn pair(write: impl Fn(&File, &File)) -> Legs {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let make = |path: &PathBuf| {
            let file = File::create(path).expect("made");
            file.set_len(SIZE).expect("sized");
            file
        };
        let (file_a, file_b) = (make(&a), make(&b));
        write(&file_a, &file_b);
        files("data0", &a, &b, SIZE).expect("compared")
    }

    #[test]
    fn equal_legs_are_identical_wherever_their_holes_are() {
        let legs = pair(|a, b| {
            a.write_all_at(b"same", 3 << 20).expect("written");
            b.write_all_at(b"same", 3 << 20).expect("written");
            // Zeroes that were written are equal to a hole.
            b.write_all_at(&[0; 4096], 6 << 20).expect("written");
        });
        assert_eq!(legs.differs_at, None);
        assert!(legs.compared > 0 && legs.compared <= SIZE, "{legs:?}");
        assert_eq!(pair(|_, _| {}).differs_at, None);
    }

    #[test]
    fn the_first_byte_that_differs_is_found() {
        let last = SIZE - 1;
        let legs = pair(|a, _| a.write_all_at(b"x", last).expect("written"));
        assert_eq!(legs.differs_at, Some(last));
        let legs = pair(|a, b| {
            a.write_all_at(b"abcd", 5000).expect("written");
            b.write_all_at(b"abxd", 5000).expect("written");
        });
        assert_eq!(legs.differs_at, Some(5002));
        let legs = pair(|a, _| a.set_len(SIZE - 4096).expect("cut"));
        assert_eq!(legs.differs_at, Some(SIZE - 4096));
    }
}

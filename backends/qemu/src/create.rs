//! Makes the two legs of a disk, empty or from an image.

use crate::error;
use crate::host::free_bytes;
use crate::image::{self, Image};
use crate::img;
use crate::paths::sync_dir;
use flipside_model::LegPaths;
use flipside_platform::{PortError, PortErrorKind, PortResult};
use rustix::fs::SeekFrom;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Disks are multiples of this: the granularity of change bitmaps, and aligned for every device.
const UNIT: u64 = 64 * 1024;

/// The smallest disk, one unit, and the largest, the largest file of ext4.
const LARGEST: u64 = 16 << 40;

/// Room that must be left on an enclosure beside a new leg, so that making one does not fill the file system.
const MARGIN: u64 = 64 * 1024 * 1024;

/// How long a conversion may print no progress. It prints at every percent; one percent of the largest disk that
/// makes sense takes less.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(600);

/// What a new disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskContent {
    /// Nothing; so many bytes, rounded up to 64 KiB.
    Blank(u64),
    /// What a raw or qcow2 image holds.
    Image(PathBuf),
}

/// A disk that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedDisk {
    /// Size in bytes.
    pub size: u64,
    /// Inode number of leg A.
    pub inode_a: u64,
    /// Inode number of leg B.
    pub inode_b: u64,
}

/// Makes both legs of a disk, equal and on stable storage. The image is converted into leg A, which is copied to
/// leg B. Existing files are never overwritten, and nothing is left behind on failure or when the call is given
/// up. `progress` hears a share between 0 and 1.
pub async fn create_disk(
    content: &DiskContent,
    legs: &LegPaths,
    progress: &(dyn Fn(f64) + Send + Sync),
) -> PortResult<CreatedDisk> {
    let [dir_a, dir_b] = enclosures(legs)?;
    let (size, needed, source) = match content {
        DiskContent::Blank(size) => (*size, 0, None),
        DiskContent::Image(path) => {
            let image = image::examine(path)?;
            if image.format == "qcow2" {
                img::check_whole(&image.path).await?;
            }
            (image.size, image.allocated, Some(image))
        }
    };
    if size == 0 || size > LARGEST {
        return Err(PortError::failed(format!(
            "a disk of {size} bytes cannot be made: it may have 1 byte to 16 TiB"
        )));
    }
    let size = size.div_ceil(UNIT) * UNIT;
    check_space(&dir_a, &dir_b, needed)?;
    let (made_a, file_a) = Made::new(&legs.a, size)?;
    let (made_b, file_b) = Made::new(&legs.b, size)?;
    if let Some(image) = source {
        convert(&image, &legs.a, &|share| progress(share * 0.7)).await?;
        file_a
            .set_len(size)
            .map_err(|e| error::file(&e, "size", &legs.a))?;
        let to = legs.b.clone();
        let from = file_a
            .try_clone()
            .map_err(|e| error::file(&e, "open", &legs.a))?;
        let into = file_b
            .try_clone()
            .map_err(|e| error::file(&e, "open", &legs.b))?;
        let copied = tokio::task::spawn_blocking(move || copy(&from, &into, size)).await;
        let copied = copied.map_err(|e| PortError::failed("copying a leg ended").because(&e))?;
        copied.map_err(|e| error::file(&e, "write", &to))?;
    }
    progress(0.9);
    let synced = tokio::task::spawn_blocking(move || {
        file_a.sync_all()?;
        file_b.sync_all()?;
        Ok::<_, io::Error>((file_a.metadata()?, file_b.metadata()?))
    });
    let synced = synced
        .await
        .map_err(|e| PortError::failed("syncing a leg ended").because(&e))?;
    let (a, b) = synced.map_err(|e| error::file(&e, "sync", &legs.a))?;
    for (meta, path) in [(&a, &legs.a), (&b, &legs.b)] {
        if meta.len() != size {
            return Err(error::mismatch(format!(
                "`{}` has {} bytes instead of {size}",
                path.display(),
                meta.len()
            )));
        }
    }
    sync_dir(&dir_a)?;
    sync_dir(&dir_b)?;
    made_a.keep();
    made_b.keep();
    progress(1.0);
    Ok(CreatedDisk {
        size,
        inode_a: a.ino(),
        inode_b: b.ino(),
    })
}

/// Finds the enclosures of both legs, makes them if need be, and refuses two that cannot fail apart.
fn enclosures(legs: &LegPaths) -> PortResult<[PathBuf; 2]> {
    let resolve = |path: &Path| {
        let parent = path
            .parent()
            .filter(|_| path.is_absolute())
            .ok_or_else(|| {
                PortError::failed(format!(
                    "the leg `{}` is not an absolute path",
                    path.display()
                ))
            })?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|e| error::file(&e, "make the enclosure", parent))?;
        parent
            .canonicalize()
            .map_err(|e| error::file(&e, "find the enclosure", parent))
    };
    let (a, b) = (resolve(&legs.a)?, resolve(&legs.b)?);
    let advice = "Give each leg a directory of its own, best on a device of its own";
    if a == b {
        return Err(PortError::failed(format!(
            "both enclosures are the same directory `{}`",
            a.display()
        ))
        .advise(advice));
    }
    for (inner, outer) in [(&a, &b), (&b, &a)] {
        if inner.starts_with(outer) {
            return Err(PortError::failed(format!(
                "the enclosure `{}` lies inside the enclosure `{}`",
                inner.display(),
                outer.display()
            ))
            .advise(advice));
        }
    }
    Ok([a, b])
}

fn check_space(a: &Path, b: &Path, needed: u64) -> PortResult<()> {
    let device = |path: &Path| {
        let meta = fs::metadata(path).map_err(|e| error::file(&e, "examine", path))?;
        PortResult::Ok(meta.dev())
    };
    let legs = if device(a)? == device(b)? { 2 } else { 1 };
    let needed = needed.saturating_mul(legs).saturating_add(MARGIN);
    for dir in [a, b] {
        let free = free_bytes(dir)?;
        if free < needed {
            return Err(PortError::new(
                PortErrorKind::NoSpace,
                format!(
                    "`{}` has {} MiB free; the new disk needs {} MiB",
                    dir.display(),
                    free >> 20,
                    needed >> 20
                ),
            )
            .about(dir.display().to_string())
            .advise("Free space there or choose another enclosure"));
        }
    }
    Ok(())
}

/// A file that is removed again unless it is kept.
struct Made(Option<PathBuf>);

impl Made {
    fn new(path: &Path, size: u64) -> PortResult<(Self, File)> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(PortError::new(
                    PortErrorKind::InUse,
                    format!(
                        "the leg `{}` exists already and is not overwritten",
                        path.display()
                    ),
                )
                .about(path.display().to_string())
                .advise("Remove it if it is not needed, or choose another enclosure"));
            }
            Err(e) => return Err(error::file(&e, "make", path)),
        };
        let made = Self(Some(path.to_owned()));
        file.set_len(size)
            .map_err(|e| error::file(&e, "size", path))?;
        Ok((made, file))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(e) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), "a half-made leg is left: {e}");
        }
    }
}

/// Converts an image into an existing file. `-n` keeps the file and its mode; `--target-is-zero` keeps holes.
async fn convert(
    image: &Image,
    into: &Path,
    progress: &(dyn Fn(f64) + Send + Sync),
) -> PortResult<()> {
    let mut command = img::command();
    command
        .args([
            "convert",
            "-p",
            "-n",
            "--target-is-zero",
            "-f",
            image.format,
            "-O",
            "raw",
            "--",
        ])
        .arg(&image.path)
        .arg(into)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| img::not_started(&e))?;
    let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(PortError::failed("`qemu-img` has no output"));
    };
    let complaints = tokio::spawn(async move {
        let mut bytes = Vec::new();
        // A few lines are enough for a message.
        let _ = err.take(16 * 1024).read_to_end(&mut bytes).await;
        bytes
    });
    let mut chunk = [0u8; 256];
    loop {
        let read = tokio::time::timeout(SILENCE_TIMEOUT, out.read(&mut chunk)).await;
        match read {
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => {
                if let Some(share) = share(&chunk[..count]) {
                    progress(share);
                }
            }
            Ok(Err(e)) => return Err(error::file(&e, "convert", &image.path)),
            Err(_) => {
                return Err(PortError::timed_out(format!(
                    "converting `{}` made no progress for {} s",
                    image.path.display(),
                    SILENCE_TIMEOUT.as_secs()
                )));
            }
        }
    }
    let status = child.wait().await.map_err(|e| img::not_started(&e))?;
    let complaints = complaints.await.unwrap_or_default();
    if !status.success() {
        return Err(img::refused("convert", &image.path, &complaints));
    }
    Ok(())
}

/// Reads the last `    (12.34/100%)` of what `qemu-img -p` prints.
fn share(printed: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(printed).ok()?;
    let (before, _) = text.rsplit_once("/100%")?;
    let (_, percent) = before.rsplit_once('(')?;
    let percent: f64 = percent.trim().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// Copies a leg: by reference where the file system can, otherwise what is not a hole.
fn copy(from: &File, into: &File, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(into, from).is_ok() {
        return Ok(());
    }
    let mut buffer = vec![0u8; 1024 * 1024];
    let mut at = 0u64;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(size);
        at = data;
        while at < hole {
            let length = buffer
                .len()
                .min(usize::try_from(hole - at).unwrap_or(buffer.len()));
            from.read_exact_at(&mut buffer[..length], at)?;
            into.write_all_at(&buffer[..length], at)?;
            at += length as u64;
        }
    }
    into.set_len(size)
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;

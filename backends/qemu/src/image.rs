//! Looks at an image before anything else does, and refuses what is not plainly a disk's content.
//!
//! The format is told by its first bytes, never by QEMU's guess. A qcow2 may name other files (a backing file, an
//! external data file); an image from elsewhere could so make us read any file of the host, so such images are
//! refused (security checklist 28).

use crate::error;
use flipside_platform::{PortError, PortErrorKind, PortResult};
use rustix::fs::OFlags;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An image that may be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its absolute path without links.
    pub(crate) path: PathBuf,
    /// `raw` or `qcow2`.
    pub(crate) format: &'static str,
    /// Bytes of the disk in it.
    pub(crate) size: u64,
    /// Bytes it will take on the host, at least.
    pub(crate) allocated: u64,
}

/// First bytes of formats that are not imported directly.
const OTHERS: [(&[u8], &str); 8] = [
    (b"KDMV", "VMDK"),
    (b"COWD", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"QED\0", "QED"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"<<< Oracle VM VirtualBox", "VDI"),
];

/// Bits of a qcow2 header that this code knows to be harmless: dirty (repaired on opening), compression type,
/// extended entries.
const HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;

/// Examines an image file.
pub(crate) fn examine(path: &Path) -> PortResult<Image> {
    let found = path.canonicalize().map_err(|e| {
        error::file(&e, "find the image", path).advise("Check the path of the image")
    })?;
    let refuse = |why: String, advice: &str| {
        PortError::failed(format!("the image `{}` {why}", path.display()))
            .about(path.display().to_string())
            .advise(advice)
    };
    // Without NONBLOCK opening a fifo would wait for its writer.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&found)
        .map_err(|e| error::file(&e, "open the image", path))?;
    let meta = file
        .metadata()
        .map_err(|e| error::file(&e, "examine the image", path))?;
    let kind = meta.file_type();
    let expected = "Name a raw or qcow2 image file";
    if kind.is_dir() {
        return Err(refuse("is a directory".into(), expected));
    }
    if kind.is_block_device() || !kind.is_file() {
        let what = if kind.is_block_device() {
            "is a block device"
        } else {
            "is not a plain file"
        };
        return Err(refuse(
            what.into(),
            "Copy it into a file first, for example with `dd`",
        ));
    }
    if meta.len() == 0 {
        return Err(refuse("is empty".into(), expected));
    }
    let mut head = [0u8; 128];
    let mut read = 0;
    while read < head.len() {
        match file.read_at(&mut head[read..], read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(e) => return Err(error::file(&e, "read the image", path)),
        }
    }
    let allocated = (meta.blocks() * 512).min(meta.len());
    let (format, size) = header(&head[..read], meta.len()).map_err(|refusal| {
        let mut refused = refuse(refusal.why, refusal.advice);
        refused.kind = refusal.kind;
        refused
    })?;
    Ok(Image {
        path: found,
        format,
        size,
        allocated: allocated.min(size),
    })
}

/// Why an image is refused, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    kind: PortErrorKind,
    /// Goes on after the image's name.
    pub(crate) why: String,
    advice: &'static str,
}

/// Tells the format of an image by its first bytes and its length, and the size of the disk in it. Total over any bytes.
pub(crate) fn header(head: &[u8], length: u64) -> Result<(&'static str, u64), Refusal> {
    let refusal = |kind, why, advice| Refusal { kind, why, advice };
    if head.starts_with(b"QFI\xfb") {
        return qcow2(head)
            .map(|size| ("qcow2", size))
            .map_err(|(why, advice)| refusal(PortErrorKind::Unsupported, why, advice));
    }
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(refusal(
            PortErrorKind::Unsupported,
            format!("is in the format {name}, which is not imported"),
            "Convert it first: qemu-img convert -O qcow2 IMAGE IMAGE.qcow2",
        ));
    }
    if !length.is_multiple_of(512) {
        return Err(refusal(
            PortErrorKind::Failed,
            format!("has {length} bytes, which is not a whole number of 512-byte sectors"),
            "It is cut short or not a disk image; check how it was copied",
        ));
    }
    Ok(("raw", length))
}

/// Reads a qcow2 header: the size of the disk, or why it is refused and what to do. Total over any bytes.
fn qcow2(head: &[u8]) -> Result<u64, (String, &'static str)> {
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    let short = || {
        (
            "is a qcow2 image cut short".to_owned(),
            "Check how it was copied",
        )
    };
    let version = number(4, 4).ok_or_else(short)?;
    if version != 2 && version != 3 {
        return Err((
            format!("is a qcow2 image of version {version}"),
            "Convert it first: qemu-img convert -O qcow2 IMAGE IMAGE.new",
        ));
    }
    if number(8, 8).ok_or_else(short)? != 0 {
        return Err((
            "refers to a backing file".into(),
            "Make it independent first: qemu-img convert -O qcow2 IMAGE IMAGE.new",
        ));
    }
    if number(32, 4).ok_or_else(short)? != 0 {
        return Err((
            "is encrypted".into(),
            "Decrypt it first, with `qemu-img convert` and its key",
        ));
    }
    if version == 3 {
        let features = number(72, 8).ok_or_else(short)?;
        if features & DATA_FILE != 0 {
            return Err((
                "keeps its data in another file".into(),
                "Make it independent first: qemu-img convert -O qcow2 IMAGE IMAGE.new",
            ));
        }
        if features & CORRUPT != 0 {
            return Err((
                "is marked corrupt".into(),
                "Repair a copy of it: qemu-img check -r all IMAGE",
            ));
        }
        if features & !HARMLESS != 0 {
            return Err((
                format!("uses features that are not known here ({features:#x})"),
                "Convert it with the QEMU that made it: qemu-img convert -O raw IMAGE IMAGE.raw",
            ));
        }
    }
    number(24, 8).filter(|size| *size > 0).ok_or_else(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut head = vec![0u8; 128];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[29] = 1; // 64 KiB
        change(&mut head);
        head
    }

    // Security checklist 28.
    #[test]
    fn headers_that_name_other_files_are_refused() {
        assert_eq!(qcow2(&header(|_| {})), Ok(0x1_0000));
        let cases: [(usize, u8, &str); 6] = [
            (15, 1, "backing file"),
            (35, 2, "encrypted"),
            (79, 1 << 2, "another file"),
            (79, 1 << 1, "corrupt"),
            (78, 1, "not known"),
            (7, 9, "version"),
        ];
        for (at, byte, word) in cases {
            let (why, _) = qcow2(&header(|h| h[at] = byte)).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn any_prefix_of_a_header_is_read_or_refused() {
        let head = header(|_| {});
        for length in 0..head.len() {
            let _ = qcow2(&head[..length]);
        }
    }

    #[test]
    fn what_is_not_an_image_is_refused_with_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).expect("written");
            path
        };
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
            .expect("made");
        for (path, word) in [
            (dir.path().to_owned(), "directory"),
            (dir.path().join("none"), "find"),
            (fifo, "plain file"),
            (file("empty", b""), "empty"),
            (file("odd", &[1; 700]), "512"),
            (file("vmdk", b"KDMV and so on"), "VMDK"),
        ] {
            let refused = examine(&path).expect_err(word);
            assert!(refused.message.contains(word), "{}", refused.message);
            assert!(refused.message.contains(&*path.to_string_lossy()));
            assert!(refused.advice.is_some(), "{word}");
        }
        let raw = examine(&file("raw", &[1; 1024])).expect("fine");
        assert_eq!((raw.format, raw.size), ("raw", 1024));
    }
}

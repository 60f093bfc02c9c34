use super::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

fn legs(dir: &Path) -> LegPaths {
    LegPaths {
        a: dir.join("enclosure-a/system0.raw"),
        b: dir.join("enclosure-b/system0.raw"),
    }
}

fn image(dir: &Path, format: &str) -> PathBuf {
    let raw = dir.join("source.raw");
    let file = File::create(&raw).expect("made");
    file.set_len(3 * 1024 * 1024 + 512).expect("sized");
    file.write_all_at(b"boot", 0).expect("written");
    file.write_all_at(&[9; 70_000], 2_000_000).expect("written");
    if format == "raw" {
        return raw;
    }
    let path = dir.join("source.img");
    let done = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", format])
        .args([&raw, &path])
        .status();
    assert!(done.expect("qemu-img runs").success());
    path
}

#[tokio::test]
async fn both_legs_hold_the_image_and_are_private() {
    for format in ["raw", "qcow2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let legs = legs(dir.path());
        let content = DiskContent::Image(image(dir.path(), format));
        let shares = Mutex::new(Vec::new());
        let progress = |share| shares.lock().expect("not poisoned").push(share);
        let made = create_disk(&content, &legs, &progress).await.expect("made");
        assert_eq!(made.size % UNIT, 0);
        let (a, b) = (
            fs::read(&legs.a).expect("read"),
            fs::read(&legs.b).expect("read"),
        );
        assert!(a == b && &a[..4] == b"boot" && a[2_000_000] == 9);
        assert_eq!(a.len() as u64, made.size);
        for path in [&legs.a, &legs.b] {
            let meta = fs::metadata(path).expect("there");
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
            assert!(
                meta.blocks() * 512 < made.size / 2,
                "{format}: holes are kept"
            );
        }
        let shares = shares.into_inner().expect("not poisoned");
        assert!(
            shares.is_sorted() && shares.last() == Some(&1.0),
            "{shares:?}"
        );
    }
}

#[tokio::test]
async fn a_blank_disk_is_rounded_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = create_disk(&DiskContent::Blank(1_000_000), &legs(dir.path()), &|_| {}).await;
    assert_eq!(made.expect("made").size, 1_048_576);
}

#[tokio::test]
async fn a_failure_leaves_nothing_and_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let legs = legs(dir.path());
    fs::create_dir_all(legs.b.parent().expect("a parent")).expect("made");
    fs::write(&legs.b, b"precious").expect("written");
    let refused = create_disk(&DiskContent::Blank(65_536), &legs, &|_| {}).await;
    assert_eq!(refused.expect_err("exists").kind, PortErrorKind::InUse);
    assert!(!legs.a.exists());
    assert_eq!(fs::read(&legs.b).expect("read"), b"precious");
    fs::remove_file(&legs.b).expect("removed");

    // A qcow2 header without the rest of an image.
    let path = dir.path().join("broken");
    let mut head = vec![0u8; 4096];
    head[..4].copy_from_slice(b"QFI\xfb");
    head[7] = 3;
    head[29] = 1;
    fs::write(&path, head).expect("written");
    let failed = create_disk(&DiskContent::Image(path), &legs, &|_| {}).await;
    assert!(!failed.expect_err("broken").causes.is_empty());
    assert!(!legs.a.exists() && !legs.b.exists());
}

#[tokio::test]
async fn enclosures_that_cannot_fail_apart_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    for (a, b, word) in [
        ("e/a.raw", "e/b.raw", "same"),
        ("e/a.raw", "e/x/b.raw", "inside"),
        ("e/x/a.raw", "e/b.raw", "inside"),
    ] {
        let legs = LegPaths {
            a: path(a),
            b: path(b),
        };
        let refused = create_disk(&DiskContent::Blank(1), &legs, &|_| {}).await;
        assert!(refused.expect_err(word).message.contains(word));
    }
}

#[test]
fn progress_is_read_from_what_is_printed() {
    assert_eq!(share(b"    (12.50/100%)\r"), Some(0.125));
    assert_eq!(share(b"(1.00/100%)\r    (2.00/100%)\r"), Some(0.02));
    for other in [&b"x"[..], b"(/100%)", b"(900/100%)", b"\xff"] {
        assert_eq!(share(other), None);
    }
}

use super::*;
use crate::system::Options;
use flipside_model::{Firmware, NetworkSpec, SystemName, SystemSpec};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

fn system(state: &Path) -> QemuSystem {
    let spec = SystemSpec {
        version: 1,
        layout: 1,
        name: SystemName::new("web").expect("valid"),
        uuid: uuid::Uuid::nil(),
        memory_mib: 64,
        cpus: 1,
        firmware: Firmware::Bios,
        network: NetworkSpec::User,
        mac: "52:54:00:00:00:01".into(),
        publish: Vec::new(),
        enclosures: ["/e/a".into(), "/e/b".into()],
        disks: Vec::new(),
    };
    QemuSystem::open(spec, state, Options::default()).expect("opened")
}

fn first() -> LegBook {
    LegBook::new(BTreeMap::new())
}

#[tokio::test]
async fn a_change_made_to_an_old_book_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = system(dir.path());
    assert_eq!(
        system.load().await.expect_err("none yet").kind,
        PortErrorKind::Absent
    );
    let one = system.store(&first()).await.expect("stored");
    assert_eq!(one.generation, 1);
    let two = system.store(&one).await.expect("stored");
    assert_eq!(system.load().await.expect("read"), two);
    for old in [&first(), &one] {
        let refused = system.store(old).await.expect_err("old");
        assert_eq!(refused.kind, PortErrorKind::Mismatch);
    }
    assert_eq!(
        system.load().await.expect("read"),
        two,
        "nothing was changed"
    );
}

// Fault 14.
#[tokio::test]
async fn a_book_that_is_not_plainly_ours_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = system(dir.path());
    system.store(&first()).await.expect("stored");
    let path = system.paths().book();
    let good = fs::read(&path).expect("read");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
    assert!(
        system
            .load()
            .await
            .expect_err("open")
            .message
            .contains("by others")
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");

    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("linked");
    assert!(system.load().await.is_err(), "a symbolic link");
    fs::remove_file(&path).expect("removed");

    for length in 0..good.len() {
        fs::write(&path, &good[..length]).expect("written");
        let refused = system.load().await.expect_err("cut short");
        assert_eq!(refused.kind, PortErrorKind::Mismatch);
        assert!(
            system.store(&first()).await.is_err(),
            "a damaged book is not replaced"
        );
    }
    let later = String::from_utf8(good)
        .expect("text")
        .replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, later).expect("written");
    assert!(
        system
            .load()
            .await
            .expect_err("later")
            .message
            .contains("version 2")
    );
}

// Fault 4: a process that hangs with the lease is ended by whoever needs it; nobody ends itself.
#[tokio::test]
async fn whoever_holds_the_lease_can_be_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = system(dir.path());
    let held = system.lease().await.expect("taken");
    assert_eq!(system.end_lease_holder().await.expect("ourselves"), None);
    drop(held);
    assert_eq!(system.end_lease_holder().await.expect("nobody"), None);

    let path = system.paths().lease();
    let mut other = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&path)
        .args(["sleep", "1000"])
        .spawn()
        .expect("started");
    let pid = i32::try_from(other.id()).expect("a process id");
    let deadline = Instant::now() + LEASE_TIMEOUT;
    let file = open_lease(&path).expect("opened");
    while flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        flock(&file, FlockOperation::Unlock).expect("given back");
        assert!(Instant::now() < deadline, "it takes the lease");
        sleep(LEASE_PAUSE).await;
    }
    // We signed last, so nobody knows who it is; and a signature of a process that is gone names nobody.
    assert_eq!(system.end_lease_holder().await.expect("unknown"), None);
    let mut gone = Identity::of(pid).expect("it runs");
    let alive = gone.clone();
    gone.start += 1;
    for (signed, ended) in [(gone, None), (alive, Some(pid))] {
        let text = serde_json::to_vec(&signed).expect("text");
        file.set_len(0).expect("emptied");
        file.write_all_at(&text, 0).expect("written");
        let was = system.end_lease_holder().await;
        assert_eq!(was.expect("asked"), ended);
    }
    assert!(other.wait().expect("collected").code().is_none(), "killed");
}

#[tokio::test]
async fn one_lease_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = system(dir.path());
    let held = system.lease().await.expect("taken");
    let other = system.clone();
    let waiting = tokio::spawn(async move { other.lease().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(held);
    waiting
        .await
        .expect("ran")
        .expect("taken after it was given back");
}

//! The journal on real files: what is refused, and what survives.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Record, record};
use flipside_journal::{
    ABORT_RESERVE, FileError, FileStorage, Journal, JournalError, MAX_LINE_BYTES, Opened, Storage,
};

fn open(dir: &Path) -> Result<(Journal<Record>, Opened<Record>), JournalError> {
    Journal::open(FileStorage::open(dir).unwrap())
}

/// Makes a journal of three records and returns its directory.
fn journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(FileStorage::open(dir.path()).unwrap()).unwrap();
    for n in 1..=3 {
        journal.append(&record(n)).unwrap();
    }
    dir
}

fn refusal(dir: &Path) -> String {
    match FileStorage::open(dir) {
        Err(error @ FileError::Unsafe { .. }) => error.to_string(),
        other => panic!("not refused as unsafe: {other:?}"),
    }
}

#[test]
fn records_survive_and_the_file_is_private() {
    let dir = journal();
    let (mut journal, opened) = open(dir.path()).unwrap();
    assert_eq!(opened.dropped_tail, None);
    assert!(
        opened
            .records
            .into_iter()
            .map(|entry| (entry.seq, entry.record))
            .eq((1..=3).map(|n| (n, record(n))))
    );
    assert_eq!(journal.append(&record(4)).unwrap(), 4);
    let meta = fs::metadata(dir.path().join("journal.0001")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o600);
    assert_eq!(meta.len(), journal.file_len());
    assert!(
        meta.blocks() * 512 >= meta.len() + ABORT_RESERVE,
        "space must be reserved behind the end"
    );
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let dir = journal();
    let path = dir.path().join("journal.0001");
    let whole = fs::read(&path).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(whole.len() as u64 - 7)
        .unwrap();
    let (mut journal, opened) = open(dir.path()).unwrap();
    let tail = opened.dropped_tail.unwrap();
    assert_eq!(
        (opened.records.len(), tail.line, tail.complete),
        (2, 4, false)
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), tail.offset);
    journal.append(&record(3)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let dir = journal();
    let (journal, _) = open(dir.path()).unwrap();
    match FileStorage::open(dir.path()) {
        Err(error @ FileError::Locked { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
            assert!(
                error
                    .to_string()
                    .contains(&format!("process {}", std::process::id())),
                "{error}"
            );
        }
        other => panic!("not refused: {other:?}"),
    }
    drop(journal);
    open(dir.path()).unwrap();
}

// Fault 14, security 17.
#[test]
fn what_others_could_have_put_there_is_refused() {
    let dir = journal();
    let (path, aside) = (dir.path().join("journal.0001"), dir.path().join("aside"));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refusal(dir.path()).contains("0640"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    fs::hard_link(&path, &aside).unwrap();
    assert!(refusal(dir.path()).contains("2 hard links"));
    fs::remove_file(&path).unwrap();

    symlink(&aside, &path).unwrap();
    assert!(refusal(dir.path()).contains("symbolic link"));
    fs::remove_file(&path).unwrap();

    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    assert!(refusal(dir.path()).contains("directory"));
    fs::remove_dir(&path).unwrap();

    let pipe = Command::new("mkfifo")
        .arg("-m")
        .arg("600")
        .arg(&path)
        .status()
        .unwrap();
    assert!(pipe.success());
    assert!(refusal(dir.path()).contains("not a regular file"));
    fs::remove_file(&path).unwrap();

    fs::rename(&aside, &path).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(refusal(dir.path()).contains("others may write"));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.records.len(), 3);
}

// Fault 14, security 17.
#[test]
fn a_lock_or_a_directory_behind_a_link_is_refused() {
    let dir = journal();
    let lock = dir.path().join("journal.lock");
    fs::remove_file(&lock).unwrap();
    symlink(dir.path().join("victim"), &lock).unwrap();
    assert!(refusal(dir.path()).contains("symbolic link"));
    assert!(!dir.path().join("victim").exists());

    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(dir.path(), &link).unwrap();
    assert!(refusal(&link).contains("symbolic link"));
}

#[test]
fn files_of_another_user_are_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let dir = journal();
    std::os::unix::fs::chown(dir.path().join("journal.0001"), Some(65534), None).unwrap();
    assert!(refusal(dir.path()).contains("belongs to user 65534"));
}

// Fault 14.
#[test]
fn a_missing_journal_is_not_created_by_opening() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(JournalError::Missing { .. })
    ));
    let missing = dir.path().join("no-such-directory");
    assert!(matches!(
        FileStorage::open(&missing),
        Err(FileError::Io { .. })
    ));
}

#[test]
fn rotation_starts_a_file_that_continues_the_one_before() {
    let dir = journal();
    let (mut journal, _) = open(dir.path()).unwrap();
    for n in 4..=6 {
        assert_eq!(journal.rotate(&record(n)).unwrap(), n);
    }
    let position = journal.position();
    assert_eq!((position.generation, position.seq), (4, 6));
    let (first, second) = (read(dir.path(), 1), read(dir.path(), 2));
    let last = first.lines().last().unwrap().split(' ').next().unwrap();
    assert!(
        second.contains(&format!("generation=2 first=4 chain={last} ")),
        "{second}"
    );

    journal.prune(2).unwrap();
    drop(journal);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["journal.0003", "journal.0004", "journal.lock"]);
    let (journal, opened) = open(dir.path()).unwrap();
    assert_eq!((opened.records.len(), journal.position()), (1, position));
}

#[test]
fn an_old_file_under_the_newest_name_is_refused() {
    let dir = journal();
    open(dir.path()).unwrap().0.rotate(&record(4)).unwrap();
    fs::copy(
        dir.path().join("journal.0001"),
        dir.path().join("journal.0003"),
    )
    .unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { line: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("generation 1"), "{error}");
}

#[test]
fn a_leftover_of_an_interrupted_rotation_is_replaced() {
    let dir = journal();
    let leftover = dir.path().join("journal.next.tmp");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&leftover)
        .unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    journal.rotate(&record(4)).unwrap();
    assert!(!leftover.exists());
}

// Fault 11: however long the journal gets, the reserve lies behind its end; and it takes little more than that.
#[test]
fn the_reserve_moves_on_with_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.0001");
    // Reserved ahead of time in steps of 64 KiB; blocks of the file system, its own notes included.
    const STEP: u64 = 64 * 1024;
    const BLOCKS: u64 = 16 * 1024;
    let reserved = |what: &str| {
        let meta = fs::metadata(&path).unwrap();
        let (space, least) = (meta.blocks() * 512, meta.len() + ABORT_RESERVE);
        assert!(space >= least, "{what}: {space} of {least}");
        assert!(space <= least + STEP + BLOCKS, "{what}: {space} of {least}");
    };
    let long = Record::Opened {
        system: "x".repeat(10_000),
    };
    let mut journal = Journal::create(FileStorage::open(dir.path()).unwrap()).unwrap();
    reserved("created");
    for n in 1..=60 {
        journal.append(&long).unwrap();
        reserved(&format!("{n} records"));
    }
    drop(journal);
    let len = fs::metadata(&path).unwrap().len();
    let shorten = fs::OpenOptions::new().write(true).open(&path).unwrap();
    shorten.set_len(len - 7).unwrap();
    let (mut journal, opened) = open(dir.path()).unwrap();
    assert_eq!(opened.records.len(), 59);
    reserved("a torn tail was cut off");
    journal.append(&long).unwrap();
    reserved("and the record was written again");
}

// Fault 1: machines outlive the server. If they inherited the lock, the next server would be refused.
#[test]
fn a_process_that_was_started_meanwhile_does_not_keep_the_lock() {
    let dir = journal();
    let (mut journal, _) = open(dir.path()).unwrap();
    journal.rotate(&record(4)).unwrap();
    let mut child = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let inherited: Vec<_> = fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.starts_with(dir.path()))
        .collect();
    drop(journal);
    let reopened = open(dir.path()).map(drop);
    drop(child.stdin.take());
    child.wait().unwrap();
    reopened.unwrap();
    assert_eq!(inherited, Vec::<std::path::PathBuf>::new());
}

#[test]
fn files_with_other_names_are_none_of_the_journal() {
    let dir = journal();
    let strange = ["journal.0000", "journal.5", "journal.00007", "journal.x"];
    for name in strange {
        fs::write(dir.path().join(name), "something else").unwrap();
    }
    let (mut journal, opened) = open(dir.path()).unwrap();
    assert_eq!(opened.records.len(), 3);
    journal.rotate(&record(4)).unwrap();
    assert_eq!(journal.position().generation, 2);
    journal.prune(1).unwrap();
    assert!(!dir.path().join("journal.0001").exists());
    for name in strange {
        assert!(dir.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_file_is_no_directory_for_a_journal() {
    let dir = journal();
    assert!(refusal(&dir.path().join("journal.0001")).contains("not a directory"));
}

#[test]
fn messages_name_the_file_that_is_meant() {
    let dir = journal();
    open(dir.path()).unwrap().0.rotate(&record(4)).unwrap();
    let storage = FileStorage::open(dir.path()).unwrap();
    assert_eq!(storage.file_path(7), dir.path().join("journal.0007"));
    let exists = Journal::<Record>::create(storage).unwrap_err().to_string();
    let second = dir.path().join("journal.0002").display().to_string();
    assert!(exists.contains(&second), "{exists}");
    let empty = tempfile::tempdir().unwrap();
    let missing = open(empty.path()).unwrap_err().to_string();
    let first = empty.path().join("journal.0001").display().to_string();
    assert!(missing.contains(&first), "{missing}");
}

/// Runs a test on a file system of its own, mounted without a device.
fn mounted(kind: &str, options: &str, test: impl FnOnce(&Path) + std::panic::UnwindSafe) {
    let dir = tempfile::tempdir().unwrap();
    let mount = |argv: &[&str]| {
        let mut command = Command::new(argv[0]);
        let status = command.args(&argv[1..]).arg(dir.path()).status();
        assert!(status.unwrap().success());
    };
    mount(&["mount", "-t", kind, "-o", options, "flipside-test"]);
    let result = std::panic::catch_unwind(|| test(dir.path()));
    mount(&["umount", "--lazy"]);
    result.unwrap();
}

/// Fills a small file system around the journal. Run as root with `cargo nextest run --run-ignored all`.
// Fault 11.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_file_system_refuses_work_but_has_room_for_an_abort() {
    mounted("tmpfs", "size=4m,mode=0700", fill_and_abort);
}

// Fault 11: where only a part of the bytes found room, the answer is not "full", because something has changed.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_write_that_stops_half_way_is_not_called_full() {
    mounted("tmpfs", "size=1m,mode=0700", |dir| {
        let mut storage = FileStorage::open(dir).unwrap();
        let contents = b"header\n";
        storage.start_next(contents).unwrap();
        let half_way = storage.append(&vec![b'x'; 2 << 20]).unwrap_err();
        assert_eq!(half_way.kind(), std::io::ErrorKind::Other, "{half_way}");
        let written = fs::read(dir.join("journal.0001")).unwrap();
        assert!(written.len() > ABORT_RESERVE as usize);
        assert!(written.starts_with(contents));
        assert!(written[contents.len()..].iter().all(|byte| *byte == b'x'));
        // Not a byte of this one finds room, so nothing has changed.
        let len = storage.read_all().unwrap().len();
        let full = storage.append(b"y").unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        assert_eq!(storage.read_all().unwrap().len(), len);
    });
}

// Fault 11: space is reserved ahead generously, but where that does not fit, what is needed is enough.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn the_last_space_of_a_disk_is_used() {
    mounted("tmpfs", "size=1m,mode=0700", |dir| {
        let mut journal = Journal::create(FileStorage::open(dir).unwrap()).unwrap();
        // All but 16 KiB, and a step of 64 KiB is reserved at a time.
        let free = rustix::fs::statvfs(dir).unwrap();
        let free = free.f_bavail * free.f_frsize;
        let ballast = usize::try_from(free).unwrap() - 16 * 1024;
        fs::write(dir.join("ballast"), vec![0; ballast]).unwrap();
        let long = Record::Opened {
            system: "x".repeat(8_000),
        };
        journal.append(&long).unwrap();
        let full = loop {
            if let Err(error) = journal.append(&long) {
                break error;
            }
        };
        assert!(matches!(full, JournalError::Full { .. }), "{full}");
        journal.append_reserved(&long).unwrap();
    });
}

// Where a file system cannot reserve space and has none to show, nothing is promised.
#[test]
#[ignore = "needs root, to mount a file system that cannot reserve"]
fn without_a_reservation_the_free_space_decides() {
    mounted("ramfs", "mode=0700", |dir| {
        let storage = FileStorage::open(dir).unwrap();
        let error = Journal::<Record>::create(storage).unwrap_err();
        assert!(matches!(error, JournalError::Full { .. }), "{error}");
        assert!(!dir.join("journal.next.tmp").exists());
    });
}

fn fill_and_abort(dir: &Path) {
    let mut journal = Journal::create(FileStorage::open(dir).unwrap()).unwrap();
    fs::write(dir.join("ballast"), vec![0; 1 << 20]).unwrap();
    let long = |n: usize| Record::Opened {
        system: "x".repeat(n),
    };
    let full = loop {
        if let Err(error) = journal.append(&long(MAX_LINE_BYTES / 8)) {
            break error;
        }
    };
    assert!(matches!(full, JournalError::Full { .. }), "{full}");
    // Somebody else takes all that is left, byte for byte.
    let _ = std::io::copy(
        &mut std::io::repeat(0),
        &mut fs::File::create(dir.join("other")).unwrap(),
    );
    assert!(matches!(
        journal.append(&long(70_000)),
        Err(JournalError::Full { .. })
    ));
    assert!(matches!(
        journal.rotate(&long(1)),
        Err(JournalError::Full { .. })
    ));
    let seq = journal.position().seq;
    for n in 1..=200 {
        assert_eq!(journal.append_reserved(&long(1000)).unwrap(), seq + n);
    }
    assert_eq!(journal.poisoned(), None);
    drop(journal);
    let (mut journal, opened) = open(dir).unwrap();
    assert_eq!(
        (opened.records.len() as u64, opened.dropped_tail),
        (seq + 200, None)
    );
    fs::remove_file(dir.join("ballast")).unwrap();
    journal.append(&record(1)).unwrap();
}

fn read(dir: &Path, generation: u32) -> String {
    fs::read_to_string(dir.join(format!("journal.{generation:04}"))).unwrap()
}

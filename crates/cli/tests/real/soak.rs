//! Full cycles, one after the other, a commit and an abort in turn: nothing may grow, and no write may be lost.
//!
//! `./dev soak --cycles N` runs it. Faults 67 and 69, invariant 25.

use crate::real::figures::Figures;
use crate::real::{Lab, NAME, legs, processes, until};
use crate::{MARK, abort, merge, split};
use flipside_model::Status;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many cycles unless `FLIPSIDE_SOAK_CYCLES` says otherwise.
const CYCLES: u32 = 5;

/// The first cycles fill caches; what comes after them must stay as it is.
const WARM: usize = 2;

/// After so many cycles the system is stopped, its legs are compared, and it starts again.
const COMPARE_EVERY: u32 = 5;

/// What resident memory may move up and down by without growing.
const MEMORY_KIB: u64 = 6 * 1024;

/// Records of one session are some tens of kilobytes; the journal may not take more than this for each.
const JOURNAL_BYTES: u64 = 512 * 1024;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    memory_kib: u64,
    files: usize,
}

impl Held {
    fn by(pid: i32) -> Self {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("ours");
        Self {
            memory_kib: processes::resident_kib(pid),
            files: files.count(),
        }
    }
}

/// One cycle's end.
#[derive(Debug)]
struct Sample {
    server: Held,
    guard: Held,
    journal: u64,
}

/// The length of all files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .map(|e| e.expect("a file").metadata().expect("a file").len())
        .sum()
}

fn sample(lab: &Lab) -> Sample {
    let system = lab.dir.join("systems").join(NAME);
    let guard = processes::guard(&lab.dir).expect("a guard");
    let server = i32::try_from(lab.server.pid()).expect("small");
    Sample {
        server: Held::by(server),
        guard: Held::by(guard),
        journal: size(&system.join("journal")),
    }
}

fn compare(lab: &Lab, status: &Status) {
    lab.ok(&["system", "stop", NAME, "--yes"]);
    until("the machines have ended", Duration::from_secs(20), || {
        processes::machines(&lab.dir).is_empty().then_some(())
    });
    for disk in &status.disks {
        let compared = legs::identical(&disk.legs[0].path, &disk.legs[1].path);
        lab.note(&format!("{}: {compared} bytes are identical", disk.name));
    }
    lab.ok(&["system", "start", NAME]);
    lab.is_ready();
}

fn nothing_grows(samples: &[Sample]) {
    let Some((first, rest)) = samples[WARM.min(samples.len() - 1)..].split_first() else {
        return;
    };
    for (n, now) in rest.iter().enumerate() {
        for (who, before, now) in [
            ("server", first.server, now.server),
            ("guard", first.guard, now.guard),
        ] {
            assert!(
                now.memory_kib <= before.memory_kib + MEMORY_KIB,
                "the {who} grew: {before:?}, {now:?} after {n} cycles more"
            );
            assert!(
                now.files <= before.files + 2,
                "the {who} keeps files open: {before:?}, {now:?} after {n} cycles more"
            );
        }
    }
    for pair in samples.windows(2) {
        assert!(
            pair[1].journal <= pair[0].journal + JOURNAL_BYTES,
            "one cycle wrote {} bytes of journal",
            pair[1].journal - pair[0].journal
        );
    }
}

#[test]
#[ignore = "takes two minutes a cycle: `./dev soak --cycles N`"]
fn soak() {
    let cycles =
        std::env::var("FLIPSIDE_SOAK_CYCLES").map_or(CYCLES, |n| n.parse().expect("a number"));
    let Some(mut lab) = Lab::booted() else { return };
    let (mut figures, mut samples) = (Figures::default(), Vec::new());
    for cycle in 1..=cycles {
        let began = Instant::now();
        split(&lab, &mut figures);
        lab.sh(None, MARK);
        merge(&lab, &mut figures);
        if cycle % 2 == 1 {
            lab.ok(&["commit", NAME, "--yes"]);
        } else {
            abort(&lab, &mut figures);
        }
        let status = lab.finish();
        let now = sample(&lab);
        lab.note(&format!(
            "cycle {cycle} of {cycles} took {:.1} s: {now:?}",
            began.elapsed().as_secs_f64()
        ));
        samples.push(now);
        if cycle % COMPARE_EVERY == 0 && cycle != cycles {
            compare(&lab, &status);
        }
    }
    nothing_grows(&samples);
    lab.stop_and_compare();
    figures.tell(&lab);
}

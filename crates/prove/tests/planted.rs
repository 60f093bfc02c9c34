//! Mistakes made on purpose: the suite must notice each (reliability.md section 5, "planted historic bugs").
//!
//! The rule is the same for all: the ways without a fault, then the stories, then every fault at every call, until the
//! first run fails. One that passes everything is not noticed, and then the suite is too weak.

mod common;

use common::stories::STORIES;
use common::story::{Hit, Hits, PRODUCT_WAYS, WAYS, every, try_way};
use flipside_backend_sim::{FaultKind, glob};
use flipside_model::planted;
use flipside_prove::cases::{self, clean_runs};
use flipside_prove::guard;
use flipside_prove::run::Plan;
use flipside_prove::ways::Way;

/// The kinds of faults, those first that most mistakes need.
fn kinds() -> Vec<Hits> {
    vec![
        Hits::Calls(FaultKind::FailBefore),
        Hits::Calls(FaultKind::CrashAfter),
        Hits::Calls(FaultKind::Hang { done: false }),
        Hits::CallsAndAway(FaultKind::CrashAfter),
        Hits::Calls(FaultKind::TornCrash(1)),
        Hits::Calls(FaultKind::CrashBefore),
        Hits::Calls(FaultKind::LostReply),
        Hits::Journal,
        Hits::Calls(FaultKind::TornCrash(2)),
        Hits::Calls(FaultKind::TornCrash(3)),
        Hits::Calls(FaultKind::Torn(1)),
        Hits::Calls(FaultKind::Twice),
    ]
}

/// Says what notices the mistake that is planted now. Faults hit only the calls that match: those that could show it.
fn noticed(calls: &str) -> Option<String> {
    for way in WAYS {
        if let Err(why) = try_way(way, &Hit::Nothing) {
            return Some(format!("{way:?} without a fault: {why}"));
        }
    }
    for way in PRODUCT_WAYS {
        let outcome = flipside_prove::run::perform(&Plan::clean(way));
        if let Some(why) = outcome.failure {
            return Some(format!("{way:?} without a fault: {why}"));
        }
    }
    for (name, story) in STORIES {
        if let Err(why) = common::unpanicked(story) {
            return Some(format!("story \"{name}\": {why}"));
        }
    }
    let mut found = None;
    for hits in kinds() {
        for way in WAYS {
            every(way, &hits, calls, |hit, result| {
                found = result.err().map(|why| format!("{way:?} {hit:?} {why}"));
                found.is_none()
            });
            if found.is_some() {
                return found;
            }
        }
    }
    guards_and_power(calls)
}

/// What `./dev prove` has besides: faults of the guard, and power cuts that take what was not synced.
fn guards_and_power(calls: &str) -> Option<String> {
    let runs = match clean_runs(&Way::CORE) {
        Ok(runs) => runs,
        Err(why) => return Some(why),
    };
    let guards = guard::items(&runs, false).into_iter();
    let power = cases::power(&runs).into_iter();
    let all = guards
        .map(|item| (item.place, item.case))
        .chain(power.map(|case| (case.name.clone().unwrap_or_default(), case)));
    let pattern = format!("*/{calls}");
    all.filter(|(place, _)| glob(&pattern, place))
        .find_map(|(place, case)| {
            let outcome = guard::hit(&case);
            let why = outcome.failure.clone().or_else(|| {
                let own = guard::own(&case, &outcome).into_iter();
                own.filter_map(|c| guard::hit(&c).failure).next()
            })?;
            Some(format!("at {place}: {}: {why}", case.plan))
        })
}

fn must_be_noticed(name: &'static str, calls: &str) {
    let began = std::time::Instant::now();
    let caught = planted::with(name, || noticed(calls));
    let why = caught.unwrap_or_else(|| panic!("nothing notices `{name}`"));
    let line: String = why.chars().take(200).collect();
    eprintln!("{name} ({} ms): {line}", began.elapsed().as_millis());
}

/// Runs every way with every hit of a kind and nothing planted: what is to notice mistakes must be silent without one.
fn must_be_silent(hits: &Hits) {
    let began = std::time::Instant::now();
    let (mut runs, mut failures) = (0, Vec::new());
    for way in WAYS {
        try_way(way, &Hit::Nothing).expect("without a fault");
        every(way, hits, "*", |hit, result| {
            runs += 1;
            failures.extend(result.err().map(|why| format!("{way:?} {hit:?} {why}")));
            true
        });
    }
    let ms = began.elapsed().as_millis();
    eprintln!(
        "{hits:?}: {runs} runs, {} failures ({ms} ms)",
        failures.len()
    );
    let all = failures.join("\n");
    assert!(
        failures.is_empty(),
        "{} of {runs} failed:\n{all}",
        failures.len()
    );
}

macro_rules! silent {
    ($($test:ident $nth:literal;)*) => {
        $(
            #[test]
            fn $test() {
                must_be_silent(&kinds()[$nth]);
            }
        )*

        #[test]
        fn every_kind_is_tried_without_a_mistake() {
            assert_eq!([$($nth),*].as_slice(), (0..kinds().len()).collect::<Vec<_>>());
        }
    };
}

silent! {
    silent_at_failures 0;
    silent_at_crashes_after 1;
    silent_at_hangs 2;
    silent_at_absences 3;
    silent_at_torn_crashes_1 4;
    silent_at_crashes_before 5;
    silent_at_lost_replies 6;
    silent_at_journal_errors 7;
    silent_at_torn_crashes_2 8;
    silent_at_torn_crashes_3 9;
    silent_at_torn_calls 10;
    silent_at_doubles 11;
}

macro_rules! calls {
    () => {
        "*"
    };
    ($calls:literal) => {
        $calls
    };
}

macro_rules! noticed {
    ($($test:ident $name:literal $(at $calls:literal)?;)*) => {
        $(
            #[test]
            fn $test() {
                must_be_noticed($name, calls!($($calls)?));
            }
        )*

        /// Every mistake that has a test.
        const TESTED: &[&str] = &[$($name),*];
    };
}

noticed! {
    journal_not_synced "journal-not-synced";
    sync_failure_ignored "sync-failure-ignored";
    believed_before_written "believed-before-written";
    intent_after_effect "intent-after-effect";
    checksum_not_compared "checksum-not-compared";
    damage_taken_for_torn_tail "damage-taken-for-torn-tail";
    sequence_gap_accepted "sequence-gap-accepted";
    foreign_record_accepted "foreign-record-accepted";
    lease_given_back_early "lease-given-back-early";
    old_book_accepted "old-book-accepted";
    failed_step_is_success "failed-step-is-success" at "guest.*";
    time_out_is_success "time-out-is-success" at "guest.*";
    crash_loop_never_ends "crash-loop-never-ends";
    production_woken_in_merge "production-woken-in-merge" at "guest.*";
    abort_after_commit "abort-after-commit";
    simplex_passes_readiness "simplex-passes-readiness";
    simplex_disk_forked "simplex-disk-forked";
    marked_disks_forgotten "marked-disks-forgotten";
    spanned_volume_torn "spanned-volume-torn";
    mandatory_disk_may_be_data "mandatory-disk-may-be-data";
    mount_point_hosts_forgotten "mount-point-hosts-forgotten";
    machine_id_used_twice "machine-id-used-twice";
    machine_left_behind "machine-left-behind" at "machine.*";
    pause_not_announced "pause-not-announced" at "machine.fork_*";
    legs_recorded_apart_too_late "legs-recorded-apart-too-late" at "machine.fork_*";
    record_not_corrected "record-not-corrected" at "machine.fork_*";
    upgrade_side_on_the_wire "upgrade-side-on-the-wire";
    copies_unplugged_in_use "copies-unplugged-in-use";
    copies_kept "copies-kept";
    rehearsed_leg_taken_for_equal "rehearsed-leg-taken-for-equal";
    rehearsal_on_the_legs "rehearsal-on-the-legs";
    startup_types_lost "startup-types-lost";
    triggers_left_armed "triggers-left-armed";
    door_not_held "door-not-held";
    data_not_unmounted "data-not-unmounted";
    unmount_failure_ignored "unmount-failure-ignored" at "guest.close_data.*";
    owner_kept_while_disks_move "owner-kept-while-disks-move";
    link_left_up "link-left-up";
    attach_before_release "attach-before-release";
    gates_not_lifted "gates-not-lifted";
    applications_before_mount "applications-before-mount";
    door_before_health "door-before-health";
    failed_merge_not_taken_back "failed-merge-not-taken-back" at "guest.*";
    old_side_asked_again "old-side-asked-again" at "guest.*";
    carried_bitmap_outlives_its_machine "carried-bitmap-outlives-its-machine";
    clock_not_set "clock-not-set";
    carried_files_left_packed "carried-files-left-packed";
    checkpoint_not_frozen "checkpoint-not-frozen";
    checkpoint_direction_swapped "checkpoint-direction-swapped";
    data_discarded_unasked "data-discarded-unasked";
    commit_not_recorded "commit-not-recorded";
    authority_not_moved "authority-not-moved";
    production_ended_before_decision "production-ended-before-decision";
    bitmap_carried_while_running "bitmap-carried-while-running";
    uncarried_bitmap_trusted "uncarried-bitmap-trusted" at "disk.carry_*";
    one_bitmap_at_commit "one-bitmap-at-commit";
    one_bitmap_at_abort "one-bitmap-at-abort";
    gates_left_behind "gates-left-behind";
    changed_leg_used "changed-leg-used";
    older_copy_accepted "older-copy-accepted";
    resync_direction_swapped "resync-direction-swapped";
    live_before_proved "live-before-proved" at "disk.resync_finish.*";
    failed_finish_is_success "failed-finish-is-success" at "disk.resync_finish.*";
    failed_job_is_success "failed-job-is-success";
    owner_left_paused "owner-left-paused" at "disk.resync_finish.*";
    bitmap_trusted_after_failure "bitmap-trusted-after-failure" at "disk.carry_*";
    round_lost_by_force_cancel "round-lost-by-force-cancel";
    unclean_end_trusted "unclean-end-trusted";
    every_end_is_clean "every-end-is-clean";
    dead_bitmap_trusted "dead-bitmap-trusted";
    overdue_pause_left "overdue-pause-left" at "machine.fork_*";
    wall_clock_believed "wall-clock-believed" at "machine.fork_*";
    intent_cleared_while_copying "intent-cleared-while-copying" at "machine.fork_*";
    failed_leg_left_while_copying "failed-leg-left-while-copying";
    guard_continues_a_stranger "guard-continues-a-stranger" at "disk.resync_finish.*";
    guard_acts_without_its_lease "guard-acts-without-its-lease" at "machine.fork_*";
    guard_decides_before_the_lease "guard-decides-before-the-lease" at "machine.fork_switch.*";
    hung_server_not_fenced "hung-server-not-fenced" at "machine.fork_*";
    hung_guard_left "hung-guard-left" at "machine.fork_begin.*";
    book_file_not_synced "book-file-not-synced" at "legs.store";
    book_directory_not_synced "book-directory-not-synced" at "legs.store";
}

#[test]
fn every_mistake_is_made_somewhere_tested_and_described() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut sources = String::new();
    for package in ["engine", "journal", "platform", "session"] {
        read_all(
            format!("{root}/crates/{package}/src").as_ref(),
            &mut sources,
        );
    }
    read_all(format!("{root}/backends/sim/src").as_ref(), &mut sources);
    let page = std::fs::read_to_string(format!("{root}/docs/planted-bugs.md")).expect("a page");
    let actions = format!("{root}/crates/prove/tests/requirements/planted_actions.rs");
    let actions = std::fs::read_to_string(actions).expect("a file");
    let table: Vec<&str> = planted::ALL.iter().map(|bug| bug.name).collect();
    assert_eq!(
        table, TESTED,
        "one test for each, in the order of the table"
    );
    for bug in planted::ALL {
        let quoted = format!("\"{}\"", bug.name);
        assert!(sources.contains(&quoted), "{quoted} is made nowhere");
        let row = format!("| `{}` | {} |", bug.name, bug.mistake);
        assert!(page.contains(&row), "docs/planted-bugs.md lacks `{row}`");
    }
    for (_, rest) in sources
        .match_indices("planted::is(\"")
        .map(|(at, m)| sources.split_at(at + m.len()))
    {
        let name = rest.split('"').next().unwrap_or_default();
        // Those of custom actions and log backup have tests of their own.
        let elsewhere = actions.contains(&format!("\"{name}\""));
        assert!(
            table.contains(&name) || elsewhere,
            "`{name}` is not in the table"
        );
        assert!(
            page.contains(&format!("| `{name}` |")),
            "`{name}` is not told"
        );
    }
    assert!(table.len() >= 25, "the issue asks for 25");
}

fn read_all(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, into);
        } else {
            into.push_str(&std::fs::read_to_string(&path).expect("text"));
        }
    }
}

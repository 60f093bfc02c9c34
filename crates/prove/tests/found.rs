//! What swarms have found: each of these seeds failed once, and says what was wrong.

use flipside_prove::seeds::{Seed, perform};

fn passes(seed: &str) {
    let seed = Seed::parse(seed).expect("reads");
    assert_eq!(
        perform(&seed).failure,
        None,
        "./dev prove --run seed:{seed}"
    );
}

// The answer of a machine's start was lost, and the keeper mirrored its disks before the start was gone on with: that start
// could never be repeated, because the machine had more legs by then, and its link stayed down for ever.
#[test]
fn a_start_goes_on_after_its_mirrors_are_whole() {
    passes("4335:3,25,33,35,39");
    passes("1256:21,22,26,34,36,37,40,45,57,58,59");
}

// Both legs of a data disk are plugged, but another one leads since the split was prepared: plugging it for an abort was
// refused for ever.
#[test]
fn an_abort_plugs_a_disk_whose_legs_have_changed_places() {
    passes("1443:10,11,12,13,14,15,16,17,18,19,21,22,23,24,25,26,27,28,29,31,36,38,44");
}

// An Upgrade Side that hung counted as one that had closed its data; it went on in time to have its disks unplugged under
// its applications (fault 29).
#[test]
fn a_side_that_hangs_has_not_closed_its_data() {
    passes("2085:15,16,17,33,34,39,41,42,43");
}

// After the commit the machine stood still at an I/O error of a leg that was healed later, and nothing continued it
// (fault 16).
#[test]
fn a_machine_that_stands_still_is_continued_when_the_system_is_started() {
    passes("3782:8,10,11,12,15,31,37,38,39");
}

// A merge failed when the Upgrade Side had begun to take a data disk and had not taken over yet which blocks of it the other
// leg lacks. The abort stored that side's empty bitmap over the carrier: the legs were called equal and differed.
#[test]
fn a_carrier_is_never_stored_over_what_it_still_holds() {
    passes("5917:4,5,6,10,11,12,13,15,16,18,21,22,24,26,27");
    passes("5866:4,5,6,7,8,9,11,12,13,14,15,26,47");
}

// The Upgrade Side died in Merge, or while the merge plugged the data disks into it. What it had written to a disk whose
// other leg was still being resynchronised was in its own bitmap only; the abort took the carried one, which lacks that,
// and called legs equal that differed (fault 28).
#[test]
fn a_bitmap_that_died_with_its_machine_is_not_replaced_by_an_older_one() {
    passes("11083:0,2,4,6");
    passes("18380:6,11,13,18,19,20,21,22,32");
}

// A system whose guest had panicked before its start was whole, or that was given other legs before it ever ran, could
// never be started again (fault 40).
#[test]
fn a_machine_that_cannot_go_on_is_started_anew() {
    passes("13943:13,29,37,39,42,45,46,48");
    passes("14713:24,26,30,37,38,43,49,50,55");
    passes("16140:1,2,3,4,5,11,13,14");
}

// A server hung with the lease when a fork was recorded and not carried out. The root read another leg first than the
// recorded one, so the guard called it unsound and left Production paused for ever (fault 29, invariant 23).
#[test]
fn a_fork_that_was_only_recorded_does_not_keep_production_paused() {
    passes("30317:15,17,18,20,21,22,23,24,25,26,29,30,31,33,34,35,36,41");
}

// A resynchronisation was proved and then the machine could not be asked how it stood: what was proved was forgotten, and
// neither the merge nor its abort could plug a disk that had more legs than were recorded.
#[test]
fn what_a_resynchronisation_proved_is_recorded() {
    passes("68422:8,10,11,13,14,15,18,21,23,25,26,27,28,29,33,34,35,40,41");
}

// A fork was recorded and not carried out, then the power failed and Production booted on one leg: the other one was still
// called the Upgrade Side's, and the data legs equal but for what the new machine writes (fault 6).
#[test]
fn a_boot_after_a_fork_that_was_only_recorded_forgets_it() {
    passes("73777:0,1,4,5,6,7,17,18,20,21,45,47,48,50,54,55,56");
}

// The server died when a committed session was folded but not yet called Idle, and then the guest panicked: the clean-up of the
// guest was tried for ever, and `system start` said that the machine was there.
#[test]
fn a_guest_that_was_cleaned_up_is_not_cleaned_up_again() {
    passes("104209:0,1,14,16,17,26,29");
}

// The simulation's own mistakes: what a death left on one side's leg was forgotten when the other side wrote the same
// block; and a guest that restarted had its disks mounted before it was up.
#[test]
fn what_a_death_left_is_remembered_for_each_side() {
    passes("3546:2,3,7,9,10,12,19,20,21,23");
    passes("5183:11,12,13,21,22,30,31,32,40,42,50,51,53,55");
    passes("3946:3,5,7,10,11,13,14,31,32,33");
}

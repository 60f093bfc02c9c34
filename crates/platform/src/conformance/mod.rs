//! One conformance suite for every backend: the same checks on the simulation and on real machines.
//!
//! A backend's test implements [`Fixture`] and calls [`run_all`], or [`run_one`] for each of [`names`]. Every
//! check begins with [`Fixture::reset`] and is independent of the others. The group `without_guest` needs machines
//! only, whatever their disks hold; the group `with_guest` needs an operating system that answers and is skipped
//! when the fixture has none.

mod bench;
mod checks_actions;
mod checks_carry;
mod checks_disk;
mod checks_fork;
mod checks_guest;
mod checks_hold;
mod checks_host;
mod checks_machine;
mod checks_resync;
mod checks_side;

pub use bench::{Fixture, GuestFixture, LegDamage};

use bench::Bench;
use std::future::Future;
use std::pin::Pin;

/// What a check found: nothing, or what is wrong.
pub type CheckResult = Result<(), String>;

type Running<'a> = Pin<Box<dyn Future<Output = CheckResult> + Send + 'a>>;

/// One check of the suite.
#[derive(Clone, Copy)]
struct Check {
    name: &'static str,
    run: for<'a, 'f> fn(&'a mut Bench<'f>) -> Running<'a>,
}

macro_rules! checks {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$(Check {
            name: stringify!($name),
            run: |bench| Box::pin($module::$name(bench)),
        }),*]
    };
}

/// Checks that need no operating system in the machine.
const WITHOUT_GUEST: [Check; 32] = checks![
    checks_machine::an_unknown_machine_is_absent,
    checks_machine::starting_twice_is_starting_once,
    checks_machine::pausing_and_continuing_are_repeatable,
    checks_machine::ending_is_repeatable,
    checks_machine::the_link_is_down_at_first,
    checks_machine::the_reset_button_keeps_the_process,
    checks_machine::a_leg_in_use_is_refused,
    checks_disk::one_leg_and_two_legs_again,
    checks_disk::legs_of_a_running_machine_are_left_alone,
    checks_disk::unplugging_and_plugging_are_repeatable,
    checks_disk::a_missing_disk_or_machine_is_told,
    checks_fork::a_fork_leaves_both_machines_as_promised,
    checks_fork::a_switch_is_repeatable,
    checks_fork::a_fork_can_be_given_up_at_once,
    checks_fork::a_fork_can_be_given_up_when_ready,
    checks_fork::a_fork_survives_the_other_machines_end,
    checks_fork::a_data_disk_moves_to_the_fork,
    checks_resync::both_sides_changes_are_united,
    checks_resync::a_bitmap_resync_makes_the_legs_equal,
    checks_resync::a_full_compare_makes_the_legs_equal,
    checks_resync::a_resync_can_be_given_up_and_begun_again,
    checks_host::the_book_refuses_an_old_generation,
    checks_host::the_lease_is_exclusive,
    checks_host::the_door_is_held_and_opened,
    checks_host::the_door_can_be_shut_and_made_again,
    checks_host::the_host_answers,
    checks_host::a_changed_leg_is_named,
    checks_side::a_machine_has_a_private_address_signs_and_keys,
    checks_side::the_console_is_for_one_at_a_time,
    checks_side::a_medium_is_inserted_and_ejected,
    checks_side::dump_files_are_numbered_and_kept,
    checks_actions::actions_run_on_the_host,
];

/// Checks that speak to an operating system.
const WITH_GUEST: [Check; 20] = checks![
    checks_carry::changed_files_are_listed_and_carried,
    checks_guest::the_guest_answers_and_keeps_its_boot_id,
    checks_guest::services_and_mounts_are_described,
    checks_guest::disks_and_volumes_are_described,
    checks_guest::the_guest_tells_its_surroundings,
    checks_guest::data_is_closed_and_opened_again,
    checks_guest::a_data_disk_leaves_and_returns,
    checks_guest::programs_run,
    checks_guest::files_are_written,
    checks_guest::health_is_checked,
    checks_side::the_guest_tells_its_condition,
    checks_side::what_crashes_left_is_read,
    checks_actions::files_are_described,
    checks_actions::actions_run_in_the_guest,
    checks_actions::logs_are_saved,
    checks_guest::a_paused_guest_is_silent,
    checks_hold::a_hold_keeps_services_down_until_lifted,
    checks_hold::a_hold_survives_a_restart_of_the_fork,
    checks_guest::the_guest_shuts_down,
    checks_guest::the_power_button_is_heard,
];

/// Lists the names of the checks that need no operating system.
pub fn without_guest() -> Vec<&'static str> {
    WITHOUT_GUEST.iter().map(|c| c.name).collect()
}

/// Lists the names of the checks that speak to an operating system.
pub fn with_guest() -> Vec<&'static str> {
    WITH_GUEST.iter().map(|c| c.name).collect()
}

/// Lists the names of all checks, in the order of [`run_all`].
pub fn names() -> Vec<&'static str> {
    let mut names = without_guest();
    names.extend(with_guest());
    names
}

/// Runs one check by name; a check that needs a guest passes when the fixture has none.
///
/// # Errors
/// What is wrong, or that there is no such check.
pub async fn run_one(fixture: &mut dyn Fixture, name: &str) -> CheckResult {
    let guest = WITH_GUEST.iter().any(|c| c.name == name);
    let found = WITHOUT_GUEST.iter().chain(&WITH_GUEST);
    let Some(check) = found.copied().find(|c| c.name == name) else {
        return Err(format!("There is no check named `{name}`."));
    };
    if guest && fixture.guest().is_none() {
        return Ok(());
    }
    fixture.reset().await?;
    let mut bench = Bench::new(fixture).await?;
    (check.run)(&mut bench).await
}

/// Runs every check; those that need a guest only when the fixture has one.
pub async fn run_all(fixture: &mut dyn Fixture) -> Vec<(&'static str, CheckResult)> {
    let mut results = Vec::new();
    let names = if fixture.guest().is_some() {
        names()
    } else {
        without_guest()
    };
    for name in names {
        results.push((name, run_one(fixture, name).await));
    }
    results
}

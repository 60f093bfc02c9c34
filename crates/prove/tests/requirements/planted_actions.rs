//! Mistakes planted in custom actions and log backup: the tests of those areas must notice each.

use super::{actions, actions_broken, logs};
use flipside_model::planted;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A mistake, and the test that is to notice it.
const NOTICED: [(&str, fn()); 9] = [
    (
        "late-actions-first",
        actions::timing_orders_the_actions_of_a_request,
    ),
    (
        "hardware-split-told-by-the-state",
        actions::a_committed_session_runs_its_actions_as_the_table_says,
    ),
    (
        "side-always-production",
        actions::a_committed_session_runs_its_actions_as_the_table_says,
    ),
    (
        "failed-action-passed-over",
        actions::a_failing_action_breaks_the_request_and_a_retry_runs_it_again,
    ),
    (
        "changed-action-run",
        actions::a_failing_action_breaks_the_request_and_a_retry_runs_it_again,
    ),
    (
        "expired-action-left-running",
        actions::a_hanging_action_is_named_and_ended_in_time,
    ),
    (
        "stop-action-not-taken-back",
        actions_broken::a_merge_taken_back_starts_what_it_had_stopped,
    ),
    (
        "interrupted-action-forgotten",
        actions_broken::a_new_server_follows_the_action_that_runs,
    ),
    (
        "failed-log-copy-forgotten",
        logs::a_guest_that_saves_nothing_is_told_log_by_log,
    ),
];

#[test]
fn every_planted_mistake_is_noticed() {
    for (name, test) in NOTICED {
        let passed = planted::with(name, || catch_unwind(AssertUnwindSafe(test)).is_ok());
        assert!(!passed, "nothing notices `{name}`");
    }
}

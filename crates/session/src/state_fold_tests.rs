//! What each record does to the state.

use super::*;
use flipside_model::{Command, StartupType};

fn busy(upgrade: UpgradeState) -> SessionState {
    SessionState {
        upgrade,
        operational: OperationalState::Busy,
        ..SessionState::default()
    }
}

/// Applies records to a state, each with the next number.
fn tell(state: &mut SessionState, records: impl IntoIterator<Item = Record>) {
    for record in records {
        let seq = state.last_seq + 1;
        let at_ms = 1_000 * seq as i64;
        let entry = Entry { seq, at_ms, record };
        state.apply(&entry).expect("legal");
    }
}

fn entered(state: UpgradeState, operational: OperationalState) -> Record {
    Record::Entered {
        state,
        operational,
        problem: None,
    }
}

fn outcome(step: Step, result: StepResult) -> Record {
    let step = step.name();
    Record::Outcome { step, result }
}

fn disk(name: &str) -> DiskName {
    DiskName::new(name).expect("valid")
}

// Invariant 17: what the steps established is what the records say, each fact in its place.
#[test]
fn every_fact_is_remembered_in_its_place() {
    let mut facts = Facts::default();
    let forked = ForkFigures {
        pause_us: 1,
        precopy_ms: 2,
        memory_bytes: 3,
    };
    let mounts = vec![MountPoint {
        disk: disk("data0"),
        target: "/srv".to_owned(),
        source: "LABEL=data".to_owned(),
    }];
    let carried = Carried {
        disk: disk("data0"),
        dirty_bytes: 4,
    };
    let resynced = ResyncFigures {
        disk: disk("system0"),
        union_bytes: 5,
        copied_bytes: 5,
        disk_bytes: 6,
        compared: false,
        pause_us: 7,
        took_ms: 8,
    };
    let outage = Outage {
        door_ms: 9,
        inside_ms: 10,
    };
    let machine = |side, n| Fact::Machine {
        side,
        machine: Some(MachineId(n)),
    };
    facts.learn(&machine(Side::Production, 1), 0);
    facts.learn(&machine(Side::Upgrade, 2), 0);
    facts.learn(&Fact::Mounts(mounts.clone()), 0);
    facts.learn(&Fact::Forked(forked), 0);
    facts.learn(&Fact::Carried(carried.clone()), 0);
    facts.learn(&Fact::Resynced(resynced.clone()), 0);
    facts.learn(&Fact::Committed, 0);
    facts.learn(&Fact::Owner(Side::Upgrade), 0);
    facts.learn(&Fact::Heard(11), 0);
    facts.learn(&Fact::OutageBegan, 12);
    assert_eq!(facts.machine(Side::Production), Some(MachineId(1)));
    assert_eq!(facts.machine(Side::Upgrade), Some(MachineId(2)));
    let expected = Facts {
        production: Some(MachineId(1)),
        upgrade: Some(MachineId(2)),
        mounts,
        forked: Some(forked),
        outage_open: true,
        outage_since_ms: Some(12),
        carried: BTreeMap::from([(disk("data0"), carried)]),
        resynced: BTreeMap::from([(disk("system0"), resynced)]),
        committed: true,
        owner: Side::Upgrade,
        heard: 11,
        booted_since: true,
        ..Facts::default()
    };
    assert_eq!(facts, expected);
    facts.learn(&Fact::OutageEnded(outage), 13);
    let ended = Facts {
        outage_open: false,
        outage_since_ms: None,
        outage: Some(outage),
        ..expected
    };
    assert_eq!(facts, ended);
}

// AB-05: only what was stopped on Production makes an abort lead the users back.
#[test]
fn a_stop_on_the_upgrade_side_is_not_one_of_production() {
    let stop = |side, stopped| Fact::Stopped { side, stopped };
    let mut facts = Facts::default();
    facts.learn(&stop(Side::Upgrade, true), 0);
    assert!(!facts.stopped_on_production);
    facts.learn(&stop(Side::Production, true), 0);
    facts.learn(&stop(Side::Upgrade, false), 0);
    assert!(facts.stopped_on_production);
    facts.learn(&stop(Side::Production, false), 0);
    assert!(!facts.stopped_on_production);
}

// Invariant 9: a machine that ended is no boot, and a second boot does not make the first undone.
#[test]
fn only_a_boot_makes_carried_bitmaps_worthless() {
    let machine = |machine| Fact::Machine {
        side: Side::Production,
        machine,
    };
    let mut facts = Facts::default();
    facts.learn(&Fact::Divided(true), 0);
    facts.learn(&machine(None), 0);
    assert!(!facts.booted_since, "it ended");
    facts.learn(&machine(Some(MachineId(3))), 0);
    facts.learn(&machine(Some(MachineId(4))), 0);
    assert!(facts.booted_since);
}

// SV-09 for the units that act by themselves.
#[test]
fn what_was_quiesced_first_stays() {
    let saved = |active| {
        vec![SavedStartup {
            unit: "apt-daily.timer".to_owned(),
            startup: StartupType("enabled".to_owned()),
            active,
        }]
    };
    let mut facts = Facts::default();
    facts.learn(&Fact::Quiesced(saved(true)), 0);
    facts.learn(&Fact::Quiesced(saved(false)), 0);
    assert_eq!((facts.quiesced, facts.startup), (Some(saved(true)), None));
}

// CF-05, FN-02, FN-06, FN-10: a session freezes its settings; when it is over, the last ones stay for the next.
#[test]
fn the_settings_of_a_session_are_frozen_and_outlive_it() {
    let config = |split| {
        let mut config = UpgradeConfig::none();
        config.timeouts.split = split;
        Box::new(config)
    };
    let mut state = SessionState::default();
    assert_eq!(*state.settings(), UpgradeConfig::none());
    let name = |name: &str| Some(name.to_owned());
    tell(
        &mut state,
        [Record::Config {
            name: name("checked.Config"),
            config: config(1),
        }],
    );
    assert_eq!(state.config_name, name("checked.Config"));
    assert_eq!(*state.settings(), *config(1));
    let session = Record::Session {
        id: SessionId(uuid::Uuid::nil()),
        config_name: name("shop.Config"),
        config: config(2),
    };
    tell(
        &mut state,
        [
            session,
            entered(UpgradeState::PrepareSplit, OperationalState::Busy),
        ],
    );
    let late = Entry {
        seq: state.last_seq + 1,
        at_ms: 0,
        record: Record::Config {
            name: None,
            config: config(3),
        },
    };
    assert!(state.clone().apply(&late).is_err(), "it is frozen");
    state.upgrade = UpgradeState::Finish;
    tell(
        &mut state,
        [entered(UpgradeState::Idle, OperationalState::Ready)],
    );
    assert_eq!(state.session, None);
    assert_eq!(state.config_name, name("shop.Config"));
    assert_eq!(*state.settings(), *config(2));
}

// Invariant 12: a number that does not follow is refused, and the refusal names it.
#[test]
fn numbers_only_grow() {
    let opened = |seq| Entry {
        seq,
        at_ms: 0,
        record: Record::Opened {
            version: "1".to_owned(),
        },
    };
    let mut state = SessionState::default();
    state.apply(&opened(5)).expect("follows");
    assert_eq!(state.last_seq, 5);
    for seq in [4, 5] {
        let refused = state.apply(&opened(seq)).expect_err("does not follow");
        assert_eq!(refused.seq, seq);
    }
    assert_eq!(state.last_seq, 5);
    state
        .apply(&opened(7))
        .expect("a gap is the journal's matter");
}

// RC-11: warnings and errors of the last check are counted, and only those.
#[test]
fn the_findings_of_the_last_check_are_counted() {
    use OperationalState::{Busy, Ready};
    let log = |severity| Record::log(severity, "x");
    let check = [
        entered(UpgradeState::Idle, Busy),
        log(Severity::Warning),
        log(Severity::Error),
        log(Severity::Error),
        log(Severity::Information),
        log(Severity::Success),
        entered(UpgradeState::Idle, Ready),
    ];
    let mut state = SessionState::default();
    tell(&mut state, check.clone());
    assert_eq!(state.findings, (1, 2));
    tell(&mut state, [log(Severity::Warning), log(Severity::Error)]);
    assert_eq!(state.findings, (1, 2), "no check is running");
    tell(&mut state, [entered(UpgradeState::PrepareSplit, Busy)]);
    tell(&mut state, [log(Severity::Warning), log(Severity::Error)]);
    assert_eq!(state.findings, (1, 2), "that is the session's own");
    let mut state = SessionState {
        findings: (7, 7),
        ..SessionState::default()
    };
    tell(&mut state, check);
    assert_eq!(state.findings, (1, 2), "a check begins at nothing");
}

// Invariant 17: a session begins with nothing of the one before it, except for the machine and the platform's notes.
#[test]
fn a_session_begins_without_the_facts_of_the_last() {
    let facts = Facts {
        production: Some(MachineId(3)),
        upgrade: Some(MachineId(2)),
        heard: 7,
        committed: true,
        startup: Some(Vec::new()),
        ..Facts::default()
    };
    let mut state = SessionState {
        facts: Arc::new(facts),
        ..SessionState::default()
    };
    state.done.insert(Step::Decide.name());
    state.attempts.insert(Step::Decide.name(), 2);
    let id = SessionId(uuid::Uuid::nil());
    let session = Record::Session {
        id,
        config_name: None,
        config: Box::new(UpgradeConfig::none()),
    };
    tell(&mut state, [session]);
    assert_eq!(state.session, Some(id));
    let kept = Facts {
        production: Some(MachineId(3)),
        heard: 7,
        ..Facts::default()
    };
    assert_eq!(*state.facts, kept);
    assert!(state.done.is_empty() && state.attempts.is_empty());
}

// SM-13, invariant 13: only an abort waits for a safe point, and only where something runs that comes to one.
#[test]
fn an_abort_waits_only_while_an_operation_runs() {
    use OperationalState::{Busy, Ready};
    let accepted = |command| Record::Accepted { command };
    let mut state = busy(UpgradeState::Split);
    tell(&mut state, [accepted(Command::Merge)]);
    assert!(!state.abort_requested);
    tell(&mut state, [accepted(Command::Abort)]);
    assert!(state.abort_requested);
    tell(&mut state, [accepted(Command::Merge)]);
    assert!(state.abort_requested, "it stays asked for");
    tell(&mut state, [accepted(Command::Abort)]);
    assert!(state.abort_requested, "twice is once");
    tell(&mut state, [entered(UpgradeState::Abort, Busy)]);
    assert!(!state.abort_requested, "it has begun");

    let mut state = busy(UpgradeState::PrepareMerge);
    tell(
        &mut state,
        [accepted(Command::Abort), entered(UpgradeState::Merge, Busy)],
    );
    assert!(
        state.abort_requested,
        "the next stage begins, it still waits"
    );
    tell(&mut state, [entered(UpgradeState::Merge, Ready)]);
    assert!(!state.abort_requested);
    tell(&mut state, [accepted(Command::Abort)]);
    assert!(!state.abort_requested, "the abort itself follows at once");
}

// Invariant 24: only ends in the middle of an operation count, a step that is new ends the count, so does the end.
#[test]
fn ends_of_the_server_are_counted_until_there_is_progress() {
    use OperationalState::{Broken, Busy, Ready};
    let opened = || Record::Opened {
        version: "1".to_owned(),
    };
    let mut state = SessionState::default();
    tell(&mut state, [opened(), opened()]);
    assert_eq!(state.restarts, 0, "nothing was running");

    let mut state = busy(UpgradeState::Split);
    tell(&mut state, [opened(), opened()]);
    assert_eq!(state.restarts, 2);
    let problem = flipside_model::Problem::new(flipside_model::ProblemCode::Failed, "x");
    tell(
        &mut state,
        [
            outcome(Step::Fork, StepResult::Failed(problem)),
            outcome(Step::Wake, StepResult::Cancelled),
        ],
    );
    assert_eq!(state.restarts, 2, "no progress");
    tell(&mut state, [outcome(Step::Fork, StepResult::Done)]);
    assert_eq!(state.restarts, 0, "progress");

    let mut state = busy(UpgradeState::PrepareSplit);
    tell(&mut state, [opened(), entered(UpgradeState::Split, Busy)]);
    assert_eq!(state.restarts, 1, "the operation goes on");
    tell(&mut state, [entered(UpgradeState::Split, Broken)]);
    assert_eq!(state.restarts, 0);
    tell(&mut state, [entered(UpgradeState::Split, Busy), opened()]);
    tell(&mut state, [entered(UpgradeState::Split, Ready), opened()]);
    assert_eq!(state.restarts, 0);
}

// Invariant 17: which step runs, how often it was tried and which are done is what the records say.
#[test]
fn steps_are_done_until_they_are_taken_back() {
    let intent = |step: Step, attempt| Record::Intent {
        step: step.name(),
        title: step.title().to_owned(),
        attempt,
    };
    let mut state = busy(UpgradeState::Merge);
    tell(&mut state, [intent(Step::HoldDoor, 2)]);
    assert_eq!(state.running, Some(Step::HoldDoor.name()));
    assert_eq!(state.attempts.get(&Step::HoldDoor.name()), Some(&2));
    tell(&mut state, [outcome(Step::HoldDoor, StepResult::Done)]);
    assert_eq!(state.running, None);
    assert!(state.done.contains(&Step::HoldDoor.name()));
    tell(&mut state, [outcome(Step::HoldDoor, StepResult::Undone)]);
    assert!(state.done.is_empty());
    tell(&mut state, [outcome(Step::HoldDoor, StepResult::Already)]);
    assert!(state.done.contains(&Step::HoldDoor.name()));
    let problem = flipside_model::Problem::new(flipside_model::ProblemCode::Failed, "x");
    tell(
        &mut state,
        [
            intent(Step::Health, 1),
            outcome(Step::Health, StepResult::Cancelled),
            intent(Step::OpenDoor, 1),
            outcome(Step::OpenDoor, StepResult::Failed(problem.clone())),
            intent(Step::OpenDoor, 2),
        ],
    );
    assert_eq!(state.done.len(), 1);
    tell(
        &mut state,
        [Record::Entered {
            state: UpgradeState::Merge,
            operational: OperationalState::Broken,
            problem: Some(problem.clone()),
        }],
    );
    assert_eq!((state.running, state.problem), (None, Some(problem)));
}

// Invariant 12: a check in Idle runs the steps of PrepareSplit; a step that nobody knows is refused everywhere.
#[test]
fn a_check_may_run_steps_and_unknown_steps_are_refused() {
    let apply = |mut state: SessionState, step: StepName| {
        let entry = Entry {
            seq: 1,
            at_ms: 0,
            record: Record::Intent {
                step,
                title: String::new(),
                attempt: 1,
            },
        };
        state.apply(&entry).map_err(|e| e.to_string())
    };
    let unknown = || StepName("split.invented_later".into());
    assert_eq!(
        apply(busy(UpgradeState::Idle), Step::FinalCheck.name()),
        Ok(())
    );
    for stage in [UpgradeState::Idle, UpgradeState::Split] {
        let refused = apply(busy(stage), unknown()).expect_err("unknown");
        assert!(refused.contains("is unknown"), "{refused}");
    }
}

// SM-14: the decision belongs to Commit; and a stage may be recorded once more as it is.
#[test]
fn a_commit_is_decided_in_commit_only() {
    for stage in UpgradeState::ALL {
        let mut state = busy(stage);
        let entry = Entry {
            seq: 1,
            at_ms: 0,
            record: Record::Fact(Fact::Committed),
        };
        let applied = state.apply(&entry).is_ok();
        assert_eq!(applied, stage == UpgradeState::Commit, "{stage}");
        assert_eq!(state.facts.committed, applied);
        tell(&mut state, [entered(stage, OperationalState::Busy)]);
    }
}

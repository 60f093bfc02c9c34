use super::*;
use flipside_model::{Command, StartupType};

struct Tape(Vec<Entry>);

impl Tape {
    fn push(&mut self, record: Record) {
        let seq = self.0.len() as u64 + 1;
        self.0.push(Entry {
            seq,
            at_ms: 1_000 * seq as i64,
            record,
        });
    }
    fn enter(&mut self, state: UpgradeState, operational: OperationalState) {
        self.push(Record::Entered {
            state,
            operational,
            problem: None,
        });
    }
    fn run(&mut self, stage: UpgradeState, facts: &Facts) {
        for step in crate::plan(stage, facts) {
            self.push(Record::Intent {
                step: step.name(),
                title: step.title().to_owned(),
                attempt: 1,
            });
            self.push(Record::Outcome {
                step: step.name(),
                result: StepResult::Done,
            });
        }
    }
}

fn whole_session() -> Tape {
    use OperationalState::{Busy, Ready};
    use UpgradeState as S;
    let facts = Facts::default();
    let mut tape = Tape(Vec::new());
    tape.push(Record::Opened {
        version: "1".to_owned(),
    });
    tape.push(Record::Fact(Fact::Machine {
        side: Side::Production,
        machine: Some(MachineId(1)),
    }));
    tape.enter(S::Idle, Busy);
    tape.enter(S::Idle, Ready);
    tape.push(Record::Session {
        id: SessionId(uuid_nil()),
        config_name: None,
        config: Box::new(UpgradeConfig::none()),
    });
    tape.push(Record::Accepted {
        command: Command::Split,
    });
    tape.enter(S::PrepareSplit, Busy);
    tape.run(S::PrepareSplit, &facts);
    tape.enter(S::Split, Busy);
    tape.run(S::Split, &facts);
    tape.enter(S::Split, Ready);
    tape.enter(S::PrepareMerge, Busy);
    tape.run(S::PrepareMerge, &facts);
    tape.enter(S::Merge, Busy);
    tape.run(S::Merge, &facts);
    tape.enter(S::Merge, Ready);
    tape.enter(S::Commit, Busy);
    tape.push(Record::Fact(Fact::Committed));
    tape.run(S::Commit, &facts);
    tape.enter(S::Commit, Ready);
    tape.enter(S::Finish, Busy);
    tape.run(S::Finish, &facts);
    tape.enter(S::Idle, Ready);
    tape
}

fn uuid_nil() -> uuid::Uuid {
    uuid::Uuid::nil()
}

// Invariant 17: the journal is prefix-closed; SM-03: only the eight states occur.
#[test]
fn every_prefix_of_a_session_replays_to_a_legal_state() {
    let tape = whole_session();
    for end in 0..=tape.0.len() {
        let state = replay(&tape.0[..end]).expect("a prefix is legal");
        assert!(UpgradeState::ALL.contains(&state.upgrade));
    }
    let last = replay(&tape.0).expect("legal");
    assert_eq!(
        (last.upgrade, last.operational),
        (UpgradeState::Idle, OperationalState::Ready)
    );
    assert_eq!(last.session, None);
}

// SM-08: no stage is skipped, none is gone back to; the state stays as it was.
#[test]
fn a_skipped_stage_is_refused_and_changes_nothing() {
    let mut state = SessionState::default();
    let before = state.clone();
    let entry = Entry {
        seq: 1,
        at_ms: 0,
        record: Record::Entered {
            state: UpgradeState::Merge,
            operational: OperationalState::Busy,
            problem: None,
        },
    };
    assert!(state.apply(&entry).is_err());
    assert_eq!(state, before);
}

// Invariant 20, CF-05. Fault 65: whatever is sent while a session is open, its configuration stays the one that it began
// with, in every stage; and a replay brings back the texts as well. CF-40: it is there for the next session too.
#[test]
fn the_configuration_of_a_session_is_frozen_with_its_texts() {
    let frozen = UpgradeConfig {
        title: "frozen".to_owned(),
        files: vec![flipside_model::ConfigFile {
            name: "web.Config".to_owned(),
            text: "version = 1\ntitle = \"frozen\"\n".to_owned(),
        }],
        ..UpgradeConfig::none()
    };
    let mut tape = whole_session();
    for entry in &mut tape.0 {
        if let Record::Session { config, .. } = &mut entry.record {
            **config = frozen.clone();
        }
    }
    let begun = |e: &Entry| matches!(e.record, Record::Session { .. });
    let begin = tape.0.iter().position(begun).expect("a session") + 2;
    let mut refused = 0;
    for end in begin..=tape.0.len() {
        let text = serde_json::to_string(&tape.0[..end]).expect("written");
        let read: Vec<Entry> = serde_json::from_str(&text).expect("read");
        let mut state = replay(&read).expect("legal");
        assert_eq!(*state.settings(), frozen);
        if state.upgrade == UpgradeState::Idle {
            continue;
        }
        let other = Record::Config {
            name: Some("other.Config".to_owned()),
            config: Box::new(UpgradeConfig::none()),
        };
        let entry = Entry {
            seq: end as u64 + 1,
            at_ms: 0,
            record: other,
        };
        assert!(state.apply(&entry).is_err(), "{}", state.upgrade);
        assert_eq!(*state.settings(), frozen);
        refused += 1;
    }
    assert!(refused > 20, "every stage of the session was tried");
}

// Fault 1: the server ended between the session's record and its first stage. Nothing had been done, and
// everything is as it was before the command.
#[test]
fn a_session_that_never_began_stands_in_nobodys_way() {
    let session = |n| Record::Session {
        id: SessionId(uuid_nil()),
        config_name: Some(format!("{n}.Config")),
        config: Box::new(UpgradeConfig::none()),
    };
    let mut tape = Tape(Vec::new());
    tape.push(session(1));
    tape.push(Record::Opened {
        version: "1".to_owned(),
    });
    let state = replay(&tape.0).expect("legal");
    assert_eq!(state.session, None);
    tape.push(session(2));
    // The same without an end of the server: the stage could not be recorded.
    tape.push(session(3));
    tape.enter(UpgradeState::PrepareSplit, OperationalState::Busy);
    assert!(replay(&tape.0).is_ok());
    tape.push(session(4));
    assert!(replay(&tape.0).is_err(), "one session at a time");
}

// Invariant 13, fault 1: the server ended between the request for an abort and the abort.
#[test]
fn an_abort_that_did_not_begin_may_be_asked_for_again() {
    let mut tape = whole_session();
    let ready = tape.0.iter().position(|e| {
        matches!(
            e.record,
            Record::Entered {
                state: UpgradeState::Merge,
                operational: OperationalState::Ready,
                ..
            }
        )
    });
    tape.0.truncate(ready.expect("there") + 1);
    tape.push(Record::Accepted {
        command: Command::Abort,
    });
    tape.push(Record::Opened {
        version: "1".to_owned(),
    });
    let state = replay(&tape.0).expect("legal");
    assert!(law::decide(&state, Command::Abort).is_ok());
}

// Invariant 13: the server ended while an abort waited for the next safe point; the stage is Broken now.
#[test]
fn an_abort_whose_operation_broke_may_be_asked_for_again() {
    use OperationalState::{Broken, Busy};
    let mut tape = Tape(Vec::new());
    tape.enter(UpgradeState::PrepareSplit, Busy);
    tape.push(Record::Accepted {
        command: Command::Abort,
    });
    assert!(replay(&tape.0).expect("legal").abort_requested);
    tape.enter(UpgradeState::PrepareSplit, Broken);
    let state = replay(&tape.0).expect("legal");
    assert!(law::decide(&state, Command::Abort).is_ok());
}

// Invariant 9: bitmaps that were carried do not say what a machine wrote that died before it could be asked.
#[test]
fn a_boot_while_divided_is_remembered_until_the_system_is_one_again() {
    let machine = |n| Fact::Machine {
        side: Side::Upgrade,
        machine: Some(MachineId(n)),
    };
    let mut facts = Facts::default();
    facts.learn(&machine(2), 0);
    facts.learn(&Fact::Divided(true), 0);
    assert!(!facts.booted_since);
    facts.learn(&machine(3), 0);
    assert!(facts.booted_since);
    facts.learn(&Fact::Divided(false), 0);
    assert!(!facts.booted_since);
}

// Invariant 9: Production may die after its legs were taken apart and before that is recorded. What it wrote then is in no
// bitmap either, whenever the record of it comes.
#[test]
fn a_boot_of_production_is_remembered_although_no_division_is_recorded_yet() {
    let mut facts = Facts::default();
    facts.learn(
        &Fact::Machine {
            side: Side::Production,
            machine: Some(MachineId(3)),
        },
        0,
    );
    assert!(facts.booted_since);
    facts.learn(&Fact::Divided(true), 0);
    assert!(facts.booted_since);
    facts.learn(&Fact::Divided(false), 0);
    assert!(!facts.booted_since);
}

// SV-09: a retry of split must not overwrite the saved startup type with "disabled".
#[test]
fn the_startup_type_saved_first_stays() {
    let saved = |startup: &str| {
        Fact::Startup(vec![SavedStartup {
            unit: "nginx.service".to_owned(),
            startup: StartupType(startup.to_owned()),
            active: true,
        }])
    };
    let mut facts = Facts::default();
    facts.learn(&saved("enabled"), 0);
    facts.learn(&saved("disabled"), 1);
    assert_eq!(facts.startup.expect("saved")[0].startup.0, "enabled");
}

// Invariant 24: going over the finished steps once more is no progress, so a crash loop is counted to its end.
#[test]
fn a_step_that_was_done_already_does_not_hide_a_crash_loop() {
    let mut state = SessionState {
        upgrade: UpgradeState::Merge,
        operational: OperationalState::Busy,
        ..SessionState::default()
    };
    let mut record = |record| {
        let seq = state.last_seq + 1;
        let at_ms = 0;
        let entry = Entry { seq, at_ms, record };
        state.apply(&entry).expect("legal");
        state.restarts
    };
    let done = |result| Record::Outcome {
        step: Step::HoldDoor.name(),
        result,
    };
    record(done(StepResult::Done));
    for ends in 1..=5 {
        let version = "1".to_owned();
        assert_eq!(record(Record::Opened { version }), ends);
        assert_eq!(record(done(StepResult::Already)), ends);
    }
}

// Invariant 12: a step of another stage, or while nothing runs, is refused.
#[test]
fn steps_belong_to_their_stage() {
    let state = SessionState {
        upgrade: UpgradeState::Split,
        operational: OperationalState::Busy,
        ..SessionState::default()
    };
    let intent = |step: Step| Entry {
        seq: 1,
        at_ms: 0,
        record: Record::Intent {
            step: step.name(),
            title: String::new(),
            attempt: 1,
        },
    };
    assert!(state.clone().apply(&intent(Step::Fork)).is_ok());
    assert!(state.clone().apply(&intent(Step::Decide)).is_err());
    let ready = SessionState {
        operational: OperationalState::Ready,
        ..state
    };
    assert!(ready.clone().apply(&intent(Step::Fork)).is_err());
}

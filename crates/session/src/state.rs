//! The state of a session: the fold of its records, and nothing else.

use crate::{Step, law};
use flipside_model::{
    ActionRun, Carried, CarriedFiles, ChangeList, DiskName, DiskRole, Entry, Fact, ForkFigures,
    LogsSaved, MachineId, MountPoint, OperationalState, Outage, Package, PinnedFile, Problem,
    Record, ResyncFigures, SavedStartup, SessionId, Severity, Side, StepName, StepResult,
    UpgradeConfig, UpgradeState,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What the steps established so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The machine that is the Production Side (the only machine outside a session).
    pub production: Option<MachineId>,
    /// The machine that is the Upgrade Side.
    pub upgrade: Option<MachineId>,
    /// Disks whose role in this session is not the one of the definition; none before it was established.
    pub roles: Option<BTreeMap<DiskName, DiskRole>>,
    /// Data file systems, deepest last.
    pub mounts: Vec<MountPoint>,
    /// Saved startup types of the controlled units.
    pub startup: Option<Vec<SavedStartup>>,
    /// Saved startup types of the units that act by themselves.
    pub quiesced: Option<Vec<SavedStartup>>,
    /// What was installed on the Production Side before the split.
    pub packages: Option<Arc<Vec<Package>>>,
    /// Figures of the last fork.
    pub forked: Option<ForkFigures>,
    /// Whether the system is divided.
    pub divided: bool,
    /// Whether applications were told to stop on Production.
    pub stopped_on_production: bool,
    /// Whether users wait at this moment.
    pub outage_open: bool,
    /// Wall-clock start of the open outage, in milliseconds since 1970.
    pub outage_since_ms: Option<i64>,
    /// The last outage.
    pub outage: Option<Outage>,
    /// Bitmaps that were carried over, by disk.
    pub carried: BTreeMap<DiskName, Carried>,
    /// The last resynchronisation of each disk.
    pub resynced: BTreeMap<DiskName, ResyncFigures>,
    /// Whether a machine was booted since the system was, or may have been, divided: then what its predecessor wrote is in no
    /// bitmap.
    pub booted_since: bool,
    /// Whether the commit was decided.
    pub committed: bool,
    /// Who has the data disks and the network.
    pub owner: Side,
    /// The platform's notes up to this number are in the log.
    pub heard: u64,
    /// Whether the configuration asks for a data checkpoint at the merge.
    pub checkpoint: bool,
    /// Whether the Upgrade Side keeps its throw-away copies of the data until PrepareMerge (rehearsal).
    pub rehearsal: bool,
    /// Whether the configuration names files to carry over.
    pub carry: bool,
    /// The last run of that.
    pub carried_files: Option<CarriedFiles>,
    /// What the Production Side had changed before the merge.
    pub changes: Option<Arc<ChangeList>>,
    /// When the data of a disk were kept, in milliseconds since 1970.
    pub checkpoints: BTreeMap<DiskName, i64>,
    /// Whether an abort takes the data back to the checkpoint.
    pub discard_data: bool,
    /// What is in the CD drive of each side.
    pub media: BTreeMap<Side, PathBuf>,
    /// Boot and package database of the Production Side when it was looked at last in this session.
    pub production_is: Option<(String, String)>,
    /// The custom action that was started and has not ended.
    pub action: Option<ActionRun>,
    /// How often each action was started for each request on each side.
    pub action_attempts: BTreeMap<String, u32>,
    /// What the files of the custom actions were.
    pub pinned: Vec<PinnedFile>,
    /// Whether Stop Application actions ran on Production, and no Start Application actions after them.
    pub actions_stopped: bool,
    /// What became of the logs in the last merge.
    pub logs_saved: Option<LogsSaved>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            production: None,
            upgrade: None,
            roles: None,
            mounts: Vec::new(),
            startup: None,
            quiesced: None,
            packages: None,
            forked: None,
            divided: false,
            stopped_on_production: false,
            outage_open: false,
            outage_since_ms: None,
            outage: None,
            carried: BTreeMap::new(),
            resynced: BTreeMap::new(),
            booted_since: false,
            committed: false,
            owner: Side::Production,
            heard: 0,
            checkpoint: false,
            rehearsal: false,
            carry: false,
            carried_files: None,
            changes: None,
            checkpoints: BTreeMap::new(),
            discard_data: false,
            media: BTreeMap::new(),
            production_is: None,
            action: None,
            action_attempts: BTreeMap::new(),
            pinned: Vec::new(),
            actions_stopped: false,
            logs_saved: None,
        }
    }
}

impl Facts {
    /// Returns the machine of a side.
    pub fn machine(&self, side: Side) -> Option<MachineId> {
        match side {
            Side::Production => self.production,
            Side::Upgrade => self.upgrade,
        }
    }
}

/// A session as its journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Stage.
    pub upgrade: UpgradeState,
    /// Ready, Busy or Broken.
    pub operational: OperationalState,
    /// Why it is Broken.
    pub problem: Option<Problem>,
    /// The open session.
    pub session: Option<SessionId>,
    /// File name of the configuration.
    pub config_name: Option<String>,
    /// The frozen settings of the session.
    pub config: Option<Arc<UpgradeConfig>>,
    /// An abort waits for the next safe point.
    pub abort_requested: bool,
    /// The step with an intent and no outcome.
    pub running: Option<StepName>,
    /// Tries of each step in this session.
    pub attempts: BTreeMap<StepName, u32>,
    /// Steps of this session that are done and not taken back.
    pub done: BTreeSet<StepName>,
    /// What the steps established.
    pub facts: Arc<Facts>,
    /// Warnings and errors of the last readiness check.
    pub findings: (u32, u32),
    /// How often a server has ended in the middle of the running operation since a step was finished for the first time.
    pub restarts: u32,
    /// Sequence number of the last record.
    pub last_seq: u64,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            upgrade: UpgradeState::Idle,
            operational: OperationalState::Ready,
            problem: None,
            session: None,
            config_name: None,
            config: None,
            abort_requested: false,
            running: None,
            attempts: BTreeMap::new(),
            done: BTreeSet::new(),
            facts: Arc::default(),
            findings: (0, 0),
            restarts: 0,
            last_seq: 0,
        }
    }
}

/// A record that the law does not allow: the journal is not this program's, or the program has a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} is illegal: {why}")]
pub struct IllegalRecord {
    /// Its sequence number.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

impl SessionState {
    /// Applies one record, or refuses it and leaves the state as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalRecord> {
        self.check(entry).map_err(|why| IllegalRecord {
            seq: entry.seq,
            why,
        })?;
        self.last_seq = entry.seq;
        match &entry.record {
            Record::Opened { .. } => {
                self.restarts += u32::from(self.operational == OperationalState::Busy);
                if self.upgrade == UpgradeState::Idle {
                    // The server ended between the session's record and its first stage: it never began.
                    self.session = None;
                }
            }
            Record::Config { name, config } => {
                self.config_name.clone_from(name);
                self.config = Some(Arc::new((**config).clone()));
            }
            Record::Session {
                id,
                config_name,
                config,
            } => {
                self.session = Some(*id);
                self.config_name.clone_from(config_name);
                self.config = Some(Arc::new((**config).clone()));
                self.open_session(config);
            }
            Record::Accepted { command } => {
                // Only a running operation has a safe point to wait for. Elsewhere the abort itself follows at once, or
                // the server ended before it: then it may be asked for again (invariant 13).
                self.abort_requested |= *command == flipside_model::Command::Abort
                    && self.operational == OperationalState::Busy;
            }
            Record::Entered {
                state,
                operational,
                problem,
            } => self.enter(*state, *operational, problem.clone()),
            Record::Intent { step, attempt, .. } => {
                self.running = Some(step.clone());
                self.attempts.insert(step.clone(), *attempt);
            }
            Record::Outcome { step, result } => self.outcome(step, result),
            Record::Fact(fact) => Arc::make_mut(&mut self.facts).learn(fact, entry.at_ms),
            Record::Log { severity, .. } => self.count(*severity),
        }
        Ok(())
    }

    /// Returns the settings in force: the session's, or none.
    pub fn settings(&self) -> Arc<UpgradeConfig> {
        let none = || Arc::new(UpgradeConfig::none());
        self.config.clone().unwrap_or_else(none)
    }

    fn check(&self, entry: &Entry) -> Result<(), String> {
        if entry.seq <= self.last_seq {
            return Err(format!("its number does not follow {}", self.last_seq));
        }
        match &entry.record {
            // A session whose first stage could not be recorded has never begun, and stands in nobody's way.
            Record::Session { .. } | Record::Config { .. }
                if self.session.is_some() && self.upgrade != UpgradeState::Idle =>
            {
                Err("a session is open already".to_owned())
            }
            Record::Entered {
                state, operational, ..
            } => {
                let (from, to) = ((self.upgrade, self.operational), (*state, *operational));
                if from == to || law::is_edge(from, to) {
                    return Ok(());
                }
                Err(format!(
                    "no edge leads from {} {} to {} {}",
                    from.0, from.1, to.0, to.1
                ))
            }
            Record::Intent { step, .. } => {
                if self.operational != OperationalState::Busy {
                    return Err(format!(
                        "step {step} begins while the session is {}",
                        self.operational
                    ));
                }
                match Step::find(step) {
                    Some(known)
                        if known.stage() == self.upgrade || self.upgrade == UpgradeState::Idle =>
                    {
                        Ok(())
                    }
                    Some(_) => Err(format!("step {step} does not belong to {}", self.upgrade)),
                    None => Err(format!("step {step} is unknown")),
                }
            }
            Record::Fact(Fact::Committed) if self.upgrade != UpgradeState::Commit => {
                Err("the commit is decided outside Commit".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn open_session(&mut self, config: &UpgradeConfig) {
        self.attempts.clear();
        self.done.clear();
        self.facts = Arc::new(Facts {
            production: self.facts.production,
            heard: self.facts.heard,
            checkpoint: config.checkpoint,
            rehearsal: config.rehearsal,
            // No session begins with two sides.
            media: self.facts.media.clone(),
            carry: !config.carry.is_empty(),
            ..Facts::default()
        });
    }

    fn enter(
        &mut self,
        state: UpgradeState,
        operational: OperationalState,
        problem: Option<Problem>,
    ) {
        if (state, operational) == (UpgradeState::Idle, OperationalState::Busy) {
            self.findings = (0, 0);
        }
        if state == UpgradeState::Idle {
            // FN-02, FN-10: the session is over; its configuration stays for the next one (FN-06).
            self.session = None;
        }
        if state == UpgradeState::Abort || operational != OperationalState::Busy {
            // Nothing runs that could still come to a safe point: an abort may be asked for again (invariant 13).
            self.abort_requested = false;
        }
        if operational != OperationalState::Busy {
            self.restarts = 0;
        }
        self.upgrade = state;
        self.operational = operational;
        self.problem = problem;
        self.running = None;
    }

    fn outcome(&mut self, step: &StepName, result: &StepResult) {
        self.running = None;
        match result {
            // A restarted server goes over the finished steps once more: only a step that is new is progress (invariant 24).
            StepResult::Done | StepResult::Already => {
                if self.done.insert(step.clone()) {
                    self.restarts = 0;
                }
            }
            StepResult::Undone => {
                self.done.remove(step);
            }
            StepResult::Failed(_) | StepResult::Cancelled => {}
        }
    }

    fn count(&mut self, severity: Severity) {
        let checking =
            self.upgrade == UpgradeState::Idle && self.operational == OperationalState::Busy;
        match severity {
            Severity::Warning if checking => self.findings.0 += 1,
            Severity::Error if checking => self.findings.1 += 1,
            _ => {}
        }
    }
}

impl Facts {
    fn put_medium(&mut self, side: Side, image: Option<PathBuf>) {
        match image {
            Some(image) => self.media.insert(side, image),
            None => self.media.remove(&side),
        };
    }

    fn learn(&mut self, fact: &Fact, at_ms: i64) {
        if let Fact::Machine {
            side,
            machine: Some(_),
        } = fact
        {
            // The legs may have been taken apart although nothing says so yet: Production's boot always counts.
            self.booted_since |= self.divided || *side == Side::Production;
        }
        match fact {
            Fact::Machine {
                side: Side::Production,
                machine,
            } => {
                if machine.is_some() && *machine == self.upgrade {
                    // The Upgrade Side has become the system; its drive comes with it.
                    self.put_medium(Side::Production, self.media.get(&Side::Upgrade).cloned());
                }
                self.production = *machine;
            }
            Fact::Machine {
                side: Side::Upgrade,
                machine,
            } => {
                self.upgrade = *machine;
                if machine.is_none() {
                    self.media.remove(&Side::Upgrade);
                }
            }
            // Frozen like the configuration: what a disk is must not change while the sides are apart (invariant 20).
            Fact::Roles(roles) => {
                self.roles
                    .get_or_insert_with(|| roles.iter().cloned().collect());
            }
            Fact::Mounts(mounts) => self.mounts.clone_from(mounts),
            // SV-09: what was saved first is the truth; a retry never overwrites it.
            Fact::Startup(saved) => {
                self.startup.get_or_insert_with(|| saved.clone());
            }
            Fact::Quiesced(saved) => {
                self.quiesced.get_or_insert_with(|| saved.clone());
            }
            Fact::Packages(packages) => self.packages = Some(Arc::new(packages.clone())),
            Fact::Forked(figures) => self.forked = Some(*figures),
            Fact::Media { side, image } => self.put_medium(*side, image.clone()),
            Fact::ProductionIs { boot_id, stamp } => {
                self.production_is = Some((boot_id.clone(), stamp.clone()));
            }
            Fact::Divided(divided) => {
                self.divided = *divided;
                self.booted_since &= *divided;
            }
            Fact::Stopped {
                side: Side::Production,
                stopped,
            } => self.stopped_on_production = *stopped,
            Fact::Stopped {
                side: Side::Upgrade,
                ..
            } => {}
            Fact::OutageBegan => {
                self.outage_open = true;
                self.outage_since_ms = Some(at_ms);
            }
            Fact::OutageEnded(outage) => {
                self.outage_open = false;
                self.outage_since_ms = None;
                self.outage = Some(*outage);
            }
            Fact::Carried(carried) => {
                self.carried.insert(carried.disk.clone(), carried.clone());
            }
            Fact::Resyncing { .. } | Fact::Discarding { .. } => {}
            Fact::Changes(list) => self.changes = Some(Arc::new(list.clone())),
            Fact::CarriedFiles(carried) => self.carried_files = Some(carried.clone()),
            Fact::Checkpoint { disk, .. } => {
                self.checkpoints.insert(disk.clone(), at_ms);
                // What was carried until now says nothing of what is written from here.
                self.carried.remove(disk);
            }
            Fact::DiscardData(discard) => self.discard_data = *discard,
            Fact::Resynced(figures) => {
                self.resynced.insert(figures.disk.clone(), figures.clone());
            }
            Fact::Committed => self.committed = true,
            Fact::Owner(side) => self.owner = *side,
            Fact::Heard(number) => self.heard = *number,
            Fact::Pinned(files) => self.pin(files),
            Fact::ActionStarted(run) => {
                self.action_attempts.insert(run.key(), run.attempt);
                self.action = Some((**run).clone());
            }
            Fact::ActionEnded(end) => {
                self.action.take_if(|run| run.handle == end.handle);
            }
            Fact::ActionsStopped(stopped) => self.actions_stopped = *stopped,
            Fact::LogsSaved(saved) => self.logs_saved = Some(saved.clone()),
        }
    }
}

impl Facts {
    /// The last word about a file counts.
    fn pin(&mut self, files: &[PinnedFile]) {
        for file in files {
            let same = |p: &PinnedFile| p.side == file.side && p.path == file.path;
            self.pinned.retain(|p| !same(p));
            self.pinned.push(file.clone());
        }
    }
}

/// Replays records from the beginning (invariant 17: every prefix leads to a legal state).
pub fn replay<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Result<SessionState, IllegalRecord> {
    let mut state = SessionState::default();
    for entry in entries {
        state.apply(entry)?;
    }
    Ok(state)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "state_fold_tests.rs"]
mod fold_tests;

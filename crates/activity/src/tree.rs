//! The fold: records in, a tree of log entries out.

use crate::Node;
use crate::fact::fact_text;
use crate::node::{detail, flatten, problem_node};
use crate::render::Line;
use std::collections::BTreeSet;

mod actions;
use flipside_model::{
    Command, EXECUTE_CUSTOM_ACTIONS, Entry, Fact, OperationalState, Problem, Record, Severity,
    StepName, StepResult, UpgradeState,
};

/// The place of a node: the index among the top nodes, then among its children, and so on.
type Place = Vec<usize>;

/// A record that is no entry of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its sequence number.
    pub seq: u64,
    /// Its wall-clock time, in milliseconds since 1970.
    pub at_ms: i64,
    /// What it says.
    pub text: String,
}

/// The activity log as a tree. Records go in in their order; no record ever leaves a stale Pending (AL-09).
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    stage: Option<(Place, UpgradeState)>,
    step: Option<Place>,
    requested: Option<Command>,
    interrupted: bool,
    bookkeeping: Vec<Kept>,
    /// Steps that run custom actions; those of one stage share a node.
    action_steps: BTreeSet<StepName>,
    /// The custom action that runs, and its node.
    running: Option<(u64, Place)>,
}

impl Tree {
    /// Folds records from the beginning.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut tree = Self::default();
        for entry in entries {
            tree.push(entry);
        }
        tree
    }

    /// Returns the top nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the records that no node shows: requests, and configurations that were checked.
    pub fn bookkeeping(&self) -> &[Kept] {
        &self.bookkeeping
    }

    /// Returns the worst severity of the whole log; Success when it is empty.
    pub fn overall(&self) -> Severity {
        self.nodes
            .iter()
            .map(Node::overall)
            .max()
            .unwrap_or(Severity::Success)
    }

    /// Lists all nodes as lines, parents first; `least` leaves out what is milder, but keeps the way to the rest.
    pub fn lines(&self, least: Option<Severity>) -> Vec<Line> {
        self.lines_to(least, usize::MAX)
    }

    /// Lists the nodes down to a depth as lines; 0 are the stages alone, 1 their steps as well.
    pub fn lines_to(&self, least: Option<Severity>, depth: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        for node in &self.nodes {
            flatten(node, &mut Vec::new(), least, depth, &mut lines);
        }
        lines
    }

    /// Adds one record; returns the lines it added or changed, for a reader who follows.
    pub fn push(&mut self, entry: &Entry) -> Vec<Line> {
        let changed = self.apply(entry);
        // A record is shown by the entry that it opened, or else by the one that it settled; others changed by the way.
        let opened = |place: &&Place| self.node(place).is_some_and(|node| node.seq == entry.seq);
        let shown = changed.iter().find(opened).or(changed.last()).cloned();
        match shown.and_then(|place| self.node_mut(&place)) {
            Some(node) => node.records.push(entry.seq),
            None => self.bookkeeping.push(Kept {
                seq: entry.seq,
                at_ms: entry.at_ms,
                text: bookkeeping_text(&entry.record),
            }),
        }
        changed
            .iter()
            .filter_map(|place| self.line(place, entry))
            .collect()
    }

    fn apply(&mut self, entry: &Entry) -> Vec<Place> {
        match &entry.record {
            Record::Opened { version } => self.opened(entry, version),
            Record::Config { .. } => Vec::new(),
            Record::Session {
                id, config_name, ..
            } => {
                let name = config_name.as_deref();
                let text = name.map_or_else(
                    || "Session without a configuration file".to_owned(),
                    |name| format!("Session with configuration `{name}`"),
                );
                let mut node = Node::new(entry, Severity::Information, text);
                node.detail = Some(format!("session {id}"));
                vec![self.add_top(node)]
            }
            Record::Accepted { command } => self.accepted(entry, *command),
            Record::Entered {
                state,
                operational: OperationalState::Busy,
                ..
            } => self.begin_stage(entry, *state),
            Record::Entered {
                operational,
                problem,
                ..
            } => self.end_stage(entry, *operational, problem.as_ref()),
            Record::Intent {
                step,
                title,
                attempt,
            } => self.begin_step(entry, step, title, *attempt),
            Record::Outcome { step, result } => self.end_step(entry, step, result),
            // Bookkeeping only: the notes themselves are lines of their own.
            Record::Fact(Fact::Heard(_)) => Vec::new(),
            Record::Fact(Fact::ActionStarted(run)) => self.action_started(entry, run),
            Record::Fact(Fact::ActionEnded(end)) => self.action_ended(entry, end),
            Record::Fact(fact) => {
                let (text, detail) = fact_text(fact);
                let mut node = Node::new(entry, Severity::Information, text);
                node.detail = detail;
                vec![self.add(node)]
            }
            Record::Log {
                severity,
                text,
                detail,
                component,
                advice,
            } => {
                let mut node = Node::new(entry, *severity, text.clone());
                if *severity == Severity::Pending {
                    // A line has no end of its own, so it could never leave Pending.
                    node.severity = Severity::Information;
                }
                node.detail.clone_from(detail);
                node.component.clone_from(component);
                node.advice.clone_from(advice);
                vec![self.add(node)]
            }
        }
    }

    fn opened(&mut self, entry: &Entry, version: &str) -> Vec<Place> {
        let mut changed: Vec<Place> = self.interrupt_action(entry).into_iter().collect();
        if let Some(place) = self.step.take() {
            self.interrupt(entry, &place, "interrupted");
            changed.push(place);
        }
        let open_stage = self.stage.as_ref().map(|(place, _)| place.clone());
        let open_stage = open_stage.filter(|place| self.is_pending(place));
        let Some(stage) = open_stage else {
            let text = format!("Server {version} started");
            changed.push(self.add_top(Node::new(entry, Severity::Information, text)));
            return changed;
        };
        self.interrupt(entry, &stage, "interrupted");
        self.interrupted = true;
        let text = format!("Server {version} started again; the operation had been interrupted");
        changed.push(self.add_at(&stage, Node::new(entry, Severity::Warning, text)));
        changed
    }

    fn accepted(&mut self, entry: &Entry, command: Command) -> Vec<Place> {
        self.requested = Some(command);
        let busy = self.stage.as_ref().map(|(place, _)| place.clone());
        match busy.filter(|place| self.is_pending(place)) {
            Some(stage) if command == Command::Abort => {
                let text = "Abort requested: it begins at the next safe point";
                vec![self.add_at(&stage, Node::new(entry, Severity::Information, text))]
            }
            _ => Vec::new(),
        }
    }

    fn begin_stage(&mut self, entry: &Entry, state: UpgradeState) -> Vec<Place> {
        let mut changed = self.leave_step(entry);
        let before = self.stage.take();
        let same = before.as_ref().is_some_and(|(_, last)| *last == state);
        if let Some((place, _)) = before
            && self.is_pending(&place)
        {
            // A stage that leads to the next one by itself has succeeded (SM-07); an abort cuts it off.
            if state == UpgradeState::Abort {
                self.interrupt(entry, &place, "aborted");
            } else if same {
                self.interrupt(entry, &place, "interrupted");
            } else if let Some(node) = self.node_mut(&place) {
                node.settle(entry, Severity::Success);
            }
            changed.push(place);
        }
        let title = if state == UpgradeState::Idle {
            "Readiness check".to_owned()
        } else {
            state.to_string()
        };
        let text = match (self.requested.take(), self.interrupted && same) {
            (Some(Command::Retry), _) => format!("{title} (retry)"),
            (_, true) => format!("{title} (resumed)"),
            _ => title,
        };
        self.interrupted = false;
        let place = self.add_top(Node::new(entry, Severity::Pending, text));
        self.stage = Some((place.clone(), state));
        changed.push(place);
        changed
    }

    fn end_stage(
        &mut self,
        entry: &Entry,
        operational: OperationalState,
        problem: Option<&Problem>,
    ) -> Vec<Place> {
        let mut changed = self.leave_step(entry);
        self.interrupted = false;
        let Some((place, state)) = self.stage.clone() else {
            if let Some(problem) = problem {
                changed.push(self.add_top(problem_node(entry, problem)));
            }
            return changed;
        };
        if operational == OperationalState::Broken {
            if let Some(problem) = problem
                && !self.node(&place).is_some_and(|n| n.says(&problem.message))
            {
                changed.push(self.add_at(&place, problem_node(entry, problem)));
            }
            if let Some(node) = self.node_mut(&place) {
                node.settle(entry, Severity::Error);
            }
        } else if let Some(node) = self.node_mut(&place) {
            node.settle(entry, Severity::Success);
        }
        changed.push(place);
        // What comes after a check, passed or not, or after Finish belongs to no stage.
        let over = operational == OperationalState::Ready && state == UpgradeState::Finish;
        if over || state == UpgradeState::Idle {
            self.stage = None;
        }
        changed
    }

    fn begin_step(
        &mut self,
        entry: &Entry,
        step: &StepName,
        title: &str,
        attempt: u32,
    ) -> Vec<Place> {
        let mut changed = self.leave_step(entry);
        if title == EXECUTE_CUSTOM_ACTIONS {
            changed.extend(self.begin_actions(entry, step));
            return changed;
        }
        let title = if title.is_empty() { &step.0 } else { title };
        let text = if attempt > 1 {
            format!("{title} (try {attempt})")
        } else {
            title.to_owned()
        };
        let mut node = Node::new(entry, Severity::Pending, text.clone());
        node.step = Some((step.clone(), text));
        let place = self.add_to_stage(node);
        self.step = Some(place.clone());
        changed.push(place);
        changed
    }

    fn end_step(&mut self, entry: &Entry, step: &StepName, result: &StepResult) -> Vec<Place> {
        if self.action_steps.contains(step) {
            return self.end_actions(entry, result);
        }
        let open = self.step.clone();
        let place = open
            .filter(|place| self.is_step(place, step))
            .or_else(|| self.find_step(step));
        let place = place.unwrap_or_else(|| {
            let mut node = Node::new(entry, Severity::Pending, step.0.clone());
            node.step = Some((step.clone(), step.to_string()));
            self.add_to_stage(node)
        });
        if self.step.as_ref() == Some(&place) {
            self.step = None;
        }
        let Some(node) = self.node_mut(&place) else {
            return Vec::new();
        };
        let title = node
            .step
            .as_ref()
            .map_or_else(|| node.text.clone(), |(_, title)| title.clone());
        match result {
            StepResult::Done => {
                node.text = title;
                node.settle(entry, Severity::Success);
            }
            StepResult::Already => {
                node.text = format!("{title} (nothing to do)");
                node.settle(entry, Severity::Information);
            }
            StepResult::Undone => {
                node.text = format!("{title} (taken back)");
                node.settle(entry, Severity::Information);
            }
            StepResult::Cancelled => {
                node.text = format!("{title} (cancelled by an abort)");
                node.settle(entry, Severity::Information);
            }
            StepResult::Failed(problem) => {
                node.text = format!("{title}: {}", problem.message);
                node.detail = detail(problem);
                node.component.clone_from(&problem.component);
                node.advice.clone_from(&problem.advice);
                node.settle(entry, Severity::Error);
            }
        }
        vec![place]
    }

    /// Settles a step whose outcome never came.
    fn leave_step(&mut self, entry: &Entry) -> Vec<Place> {
        let Some(place) = self.step.take() else {
            return Vec::new();
        };
        self.interrupt(entry, &place, "no outcome recorded");
        vec![place]
    }

    fn interrupt(&mut self, entry: &Entry, place: &[usize], why: &str) {
        if let Some(node) = self.node_mut(place) {
            node.text = format!("{} ({why})", node.text);
            node.settle(entry, Severity::Warning);
        }
    }

    fn is_pending(&self, place: &[usize]) -> bool {
        self.node(place)
            .is_some_and(|n| n.severity == Severity::Pending)
    }

    fn is_step(&self, place: &[usize], step: &StepName) -> bool {
        let name = self.node(place).and_then(|n| n.step.as_ref());
        name.is_some_and(|(name, _)| name == step)
    }

    /// Finds the last run of a step in the current stage.
    fn find_step(&self, step: &StepName) -> Option<Place> {
        let (stage, _) = self.stage.as_ref()?;
        let children = self.node(stage)?.children.len();
        (0..children)
            .rev()
            .map(|i| [stage.as_slice(), &[i]].concat())
            .find(|place| self.is_step(place, step))
    }

    fn add_top(&mut self, node: Node) -> Place {
        self.nodes.push(node);
        vec![self.nodes.len() - 1]
    }

    fn add_at(&mut self, place: &[usize], node: Node) -> Place {
        let Some(parent) = self.node_mut(place) else {
            return self.add_top(node);
        };
        parent.children.push(node);
        let last = parent.children.len() - 1;
        [place, &[last]].concat()
    }

    fn add_to_stage(&mut self, node: Node) -> Place {
        match self.stage.as_ref().map(|(place, _)| place.clone()) {
            Some(stage) => self.add_at(&stage, node),
            None => self.add_top(node),
        }
    }

    fn add(&mut self, node: Node) -> Place {
        match self.step.clone() {
            Some(step) => self.add_at(&step, node),
            None => self.add_to_stage(node),
        }
    }

    fn node(&self, place: &[usize]) -> Option<&Node> {
        let (first, rest) = place.split_first()?;
        let top = self.nodes.get(*first)?;
        rest.iter().try_fold(top, |node, i| node.children.get(*i))
    }

    fn node_mut(&mut self, place: &[usize]) -> Option<&mut Node> {
        let (first, rest) = place.split_first()?;
        let top = self.nodes.get_mut(*first)?;
        rest.iter()
            .try_fold(top, |node, i| node.children.get_mut(*i))
    }

    fn line(&self, place: &[usize], entry: &Entry) -> Option<Line> {
        let node = self.node(place)?;
        let path = (1..place.len())
            .filter_map(|n| self.node(&place[..n]))
            .map(|n| n.text.clone())
            .collect();
        let mut line = Line::of(node, path);
        line.seq = entry.seq;
        line.at_ms = entry.at_ms;
        line.severity = node.overall();
        Some(line)
    }
}

fn bookkeeping_text(record: &Record) -> String {
    match record {
        Record::Accepted { command } => format!("`{command}` was accepted"),
        Record::Config { name, .. } => name.as_ref().map_or_else(
            || "no configuration file was chosen".to_owned(),
            |name| format!("configuration `{name}` was chosen"),
        ),
        Record::Fact(fact) => fact_text(fact).0,
        Record::Entered {
            state, operational, ..
        } => format!("{state} | {operational}"),
        Record::Outcome { step, .. } => format!("`{step}` ended"),
        _ => "a record without an entry".to_owned(),
    }
}

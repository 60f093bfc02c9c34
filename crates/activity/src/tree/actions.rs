//! Custom actions in the log: below one node for each stage, with what they printed (CA-38 to CA-41, AL-14, AL-15).

use super::{Place, Tree};
use crate::Node;
use crate::node::problem_node;
use flipside_model::{
    ActionEnd, ActionResult, ActionRun, Captured, EXECUTE_CUSTOM_ACTIONS, Entry, Severity,
    StepName, StepResult,
};

impl Tree {
    /// Begins a step that runs actions: its stage's node is used again if there is one.
    pub(super) fn begin_actions(&mut self, entry: &Entry, step: &StepName) -> Vec<Place> {
        self.action_steps.insert(step.clone());
        let place = self.actions_node(entry);
        if let Some(node) = self.node_mut(&place) {
            node.severity = Severity::Pending;
        }
        self.step = Some(place.clone());
        vec![place]
    }

    /// Ends such a step; what failed is told by the action, and here only if it was not.
    pub(super) fn end_actions(&mut self, entry: &Entry, result: &StepResult) -> Vec<Place> {
        let Some(place) = self.step.take().or_else(|| self.find_actions_node()) else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        let severity = match result {
            StepResult::Done | StepResult::Already => Severity::Success,
            // Taking back is told by what it did.
            StepResult::Undone => return Vec::new(),
            StepResult::Cancelled => Severity::Information,
            StepResult::Failed(problem) => {
                if !self.node(&place).is_some_and(|n| n.says(&problem.message)) {
                    changed.push(self.add_at(&place, problem_node(entry, problem)));
                }
                Severity::Error
            }
        };
        if let Some(node) = self.node_mut(&place) {
            node.settle(entry, severity);
        }
        changed.push(place);
        changed
    }

    pub(super) fn action_started(&mut self, entry: &Entry, run: &ActionRun) -> Vec<Place> {
        let mut changed = Vec::new();
        let parent = match self.step.clone() {
            Some(step) if self.is_actions_node(&step) => step,
            _ => {
                let place = self.actions_node(entry);
                changed.push(place.clone());
                place
            }
        };
        let text = match run.attempt {
            1 => run.shown(),
            attempt => format!("{} (try {attempt})", run.shown()),
        };
        let mut node = Node::new(entry, Severity::Pending, text);
        node.component = run.argv.first().cloned();
        let place = self.add_at(&parent, node);
        self.running = Some((run.handle, place.clone()));
        changed.push(place);
        changed
    }

    pub(super) fn action_ended(&mut self, entry: &Entry, end: &ActionEnd) -> Vec<Place> {
        let known = self.running.take_if(|(handle, _)| *handle == end.handle);
        let place = match known {
            Some((_, place)) => place,
            None => {
                let parent = self.actions_node(entry);
                self.add_at(
                    &parent,
                    Node::new(entry, Severity::Pending, "Custom action"),
                )
            }
        };
        if let Some(node) = self.node_mut(&place) {
            if let Some(at) = node.text.find(INTERRUPTED) {
                node.text.truncate(at);
            }
            if let Some(failure) = end.failure() {
                node.text = format!("{}: {failure}", node.text);
            }
            node.detail = Some(printed(end));
            node.settle(entry, severity(end));
        }
        let parent = place[..place.len() - 1].to_vec();
        let mut changed = vec![place];
        // Without a step around it, the node of the stage is settled with each of its actions.
        if self.step.as_ref() != Some(&parent) && self.is_actions_node(&parent) {
            if let Some(node) = self.node_mut(&parent) {
                node.settle(entry, Severity::Success);
            }
            changed.push(parent);
        }
        changed
    }

    /// A server has ended while an action ran: the entry is no longer Pending (AL-09), and its end may still come.
    pub(super) fn interrupt_action(&mut self, entry: &Entry) -> Option<Place> {
        let (_, place) = self.running.clone()?;
        let node = self.node_mut(&place)?;
        if node.severity != Severity::Pending {
            return None;
        }
        node.text.push_str(INTERRUPTED);
        node.settle(entry, Severity::Warning);
        Some(place)
    }

    fn is_actions_node(&self, place: &[usize]) -> bool {
        self.node(place)
            .is_some_and(|n| n.text == EXECUTE_CUSTOM_ACTIONS)
    }

    fn find_actions_node(&self) -> Option<Place> {
        let (stage, _) = self.stage.as_ref()?;
        let children = self.node(stage)?.children.len();
        (0..children)
            .map(|i| [stage.as_slice(), &[i]].concat())
            .find(|place| self.is_actions_node(place))
    }

    fn actions_node(&mut self, entry: &Entry) -> Place {
        self.find_actions_node().unwrap_or_else(|| {
            let node = Node::new(entry, Severity::Pending, EXECUTE_CUSTOM_ACTIONS);
            self.add_to_stage(node)
        })
    }
}

const INTERRUPTED: &str = " (interrupted)";

fn severity(end: &ActionEnd) -> Severity {
    match &end.result {
        _ if end.success() => Severity::Success,
        ActionResult::Ended => Severity::Warning,
        _ if end.tolerated => Severity::Warning,
        _ => Severity::Error,
    }
}

/// The text of the field Status: exit value and both streams (CA-38); kept after a success as well (CA-41).
fn printed(end: &ActionEnd) -> String {
    let mut text = match &end.result {
        ActionResult::Exit(value) => format!("exit value {value}"),
        ActionResult::TimedOut(problem) | ActionResult::Failed(problem) => problem.to_string(),
        ActionResult::Ended => "ended before its time".to_owned(),
    };
    for (name, stream) in [("standard output", &end.out), ("standard error", &end.err)] {
        section(&mut text, name, stream);
    }
    text
}

fn section(text: &mut String, name: &str, stream: &Captured) {
    if stream.text.is_empty() && !stream.truncated {
        return;
    }
    text.push_str(&format!(
        "\n--- {name} ---\n{}",
        stream.text.trim_end_matches('\n')
    ));
    if stream.truncated {
        let kept = stream.text.len();
        text.push_str(&format!(
            "\n--- {name} was truncated: only the first {kept} bytes were kept ---"
        ));
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;

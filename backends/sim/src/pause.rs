//! The rule of ten seconds: nothing flipside does leaves a running production paused for longer (invariant 23).

use crate::state::State;
use crate::world::SimWorld;
use flipside_model::MachineId;
use flipside_platform::RunState;
use flipside_platform::guard::PAUSE_MAX;
use tokio::time::Instant;

/// What is known of the pause of the machine that owns network and data.
#[derive(Debug, Default)]
pub(crate) struct PauseWatch {
    /// The owner, since it was seen running as such.
    machine: Option<MachineId>,
    /// Since when it stands still.
    since: Option<Instant>,
    /// When the server was dead and no guard was well, the last time.
    alone: Option<Instant>,
}

impl SimWorld {
    /// Nobody on the host gets any time until then, neither server nor guard: it does not count as a pause.
    pub fn starve_until(&self, until: Instant) {
        self.with(|s| s.pause.alone = Some(until));
    }
}

impl State {
    /// Measures the pause. It is looked at after every call and whenever the client writes, on the virtual clock.
    ///
    /// The time in which both are down does not count: then nobody is there who could end a pause, and it goes on until
    /// one of them is started. A machine that takes over has not run yet as the owner: its users wait for their
    /// applications, and the server goes on with those.
    pub(crate) fn watch_pause(&mut self) {
        let now = Instant::now();
        if self.crashed && !self.guards.well() {
            self.pause.alone = Some(now);
        }
        let owner = self.book.owner;
        let machine = owner.and_then(|id| self.machines.get(&id));
        let Some(machine) = machine.filter(|m| !m.half && !m.hung) else {
            self.pause.machine = None;
            return;
        };
        match machine.run {
            RunState::Running => (self.pause.machine, self.pause.since) = (owner, None),
            RunState::Paused | RunState::PreSwitchover | RunState::PostMigrate
                if self.pause.machine == owner =>
            {
                let since = *self.pause.since.get_or_insert(now);
                let since = self.pause.alone.map_or(since, |alone| alone.max(since));
                let paused = now.saturating_duration_since(since);
                if paused > PAUSE_MAX {
                    let owner = owner.map_or_else(String::new, |id| id.to_string());
                    self.violate(format!(
                        "{owner} was paused for more than {} s",
                        PAUSE_MAX.as_secs()
                    ));
                }
            }
            _ => self.pause.machine = None,
        }
    }
}

//! What is shown while something goes on: a moving line on a terminal, plain lines elsewhere.

use crate::failure::Failure;
use crate::report::progress_text;
use flipside_activity::clean;
use flipside_model::{OperationalState, Progress, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Smooth to the eye, cheap to draw.
const TICK: Duration = Duration::from_millis(120);

/// The display of one command.
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    json: bool,
}

impl Live {
    /// Makes a display; with JSON nothing but the moving line is shown.
    pub(crate) fn new(json: bool, color: bool) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(spinner(color));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, json }
    }

    /// Makes a display without a moving line.
    pub(crate) fn still(json: bool) -> Self {
        Self { bar: None, json }
    }

    /// Says whether there is a moving line.
    pub(crate) fn moves(&self) -> bool {
        self.bar.is_some()
    }

    /// Prints a line above the moving one.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let print = || -> std::io::Result<()> {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", text.trim_end_matches('\n'))?;
            out.flush()
        };
        match &self.bar {
            Some(bar) => bar.suspend(print)?,
            None => print()?,
        }
        Ok(())
    }

    /// Prints a note on standard error, for people even when the output is JSON.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Shows the step in progress.
    pub(crate) fn status(&self, status: &Status) {
        let mut text = match &status.step {
            Some(step) if status.operational_state == OperationalState::Busy => clean(step),
            _ => format!("{} | {}", status.upgrade_state, status.operational_state),
        };
        if let Some(action) = &status.action {
            text.push_str("  ");
            text.push_str(&clean(action));
        }
        if let Some(progress) = &status.progress {
            text.push_str("  ");
            text.push_str(&progress_text(progress));
        }
        self.message(text);
    }

    /// Shows how far something is.
    pub(crate) fn progress(&self, progress: &Progress) {
        self.message(progress_text(progress));
    }

    /// Replaces the moving line.
    pub(crate) fn message(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner(color: bool) -> ProgressStyle {
    let template = if color {
        "{spinner:.cyan} {wide_msg} {elapsed}"
    } else {
        "{spinner} {wide_msg} {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

//! Figures of whole upgrades.

use super::Lab;

/// At the 95th percentile production pauses at most this long, in milliseconds (targets, under TCG).
const PAUSE_MS: f64 = 400.0;

/// Figures of the operations, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pause: Vec<f64>,
    pub(crate) merge: Vec<u64>,
    pub(crate) abort: Vec<u64>,
}

impl Figures {
    /// Tells the figures, and fails if production paused for too long: at the end, so that what came of the session is
    /// known all the same.
    #[track_caller]
    pub(crate) fn tell(&self, lab: &Lab) {
        let median = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        let whole = |all: &[u64]| all.iter().map(|ms| *ms as f64).collect();
        lab.note(&format!(
            "FIGURES medians in ms: pause {:?}, outage of a merge {:?}, of an abort {:?}; all: {self:?}",
            median(self.pause.clone()),
            median(whole(&self.merge)),
            median(whole(&self.abort)),
        ));
        let mut pauses = self.pause.clone();
        pauses.sort_by(f64::total_cmp);
        // The 95th percentile; of less than twenty it is the longest.
        let pause = pauses[(pauses.len() * 19).div_ceil(20) - 1];
        assert!(
            pause <= PAUSE_MS,
            "production paused for {pause} ms: {pauses:?}"
        );
    }
}

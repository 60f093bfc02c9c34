//! What the client saw, phase by phase.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A phase of the story while requests are counted for it.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    began: Instant,
    ended: Option<Instant>,
    /// Latencies of the answered requests, in microseconds.
    latencies: Vec<u64>,
    /// Failures by kind.
    failures: BTreeMap<String, u64>,
}

/// A phase as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PhaseFigures {
    pub(super) phase: &'static str,
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) worst_ms: Option<f64>,
}

impl Phase {
    pub(super) fn new(name: &'static str, began: Instant) -> Self {
        Self {
            name,
            began,
            ended: None,
            latencies: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    pub(super) fn answered(&mut self, took: Duration) {
        self.latencies
            .push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a failure; returns how many of its kind there are now.
    pub(super) fn failed(&mut self, kind: String) -> u64 {
        let count = self.failures.entry(kind).or_default();
        *count += 1;
        *count
    }

    pub(super) fn figures(&self, now: Instant) -> PhaseFigures {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let failed: u64 = self.failures.values().sum();
        let passed = self
            .ended
            .unwrap_or(now)
            .saturating_duration_since(self.began);
        let ms = |us: u64| us as f64 / 1000.0;
        PhaseFigures {
            phase: self.name,
            seconds: (passed.as_secs_f64() * 10.0).round() / 10.0,
            requests: sorted.len() as u64 + failed,
            failed,
            failures: self.failures.clone(),
            p50_ms: percentile(&sorted, 50).map(ms),
            p95_ms: percentile(&sorted, 95).map(ms),
            worst_ms: sorted.last().copied().map(ms),
        }
    }
}

/// Returns the nearest-rank percentile of sorted values: one that was really measured.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 50), Some(50));
        assert_eq!(percentile(&values, 95), Some(95));
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[1, 9], 50), Some(1));
        assert_eq!(percentile(&[1, 9], 95), Some(9));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_phase_counts_what_failed_among_its_requests() {
        let began = Instant::now();
        let mut phase = Phase::new("split", began);
        for ms in [30, 10, 20] {
            phase.answered(Duration::from_millis(ms));
        }
        assert_eq!(phase.failed("refused".to_owned()), 1);
        assert_eq!(phase.failed("refused".to_owned()), 2);
        phase.end(began + Duration::from_millis(1500));
        phase.end(began + Duration::from_millis(9000));
        let figures = phase.figures(began + Duration::from_millis(9999));
        assert_eq!((figures.requests, figures.failed), (5, 2));
        assert_eq!(figures.failures.get("refused"), Some(&2));
        assert_eq!(figures.p50_ms, Some(20.0));
        assert_eq!(figures.worst_ms, Some(30.0));
        assert_eq!(figures.seconds, 1.5);
    }

    #[test]
    fn a_phase_without_requests_has_no_latencies() {
        let began = Instant::now();
        let figures = Phase::new("x", began).figures(began);
        assert_eq!(figures.p95_ms, None);
        assert_eq!((figures.requests, figures.worst_ms), (0, None));
    }
}

//! How often somebody may try a password.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tries that fail before one has to wait: people mistype.
const FREE: u32 = 5;

/// After these each try of the same user must wait twice as long as the one before, from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Tries of all users together within `WINDOW`: hashing one password takes some ten milliseconds of a processor, and must
/// not take the machine away from what it is there for.
const MOST: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// Names that are remembered. What is beyond shares one entry, so that made-up names cost no memory.
const NAMES: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    until: Option<Instant>,
}

#[derive(Default)]
struct State {
    by_name: HashMap<String, Failures>,
    /// When the window began, and tries in it.
    window: Option<(Instant, u32)>,
}

/// The limits of logging in.
#[derive(Default)]
pub(crate) struct Limits(Mutex<State>);

/// The name of the shared entry; no user can be called so.
const OTHERS: &str = "";

impl State {
    fn key<'a>(&self, name: &'a str) -> &'a str {
        if self.by_name.contains_key(name) || self.by_name.len() < NAMES {
            name
        } else {
            OTHERS
        }
    }
}

impl Limits {
    /// Allows a try, or says how long to wait before the next.
    pub(crate) fn allow(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, tries) = match state.window {
            Some((began, tries)) if now.saturating_duration_since(began) < WINDOW => (began, tries),
            _ => (now, 0),
        };
        if tries >= MOST {
            return Err(WINDOW.saturating_sub(now.saturating_duration_since(began)));
        }
        let until = state.by_name.get(state.key(name)).and_then(|f| f.until);
        if let Some(wait) = until.map(|until| until.saturating_duration_since(now))
            && !wait.is_zero()
        {
            return Err(wait);
        }
        state.window = Some((began, tries + 1));
        Ok(())
    }

    /// Counts a try that failed.
    pub(crate) fn failed(&self, name: &str, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = state.key(name).to_owned();
        let failures = state.by_name.entry(key).or_default();
        failures.count = failures.count.saturating_add(1);
        if failures.count >= FREE {
            let doublings = (failures.count - FREE).min(16);
            let wait = FIRST_WAIT * 2_u32.pow(doublings);
            failures.until = Some(now + wait.min(LONGEST_WAIT));
        }
    }

    /// Forgets the failures of somebody who knew the password.
    pub(crate) fn passed(&self, name: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.by_name.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Security 7.
    #[test]
    fn every_failure_makes_the_next_try_wait_longer() {
        let limits = Limits::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(limits.allow("ada", now), Ok(()));
            limits.failed("ada", now);
        }
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let wait = limits.allow("ada", now).expect_err("too early");
            assert!(
                wait > last || wait == LONGEST_WAIT,
                "{wait:?} after {last:?}"
            );
            assert_eq!(limits.allow("eve", now), Ok(()), "others do not wait");
            now += wait;
            assert_eq!(limits.allow("ada", now), Ok(()));
            limits.failed("ada", now);
            last = wait;
        }
        assert_eq!(last, LONGEST_WAIT);
        limits.passed("ada");
        assert_eq!(limits.allow("ada", now), Ok(()));
    }

    // Security 7.
    #[test]
    fn all_tries_together_are_limited_and_made_up_names_cost_no_memory() {
        let limits = Limits::default();
        let now = Instant::now();
        for n in 0..MOST {
            assert_eq!(limits.allow(&format!("u{n}"), now), Ok(()));
        }
        assert!(limits.allow("new", now).is_err());
        assert_eq!(limits.allow("new", now + WINDOW), Ok(()));
        for n in 0..10_000 {
            limits.failed(&format!("x{n}"), now);
        }
        assert!(limits.0.lock().expect("lock").by_name.len() <= NAMES + 1);
        assert!(limits.allow("never seen", now + WINDOW).is_err());
    }
}

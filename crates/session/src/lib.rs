//! The pure heart: transition law, plans of steps, readiness rules, replay.

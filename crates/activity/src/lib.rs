//! Folds journal events into the activity log tree and renders it.

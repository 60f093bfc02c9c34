//! One driver task per system; one file per step; recovery.

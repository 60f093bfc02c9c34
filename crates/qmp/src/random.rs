//! Numbers that two clients, or two lives of one client, do not share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns 64 bits that nobody can foresee.
///
/// The standard library seeds `RandomState` from the system's entropy; that is
/// enough for an `id` that must be unique, which is not a secret.
pub(crate) fn random_u64() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

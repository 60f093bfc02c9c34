//! The ports of a platform, and the conformance suite every backend must pass.

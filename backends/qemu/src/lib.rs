//! The ports on real QEMU processes and a real guest.

pub mod door;

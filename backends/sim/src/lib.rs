//! The ports in memory, with faults that can be switched on.

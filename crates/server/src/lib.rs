//! The API, and the one list of backends.

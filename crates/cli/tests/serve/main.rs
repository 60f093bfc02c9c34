//! The server as a process, without any machine: signals, limits, other servers, its state directory, hostile clients.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod clients;
mod console;
mod log;
mod process;
mod server;
mod state;

//! The ports on real QEMU processes and a real guest.
//!
//! [`open_system`] is the way in: the [`QemuSystem`] it returns is the machine, disk, leg and host port of one
//! system. `/work`'s recipe (`docs`, `qemu.md`) says why the block graph looks as it does; `nodes.rs` draws it.

mod accel;
mod action;
mod blocks;
mod book;
pub mod bridge;
mod carry;
mod compare;
mod conn;
mod console;
mod create;
mod disk;
pub mod door;
mod dumps;
mod error;
mod finish;
mod fork;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod guest;
mod host;
mod host_action;
mod image;
mod img;
mod layout;
mod leg_file;
mod machine;
mod media;
pub mod network;
mod nodes;
mod paths;
mod process;
mod resync;
mod rounds;
mod scratch;
mod side;
mod signs;
mod start;
mod swap;
mod system;
mod unfork;
mod verify;

pub use conn::Voice;
pub use create::{CreatedDisk, DiskContent, create_disk};
pub use layout::Accelerator;
pub use paths::{MachinePaths, SystemPaths};
pub use system::{Options, QemuSystem, Reach, open_system};

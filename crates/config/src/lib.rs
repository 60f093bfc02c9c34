//! System definitions and upgrade configuration files: parse, merge, check.
//!
//! An upgrade configuration file is called `NAME.Config` and holds TOML, version 1. Whatever is wrong with it is
//! refused as one [`Problem`](flipside_model::Problem) that names file, line and column; nothing is guessed.
#![forbid(unsafe_code)]

mod file;
mod load;
mod near;
mod position;
mod system;
mod template;

pub use file::{CONFIG_VERSION, parse};
pub use load::{EXTENSION, MAX_FILE_BYTES, load, read, with_extension};
pub use near::nearest;
pub use system::{parse_mac, parse_network, parse_publish, parse_size};
pub use template::template;

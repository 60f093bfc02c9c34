//! System definitions and upgrade configuration files: parse, nest, merge, check.
//!
//! An upgrade configuration file is called `NAME.Config` and holds TOML, version 1; it may call other files of its
//! directory. Whatever is wrong with it is refused as one [`Problem`](flipside_model::Problem) that names file, line and
//! column; nothing is guessed.
#![forbid(unsafe_code)]

mod actions;
mod edit;
mod file;
mod library;
mod load;
mod merge;
mod near;
mod nest;
mod position;
mod resolve;
mod schema;
mod summary;
mod system;
mod template;
mod values;

pub use edit::{ChildState, children_of, set_child};
pub use file::CONFIG_VERSION;
pub use library::{Listed, draft_path, exists_already, list, save, save_as};
pub use load::{EXTENSION, MAX_FILE_BYTES, load, read, resolve_beside, with_extension};
pub use near::nearest;
pub use nest::{MAX_DEPTH, MAX_FILES};
pub use resolve::{Child, FileInfo, MAX_STAGED_BYTES, Origin, Resolved, named, parse, resolve};
pub use schema::{SCHEMA_FILE, schema};
pub use summary::{Item, Summary};
pub use system::{parse_mac, parse_network, parse_publish, parse_size};
pub use template::template;

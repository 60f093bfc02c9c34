//! Folds journal records into the activity log, a tree of entries with severities, and renders it.
//!
//! ```text
//! records ──▶ Tree::push ──▶ nodes ──▶ Line ──▶ text, colour, JSON, one item with its neighbours
//!                 │             └─────▶ XML (`log --export`)
//!                 └── what this record changed ──▶ Line (`log --follow`)
//! ```
//!
//! Text in records may come from a guest and is not trusted: everything that leaves this crate went through
//! [`clean`] or, for JSON, through an escape that keeps the text and defuses the terminal.
#![forbid(unsafe_code)]

mod clean;
mod cursor;
mod export;
mod fact;
mod node;
mod render;
mod sessions;
mod tree;
mod units;

pub use clean::{clean, clean_lines};
pub use cursor::{SEVERITIES, Step, item};
pub use export::{ExportHead, SCHEMA, export};
pub use fact::fact_text;
pub use node::Node;
pub use render::{Line, Style, icon, render};
pub use sessions::{current, sessions};
pub use tree::{Kept, Tree};
pub use units::{duration_ms, duration_us, rate, size};

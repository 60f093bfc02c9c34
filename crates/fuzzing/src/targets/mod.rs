//! The targets' bodies.

mod api;
mod backend;
mod clients;
mod config;
mod journal;
mod qmp;
mod story;
mod text;

pub use api::api;
pub use backend::{graph, guard, guest, image, legbook};
pub use clients::{agent_client, qmp_client};
pub use config::{config, nested, values};
pub use journal::journal;
pub use qmp::{agent, qmp};
pub use story::story;
pub use text::text;

//! The client of QEMU's monitor.

mod client;
mod connect;
mod error;
mod events;
mod schema;
mod shared;
mod task;
mod types;

pub use client::{QUERY_TIMEOUT, QmpClient};
pub use connect::MAX_LINE_BYTES;
pub use error::{QmpError, RecvError};
pub use events::{Event, EventStream, MAX_BUFFERED_EVENT_BYTES, MAX_BUFFERED_EVENTS};
pub use schema::Schema;
pub use types::{RunState, Version};

//! The leg book on durable storage, and the lease of the machine.

use crate::PortResult;
use async_trait::async_trait;
use flipside_model::LegBook;

/// The right to change the machine, given back when dropped. The kernel takes it back from a process that dies.
pub struct Lease {
    _held: Box<dyn Send + Sync>,
}

impl Lease {
    /// Wraps whatever keeps the lease while it lives.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

/// Keeps the leg book of one system.
#[async_trait]
pub trait LegPort: Send + Sync {
    /// Takes the lease; waits for the guard to finish, up to a deadline.
    async fn lease(&self) -> PortResult<Lease>;
    /// Reads the book from storage.
    async fn load(&self) -> PortResult<LegBook>;
    /// Writes the book durably: when this returns it survives a power cut. Refuses a book whose generation is not
    /// the stored one; the stored one is then one higher.
    async fn store(&self, book: &LegBook) -> PortResult<LegBook>;
}

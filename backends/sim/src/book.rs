//! The leg book, the lease, the host and the clock.

use crate::call::{Class, SimPorts, take};
use crate::state::{Part, State};
use crate::world::SimWorld;
use async_trait::async_trait;
use flipside_model::{LegBook, planted};
use flipside_platform::{
    ActionRequest, Clock, ExecOutput, FileView, HostFacts, HostPort, Lease, LegChange, LegPort,
    PortError, PortErrorKind, PortResult,
};
use std::time::Duration;
use tokio::time::Instant;

/// Gives the lease back when dropped.
struct Held {
    world: SimWorld,
    token: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.world.with(|s| {
            if s.lease == Some(self.token) {
                s.lease = None;
            }
        });
    }
}

#[async_trait]
impl LegPort for SimPorts {
    async fn lease(&self) -> PortResult<Lease> {
        let began = Instant::now();
        let mut name = Some("legs.lease".to_owned());
        loop {
            let token = match name.take() {
                Some(name) => {
                    let mut taken = None;
                    let answer = self
                        .call(Class::Act, None, name, |s, _| {
                            taken = take(s);
                            Ok(taken)
                        })
                        .await;
                    if let (Err(_), Some(token)) = (&answer, taken) {
                        // A lease is a lock of this process: whoever gets no answer has none.
                        let world = self.world.clone();
                        drop(Held { world, token });
                    }
                    answer?
                }
                None => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if self.world.with(|s| s.crashed || s.epoch != self.epoch) {
                        std::future::pending::<()>().await;
                    }
                    self.world.with(take)
                }
            };
            if let Some(token) = token {
                let world = self.world.clone();
                return Ok(Lease::new(Held { world, token }));
            }
            if began.elapsed() >= self.world.with(|s| s.options.lease_wait) {
                let text = "Somebody else holds the lease of the machine.";
                return Err(PortError::new(PortErrorKind::InUse, text));
            }
        }
    }

    async fn load(&self) -> PortResult<LegBook> {
        let name = "legs.load".to_owned();
        self.call(Class::Look, None, name, |s, _| match &s.book_damaged {
            None => Ok(s.book.clone()),
            Some(why) => Err(PortError::new(PortErrorKind::Mismatch, why.clone())),
        })
        .await
    }

    async fn store(&self, book: &LegBook) -> PortResult<LegBook> {
        let name = "legs.store".to_owned();
        self.call(Class::Leased, None, name, |s, p| s.store_book(book, p))
            .await
    }
}

impl State {
    /// Stores a book by the product's own code, on files whose unsynced parts a power cut takes.
    pub(crate) fn store_book(&mut self, book: &LegBook, part: &mut Part) -> PortResult<LegBook> {
        if book.generation != self.book.generation && !planted::is("old-book-accepted") {
            let text = "The leg book was changed by somebody else.";
            return Err(PortError::new(PortErrorKind::Mismatch, text));
        }
        let mut next = book.clone();
        next.generation += 1;
        let (stored, seen) = self.files.store(&next, part);
        if seen {
            self.book = next.clone();
            self.note_checkpoints();
        }
        stored?;
        self.promised = next.generation;
        Ok(next)
    }

    /// Puts the book as it is on the disk: whatever changed it was no server.
    pub(crate) fn put_book(&mut self) {
        self.files.put(&self.book);
        self.promised = self.book.generation;
    }

    /// What of the book was not synced is gone, or not, as the disk likes (fault 6).
    pub(crate) fn lose_unsynced_book(&mut self) {
        match self.files.power_cut(self.options.book_cut) {
            Ok(book) => {
                self.book = book;
                self.note_checkpoints();
            }
            Err(why) => self.book_damaged = Some(why),
        }
        // Invariant 10: the recovered authority is the recorded one.
        if self.book_damaged.is_none() && self.book.generation < self.promised {
            self.violate("a power cut took a leg book back that had been called durable");
        }
    }
}

#[async_trait]
impl HostPort for SimPorts {
    async fn facts(&self) -> PortResult<HostFacts> {
        let name = "host.facts".to_owned();
        self.call(Class::Look, None, name, |s, _| Ok(s.options.facts.clone()))
            .await
    }

    async fn check_legs(&self) -> PortResult<Vec<LegChange>> {
        let name = "host.check_legs".to_owned();
        self.call(Class::Look, None, name, |s, _| {
            let changed = s.changed_legs.iter();
            Ok(changed
                .map(|((disk, leg), what)| LegChange {
                    disk: disk.clone(),
                    leg: *leg,
                    text: format!("Leg {leg} of {disk} (`/sim/{disk}-{leg}`) {what}."),
                })
                .collect())
        })
        .await
    }

    async fn look_at(&self, paths: &[String]) -> PortResult<Vec<FileView>> {
        let name = "host.look_at".to_owned();
        self.call(Class::Look, None, name, |s, _| Ok(s.look_at_host(paths)))
            .await
    }

    async fn action_start(&self, request: &ActionRequest) -> PortResult<()> {
        let name = "host.action_start".to_owned();
        self.call(Class::Act, None, name, |s, _| s.host_action_start(request))
            .await
    }

    async fn action_poll(&self, handle: u64) -> PortResult<ExecOutput> {
        let name = "host.action_poll".to_owned();
        self.call(Class::Look, None, name, |s, _| s.host_action_poll(handle))
            .await
    }

    async fn action_kill(&self, handle: u64) -> PortResult<()> {
        let name = "host.action_kill".to_owned();
        self.call(Class::Act, None, name, |s, _| {
            s.host_action_kill(handle);
            Ok(())
        })
        .await
    }
}

impl Clock for SimPorts {
    fn now_ms(&self) -> i64 {
        self.world.with(crate::state::State::now_ms)
    }
}

//! Runs cases on a few threads, each with runtimes of its own, and shows how far it is.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often the line of progress is written anew.
const TICK: Duration = Duration::from_millis(500);

/// How many threads, and whether anybody watches.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Threads.
    pub threads: usize,
    /// No progress is shown.
    pub quiet: bool,
    /// Nothing new is begun after this moment.
    pub until: Option<Instant>,
}

impl Pool {
    /// Runs all items and returns the results in order; items that were not begun in time have none.
    pub fn run<T: Sync, R: Send>(
        &self,
        name: &str,
        items: &[T],
        work: impl Fn(&T) -> R + Sync,
    ) -> Vec<Option<R>> {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let (send, next, work) = (send.clone(), &next, &work);
                scope.spawn(move || {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let late = self.until.is_some_and(|until| Instant::now() >= until);
                        let Some(item) = items.get(at).filter(|_| !late) else {
                            return;
                        };
                        if send.send((at, work(item))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let mut done = 0;
            let mut shown = began;
            loop {
                match receive.recv_timeout(TICK) {
                    Ok((at, result)) => {
                        results[at] = Some(result);
                        done += 1;
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                if shown.elapsed() >= TICK {
                    self.show(name, done, items.len(), began.elapsed());
                    shown = Instant::now();
                }
            }
        });
        self.clear();
        results
    }

    fn watched(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    fn show(&self, name: &str, done: usize, all: usize, passed: Duration) {
        if !self.watched() {
            return;
        }
        let rate = done as f64 / passed.as_secs_f64().max(0.001);
        let left = (all - done) as f64 / rate.max(0.001);
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{name}: {done} of {all}, {rate:.0}/s, {left:.0} s left"
        );
    }

    fn clear(&self) {
        if self.watched() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

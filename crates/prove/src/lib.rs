//! Proves what `reliability.md` asks, as far as a simulated world can: the real session, journal, engine and recovery run
//! on `backends/sim` under every fault that can be enumerated, and under seeded swarms of them; everything is counted.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cases;
pub mod guard;
pub mod journal;
pub mod pool;
pub mod report;
pub mod run;
pub mod seeds;
mod spell;
mod storage;
pub mod swarm;
pub mod table;
pub mod ways;

pub use bench::{Bench, End, config, run};
pub use storage::SimStorage;

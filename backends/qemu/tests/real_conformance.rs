//! The conformance suite of the ports on real QEMU: the same checks that the simulation is held to.
//!
//! What needs no operating system runs on the guest of forty bytes and takes a second or two a check; what speaks to
//! one boots the mini image anew for each check.
#![allow(clippy::print_stdout)]

#[path = "conformance/fixture.rs"]
mod fixture;
#[allow(dead_code)] // each test binary uses some of the programs
#[path = "machine/program.rs"]
mod program;

use fixture::{Content, Real};
use flipside_platform::conformance;
use std::time::Instant;

/// Runs checks one after the other, and fails with all that is wrong.
async fn conforms(real: &mut Real, checks: Vec<&'static str>) {
    let only = std::env::var("FLIPSIDE_CONFORMANCE").ok();
    let mut wrong = Vec::new();
    for name in checks {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let begun = Instant::now();
        let found = conformance::run_one(real, name).await;
        let took = begun.elapsed().as_millis();
        println!("{name}: {found:?} after {took} ms");
        if let Err(why) = found {
            wrong.push(format!("{name}: {why}"));
        }
    }
    real.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_machines_conform() {
    let mut real = Real::new(Content::Program).expect("made");
    conforms(&mut real, conformance::without_guest()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a guest a dozen times: `./dev test --full`"]
async fn a_real_guest_conforms() {
    let real = match Real::new(Content::Mini) {
        Ok(real) => real,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            println!("not run: {why}");
            return;
        }
    };
    let mut real = real;
    conforms(&mut real, conformance::with_guest()).await;
}
